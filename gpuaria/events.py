"""What a run tells whoever listens: small frozen events, passed to a callable. Only cli/ turns them into text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpuaria.records import Outcome, Report


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan is made and the first byte is about to move. `reasons`: why each mirror has its place in their order."""

    ref: str
    commit: str
    path: str
    files: int
    fetch_files: int
    fetch_bytes: int
    reuse_bytes: int
    mirrors: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know and that does not stop the run."""

    text: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A file that was taken to be here has other bytes than the `size` ones that are due: it is fetched again."""

    path: str
    size: int
    detail: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing moves for up to `seconds`, and why."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ActiveFile:
    """A large file in flight; bytes and bytes per second."""

    path: str
    done: int
    size: int
    speed: float
    connections: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The state about twice a second. `done` and `total` count the bytes that this run has to fetch."""

    done: int
    total: int
    speed: float
    connections: int
    mirrors: int
    verified: int
    files: int
    active: tuple[ActiveFile, ...]
    verifying: int = 0


@dataclass(frozen=True, slots=True)
class FileDone:
    """One file has reached its verdict."""

    path: str
    size: int
    outcome: Outcome
    fetched: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is over; always the last event."""

    report: Report


Event = Planned | Warned | Mismatch | Waiting | Progress | FileDone | Finished
Emit = Callable[[Event], None]
