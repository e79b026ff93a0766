"""huggingface_hub's cached file list of a commit: trees/<commit>.json.

Format 1, as huggingface_hub 2.x reads it in _tree_cache.py: {"format_version": 1, "files": {path: {"size", "blob_id",
"lfs_sha256"?, "lfs_size"?, "xet_hash"?}}}. An offline snapshot_download uses it to check that a snapshot is complete.
gpuaria writes no xet_hash, since a wrong one would make the client download other bytes.
"""

import json
from typing import Any

from gpuaria.hashing import LENGTHS, lfs_pointer_oid
from gpuaria.paths import SafePath, check_together
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef

VOUCHED_BY = "huggingface_hub's tree cache"
_FORMAT = 1


def dump(manifest: Manifest) -> str:
    """Return the complete manifest as JSON for the client."""
    files = {str(file.path): _to_json(file) for file in sorted(manifest.files, key=lambda file: file.path)}
    return json.dumps({"format_version": _FORMAT, "files": files}, indent=1)


def load(text: str, ref: RepoRef, commit: str) -> Manifest | None:
    """Return the manifest that the client's JSON describes, None if it is not format 1. Raises UnsafePath."""
    try:
        row = json.loads(text)
        if row["format_version"] != _FORMAT:
            return None
        files = tuple(_from_json(path, entry) for path, entry in sorted(row["files"].items()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    check_together((file.path for file in files), case_sensitive=True)
    return Manifest(ref, ref.name, commit, VOUCHED_BY, "first seen", files)


def describes(text: str | None, manifest: Manifest) -> bool:
    """Return whether the JSON lists the same files. The client's own file is then kept, since it has Xet hashes."""
    try:
        row = json.loads(text or "")
        found = {path: {**entry, "xet_hash": None} for path, entry in row["files"].items()}
        return bool(row["format_version"] == _FORMAT) and found == {
            file.path: {**_to_json(file), "xet_hash": None} for file in manifest.files
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _to_json(file: RemoteFile) -> dict[str, Any]:
    if file.digest is None or file.digest.algorithm != "sha256":
        return {"size": file.size, "blob_id": file.oid or (file.digest.hex if file.digest else "")}
    pointer = file.oid or lfs_pointer_oid(file.digest.hex, file.size)
    return {"size": file.size, "blob_id": pointer, "lfs_sha256": file.digest.hex, "lfs_size": file.size}


def _from_json(path: str, entry: dict[str, Any]) -> RemoteFile:
    size, blob, sha256 = entry["size"], entry["blob_id"], entry.get("lfs_sha256")
    if not isinstance(size, int) or size < 0:
        raise ValueError("a size is not a whole number")
    digest = Digest("sha256", _hex(sha256, "sha256")) if sha256 is not None else Digest("git-sha1", _hex(blob, "sha1"))
    return RemoteFile(SafePath.parse(path), size, digest, _hex(blob, "sha1"))


def _hex(text: str, algorithm: str) -> str:
    if len(text) != LENGTHS[algorithm] or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"not a {algorithm} in hex")
    return text
