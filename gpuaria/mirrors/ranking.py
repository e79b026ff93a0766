"""Records of the ranking: what is known of each mirror, and the order that follows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """Data about one mirror for the ranking: times in seconds, rates in bytes per second, None if unknown.

    `problem`: why the mirror is unusable, empty if it is usable. `setup`: time to the first byte, connection included.
    `rate`: rate of `connections` parallel reads; `single`: rate of one. `growing`: the rate was still rising. `past`:
    rate in earlier runs, weighted by `confidence` (0 to 1). `same_pipe_as`: a mirror that serves from the same host.
    `distance`: 0 (same country) to 3 (other continent), 2 if unknown. `unreached`: error of the latest connection.
    """

    mirror: str
    problem: str = ""
    setup: float | None = None
    rtt: float | None = None
    loss: float | None = None
    single: float | None = None
    rate: float | None = None
    connections: int = 1
    growing: bool = False
    past: float | None = None
    confidence: float = 0.0
    same_pipe_as: str = ""
    distance: int = 2
    unreached: str = ""


@dataclass(frozen=True, slots=True)
class RankedMirror:
    """A mirror to use. `rate`: expected bytes per second with `connections`; `seconds`: expected time if used alone."""

    mirror: str
    rate: float | None
    seconds: float | None
    connections: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Mirrors to use, best first, and rejected ones as (name, reason)."""

    accepted: tuple[RankedMirror, ...]
    rejected: tuple[tuple[str, str], ...] = ()
