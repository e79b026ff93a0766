"""Records of a benchmark (a run, a row of the table, a scenario's result) and calculations with them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Seconds since the start, and the bytes that each host sent and the client received until then, with headers.
Samples = list[tuple[float, dict[str, int]]]


@dataclass
class Run:
    """One run of one program. CPU in seconds, `rss` (of the program itself) in bytes, `size` in bytes.

    `own_cpu` is the process itself, `tree_cpu` includes its children. `right`: the files match the server's byte for
    byte; `proven`: the program itself checked digests. `work` names the part of the work, empty for all of it.
    """

    who: str
    seconds: float
    status: int
    own_cpu: float = 0.0
    tree_cpu: float = 0.0
    rss: int = 0
    size: int = 0
    files: int = 1
    work: str = ""
    right: bool = True
    proven: bool = False
    hub_requests: int = 0
    sent: int = 0
    command: str = ""
    said: str = ""
    more: dict[str, float] = field(default_factory=dict)
    samples: Samples = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """The result for one goal. `limit`: the physical limit, computed for this run. `runs`: the runs in the median.

    `met` is None if nothing was measured or there is no goal.
    """

    key: str
    limit: str
    got: str
    met: bool | None
    runs: int
    note: str = ""


@dataclass
class Result:
    """The result of one scenario, as written to benchmarks/out."""

    scenario: int
    title: str
    date: str
    scale: float
    machine: dict[str, Any]
    rows: list[Row]
    runs: list[Run]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Result":
        """Return the result from JSON values."""
        runs = [
            Run(**{**run, "samples": [(float(at), dict(sent)) for at, sent in run["samples"]]}) for run in told["runs"]
        ]
        return cls(**{**told, "rows": [Row(**row) for row in told["rows"]], "runs": runs})


def arrived(counts: Mapping[str, int]) -> int:
    """Return the bytes that reached the client in one sample; on the loopback, all bytes sent."""
    return counts.get("client", counts.get("loopback", 0))


def median(values: Iterable[float]) -> float:
    """Return the median, nan for no values."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def ratio(other: Sequence[float], gpuaria: Sequence[float]) -> float:
    """Return the other program's time divided by gpuaria's: the median of the rounds' ratios.

    If a run is missing, the ratio of the medians.
    """
    if len(other) == len(gpuaria) and gpuaria:
        return median(one / own for one, own in zip(other, gpuaria, strict=True))
    return median(other) / median(gpuaria)


def whole(tiny: float, part: float, share: float) -> float:
    """Return the seconds for the whole work, extrapolated from those for a share of it and for the start-up."""
    return tiny + max(0.0, part - tiny) / share
