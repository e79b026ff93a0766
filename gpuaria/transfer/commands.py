"""Commands of the scheduler: frozen records that the loop executes in order."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuaria import events
from gpuaria.errors import GpuariaError
from gpuaria.mirrors.pool import MirrorEvent
from gpuaria.records import Mirror, MirrorUrl, Verdict
from gpuaria.transfer.ranges import ByteRange, Gap
from gpuaria.transfer.task import FileTask


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim the right to download a file's bytes from the layout.

    `read_progress`: also read the progress of a fetch that holds the claim.
    """

    task: FileTask
    read_progress: bool = False


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Start aria2c if it is not running."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """Resolve the file's final URL at a mirror; `fresh`: ignore a URL that is already known."""

    task: FileTask
    mirror: Mirror
    attempt: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Renew:
    """Resolve a mirror's URL again, since the current one is about to expire."""

    task: FileTask
    mirror: Mirror


@dataclass(frozen=True, slots=True)
class Prepare:
    """Find the file's ranges on disk; `behind`: bytes of other files that are still to be downloaded."""

    task: FileTask
    behind: int


@dataclass(frozen=True, slots=True)
class StartRange:
    """Start a range in aria2."""

    task: FileTask
    range: ByteRange


@dataclass(frozen=True, slots=True)
class ChangeUrls:
    """Replace a mirror's URL in aria2's downloads of a file: remove `old`, add `new`."""

    task: FileTask
    old: MirrorUrl | None
    new: MirrorUrl | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Take a file out of aria2; its control files stay."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class Release:
    """Let aria2 save and release a file, so that the tail can download the rest."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class StartTail:
    """Download a range in the tail while aria2 downloads the ranges before it; `connections`: per mirror."""

    task: FileTask
    range: ByteRange
    connections: int


@dataclass(frozen=True, slots=True)
class FillTail:
    """Download every remaining gap in the tail."""

    task: FileTask
    gaps: Sequence[Gap]
    connections: int


@dataclass(frozen=True, slots=True)
class StopTail:
    """End the tail's connections and save their progress; `alone`: aria2 has released the file."""

    task: FileTask
    alone: bool


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Save a file's progress, as often as aria2 does; `alone`: aria2 has released the file."""

    task: FileTask
    alone: bool


@dataclass(frozen=True, slots=True)
class MarkComplete:
    """Mark the file's ranges on disk as complete, for a later run."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class Unclaim:
    """Release the claim on the file's bytes."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class KeepPrefix:
    """Keep the contiguous bytes from the file's start for the HTTP downloader, and discard the others."""

    task: FileTask
    ranges: Sequence[ByteRange]


@dataclass(frozen=True, slots=True)
class Download:
    """Download the file with the HTTP downloader."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class Hash:
    """Hash the file's bytes up to `end`, all of which are on disk."""

    task: FileTask
    end: int


@dataclass(frozen=True, slots=True)
class AnnounceBytes:
    """Tell readers that follow the file that the bytes from `start` to `end` are on disk."""

    task: FileTask
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Verify the file's bytes and publish it; `present`: another fetch has published the bytes meanwhile."""

    task: FileTask
    present: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove the file's staged bytes."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class CheckMirrors:
    """Find out which mirrors aria2 is incompatible with; `refusals`: else also how they refuse requests."""

    task: FileTask
    urls: Sequence[MirrorUrl]
    refusals: bool = False


@dataclass(frozen=True, slots=True)
class TestMirror:
    """Test a mirror whose quarantine is over, and resolve its URLs for these files."""

    mirror: Mirror
    tasks: Sequence[FileTask]


@dataclass(frozen=True, slots=True)
class FindRefusal:
    """Find out how a dropped mirror responds: aria2 does not report the status."""

    url: MirrorUrl
    reason: str


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """Record an outcome of a mirror in the mirror pool."""

    mirror: Mirror
    what: MirrorEvent


@dataclass(frozen=True, slots=True)
class Credit:
    """Count bytes of the file for a mirror; without one, in proportion to the mirrors' bytes so far."""

    task: FileTask
    mirror: Mirror | None
    count: int


@dataclass(frozen=True, slots=True)
class SetBytesOnDisk:
    """Record the number of the file's bytes on disk."""

    task: FileTask
    count: int


@dataclass(frozen=True, slots=True)
class NoteProblem:
    """Note a problem with the file, which may still succeed."""

    task: FileTask
    problem: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Record that the file could not be downloaded."""

    task: FileTask
    verdict: Verdict
    cause: GpuariaError | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """End the run."""

    error: GpuariaError


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """Emit an event to the user."""

    event: events.Event


Command = (
    Claim
    | WarmUp
    | Resolve
    | Renew
    | Prepare
    | StartRange
    | ChangeUrls
    | Stop
    | Release
    | StartTail
    | FillTail
    | StopTail
    | SaveProgress
    | MarkComplete
    | Unclaim
    | KeepPrefix
    | Download
    | Hash
    | AnnounceBytes
    | Publish
    | Discard
    | CheckMirrors
    | TestMirror
    | FindRefusal
    | RecordOutcome
    | Credit
    | SetBytesOnDisk
    | NoteProblem
    | Fail
    | Abort
    | EmitEvent
)
