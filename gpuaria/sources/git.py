"""Download the objects of one commit by git's smart HTTP protocol (gitprotocol-http(5), -v2(5), -pack(5)).

The server is untrusted: malformed data raises NetworkError, and sizes are limited.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from gpuaria.errors import NetworkError
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.http.retry import RETRY_STATUS
from gpuaria.sources.git_pack import unpack
from gpuaria.sources.git_verify import SMALL
from gpuaria.text import printable

MAX_REFS = 8 << 20  # bytes of an advertisement, which lists every ref before protocol version 2
MAX_PACK = 64 << 20  # bytes of a response with a pack
MAX_LINES = 200_000  # pkt-lines of a response; a line has up to 65,516 bytes
_ANY_COMMIT = frozenset(["allow-any-sha1-in-want", "allow-reachable-sha1-in-want", "allow-tip-sha1-in-want"])
_VERSION_2 = {"git-protocol": "version=2"}  # a server without version 2 responds in version 0
_HINT = "Use another mirror with --mirror."


class _Refused(NetworkError):
    """The server refuses the request, with a reason in its own words."""


@dataclass(frozen=True, slots=True)
class _Server:
    """A repo's URL, its protocol version, capabilities, and the ids of its refs (`tips`, version 0 only)."""

    url: str
    version: int
    capabilities: frozenset[str]
    tips: frozenset[str] = frozenset()


def fetch_objects(url: str, commit: str, http: Http) -> list[tuple[str, bytes]]:
    """Return the commit, its trees and at least its blobs under `SMALL` bytes, as (kind, data), unverified.

    `url`: the clone URL; requests are anonymous. Raises NetworkError if the server does not speak git, does not have
    the commit, or sends malformed or too much data.
    """
    server = _discover(url, http)
    if server.version < 2 and commit not in server.tips and not server.capabilities & _ANY_COMMIT:
        raise NetworkError(f"{server.url} serves branches and tags only, not the commit {commit[:12]}", _HINT)
    blob_filter = f"blob:limit={SMALL}" if "filter" in server.capabilities else ""
    try:
        pack = _fetch_pack(server, commit, blob_filter, http)
    except _Refused:
        if not blob_filter:
            raise
        pack = _fetch_pack(server, commit, "", http)  # the server may refuse this filter
    return list(unpack(pack))


def _discover(url: str, http: Http) -> _Server:
    """Find the repo at `url` or `url`.git. Like git, require the content type of an advertisement."""
    for base in (url, f"{url}.git"):
        refs = f"{base}/info/refs?service=git-upload-pack"
        response = http.get(refs, ceiling=MAX_REFS, anonymous=True, headers=_VERSION_2)
        content_type = response.headers.get("content-type", "no content type").partition(";")[0]
        if response.status == 200 and content_type == "application/x-git-upload-pack-advertisement":
            return _parse_advertisement(response)
        if response.status in RETRY_STATUS:
            break
    reason = printable(content_type) if response.status == 200 else f"status {response.status}"
    raise NetworkError(f"{url} is not a git server ({reason})", _HINT)


def _parse_advertisement(response: Response) -> _Server:
    url = response.url.rpartition("/info/refs")[0]
    lines = [line for line in _pkt_lines(response.body, url) if line is not None and not line.startswith(b"# service=")]
    first = lines.pop(0) if lines else b""
    if first.strip() == b"version 2":
        rows = [line.decode(errors="replace").strip() for line in lines]
        capabilities = next((row.removeprefix("fetch=") for row in rows if row.startswith("fetch=")), "")
        return _Server(url, 2, frozenset(capabilities.split()))
    if first.strip() == b"version 1" and lines:
        first = lines.pop(0)
    capabilities = first.partition(b"\0")[2].decode(errors="replace")
    if "side-band-64k" not in capabilities.split():
        raise NetworkError(f"{url} uses a git protocol that is too old", _HINT)
    tips = frozenset(line[:40].decode(errors="replace") for line in (first, *lines))
    return _Server(url, 0, frozenset(capabilities.split()), tips)


def _fetch_pack(server: _Server, commit: str, blob_filter: str, http: Http) -> bytes:
    """Request a pack with one commit without its parents; an empty `blob_filter` requests all blobs."""
    response = http.post(
        f"{server.url}/git-upload-pack",
        (_request_v2 if server.version == 2 else _request_v0)(server, commit, blob_filter),
        ceiling=MAX_PACK,
        anonymous=True,
        headers={
            "content-type": "application/x-git-upload-pack-request",
            "accept": "application/x-git-upload-pack-result",
            "accept-encoding": "identity",
            **(_VERSION_2 if server.version == 2 else {}),
        },
    )
    if response.status != 200:
        raise NetworkError(f"{server.url} returned HTTP {response.status} to the git request for a commit", _HINT)
    return _side_band(response.body, server.url)


def _request_v2(server: _Server, commit: str, blob_filter: str) -> bytes:
    from dulwich.protocol import pkt_line, pkt_seq

    lines = ["no-progress", "ofs-delta", f"want {commit}", *_filter_lines(server, blob_filter), "done"]
    return pkt_line(b"command=fetch\n") + b"0001" + pkt_seq(*(f"{line}\n".encode() for line in lines))


def _request_v0(server: _Server, commit: str, blob_filter: str) -> bytes:
    """Return a request in version 0. Some servers require thin-pack, though a pack without "have" is never thin."""
    from dulwich.protocol import pkt_line, pkt_seq

    known = ["side-band-64k", "thin-pack", "ofs-delta", "no-progress", *(["filter"] if blob_filter else [])]
    capabilities = [word for word in known if word in server.capabilities]
    lines = [f"want {commit} {' '.join(capabilities)}", *_filter_lines(server, blob_filter)]
    return pkt_seq(*(f"{line}\n".encode() for line in lines)) + pkt_line(b"done\n")


def _filter_lines(server: _Server, blob_filter: str) -> list[str]:
    """Return the filter and depth lines. dulwich's server requires this order; git accepts any."""
    return [
        *([f"filter {blob_filter}"] if blob_filter else []),
        *(["deepen 1"] if "shallow" in server.capabilities else []),
    ]


def _side_band(body: bytes, url: str) -> bytes:
    """Return the pack in a response: the band 1 lines after "packfile" or "NAK"."""
    pack, in_pack = bytearray(), False
    for line in _pkt_lines(body, url):
        if line is None:
            if in_pack:
                break
        elif line.startswith(b"ERR ") or (in_pack and line.startswith(b"\3")):
            reason = line.removeprefix(b"ERR ").lstrip(b"\3").decode(errors="replace").strip()
            raise _Refused(f"{url} does not serve the commit: {printable(reason)}", _HINT)
        elif in_pack:
            pack += memoryview(line)[1:] if line.startswith(b"\1") else b""
        else:
            in_pack = line.strip() in (b"packfile", b"NAK")
    return bytes(pack)


def _pkt_lines(body: bytes, url: str) -> Iterator[bytes | None]:
    """Yield the pkt-lines of a response, None for a flush or delimiter."""
    from dulwich.errors import GitProtocolError
    from dulwich.protocol import Protocol

    stream = BytesIO(body)
    wire = Protocol(stream.read, lambda data: None)
    for _ in range(MAX_LINES):
        if stream.tell() == len(body):
            return
        try:
            line = wire.read_pkt_line()
        except GitProtocolError:
            raise NetworkError(f"{url} sent an invalid line of the git protocol", _HINT) from None
        yield line
    raise NetworkError(f"{url} sent more than {MAX_LINES:,} lines", _HINT)
