"""Events of downloaders and worker threads, which the loop passes to the scheduler.

Named tuples: frozen dataclasses would add 20 ms to the start of every run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gpuaria.errors import GpuariaError
from gpuaria.records import Mirror, MirrorUrl, Step, Verdict
from gpuaria.storage.layout import ClaimResult, ProgressMark
from gpuaria.transfer.ranges import ByteRange, Gap
from gpuaria.transfer.task import FileTask


class Tick(NamedTuple):
    """Time has passed; `wall`: seconds since 1970."""

    wall: float


class Added(NamedTuple):
    """A local file has wrong bytes and must be downloaded after all."""

    step: Step


class Claimed(NamedTuple):
    """The layout's response to a claim: whether this fetch may download the file's bytes now.

    `mark`: the progress of the fetch that holds the claim, None if it was not read.
    """

    task: FileTask
    claim: ClaimResult
    mark: ProgressMark | None = None


class Resolved(NamedTuple):
    """A mirror's final URL of the file; None if the bytes need a credential; or an error."""

    task: FileTask
    attempt: int
    mirror: Mirror
    found: MirrorUrl | GpuariaError | None
    wall: float


class Replaced(NamedTuple):
    """A new URL of a mirror for a running download; `renewed`: the mirror's old URL is about to expire."""

    task: FileTask
    url: MirrorUrl
    wall: float
    renewed: bool = False


class Prepared(NamedTuple):
    """The file's ranges found on disk."""

    task: FileTask
    ranges: list[ByteRange]
    hard_links: bool


class Progressed(NamedTuple):
    """One reading of a file's downloads in aria2: completed bytes and connections per range; `speed` in bytes/s.

    `speeds`: of each connection, by mirror.
    """

    task: FileTask
    completed: Mapping[ByteRange, int]
    connections: Mapping[ByteRange, int]
    speed: float
    speeds: Mapping[Mirror, Sequence[int]]


class ReadingDone(NamedTuple):
    """The end of one reading of all aria2 downloads.

    `received`: bytes by mirror since the last reading, from the kernel's counters; empty if there are none.
    """

    received: Mapping[Mirror, int]


class RangeDone(NamedTuple):
    """aria2 has downloaded every byte of a range."""

    task: FileTask
    range: ByteRange


class RangeFailed(NamedTuple):
    """aria2 gave up a range; `code` is aria2's error code."""

    task: FileTask
    reason: str
    code: str = ""


class EngineRestarted(NamedTuple):
    """aria2c died and was restarted: it has no downloads of this fetch."""


class Released(NamedTuple):
    """aria2 has released a file: `ended`: ranges that it completed by then; `missing`: all missing bytes."""

    task: FileTask
    ended: Sequence[ByteRange]
    missing: Sequence[Gap]


class TailProgressed(NamedTuple):
    """The tail's progress in bytes: written, and not yet requested by any connection.

    `complete_to`: the offset up to which the file is complete, 0 while unknown.
    """

    task: FileTask
    bytes_written: int
    unclaimed_bytes: int
    connections: int
    complete_to: int


class Downloaded(NamedTuple):
    """The tail has ended; `complete`: every byte of the file is on disk."""

    task: FileTask
    complete: bool


class Hashed(NamedTuple):
    """The verdict on a file's bytes; with a good one the file is published.

    `present`: another fetch stored the bytes.
    """

    task: FileTask
    verdict: Verdict
    present: bool = False


class Settled(NamedTuple):
    """The HTTP downloader has recorded a file's verdict."""

    task: FileTask
    good: bool


@dataclass(frozen=True, slots=True)
class MirrorsChecked:
    """The mirrors of a file whose responses aria2 cannot use, with reasons.

    `refused`: the response of each mirror that sends no bytes, with its host.
    """

    task: FileTask
    incompatible: Mapping[Mirror, str] = field(default_factory=dict)
    refused: Mapping[Mirror, str] = field(default_factory=dict)


class MirrorFailed(NamedTuple):
    """A mirror failed the test after its quarantine, or the reason for its stall was found."""

    mirror: Mirror
    reason: str
    wait: float | None = None


class MirrorRecovered(NamedTuple):
    """A mirror passed the test after its quarantine."""

    mirror: Mirror


class MirrorsJoined(NamedTuple):
    """More mirrors may serve every unfinished file."""

    mirrors: tuple[Mirror, ...]


class SpeedLimited(NamedTuple):
    """The process's speed limit has changed; `rate` in bytes per second, 0 for none."""

    rate: int


TransferEvent = (
    Tick
    | Added
    | Claimed
    | Resolved
    | Replaced
    | Prepared
    | Progressed
    | ReadingDone
    | RangeDone
    | RangeFailed
    | EngineRestarted
    | Released
    | TailProgressed
    | Downloaded
    | Hashed
    | Settled
    | MirrorsChecked
    | MirrorFailed
    | MirrorRecovered
    | MirrorsJoined
    | SpeedLimited
)
