"""Comparison of a mirror's statements with the manifest. Pure."""

import re

from gpuaria.mirrors.measure.findings import FreshFinding
from gpuaria.records import RemoteFile
from gpuaria.sources.protocol import Stated


def compare(stated: Stated, commit: str, file: RemoteFile) -> FreshFinding:
    """Compare a server's statements about `file` at `commit` with the manifest.

    "stale": another commit. "different": the same commit, or none stated, with another size or digest. "fresh": the
    same commit, or the same size and digest. Otherwise "unknown", which does not count as fresh.
    """
    said, size, etag = stated.commit, stated.size, stated.digest
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
    return FreshFinding("unknown", said, size, etag, "sends no commit id: not a hub, or a plain cache")
