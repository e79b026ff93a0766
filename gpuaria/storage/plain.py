"""A plain folder: the files under their own names, and gpuaria's state in one hidden folder.

<root>/<path>
<root>/.gpuaria/manifest.json  the listing, with the pinned sha256 of files without a strong digest
                staging/       unfinished bytes
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from gpuaria.errors import NotWritable, WrongBytes
from gpuaria.hashing import hash_stream
from gpuaria.os_errors import explain, explained
from gpuaria.paths import SafePath
from gpuaria.records import Digest, LocalState, Manifest, RemoteFile, RepoRef
from gpuaria.storage.claiming import ClaimingLayout
from gpuaria.storage.claims import ByteLocks, Claims
from gpuaria.storage.locks import TargetLock
from gpuaria.storage.manifests import SavedManifest
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.safe_dir import Parts, SafeDir
from gpuaria.storage.staging import Staging

HIDDEN: Parts = (".gpuaria",)
SAVED: Parts = (*HIDDEN, "manifest.json")


class PlainFolder(ClaimingLayout):
    """One version of `ref` as plain files below `root`. `commit_id` is `Manifest.version`."""

    hidden: ClassVar[Parts] = HIDDEN
    in_staging: ClassVar[Parts] = (*HIDDEN, "staging")
    in_lock: ClassVar[Parts] = (*HIDDEN, "lock")
    in_claims: ClassVar[Parts] = (*HIDDEN, "claims")

    def __init__(self, root: Path, ref: RepoRef, commit: str, receipts: Receipts) -> None:
        self.ref = ref
        self.commit_id = commit
        self._dir = SafeDir(root)
        self._receipts = receipts
        self._staging = Staging(self._dir, self.in_staging)
        self._claims = Claims(ByteLocks(self._dir, self.in_claims), receipts, self._staging.path)
        self._root = str(self._dir.root)
        self._saved = self._saved_manifest()

    def _saved_manifest(self) -> SavedManifest:
        return SavedManifest(self._dir, SAVED, None)

    @property
    def root(self) -> Path:
        """The folder."""
        return self._dir.root

    @property
    def staging(self) -> Path:
        """The staging folder, inside the hidden folder."""
        return self._staging.path

    def lock(self, patience: float, on_wait: Callable[[str], None] | None = None) -> TargetLock:
        """Return the file lock of this folder, which fetches of the same commit share."""
        with explained(self._dir.path(self.hidden)), self._dir.folder(self.hidden, create=True):
            content = f"{self.ref.source}:{self.ref.kind}/{self.ref.name}/{self.commit_id}"
            path = self._dir.path(self.in_lock)
            self._lock = TargetLock(path, patience, on_wait, content if self._claims.supported() else "")
        return self._lock

    def inspect(self, files: Sequence[RemoteFile]) -> dict[SafePath, LocalState]:
        """See Layout."""
        self._check_folders(sorted({file.path.parts[:-1] for file in files}))
        partials = self._staging.stored_bytes()
        seen = {file.path: stat_file(f"{self._root}/{file.path}") for file in files}
        self._claims.note_existing({f"{self._root}/{path}": there for path, there in seen.items() if there})
        digests = {file.path: file.strong_digest or file.digest for file in files if seen[file.path]}
        verified = self._receipts.verified(
            {f"{self._root}/{path}": digest for path, digest in digests.items() if digest}
        )
        return {
            file.path: LocalState(
                there.st_size if there else None,
                f"{self._root}/{file.path}" in verified,
                there is not None and self._named(file, there.st_mtime),
                self._staging.partial(file, partials),
            )
            for file in files
            for there in (seen[file.path],)
        }

    def files_of_another_repo(self, files: Sequence[RemoteFile]) -> tuple[RepoRef, tuple[SafePath, ...]] | None:
        """See Layout. The saved manifest says which repo was fetched last."""
        manifest = self._saved.of_any_repo() if files else None  # a fetch with nothing to do reads nothing
        if manifest is None or _repo(manifest.ref) == _repo(self.ref):
            return None
        theirs = {file.path: file for file in manifest.files}
        replaced = tuple(
            file.path
            for file in files
            if file.path in theirs
            and (file.size, file.digest) != (theirs[file.path].size, theirs[file.path].digest)
            and stat_file(f"{self._root}/{file.path}") is not None
        )
        return (manifest.ref, replaced) if replaced else None

    def _check_folders(self, folders: Sequence[Parts]) -> None:
        self._dir.check_no_symlinks(folders)

    def _named(self, file: RemoteFile, mtime: float) -> bool:
        """Return whether the file has everything that belongs to its name; true for a plain folder."""
        return True

    def _published_path(self, file: RemoteFile) -> str:
        return f"{self._root}/{file.path}"

    def content_path(self, file: RemoteFile) -> Path:
        """Return the path of the file, or of the same bytes in another target, which `adopt` copies."""
        return self._claims.elsewhere(file) or file.path.under(self._dir.root)

    def publish(self, file: RemoteFile, staged: Path) -> None:
        """See Layout. The rename replaces an existing file, which is never modified."""
        self._publish_as(file, self._staging.make_durable(file, staged))
        self._staging.drop_controls(file)

    def adopt(self, file: RemoteFile, source: Path | None = None) -> None:
        """See Layout."""
        source = source or self._claims.elsewhere(file)
        self._claims.adopted(file)
        there = stat_file(str(self.content_path(file)))
        if source is not None and not (there and there.st_size == file.size and _same_file(source, there)):
            self._publish_as(file, self._staging.copy(file, source))
        elif there is None or there.st_size != file.size:
            found = there.st_size if there else 0
            raise WrongBytes(f"{self.content_path(file)} has {found} bytes instead of {file.size}")
        else:
            with suppress(NotWritable):  # the bytes are verified, even if no receipt can be written
                self._record_receipt(file, there.st_mtime)

    def _publish_as(self, file: RemoteFile, parts: Parts) -> None:
        self._dir.rename(parts, file.path.parts)
        there = stat_file(str(self.content_path(file)))
        self._record_receipt(file, there.st_mtime if there else 0.0)

    def _record_receipt(self, file: RemoteFile, mtime: float) -> None:
        """Record a receipt for the file, last changed at `mtime`."""
        if digest := file.strong_digest or file.digest:
            self._receipts.record(str(self.content_path(file)), digest)

    def discard_staged(self, file: RemoteFile) -> None:
        """See Layout."""
        self._staging.discard(file)

    def begin(self, manifest: Manifest, *, sure: bool = True) -> None:
        """See Layout. Writes the saved manifest."""
        self._swept = self._lock is None or self._lock.alone
        with self._claims.exclusive_state(shared=not self._swept):
            self._staging.prepare(alone=self._swept)
            self._write_state(manifest, sure=sure)

    def _write_state(self, manifest: Manifest, *, sure: bool) -> None:
        self._saved.write(self._staging, manifest, sure=sure)

    def finish(self, manifest: Manifest, complete: bool) -> None:
        """See Layout. Pins the sha256 of files without a strong digest."""
        self._pin(manifest)
        self._dir.sync()
        self._receipts.flush()
        self._claims.close()
        self._staging.close(empty=self._lock is None or self._lock.is_last())

    def _pin(self, manifest: Manifest) -> None:
        pinned = replace(manifest, files=tuple(map(self._pinned, manifest.files)))
        if pinned != manifest:
            with self._claims.exclusive_state(shared=self._lock is not None):
                self._saved.write(self._staging, pinned, sure=False)

    def _pinned(self, file: RemoteFile) -> RemoteFile:
        if (
            file.strong_digest is not None
            or (there := stat_file(str(self.content_path(file)))) is None
            or there.st_size != file.size
        ):
            return file
        try:
            with self.content_path(file).open("rb", buffering=0) as stream:
                found = Digest("sha256", hash_stream(stream, "sha256", file.size)[0])
        except OSError:  # the next run tries again
            return file
        self._receipts.record(str(self.content_path(file)), found)
        return replace(file, pinned=found)

    def with_pinned(self, manifest: Manifest) -> Manifest:
        """See Layout."""
        kept = self._saved.of_any_repo()
        if kept is None or all(file.strong_digest for file in manifest.files):
            return manifest
        known = {_without_location(file): file.pinned for file in kept.files if file.pinned}
        files = (f if f.strong_digest else replace(f, pinned=known.get(_without_location(f))) for f in manifest.files)
        return replace(manifest, files=tuple(files))

    def saved_manifest(self) -> Manifest | None:
        """See Layout."""
        return self._saved.read(self.ref, self.commit_id)


def _without_location(file: RemoteFile) -> RemoteFile:
    """Return a file as declared by the source, without its URLs and pinned digest."""
    return replace(file, urls=(), pinned=None)


def _repo(ref: RepoRef) -> tuple[str, str, str]:
    return ref.source, ref.kind, ref.name


def stat_file(path: str) -> os.stat_result | None:
    """Return the stat result of the regular file at `path`, None if there is none. Raises DiskError."""
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return None
        raise explain(error, path) from error
    return seen if stat.S_ISREG(seen.st_mode) else None


def _same_file(one: Path, other: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(one), other)
    except OSError:
        return False
