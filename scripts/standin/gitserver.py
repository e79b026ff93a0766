"""A server of git's smart HTTP protocol, version 2, with shallow and partial fetches (gitprotocol-v2(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from dulwich.object_format import SHA1
from dulwich.objects import ShaFile, Tree
from dulwich.pack import write_pack_objects
from dulwich.protocol import Protocol, pkt_line

from .repo import Repo

FLUSH, DELIMITER = b"0000", b"0001"
ADVERTISEMENT = [b"version 2\n", b"agent=standin\n", b"ls-refs\n", b"fetch=shallow filter\n", b"object-format=sha1\n"]
_NUMBERS = {"commit": 1, "tree": 2, "blob": 3}


@dataclass
class _FetchRequest:
    """A parsed fetch request: wanted ids, depth in commits (0: all), size limit of blobs (-1: none)."""

    wants: list[str] = field(default_factory=list)
    depth: int = 0
    below: int = -1
    done: bool = False


def advertisement() -> bytes:
    """Return the response body of /info/refs."""
    return pkt_line(b"# service=git-upload-pack\n") + FLUSH + b"".join(map(pkt_line, ADVERTISEMENT)) + FLUSH


def upload_pack(repo: Repo, request_body: bytes) -> bytes:
    """Return the response body of /git-upload-pack; raise ValueError for an unsupported request."""
    lines = [line.decode().rstrip("\n") for line in _lines(request_body)]
    if lines[:1] == ["command=ls-refs"]:
        return b"".join(map(pkt_line, _refs(repo))) + FLUSH
    if lines[:1] != ["command=fetch"]:
        raise ValueError(f"unsupported command: {lines[:1]}")
    request = _parse_fetch(lines)
    for oid in request.wants:
        if not re.fullmatch(r"[0-9a-f]{40}", oid) or not repo.has(oid):
            return pkt_line(b"ERR upload-pack: not our ref %s" % oid.encode())
    if not request.done:
        return pkt_line(b"acknowledgments\n") + pkt_line(b"NAK\n") + FLUSH
    commits, shallow = _commits(repo, request)
    others = [oid for oid in request.wants if oid not in repo.commits]
    response = b""
    if request.depth:
        response += pkt_line(b"shallow-info\n") + b"".join(pkt_line(b"shallow %s" % oid.encode()) for oid in shallow)
        response += DELIMITER
    pack = _pack(repo, commits, others, request.below)
    bands = (pkt_line(b"\1" + pack[at : at + 65515]) for at in range(0, len(pack), 65515))
    return response + pkt_line(b"packfile\n") + pkt_line(b"\2counting\n") + b"".join(bands) + FLUSH


def _lines(request_body: bytes) -> Iterator[bytes]:
    stream = BytesIO(request_body)
    wire = Protocol(stream.read, lambda data: None)
    while stream.tell() < len(request_body):
        line = wire.read_pkt_line()
        if line is not None:
            yield line


def _parse_fetch(lines: list[str]) -> _FetchRequest:
    request = _FetchRequest()
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "want":
            request.wants.append(value)
        elif word == "deepen":
            request.depth = int(value)
        elif word == "filter":
            match = re.fullmatch(r"blob:(?:none|limit=(\d+))", value)
            if not match:
                raise ValueError(f"unsupported filter: {value}")
            request.below = int(match[1] or 0)
        elif word == "done":
            request.done = True
    return request


def _refs(repo: Repo) -> Iterator[bytes]:
    names = {f"refs/heads/{name}": oid for name, oid in repo.branches.items()}
    names |= {f"refs/pr/{number}": oid for number, oid in repo.pulls.items()}
    names |= {f"refs/tags/{name}": oid for name, oid in repo.tags.items()}
    yield f"{repo.head} HEAD symref-target:refs/heads/{repo.branch}\n".encode()
    for name, oid in names.items():
        yield f"{oid} {name}\n".encode()


def _commits(repo: Repo, request: _FetchRequest) -> tuple[list[str], list[str]]:
    """Return the commits to send, and those among them without their parents."""
    commits: dict[str, None] = {}
    shallow = []
    for oid in request.wants:
        left = request.depth
        while oid in repo.commits:
            commits[oid] = None
            left -= 1
            if left == 0:
                shallow += [oid] if repo.commits[oid].parent else []
                break
            oid = repo.commits[oid].parent
    return list(commits), shallow


def _pack(repo: Repo, commits: list[str], others: list[str], below: int) -> bytes:
    found = {oid: _object(repo, oid) for oid in others}
    for oid in commits:
        found[oid] = _object(repo, oid)
        _collect(repo, repo.commits[oid].tree, below, found)
    stream = BytesIO()
    write_pack_objects(stream, list(found.values()), object_format=SHA1)
    return stream.getvalue()


def _collect(repo: Repo, oid: str, below: int, found: dict[str, ShaFile]) -> None:
    """Add an object and all below it; a tampered tree is followed by its original content."""
    if oid in found:
        return
    kind, raw = repo.read(oid)
    if kind == "blob" and 0 <= below <= len(raw):
        return
    found[oid] = _object(repo, oid)
    if kind == "tree":
        for entry in Tree.from_string(raw).iteritems():
            _collect(repo, entry.sha.decode(), below, found)


def _object(repo: Repo, oid: str) -> ShaFile:
    kind, raw = repo.tampered.get(oid) or repo.read(oid)
    return ShaFile.from_raw_string(_NUMBERS[kind], raw)
