"""What the rest of gpuaria knows of a target: one protocol, whatever the names look like on disk.

Threads: `commit`, `adopt` and `discard` may run for different digests at once; `begin` before and `finish` after them.
Files with one digest share their staged bytes: commit one, adopt the others (with `source` the first one's `content`).
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from gpuaria.paths import SafePath
from gpuaria.records import LocalState, Manifest, RemoteFile, RepoRef
from gpuaria.storage.locks import TargetLock

ProgressMark = tuple[tuple[str, tuple[int, int, int] | None], ...]


class ClaimResult(Enum):
    """The answer to a fetch that wants to download certain bytes.

    OURS: it may. HELD: another fetch, of this process or another, downloads them now; ask again. PRESENT: they were
    published in the meantime, and are not verified by this fetch yet.
    """

    OURS = auto()
    HELD = auto()
    PRESENT = auto()


class Layout(Protocol):
    """A target for one commit of one repo. Every method may raise DiskError or one of its children."""

    ref: RepoRef
    commit_id: str

    @property
    def root(self) -> Path:
        """What the user is told: the snapshot folder, or the folder that was asked for."""

    @property
    def staging(self) -> Path:
        """Where unfinished bytes live: the same file system, and never mistaken for a result."""

    def lock(self, patience: float, on_wait: Callable[[str], None] | None = None) -> TargetLock:
        """The lock on this target; `patience` in seconds. Makes its folder. A fetch has the target alone until it first
        claims a file; from then on fetches of the same content share it."""

    def inspect(self, files: Sequence[RemoteFile]) -> dict[SafePath, LocalState]:
        """What is there, by stat and receipts alone; writes nothing. Raises UnsafePath for a folder on the way of one
        of `files` that is a symlink, so that it is known before anything is fetched.

        `partial` counts stored bytes, holes left out, and says nothing of a control file: without one, aria2 must not
        go on with them (it takes a sparse file for complete)."""

    def claim(self, file: RemoteFile) -> ClaimResult:
        """Claim the bytes of `file` before they are downloaded; does not block. Identity is digest and size.

        A claim that is OURS lasts until `release` or `finish`: meanwhile no other fetch writes its staged bytes."""

    def progress_mark(self, file: RemoteFile) -> ProgressMark:
        """Return a value that changes whenever the holder of a claim that is HELD stores bytes, by a few stat calls."""

    def release_claim(self, file: RemoteFile) -> None:
        """Give up a claim, after the bytes were published or the download failed."""

    def has_receipt(self, file: RemoteFile) -> bool:
        """Whether the bytes at `content` were verified before and are unchanged since, as the receipts say."""

    def staged_path(self, file: RemoteFile) -> Path:
        """Where its unfinished bytes are or will be; does not look."""

    def range_links(self, file: RemoteFile) -> Path:
        """A folder of its own for second names of its unfinished bytes; gone when they are committed or discarded."""

    def content_path(self, file: RemoteFile) -> Path:
        """Where its bytes are, or will be; after a claim that is PRESENT they may be in another target."""

    def publish(self, file: RemoteFile, staged: Path) -> None:
        """Give verified staged bytes their final name: data to the disk, then the rename. Raises WrongBytes if the
        size is not the declared one."""

    def adopt(self, file: RemoteFile, source: Path | None = None) -> None:
        """Give the name to proven bytes that are at `content` already, or to a verified copy of `source`, another file
        with the same digest. Raises WrongBytes if the copy does not have it."""

    def discard_staged(self, file: RemoteFile) -> None:
        """Remove staged bytes and aria2's control files."""

    def begin(self, manifest: Manifest, *, sure: bool = True) -> None:
        """Prepare the target: `manifest` is the whole one, unfiltered, and is saved for `gpuaria verify`.

        Not `sure` that it is the whole one: the client, which asks nobody once it has a tree, is given none.
        """

    def finish(self, manifest: Manifest, complete: bool) -> None:
        """Make the names durable. `complete`: everything that was selected is in place."""

    def with_pinned(self, manifest: Manifest) -> Manifest:
        """The manifest with the sha256 that this target noted of unchanged files whose source gives no strong one."""

    def saved_manifest(self) -> Manifest | None:
        """The manifest that an earlier `begin`, or the client, left here for this commit."""
