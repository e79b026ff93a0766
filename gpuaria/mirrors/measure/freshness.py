"""Whether a mirror holds what the manifest says. Pure.

`X-Repo-Commit`, `X-Linked-Size` and `X-Linked-Etag` are what a hub's resolve answer carries (they are in
huggingface_hub's constants.py): for a large file the etag is the content's sha256, for a small one the git blob id.
Some caches strip the linked ones.
"""

import re
from collections.abc import Mapping

from gpuaria.mirrors.measure.findings import FreshFinding
from gpuaria.records import RemoteFile


def compare(headers: Mapping[str, str], commit: str, file: RemoteFile) -> FreshFinding:
    """`headers` (names in lower case) of a look-up of `file` at `commit`, against the manifest.

    "stale": another commit. "different": the same commit, or none named, with another size or digest. "fresh": the
    commit is the same, or size and digest both are. Else "unknown", which is not fresh.
    """
    said = headers.get("x-repo-commit", "").strip()
    length = headers.get("x-linked-size", "").strip()
    size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
    etag = headers.get("x-linked-etag", "").strip().removeprefix("W/").strip('"')
    other_size = size is not None and size != file.size
    comparable = file.digest is not None and bool(etag) and len(etag) == len(file.digest.hex)
    same_etag = comparable and file.digest is not None and etag.lower() == file.digest.hex
    shown = f"{said[:12]!r}" if not re.fullmatch(r"[0-9a-f]+", said) else said[:12]
    if said and said != commit:
        return FreshFinding("stale", said, size, etag, f"serves commit {shown}, not {commit[:12]}")
    if other_size:
        return FreshFinding("different", said, size, etag, f"has {file.path} with {size:,} bytes, not {file.size:,}")
    if comparable and not same_etag and file.digest is not None:
        problem = f"has other bytes for {file.path}: {etag[:12]!r}, not {file.digest.hex[:12]}"
        return FreshFinding("different", said, size, etag, problem)
    if said or (same_etag and size is not None):
        return FreshFinding("fresh", said, size, etag)
    return FreshFinding("unknown", said, size, etag, "does not say which commit it serves: not a hub, or a bare cache")
