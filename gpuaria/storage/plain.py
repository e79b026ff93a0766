"""A plain folder that `hf download --local-dir` takes for its own, complete work (huggingface_hub's _local_folder.py).

<root>/<path>
<root>/.cache/huggingface/{CACHEDIR.TAG,.gitignore}
                          download/<path>.metadata      commit, etag, Unix seconds: one a line
                          trees/<commit>.json           what the commit holds
                          gpuaria-manifest.json         what gpuaria was told about it
                          gpuaria/                      our staging
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gpuaria.errors import DiskError, NotWritable, WrongBytes
from gpuaria.os_errors import explain, explained
from gpuaria.paths import SafePath
from gpuaria.records import LocalState, Manifest, RemoteFile, RepoRef
from gpuaria.storage.claims import ByteLocks, Claims
from gpuaria.storage.layout import Claim
from gpuaria.storage.locks import TargetLock
from gpuaria.storage.manifests import Saved, create
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.safe_dir import Below, Parts
from gpuaria.storage.staging import Staging

HIDDEN: Parts = (".cache", "huggingface")
SAVED: Parts = (*HIDDEN, "gpuaria-manifest.json")
TREES: Parts = (*HIDDEN, "trees")
_CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# What the Hugging Face tools know of this folder.\n"


class Folder:
    """One commit of `ref` as plain files below `root`. `named` in a LocalState: the client's metadata names this commit
    and these bytes, so that it will fetch nothing."""

    def __init__(self, root: Path, ref: RepoRef, commit: str, receipts: Receipts) -> None:
        self.ref = ref
        self.commit_id = commit
        self._below = Below(root)
        self._receipts = receipts
        self._staging = Staging(self._below, (*HIDDEN, "gpuaria"))
        self._saved = Saved(self._below, SAVED, (*TREES, f"{commit}.json"))
        self._claims = Claims(ByteLocks(self._below, (*HIDDEN, "gpuaria.claims")), receipts)
        self._root = str(self._below.root)
        self._metadata = str(self._below.path((*HIDDEN, "download")))

    @property
    def root(self) -> Path:
        """The folder."""
        return self._below.root

    @property
    def staging(self) -> Path:
        """`.cache/huggingface/gpuaria` in the folder."""
        return self._staging.path

    def lock(self, patience: float, on_wait: Callable[[str], None] | None = None) -> TargetLock:
        """The lock on this folder."""
        with explained(self._below.path(HIDDEN)), self._below.folder(HIDDEN, create=True):
            return TargetLock(self._below.path((*HIDDEN, "gpuaria.lock")), patience, on_wait)

    def look(self, files: Sequence[RemoteFile]) -> dict[SafePath, LocalState]:
        """See Layout."""
        folders = {file.path.parts[:-1] for file in files}
        self._below.check([*sorted(folders), *((*HIDDEN, "download", *folder) for folder in sorted(folders))])
        partials = self._staging.partials()
        seen = {file.path: _look_at(f"{self._root}/{file.path}") for file in files}
        self._claims.saw({f"{self._root}/{path}": there for path, there in seen.items() if there})
        proven = self._receipts.proven(
            {f"{self._root}/{file.path}": file.digest for file in files if file.digest and seen[file.path]}
        )
        return {
            file.path: LocalState(
                there.st_size if there else None,
                f"{self._root}/{file.path}" in proven,
                there is not None and self._known_to_client(file, there.st_mtime),
                self._staging.partial(file, partials),
            )
            for file in files
            for there in (seen[file.path],)
        }

    def _known_to_client(self, file: RemoteFile, mtime: float) -> bool:
        """Whether the client would take the file without asking (read_download_metadata, which allows a second)."""
        try:
            fd = os.open(f"{self._metadata}/{file.path}.metadata", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                commit, etag, since = os.read(fd, 4096).decode().split("\n")[:3]
            finally:
                os.close(fd)
            return commit == self.commit_id and etag == _etag(file) and mtime - 1 <= float(since)
        except (OSError, ValueError):
            return False

    def claim(self, file: RemoteFile) -> Claim:
        """See Layout."""
        return self._claims.claim(file, self._staging.file(file).name, str(self.content(file)))

    def release(self, file: RemoteFile) -> None:
        """See Layout."""
        self._claims.release(file, self._staging.file(file).name)

    def staged(self, file: RemoteFile) -> Path:
        """See Layout."""
        return self._staging.file(file)

    def windows(self, file: RemoteFile) -> Path:
        """See Layout."""
        return self._staging.windows(file)

    def content(self, file: RemoteFile) -> Path:
        """The file itself."""
        return file.path.under(self._below.root)

    def commit(self, file: RemoteFile, staged: Path) -> None:
        """See Layout. A file that has the name already is replaced by the rename, never written into."""
        self._give(file, self._staging.seal(file, staged))
        self._staging.drop_controls(file)

    def adopt(self, file: RemoteFile, source: Path | None = None) -> None:
        """See Layout."""
        there = _look_at(str(self.content(file)))
        if source is not None and not (there and there.st_size == file.size and _same(source, there)):
            self._give(file, self._staging.copy(file, source))
        elif there is None or there.st_size != file.size:
            found = there.st_size if there else 0
            raise WrongBytes(f"{self.content(file)} has {found} bytes, and is declared to have {file.size}")
        else:
            with suppress(NotWritable):  # the bytes are right, whether that can be noted or not
                self._told(file, there.st_mtime)

    def _give(self, file: RemoteFile, parts: Parts) -> None:
        self._below.rename(parts, file.path.parts)
        there = _look_at(str(self.content(file)))
        self._told(file, there.st_mtime if there else 0.0)

    def _told(self, file: RemoteFile, mtime: float) -> None:
        """Write the client's metadata, after the last change of the file, and the receipt.

        A file server's clock may be ahead of ours, hence the later of both. Not durable by itself: after a power cut
        the client takes damaged metadata for none.
        """
        parts = (*HIDDEN, "download", *file.path.parts[:-1], f"{file.path.parts[-1]}.metadata")
        if etag := _etag(file):
            text = f"{self.commit_id}\n{etag}\n{max(time.time(), mtime)}\n"
            try:
                self._staging.write(parts, text, durable=False)
            except DiskError as error:
                # The file is in place and proven. With a name this long the client cannot write its metadata either.
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ENAMETOOLONG:
                    raise
        if file.digest is not None:
            self._receipts.record(str(self.content(file)), file.digest)

    def discard(self, file: RemoteFile) -> None:
        """See Layout."""
        self._staging.discard(file)

    def begin(self, manifest: Manifest, *, sure: bool = True) -> None:
        """See Layout. Writes the saved manifest and the client's tree."""
        self._staging.prepare()
        create(self._below, (*HIDDEN, "CACHEDIR.TAG"), _CACHEDIR_TAG)
        create(self._below, (*HIDDEN, ".gitignore"), "*")
        self._saved.write(self._staging, manifest, sure=sure)

    def finish(self, manifest: Manifest, complete: bool) -> None:
        """See Layout."""
        self._below.sync()
        self._receipts.flush()
        self._claims.close()
        self._staging.remove_if_empty()

    def saved(self) -> Manifest | None:
        """See Layout."""
        return self._saved.read(self.ref, self.commit_id)


def _etag(file: RemoteFile) -> str:
    if file.digest is not None and file.digest.algorithm in ("sha256", "git-sha1"):
        return file.digest.hex
    return file.oid


def _look_at(path: str) -> os.stat_result | None:
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return None
        raise explain(error, path) from error
    return seen if stat.S_ISREG(seen.st_mode) else None


def _same(one: Path, other: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(one), other)
    except OSError:
        return False
