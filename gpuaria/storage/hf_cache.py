"""The Hugging Face cache, in the format of huggingface_hub 2.x (file_download.py, utils/_cache_manager.py).

    <cache>/models--org--name/blobs/<etag>              sha256 for an LFS file, git blob id for others
                              snapshots/<commit>/<path>  -> ../../blobs/<etag>
                              refs/<revision>            the commit, no newline
                              trees/<commit>.json        file list of the commit
                              .gpuaria/                  gpuaria's staging and saved manifests
    <cache>/.locks/models--org--name/<etag>.lock

On a file system without symlinks, the snapshot contains the files themselves, as with huggingface_hub.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from gpuaria.errors import WrongBytes
from gpuaria.os_errors import explain, explained
from gpuaria.paths import SafePath
from gpuaria.records import LocalState, Manifest, RemoteFile, RepoRef
from gpuaria.storage.claiming import ClaimingLayout
from gpuaria.storage.claims import ByteLocks, Claims
from gpuaria.storage.locks import TargetLock, lock_file, unlock_file
from gpuaria.storage.manifests import SavedManifest, create_once
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.safe_dir import Parts, SafeDir
from gpuaria.storage.staging import Staging

_LOCKED_FROM = 1 << 20  # bytes; a lock file costs 0.7 ms, half the time needed to publish a small file
_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of the Hugging Face Hub. See bford.info/cachedir\n"
)


class HfCache(ClaimingLayout):
    """One commit of `ref` in the cache `cache_dir`, under the requested name (`ref.name`).

    `symlinks`: False for real files in the snapshot; None to test once whether the file system supports symlinks.
    `blob_patience`: seconds to wait for huggingface_hub's lock on a blob, which it may hold for hours during a
    download. Its locks only avoid duplicate downloads (see _hf_hub_download_to_cache_dir), since blobs are published
    by an atomic rename, so gpuaria continues after that time.
    """

    def __init__(
        self,
        cache_dir: Path,
        ref: RepoRef,
        commit: str,
        receipts: Receipts,
        symlinks: bool | None = None,
        blob_patience: float = 10.0,
    ) -> None:
        self.ref = ref
        self.commit_id = commit
        self._dir = SafeDir(cache_dir)
        self._receipts = receipts
        self._symlinks = symlinks
        self._blob_patience = blob_patience
        self._repo = repo_folder(ref)
        self._snapshot: Parts = (self._repo, "snapshots", commit)
        self._blobs: Parts = (self._repo, "blobs")
        self._staging = Staging(self._dir, (self._repo, ".gpuaria"))
        saved, tree = (self._repo, ".gpuaria", "manifests"), (self._repo, "trees")
        self._saved = SavedManifest(self._dir, (*saved, f"{commit}.json"), (*tree, f"{commit}.json"))
        locks = ByteLocks(self._dir, (".locks", self._repo, "gpuaria.claims"))
        self._claims = Claims(locks, receipts, self._staging.path)
        self._blobs_path = str(self._dir.path(self._blobs))
        self._snapshot_path = str(self._dir.path(self._snapshot))

    @property
    def root(self) -> Path:
        """The snapshot folder."""
        return Path(self._snapshot_path)

    @property
    def staging(self) -> Path:
        """`.gpuaria` in the repo's folder."""
        return self._staging.path

    def lock(self, patience: float, on_wait: Callable[[str], None] | None = None) -> TargetLock:
        """Return the file lock of this repo in this cache. Fetches share it, since each commit has its own snapshot."""
        path = self._lock_path("gpuaria")
        self._lock = TargetLock(path, patience, on_wait, self._repo if self._claims.supported() else "")
        return self._lock

    @contextmanager
    def blob_lock(self, file: RemoteFile) -> Iterator[None]:
        """Hold the client's lock on this blob, if it is free within `blob_patience`."""
        try:
            held = lock_file(self._lock_path(self._etag(file)), self._blob_patience)
        except OSError:  # for example created by another user; the lock is optional
            held = None
        try:
            yield
        finally:
            if held is not None:
                unlock_file(held)

    def _client_lock(self, file: RemoteFile) -> AbstractContextManager[None]:
        return self.blob_lock(file) if file.size >= _LOCKED_FROM else nullcontext()

    def inspect(self, files: Sequence[RemoteFile]) -> dict[SafePath, LocalState]:
        """See Layout."""
        snapshots = {(*self._snapshot, *file.path.parts[:-1]) for file in files}
        self._dir.check_no_symlinks([self._blobs, *sorted(snapshots)])
        with explained(self._blobs_path):
            blobs = set(os.listdir(self._blobs_path)) if os.path.isdir(self._blobs_path) else set()
        partials = self._staging.stored_bytes()
        seen = {file.path: self._seen(file, self._etag(file) in blobs) for file in files}
        self._claims.note_existing({where: there for where, there, _ in seen.values() if there})
        verified = self._receipts.verified(
            {seen[file.path][0]: file.digest for file in files if file.digest and seen[file.path][1] is not None}
        )
        return {
            file.path: LocalState(_size_of(there), where in verified, named, self._staging.partial(file, partials))
            for file in files
            for where, there, named in (seen[file.path],)
        }

    def _seen(self, file: RemoteFile, blob_there: bool) -> tuple[str, os.stat_result | None, bool]:
        """Return the path of the content, its stat result, and whether the snapshot entry leads to it."""
        blob, entry = f"{self._blobs_path}/{self._etag(file)}", f"{self._snapshot_path}/{file.path}"
        there = _stat_file(blob) if blob_there else None
        try:
            target = os.readlink(entry)
        except OSError as error:
            if error.errno == errno.EINVAL and (there is None or self._symlinks is False):
                plain = _stat_file(entry)
                if plain is not None:
                    return entry, plain, True
            named = False
        else:
            named = there is not None and (
                target == self._link_target(file)
                or os.path.normpath(os.path.join(os.path.dirname(entry), target)) == blob
            )
        if there is None and self._symlinks is False:
            return entry, None, False
        return blob, there, named

    def _published_path(self, file: RemoteFile) -> str:
        return self._seen(file, True)[0]

    def content_path(self, file: RemoteFile) -> Path:
        """Return the blob, or the file in the snapshot if there is no blob.

        If the bytes are in another target, returns their path there; `adopt` copies them.
        """
        return self._claims.elsewhere(file) or Path(self._seen(file, True)[0])

    def publish(self, file: RemoteFile, staged: Path) -> None:
        """See Layout."""
        parts = self._staging.make_durable(file, staged)
        with self._client_lock(file):
            self._publish_as(file, parts)
        self._staging.drop_controls(file)

    def adopt(self, file: RemoteFile, source: Path | None = None) -> None:
        """See Layout."""
        source = source or self._claims.elsewhere(file)
        self._claims.adopted(file)
        where, there, named = self._seen(file, True)
        size = _size_of(there)
        if source is not None and not (size == file.size and _same_file(source, where)):
            copied: Parts | None = self._staging.copy(file, source)
        elif size != file.size:
            raise WrongBytes(f"{where} has {size or 0} bytes, but {file.path} has {file.size}")
        elif self._symlinks is False and not named:
            copied = self._staging.copy(file, Path(where))
        else:
            copied = None
        if copied is None and named:
            self._record_receipt(file, where)
            return
        with self._client_lock(file):
            if copied is not None:
                self._publish_as(file, copied)
            else:
                self._link_entry(file, where)

    def _publish_as(self, file: RemoteFile, parts: Parts) -> None:
        plain = self._symlinks is False
        final = (*self._snapshot, *file.path.parts) if plain else (*self._blobs, self._etag(file))
        self._dir.rename(parts, final)
        self._link_entry(file, str(self._dir.path(final)))

    def _link_entry(self, file: RemoteFile, where: str) -> None:
        if os.path.dirname(where) == self._blobs_path:
            self._staging.link(self._link_target(file), (*self._snapshot, *file.path.parts))
        self._record_receipt(file, where)

    def _record_receipt(self, file: RemoteFile, where: str) -> None:
        if file.digest is not None:
            self._receipts.record(where, file.digest)

    def discard_staged(self, file: RemoteFile) -> None:
        """See Layout."""
        self._staging.discard(file)

    def begin(self, manifest: Manifest, *, sure: bool = True) -> None:
        """See Layout. Writes CACHEDIR.TAG, the saved manifest and the client's tree file, and tests symlinks."""
        self._swept = self._lock is None or self._lock.alone
        with self._claims.exclusive_state(shared=not self._swept):
            self._staging.prepare(alone=self._swept)
            if self._symlinks is None:
                self._symlinks = self._staging.supports_symlinks()
            for folder in (self._blobs, self._snapshot):
                with explained(self._dir.path(folder)), self._dir.folder(folder, create=True):
                    pass
            create_once(self._dir, ("CACHEDIR.TAG",), _CACHEDIR_TAG)
            self._saved.write(self._staging, manifest, sure=sure)

    def finish(self, manifest: Manifest, complete: bool) -> None:
        """See Layout. Updates the ref once the snapshot is complete, so that offline readers always get a complete one.

        A missing ref is created even for an incomplete snapshot.
        """
        self._dir.sync()
        revision = manifest.ref.revision
        if revision and revision != manifest.commit:
            ref = (self._repo, "refs", *revision.split("/"))
            with self._claims.exclusive_state(shared=self._lock is not None):
                now = self._dir.read_text(ref)
                if now is None or (complete and now != manifest.commit):
                    self._staging.write(ref, manifest.commit)
                    self._dir.sync()
        self._receipts.flush()
        self._claims.close()
        self._staging.close(empty=self._lock is None or self._lock.is_last())

    def files_of_another_repo(self, files: Sequence[RemoteFile]) -> tuple[RepoRef, tuple[SafePath, ...]] | None:
        """See Layout."""
        return None

    def with_pinned(self, manifest: Manifest) -> Manifest:
        """See Layout: a hub gives a digest for every file."""
        return manifest

    def saved_manifest(self) -> Manifest | None:
        """See Layout."""
        return self._saved.read(self.ref, self.commit_id)

    def _etag(self, file: RemoteFile) -> str:
        """Return the hub's ETag: sha256 or git blob id. Without such a digest, a name made from commit and path."""
        if file.digest is not None and file.digest.algorithm in ("sha256", "git-sha1"):
            return file.digest.hex
        label = f"{self.commit_id}/{file.path}"
        return file.oid or hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()

    def _link_target(self, file: RemoteFile) -> str:
        return "../" * (1 + len(file.path.parts)) + f"blobs/{self._etag(file)}"

    def _lock_path(self, name: str) -> Path:
        parts = (".locks", self._repo)
        with explained(self._dir.path(parts)), self._dir.folder(parts, create=True):
            return self._dir.path((*parts, f"{name}.lock"))


def repo_folder(ref: RepoRef) -> str:
    """Return the repo's folder name in a cache: `models--org--name` (repo_folder_name in the client)."""
    return "--".join([f"{ref.kind}s", *ref.name.split("/")])


def _size_of(there: os.stat_result | None) -> int | None:
    return there.st_size if there else None


def _stat_file(path: str) -> os.stat_result | None:
    """Return the stat result of a regular file, following symlinks: a blob may link to the client's shared store."""
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return None
        raise explain(error, path) from error
    return seen if stat.S_ISREG(seen.st_mode) else None


def _same_file(one: Path, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
