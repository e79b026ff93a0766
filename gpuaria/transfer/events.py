"""Events of downloaders and worker threads, which the loop hands to the scheduler.

Named tuples: as frozen dataclasses they would cost 20 ms at the start of every run.
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
    """A local file turned out to have wrong bytes: it has to be downloaded after all."""

    step: Step


class Claimed(NamedTuple):
    """The layout's answer to a claim: whether this fetch may download the file's bytes now.

    `mark`: of what the holder of the claim has stored, None where that was not asked.
    """

    task: FileTask
    claim: ClaimResult
    mark: ProgressMark | None = None


class Resolved(NamedTuple):
    """A mirror's final URL of the file; None if that needs a credential; or an error."""

    task: FileTask
    attempt: int
    mirror: Mirror
    found: MirrorUrl | GpuariaError | None
    wall: float


class Replaced(NamedTuple):
    """A new URL of a mirror for a download that runs; `renewed`: the mirror's old URL is about to expire."""

    task: FileTask
    url: MirrorUrl
    wall: float
    renewed: bool = False


class Prepared(NamedTuple):
    """The file's ranges, as they are on disk."""

    task: FileTask
    ranges: list[ByteRange]
    linked: bool


class Progressed(NamedTuple):
    """One reading of what aria2 downloads of a file: completed bytes and connections of each range, speeds in bytes/s.

    `speeds`: of each connection, by mirror.
    """

    task: FileTask
    completed: Mapping[ByteRange, int]
    connections: Mapping[ByteRange, int]
    speed: float
    speeds: Mapping[Mirror, Sequence[int]]


class ReadingDone(NamedTuple):
    """One reading of all of aria2's downloads is complete. `received`: bytes by mirror since the last one, by the
    kernel's counters; empty where they are not known."""

    received: Mapping[Mirror, int]


class RangeDone(NamedTuple):
    """aria2 has every byte of a range."""

    task: FileTask
    range: ByteRange


class RangeFailed(NamedTuple):
    """aria2 gave a range up; `code` is aria2's."""

    task: FileTask
    reason: str
    code: str = ""


class EngineRestarted(NamedTuple):
    """aria2c died and was started again: it knows no download of this fetch."""


class Released(NamedTuple):
    """aria2 has released a file: the ranges that it had completed by then, and all that is missing."""

    task: FileTask
    ended: Sequence[ByteRange]
    missing: Sequence[Gap]


class TailProgressed(NamedTuple):
    """The tail's progress: bytes that arrived, bytes that no connection has begun with, active connections.

    `reached`: up to which byte the file is complete, 0 as long as that is unknown.
    """

    task: FileTask
    bytes_written: int
    unclaimed_bytes: int
    connections: int
    complete_to: int


class Downloaded(NamedTuple):
    """The tail has ended; `complete`: with every byte of the file on disk."""

    task: FileTask
    complete: bool


class Hashed(NamedTuple):
    """The verdict on a file's bytes; a good one was published. `present`: the bytes are another fetch's."""

    task: FileTask
    verdict: Verdict
    present: bool = False


class Settled(NamedTuple):
    """The HTTP downloader has recorded a file's verdict."""

    task: FileTask
    good: bool


@dataclass(frozen=True, slots=True)
class MirrorsChecked:
    """The mirrors of a file that respond in a way that aria2 cannot use, and why.

    `refused`: what mirrors respond instead of bytes, with their hosts.
    """

    task: FileTask
    incompatible: Mapping[Mirror, str] = field(default_factory=dict)
    refused: Mapping[Mirror, str] = field(default_factory=dict)


class MirrorFailed(NamedTuple):
    """A mirror failed the test after its quarantine, or gave the reason why it had stopped."""

    mirror: Mirror
    reason: str
    wait: float | None = None


class MirrorRecovered(NamedTuple):
    """A mirror passed the test after its quarantine."""

    mirror: Mirror


class MirrorsJoined(NamedTuple):
    """More mirrors may serve every file that is still to come."""

    mirrors: tuple[Mirror, ...]


class SpeedLimited(NamedTuple):
    """The speed limit of the process was changed; `rate` in bytes per second, 0 for none."""

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
