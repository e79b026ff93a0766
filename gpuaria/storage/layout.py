"""The interface of a target, independent of how files are named on disk.

Threads: `publish`, `adopt` and `discard_staged` may run in parallel for different digests; `begin` runs before them
and `finish` after them. Files with the same digest share their staged bytes: publish one, then adopt the others with
the `content_path` of the first as `source`.
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
    """The result of a claim.

    `GRANTED`: this fetch may download the bytes. `HELD`: another fetch on this machine is downloading them;
    claim again later. `PRESENT`: another fetch has published them; this fetch must still verify them.
    """

    GRANTED = auto()
    HELD = auto()
    PRESENT = auto()


class Layout(Protocol):
    """A target for one commit of one repo. Every method may raise DiskError or a subclass."""

    ref: RepoRef
    commit_id: str

    @property
    def root(self) -> Path:
        """The folder shown to the user: the snapshot folder, or the requested folder."""

    @property
    def staging(self) -> Path:
        """The folder of unfinished bytes, on the same file system."""

    def lock(self, patience: float, on_wait: Callable[[str], None] | None = None) -> TargetLock:
        """Return the file lock of this target and create its folder. `patience`: seconds to wait for it.

        A fetch holds the lock exclusively until its first claim; then fetches of the same content share it.
        """

    def inspect(self, files: Sequence[RemoteFile]) -> dict[SafePath, LocalState]:
        """Return the state of each file, from stat calls and receipts only. Writes nothing.

        Raises UnsafePath if a parent folder of a file is a symlink, so that a run fails before it downloads.
        `partial` counts stored bytes without holes. It ignores control files: without one, aria2 must not resume,
        since it takes a sparse file for complete.
        """

    def files_of_another_repo(self, files: Sequence[RemoteFile]) -> tuple[RepoRef, tuple[SafePath, ...]] | None:
        """Return the other repo that was fetched into this folder, and those of its files that `files` would replace.

        None if there is no such file, and for a cache, where each repo has a folder.
        """

    def claim(self, file: RemoteFile) -> ClaimResult:
        """Claim the bytes of `file`, identified by digest and size, before a download. Does not block.

        After `GRANTED`, no other fetch writes the staged bytes until `release_claim` or `finish`.
        """

    def progress_mark(self, file: RemoteFile) -> ProgressMark:
        """Return a value that changes when the holder of a HELD claim stores bytes. Costs a few stat calls."""

    def release_claim(self, file: RemoteFile) -> None:
        """Release a claim, after the bytes were published or the download failed."""

    def has_receipt(self, file: RemoteFile) -> bool:
        """Return whether a receipt shows that the bytes at `content_path` were verified and have not changed."""

    def revoke_receipt(self, file: RemoteFile) -> None:
        """Delete the receipt of a published file whose bytes were found wrong."""

    def staged_path(self, file: RemoteFile) -> Path:
        """Return the path of the unfinished bytes, without file system access."""

    def range_links(self, file: RemoteFile) -> Path:
        """Return the folder for hard links to the staged file, one per byte range.

        `publish` and `discard_staged` remove it.
        """

    def content_path(self, file: RemoteFile) -> Path:
        """Return the path of the published bytes; after a PRESENT claim it may be in another target."""

    def publish(self, file: RemoteFile, staged: Path) -> None:
        """Publish verified staged bytes: flush the data to disk, then rename the file.

        Raises WrongBytes if the size differs from the declared one.
        """

    def adopt(self, file: RemoteFile, source: Path | None = None) -> None:
        """Publish verified bytes that are already at `content_path`, or a verified copy of `source`.

        `source`: a file with the same digest. Raises WrongBytes if the copy has another digest.
        """

    def discard_staged(self, file: RemoteFile) -> None:
        """Remove the staged bytes and aria2's control files."""

    def begin(self, manifest: Manifest, *, sure: bool = True) -> None:
        """Prepare the target and save `manifest`, the complete one, for `gpuaria verify`.

        `sure=False`: the manifest may be partial, so the HF tree file is not written (huggingface_hub trusts it
        without asking the hub).
        """

    def finish(self, manifest: Manifest, complete: bool) -> None:
        """Make the published names durable. `complete`: every selected file is in place."""

    def with_pinned(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the sha256 digests pinned by this target, for files without a strong digest."""

    def saved_manifest(self) -> Manifest | None:
        """Return the manifest that an earlier `begin`, or huggingface_hub, saved for this commit."""
