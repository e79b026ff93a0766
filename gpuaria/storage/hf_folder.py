"""A plain folder that `hf download --local-dir` recognises as complete (huggingface_hub's _local_folder.py).

<root>/<path>
<root>/.cache/huggingface/{CACHEDIR.TAG,.gitignore}
                          download/<path>.metadata      commit, ETag and Unix time, one per line
                          trees/<commit>.json           file list of the commit
                          gpuaria-manifest.json         the manifest that gpuaria saved
                          gpuaria/                      gpuaria's staging
"""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from gpuaria.errors import DiskError
from gpuaria.records import Manifest, RemoteFile, RepoRef
from gpuaria.storage.manifests import SavedManifest, create_once
from gpuaria.storage.plain import PlainFolder
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.safe_dir import Parts

HIDDEN: Parts = (".cache", "huggingface")
SAVED: Parts = (*HIDDEN, "gpuaria-manifest.json")
TREES: Parts = (*HIDDEN, "trees")
_CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# What the Hugging Face tools know of this folder.\n"


class HfFolder(PlainFolder):
    """One commit of `ref` as plain files below `root`.

    `LocalState.named`: the client's metadata names this commit and content, so the client downloads nothing.
    """

    hidden: ClassVar[Parts] = HIDDEN
    in_staging: ClassVar[Parts] = (*HIDDEN, "gpuaria")
    in_lock: ClassVar[Parts] = (*HIDDEN, "gpuaria.lock")
    in_claims: ClassVar[Parts] = (*HIDDEN, "gpuaria.claims")

    def __init__(self, root: Path, ref: RepoRef, commit: str, receipts: Receipts) -> None:
        super().__init__(root, ref, commit, receipts)
        self._metadata = str(self._dir.path((*HIDDEN, "download")))

    def _saved_manifest(self) -> SavedManifest:
        return SavedManifest(self._dir, SAVED, (*TREES, f"{self.commit_id}.json"))

    def _check_folders(self, folders: Sequence[Parts]) -> None:
        self._dir.check_no_symlinks([*folders, *((*HIDDEN, "download", *folder) for folder in folders)])

    def _named(self, file: RemoteFile, mtime: float) -> bool:
        """Return whether the client accepts the file without a request (read_download_metadata, with 1 s tolerance)."""
        try:
            fd = os.open(f"{self._metadata}/{file.path}.metadata", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                commit, etag, since = os.read(fd, 4096).decode().split("\n")[:3]
            finally:
                os.close(fd)
            return commit == self.commit_id and etag == _etag(file) and mtime - 1 <= float(since)
        except (OSError, ValueError):
            return False

    def _record_receipt(self, file: RemoteFile, mtime: float) -> None:
        """Write the client's metadata and the receipt, after the last change of the file.

        The later of the two clocks counts, since a file server's clock may be ahead. The metadata is not flushed to
        disk: after a power failure the client ignores a damaged file.
        """
        parts = (*HIDDEN, "download", *file.path.parts[:-1], f"{file.path.parts[-1]}.metadata")
        if etag := _etag(file):
            text = f"{self.commit_id}\n{etag}\n{max(time.time(), mtime)}\n"
            try:
                self._staging.write(parts, text, durable=False)
            except DiskError as error:
                # The file is verified and in place. The client cannot write its metadata for such a long name either.
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ENAMETOOLONG:
                    raise
        super()._record_receipt(file, mtime)

    def _write_state(self, manifest: Manifest, *, sure: bool) -> None:
        create_once(self._dir, (*HIDDEN, "CACHEDIR.TAG"), _CACHEDIR_TAG)
        create_once(self._dir, (*HIDDEN, ".gitignore"), "*")
        super()._write_state(manifest, sure=sure)

    def _pin(self, manifest: Manifest) -> None:
        """A hub gives a digest for every file."""

    def with_pinned(self, manifest: Manifest) -> Manifest:
        """See Layout: a hub gives a digest for every file."""
        return manifest


def _etag(file: RemoteFile) -> str:
    if file.digest is not None and file.digest.algorithm in ("sha256", "git-sha1"):
        return file.digest.hex
    return file.oid
