"""Events of a run: frozen records passed to a callable. Only cli/ converts them to text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpuaria.records import Outcome, Report


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan is complete and the download starts. `reasons`: why each mirror has its rank."""

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
    """A warning for the user; the run continues."""

    text: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A local file of `size` bytes turned out to have wrong content and is downloaded again."""

    path: str
    size: int
    detail: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The run pauses for up to `seconds`; `text` is the reason."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ActiveFile:
    """A large file that is being downloaded; bytes and bytes per second."""

    path: str
    done: int
    size: int
    speed: float
    connections: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress, about twice a second. `done` and `total` count the bytes that this run downloads."""

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
    """One file has its verdict."""

    path: str
    size: int
    outcome: Outcome
    fetched: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has ended; always the last event."""

    report: Report


Event = Planned | Warned | Mismatch | Waiting | Progress | FileDone | Finished
Emit = Callable[[Event], None]
