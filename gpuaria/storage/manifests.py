"""The manifest saved with a target, for verification without network, and small files written once."""

import os
from pathlib import Path

from gpuaria.errors import BadListing, UsageError
from gpuaria.formats import manifest as manifests
from gpuaria.os_errors import explained
from gpuaria.records import Manifest, RepoRef
from gpuaria.storage import hf_tree
from gpuaria.storage.safe_dir import Parts, SafeDir
from gpuaria.storage.staging import Staging


class SavedManifest:
    """The manifest saved with one target: gpuaria's file at `path`, and the client's tree file at `tree`, if any.

    A manifest equal to the last one read is not written again. All methods raise DiskError and UnsafePath.
    """

    def __init__(self, below: SafeDir, path: Parts, tree: Parts | None) -> None:
        self._dir, self._path, self._tree = below, path, tree
        self._read: Manifest | None = None

    def read(self, ref: RepoRef, commit: str) -> Manifest | None:
        """Return the manifest that gpuaria saved, else the one in the client's tree file, else None."""
        self._read = read_saved(self._dir, self._path)
        if self._read is not None and self._read.version == commit:
            return self._read
        text = self._dir.read_text(self._tree) if self._tree else None
        return hf_tree.load(text, ref, commit) if text else None

    def of_any_repo(self) -> Manifest | None:
        """Return the manifest that gpuaria saved last, of any repo; None if missing or damaged."""
        return read_saved(self._dir, self._path)

    def write(self, staging: Staging, manifest: Manifest, *, sure: bool) -> None:
        """Save the manifest; if it is `sure` to be complete, also the client's tree file, unless it already matches."""
        if manifest != self._read:
            staging.write(self._path, manifests.dump(manifest))
        if self._tree and sure and not hf_tree.describes(self._dir.read_text(self._tree), manifest):
            staging.write(self._tree, hf_tree.dump(manifest))


def read_saved(below: SafeDir, parts: Parts) -> Manifest | None:
    """Return a saved manifest, None if it is missing or damaged."""
    text = below.read_text(parts)
    try:
        return manifests.load(text) if text else None
    except (BadListing, UsageError):
        return None


def create_once(below: SafeDir, parts: Parts, text: str) -> None:
    """Write a small file unless its name already exists."""
    path: Path = below.path(parts)
    with explained(path), below.folder(parts[:-1], create=True) as fd:
        try:
            new = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=fd)
        except FileExistsError:
            return
        with open(new, "w", encoding="utf-8") as stream:
            stream.write(text)
