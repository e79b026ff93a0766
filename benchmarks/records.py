"""What a benchmark is made of: a run, a row of the table, a scenario's result; and the sums on them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Seconds since the start, bytes that each host has sent and the client has received by then, headers included.
Samples = list[tuple[float, dict[str, int]]]


@dataclass
class Run:
    """One program, once. CPU in seconds, `rss` (of the program itself) in bytes, `size` in bytes.

    `own_cpu` is the process itself, `tree_cpu` with all that it started. `right`: the files are byte for byte the
    server's; `proven`: the program itself has checked digests. `work` names the part that was done, where that is not
    all of it.
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
    """What came of one goal. `limit` is the physical one, computed for this run; `runs` how many the median is of.

    `met` is None where nothing was measured, or where there is no goal.
    """

    key: str
    limit: str
    got: str
    met: bool | None
    runs: int
    note: str = ""


@dataclass
class Result:
    """What is written to benchmarks/out for each scenario that was played."""

    scenario: int
    title: str
    date: str
    scale: float
    machine: dict[str, Any]
    rows: list[Row]
    runs: list[Run]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Result":
        """The reverse; samples come back as tuples."""
        runs = [
            Run(**{**run, "samples": [(float(at), dict(sent)) for at, sent in run["samples"]]}) for run in told["runs"]
        ]
        return cls(**{**told, "rows": [Row(**row) for row in told["rows"]], "runs": runs})


def arrived(counts: Mapping[str, int]) -> int:
    """Bytes that have reached the client, of one sample; on the loopback, all that was sent."""
    return counts.get("client", counts.get("loopback", 0))


def median(values: Iterable[float]) -> float:
    """The middle; nan of nothing."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times ours theirs is: the median over pairs of one round each; of medians where a run is missing."""
    if len(theirs) == len(ours) and ours:
        return median(their / our for their, our in zip(theirs, ours, strict=True))
    return median(theirs) / median(ours)


def whole(tiny: float, part: float, share: float) -> float:
    """Seconds that all of a work takes, from those of a share of it and those of next to nothing (the start-up)."""
    return tiny + max(0.0, part - tiny) / share
