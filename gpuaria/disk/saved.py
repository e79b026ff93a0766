"""What stays beside a target so that it can be verified later with no network, and small files made once."""

import os
from pathlib import Path

from gpuaria.disk import trees
from gpuaria.disk.below import Below, Parts
from gpuaria.disk.oserrors import explained
from gpuaria.errors import BadListing, UsageError
from gpuaria.formats import manifest as manifests
from gpuaria.records import Manifest, RepoRef


def read_saved(below: Below, ours: Parts, tree: Parts, ref: RepoRef, commit: str) -> Manifest | None:
    """The manifest that gpuaria saved, else the one in the client's tree, else None. Raises DiskError, UnsafePath."""
    manifest = read_ours(below, ours)
    if manifest is not None and manifest.commit == commit:
        return manifest
    text = below.read_text(tree)
    return trees.load(text, ref, commit) if text else None


def read_ours(below: Below, parts: Parts) -> Manifest | None:
    """A saved manifest, or None if it is not there or is damaged."""
    text = below.read_text(parts)
    try:
        return manifests.load(text) if text else None
    except (BadListing, UsageError):
        return None


def create(below: Below, parts: Parts, text: str) -> None:
    """Write a small file unless something has its name."""
    path: Path = below.path(parts)
    with explained(path), below.folder(parts[:-1], create=True) as fd:
        try:
            new = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=fd)
        except FileExistsError:
            return
        with open(new, "w", encoding="utf-8") as stream:
            stream.write(text)
