"""Commands of the scheduler: frozen records that the loop carries out in order."""

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
    """Ask the layout whether this fetch may download the bytes of a file; `look`: and what a holder stores."""

    task: FileTask
    look: bool = False


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Start aria2c, if it does not run yet."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask a mirror for the file's final URL; `fresh`: resolve it again, even if it is known."""

    task: FileTask
    mirror: Mirror
    attempt: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask a mirror for a new URL, since the present one is about to expire."""

    task: FileTask
    mirror: Mirror


@dataclass(frozen=True, slots=True)
class Prepare:
    """Find the file's ranges on disk; `behind`: bytes of other files that are still to come."""

    task: FileTask
    behind: int


@dataclass(frozen=True, slots=True)
class StartRange:
    """Give aria2 a range."""

    task: FileTask
    range: ByteRange


@dataclass(frozen=True, slots=True)
class ChangeUrls:
    """Exchange a mirror's URL in aria2's downloads of a file: `old` away, `new` added."""

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
    """Download a range by the tail's connections, while aria2 downloads those before it; `connections`: per mirror."""

    task: FileTask
    range: ByteRange
    connections: int


@dataclass(frozen=True, slots=True)
class FillTail:
    """Download every remaining gap by the tail's connections."""

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
    """Save a file's progress, as often as aria2 does; `alone`: aria2 has released it."""

    task: FileTask
    alone: bool


@dataclass(frozen=True, slots=True)
class MarkComplete:
    """Leave the signs of complete ranges for a later run."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class Unclaim:
    """Give up the claim on the file's bytes."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class KeepPrefix:
    """Keep the bytes from the file's start for the HTTP downloader, and discard the others."""

    task: FileTask
    ranges: Sequence[ByteRange]


@dataclass(frozen=True, slots=True)
class Download:
    """Give the file to the HTTP downloader."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class Hash:
    """Hash the file's bytes up to `end`, all of which are on disk."""

    task: FileTask
    end: int


@dataclass(frozen=True, slots=True)
class AnnounceBytes:
    """Tell followers that the bytes from `start` to `end` are on disk."""

    task: FileTask
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Verify the file's bytes and give it its name; `present`: they were published by another fetch meanwhile."""

    task: FileTask
    present: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove the file's staged bytes."""

    task: FileTask


@dataclass(frozen=True, slots=True)
class CheckMirrors:
    """Find out which of these mirrors respond in a way that aria2 cannot use; `refusals`: or how they refuse."""

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
    """Tell the mirror pool what happened with a mirror."""

    mirror: Mirror
    what: MirrorEvent


@dataclass(frozen=True, slots=True)
class Credit:
    """Count bytes of the file that came from a mirror; without one, by the shares of the mirrors so far."""

    task: FileTask
    mirror: Mirror | None
    count: int


@dataclass(frozen=True, slots=True)
class SetBytesOnDisk:
    """Note how many bytes of the file are on disk."""

    task: FileTask
    count: int


@dataclass(frozen=True, slots=True)
class NoteProblem:
    """Note a problem with the file, which may still arrive."""

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
    """Tell the user."""

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
