"""Verify a manifest against a commit id: commit -> trees -> blobs, each id recomputed from the object.

Object formats: gitformat-pack(5), git-ls-tree(1). Decision 0006 covers the security of SHA-1.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from gpuaria.errors import BadListing, UnsafePath
from gpuaria.hashing import git_id, lfs_pointer_oid
from gpuaria.paths import MAX_PATH_BYTES, SafePath
from gpuaria.records import Digest, Manifest, RemoteFile
from gpuaria.text import printable

SMALL = 200  # bytes; only a smaller blob may be an LFS pointer, which has at most 143
MAX_ENTRIES = 1_000_000  # tree entries visited; one tree may appear under many paths
MAX_UNUSABLE = 10_000  # entries whose path no manifest can have
_TREE, _SUBMODULE = 0o040000, 0o160000
_FILES = (0o100000, 0o120000)  # any permissions; the hub lists a symbolic link as a file
_ENTRY = re.compile(rb"([0-7]{5,6}) ([^/\0]+)\0(.{20})", re.DOTALL)
_COMMIT = re.compile(rb"tree ([0-9a-f]{40})\n")
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:[0-9a-f]{64}\nsize \d+\n")
_HINT = "Use another mirror, and tell the owner of this one."
_Objects = Mapping[tuple[str, str], bytes]  # (kind, id) -> data


def unproven_reason(commit: str, manifest: Manifest, sent: Iterable[tuple[str, bytes]]) -> str:
    """Return why the commit does not prove the manifest; "" if it does.

    `sent`: git objects as (kind, data) from an untrusted server. Each file must be in the commit's trees with the same
    blob id, and each blob with a usable path must be listed. Raises BadListing for a difference, and for a missing
    commit or tree. The only unproven case is a missing blob under `SMALL` bytes: it could be an LFS pointer, listed as
    if it were the file.
    """
    objects = {(kind, git_id(kind, data)): data for kind, data in sent}
    endpoint, listed = manifest.vouched_by, {str(file.path): file for file in manifest.files}
    seen, doubts = set[str](), ""
    for path, oid in _blobs(commit, objects, listed, endpoint):
        if path not in listed:
            raise BadListing(f"{endpoint} omits {printable(path)}, which is in the commit", _HINT)
        if path in seen:
            raise BadListing(f"the commit has {printable(path)} twice", _HINT)
        seen.add(path)
        doubts = _compare(listed[path], oid, objects.get(("blob", oid)), endpoint) or doubts
    for path in listed:
        if path not in seen:
            raise BadListing(f"{endpoint} lists {printable(path)}, which is not in the commit", _HINT)
    return doubts


def _compare(file: RemoteFile, oid: str, blob: bytes | None, endpoint: str) -> str:
    """Check a file against its blob id, and against the blob if it was sent; return why it is unproven, or ""."""
    shown = printable(file.path)
    if file.lfs:
        same = file.digest is not None and lfs_pointer_oid(file.digest.hex, file.size) == oid
    else:
        same = file.digest == Digest("git-sha1", oid)
    if not same or file.oid != oid or (blob is not None and not file.lfs and len(blob) != file.size):
        raise BadListing(f"{endpoint} lists a different digest for {shown} than the commit", _HINT)
    if not file.lfs and blob is not None and _POINTER.fullmatch(blob):
        raise BadListing(f"{endpoint} lists the LFS file {shown} as if its pointer were the file", _HINT)
    if not file.lfs and blob is None and file.size < SMALL:
        return f"{endpoint} does not send the git object of {shown}, which may be an LFS pointer"
    return ""


def _blobs(commit: str, objects: _Objects, listed: Container[str], endpoint: str) -> Iterator[tuple[str, str]]:
    """Yield path and id of each blob of the commit that is listed or has a usable path. Raises BadListing.

    Only one folder per depth is held in memory, and folders beyond the maximum path length are not entered.
    """
    found = _COMMIT.match(objects.get(("commit", commit), b""))
    if not found:
        raise BadListing(f"{endpoint} does not send the commit {commit[:12]}", _HINT)
    open_trees = [("", _entries(found[1].decode(), "", objects, endpoint))]
    entries = unusable = 0
    while open_trees:
        folder, rows = open_trees[-1]
        row = next(rows, None)
        if row is None:
            open_trees.pop()
            continue
        mode, name, oid = row
        path, kind = folder + name, mode & 0o170000
        entries += 1
        if kind == _TREE and len(path.encode(errors="surrogateescape")) < MAX_PATH_BYTES:
            open_trees.append((f"{path}/", _entries(oid, path, objects, endpoint)))
        elif kind in _FILES and (path in listed or _usable(path)):
            yield path, oid
        elif kind != _SUBMODULE:
            unusable += 1
        if entries > MAX_ENTRIES or unusable > MAX_UNUSABLE:
            raise BadListing(f"the commit {commit[:12]} is too large to verify", _HINT)


def _entries(oid: str, path: str, objects: _Objects, endpoint: str) -> Iterator[tuple[int, str, str]]:
    """Yield mode, name and id of each tree entry. Surrogates replace invalid UTF-8, which makes a path unusable."""
    data = objects.get(("tree", oid))
    if data is None:
        folder = _describe_folder(path)
        raise BadListing(
            f"{endpoint} does not send the git tree of {folder} in the commit correctly (tree {oid[:12]})",
            _HINT,
        )
    at = 0
    while at < len(data):
        entry = _ENTRY.match(data, at)
        if entry is None:
            raise BadListing(f"{_describe_folder(path)} of the commit cannot be read", _HINT)
        at = entry.end()
        yield int(entry[1], 8), entry[2].decode(errors="surrogateescape"), entry[3].hex()


def _describe_folder(folder: str) -> str:
    return f"the folder {printable(folder)}" if folder else "the root folder"


def _usable(path: str) -> bool:
    try:
        SafePath.parse(path)
    except UnsafePath:
        return False
    return True
