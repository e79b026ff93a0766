"""Parse the hub's file lists: repo metadata with all files, and pages of a tree."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

from gpuaria.errors import BadListing
from gpuaria.hashing import EMPTY, lfs_pointer_oid
from gpuaria.http.messages import Response
from gpuaria.paths import SafePath
from gpuaria.records import Digest, RemoteFile
from gpuaria.sources import references
from gpuaria.sources.hub_responses import MIRROR_HINT
from gpuaria.text import printable
from gpuaria.urls import authority, url_origin

MAX_SIZE = 1 << 50  # bytes of one file
MAX_NAMES = 10_000  # files for which the repo metadata counts as complete; the Hub truncates it beyond 50,000
SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')


def siblings(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files listed in a repo's metadata; empty if there is no list."""
    siblings = info.get("siblings")
    return [one for one in siblings if isinstance(one, dict)] if isinstance(siblings, list) else []


def tree_entries(siblings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the files in repo metadata in the form of tree entries; empty if only the tree is complete."""
    entries = []
    for one in siblings if len(siblings) <= MAX_NAMES else ():
        path, oid, size, lfs = (one.get(key) for key in ("rfilename", "blobId", "size", "lfs"))
        no_bytes = size == 0 and not lfs and str(oid) not in EMPTY  # possibly a submodule
        if not isinstance(path, str) or oid is None or size is None or no_bytes:
            return []
        large = {"oid": lfs.get("sha256"), "size": lfs.get("size")} if isinstance(lfs, dict) else lfs
        entries.append({"type": "file", "path": path, "oid": oid, "size": size, "lfs": large})
    return entries


def next_page(response: Response, tree: str, endpoint: str) -> str:
    """Return the next page's URL, moved to the endpoint in use: a simple proxy passes on links to the hub."""
    match = _NEXT.search(response.headers.get("link", ""))
    if not match:
        return ""
    try:
        link = urljoin(response.url, match[1])
        target, foreign = urlsplit(link), url_origin(link) != url_origin(endpoint)
    except ValueError:
        raise BadListing(f"{endpoint} continues its file list at an invalid URL", MIRROR_HINT) from None
    if foreign and target.hostname not in references.HUB_HOSTS:
        elsewhere = f"{target.scheme}://{authority(link)}"
        raise BadListing(f"{endpoint} continues its file list on another server, {elsewhere}", MIRROR_HINT)
    if not target.path.endswith(urlsplit(tree).path.removeprefix(urlsplit(endpoint).path)):
        raise BadListing(f"{endpoint} continues its file list at another path", MIRROR_HINT)
    pairs = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in parse_qsl(target.query))
    return f"{tree}?{pairs}"


def remote_file(entry: Mapping[str, Any]) -> RemoteFile:
    """Validate a tree entry. For an LFS file, the pointer built from sha256 and size must have the entry's git id."""
    path, size, oid, lfs = entry.get("path"), entry.get("size"), entry.get("oid"), entry.get("lfs")
    if not isinstance(path, str):
        raise BadListing("the file list has an entry without a name", MIRROR_HINT)
    shown = printable(path)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise BadListing(f"the file list has an invalid size for {shown}: {size!r:.40}", MIRROR_HINT)
    if not isinstance(oid, str) or not SHA1.fullmatch(oid):
        raise BadListing(f"the file list has no valid git id for {shown}", MIRROR_HINT)
    safe = SafePath.parse(path)
    if lfs is None:
        return RemoteFile(safe, size, Digest("git-sha1", oid), oid)
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or lfs.get("size") != size:
        raise BadListing(f"the file list has no valid LFS digest and size for {shown}", MIRROR_HINT)
    if lfs_pointer_oid(sha256, size) != oid:
        raise BadListing(
            f"the file list contradicts itself: the sha256 of {shown} does not match its git id", MIRROR_HINT
        )
    return RemoteFile(safe, size, Digest("sha256", sha256), oid)
