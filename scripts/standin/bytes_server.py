"""The byte server behind signed URLs, embedded in this process, with injected faults."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from .faults import LOGIN_PAGE, NO_FILE, STREAMED, WRONG_RANGES, Fault, Faults, Piece, body_plan, shifted
from .http_server import SYNC_PATH, BadRange, Handler, Headers, Seen, Server, parse_range
from .repo import Entry, Repo
from .signing import AUTH_REFUSED, BAD_RANGE, BAD_SIGNATURE, EXPIRED, NO_SUCH_KEY, Signer

XML = ("Content-Type", "application/xml")
_OBJECT = re.compile(r"/xet-bridge-us/([0-9a-f]{24})/([0-9a-f]{64})")
_BLOCK = 1 << 20


class ByteServer(ABC):
    """Interface of a byte server: mounted repositories, signed URLs and a journal of requests."""

    url: str
    signer: Signer

    def address(self, repo: Repo, entry: Entry, *, xet: bool) -> tuple[str, str]:
        """Return path and signed query of an LFS file, by its Xet-like hash if xet, else by its sha256."""
        path = f"/xet-bridge-us/{self.mount(repo, xet=xet)}/{entry.xet if xet else entry.sha256}"
        return path, self.signer.query(path)

    def mount(self, repo: Repo, *, xet: bool) -> str:
        """Serve a repository's LFS files; return the 24 hex digits that identify it in paths."""
        folder = repo.folder / ("xet" if xet else "lfs")
        key = hashlib.sha256(f"{repo.kind}:{repo.repo_id}:{folder}".encode()).hexdigest()[:24]
        self.attach(key, folder, repo)
        return key

    @abstractmethod
    def attach(self, key: str, folder: Path, repo: Repo) -> None:
        """Serve the files of folder below key. Repeated calls have no effect."""

    @property
    @abstractmethod
    def requests(self) -> list[Seen]:
        """The requests so far."""

    @abstractmethod
    def reset(self) -> None:
        """Clear the journal."""

    @abstractmethod
    def close(self) -> None:
        """Stop serving."""

    def count(self) -> int:
        """Return the number of requests so far."""
        return len(self.requests)

    def fault(self, path_suffix: str, kind: str, *, times: int | None = None, after: int = 0, **args: Any) -> None:
        """Inject a fault into GETs of files whose repository path or URL path ends in path_suffix."""
        raise ValueError(f"{type(self).__name__} cannot do faults ({kind}): use Hub(..., server='embedded')")

    def heal(self) -> None:
        """Remove all faults."""
        return


class EmbeddedBytes(ByteServer):
    """The byte server as threads of this process; limit_rate is in bytes per second per response, 0 for none."""

    def __init__(self, signer: Signer, *, host: str = "127.0.0.1", port: int = 0, limit_rate: int = 0) -> None:
        self.signer = signer
        self.limit_rate = limit_rate
        self.faults: Faults[Fault] = Faults()
        self._mounts: dict[str, tuple[Path, Repo]] = {}
        self._server = _Server(_Handler, host=host, port=port, name="bytes")
        self._server.owner = self
        self.url = self._server.url
        self._server.start()

    @property
    def requests(self) -> list[Seen]:
        """The requests so far, running ones included."""
        return self._server.journal.snapshot()

    def reset(self) -> None:
        """Clear the journal."""
        self._server.journal.reset()

    def close(self) -> None:
        """Stop serving and cut all connections."""
        self._server.close()

    def attach(self, key: str, folder: Path, repo: Repo) -> None:
        """Serve the files of folder below key."""
        self._mounts[key] = (folder, repo)

    def find(self, path: str) -> tuple[Path, set[str]] | None:
        """Return the file for a path and the names that a fault may use for it; None for an unknown path."""
        match = _OBJECT.fullmatch(path)
        if not match or match[1] not in self._mounts:
            return None
        folder, repo = self._mounts[match[1]]
        return folder / match[2], {path, *repo.names(match[2])}

    def fault(self, path_suffix: str, kind: str, *, times: int | None = None, after: int = 0, **args: Any) -> None:
        """Inject a fault into GETs of files whose repository path or URL path ends in path_suffix."""
        self.faults.add(Fault(path_suffix, kind, times, after, **args))

    def heal(self) -> None:
        """Remove all faults."""
        self.faults.clear()


class _Server(Server):
    owner: EmbeddedBytes


class _Handler(Handler):
    def answer(self) -> None:
        cdn = cast(_Server, self.server).owner
        path, _, query = self.path.partition("?")
        if path == SYNC_PATH:
            return self.reply(HTTPStatus.NO_CONTENT)
        if "authorization" in self.seen.headers:
            return self.reply(400, [XML], AUTH_REFUSED)
        found = cdn.find(path)
        if found is None:
            return self.reply(404, [XML], NO_SUCH_KEY)
        verdict = cdn.signer.verdict(self.command, path, query)
        if verdict != "ok":
            return self.reply(403, [XML], EXPIRED if verdict == "expired" else BAD_SIGNATURE)
        file, names = found
        if not file.is_file():
            return self.reply(404, [XML], NO_SUCH_KEY)
        fault = (
            cdn.faults.next_matching(lambda fault: self._fits(fault, file, names)) if self.command == "GET" else None
        )
        if fault and fault.kind in STREAMED:
            self._flow(cdn, file, fault)
        elif not self._other(fault):
            self._send(cdn, file, fault)
        return None

    def _flow(self, cdn: EmbeddedBytes, file: Path, fault: Fault) -> None:
        """Send the whole file without its length, in chunks or until the connection is closed."""
        body = file.read_bytes()
        headers: Headers = [("Content-Type", "application/octet-stream")]
        if fault.kind == "flow_gzip":
            body, headers = _gzipped(body), [*headers, ("Content-Encoding", "gzip")]
        chunked = fault.kind != "flow_until_close"
        plan: list[Piece] = [body[: fault.after or None]]
        if chunked:
            plan = [f"{len(body):x}\r\n".encode(), *plan, *([] if fault.after else [b"\r\n0\r\n\r\n"])]
        self.close_connection = not chunked or fault.after > 0
        self.wfile.write(self.head(200, headers, None, chunked=chunked))
        self._send_plan(file, plan, _Pace(cdn.limit_rate, self.home.stopping))

    def _fits(self, fault: Fault, file: Path, names: set[str]) -> bool:
        if not any(name.endswith(fault.suffix) for name in names):
            return False
        if fault.kind != "flip" and fault.kind not in WRONG_RANGES:
            return True
        try:
            size = file.stat().st_size
            span = parse_range(self.seen.headers.get("range"), size)
        except BadRange:
            return False
        start, end = span or (0, size)
        if fault.kind == "flip":
            return start <= fault.offset < end
        return span is not None and shifted(fault, start, end, size) != span

    def _other(self, fault: Fault | None) -> bool:
        """Send the response of a fault without the file; return False for any other fault."""
        if fault is None or fault.kind not in NO_FILE:
            return False
        if fault.kind == "redirect":
            self.reply(fault.status, [("Location", f"{fault.to}{self.path}")])
        elif fault.kind == "expire":
            self.reply(403, [XML], EXPIRED)
        elif fault.kind == "html":
            self.reply(200, [("Content-Type", "text/html; charset=utf-8")], LOGIN_PAGE)
        else:
            wait = [] if fault.retry_after is None else [("Retry-After", str(fault.retry_after))]
            self.reply(fault.status, [("Content-Type", "text/plain"), *wait, *fault.headers.items()], b"fault\n")
        return True

    def _send(self, cdn: EmbeddedBytes, file: Path, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        info = file.stat()
        size = max(0, info.st_size + (fault.delta if fault and kind == "wrong_size" else 0))
        etag = f'"{file.name[::-1] if kind == "changed" else file.name}"'
        wanted = self.seen.headers.get("range")
        if kind == "ignore_range" or self.seen.headers.get("if-range", etag) != etag:
            wanted = None
        try:
            span = parse_range(wanted, size)
        except BadRange:
            return self.reply(416, [XML, ("Content-Range", f"bytes */{size}")], BAD_RANGE)
        start, end = span or (0, size)
        stated = sent = (start, end)
        if fault and kind in WRONG_RANGES:
            away = shifted(fault, start, end, size)
            stated, sent = (stated if kind == "wrong_part" else away), (sent if kind == "wrong_range" else away)
        headers: Headers = [
            ("Content-Type", "application/octet-stream"),
            ("Last-Modified", email.utils.formatdate(info.st_mtime, usegmt=True)),
            ("ETag", etag),
            ("Content-Range", f"bytes {stated[0]}-{stated[1] - 1}/{size}") if span else ("Accept-Ranges", "bytes"),
        ]
        plan = body_plan(fault, file, *sent)
        length: int | None = end - start
        if kind == "gzip":
            plan = [gzip.compress(file.read_bytes()[start:end], 1)]
            length, headers = len(plan[0]), [*headers, ("Content-Encoding", "gzip")]
        elif kind == "chunked":
            plan, length = [f"{end - start:x}\r\n".encode(), *plan, b"\r\n0\r\n\r\n"], None
        self.wfile.write(self.head(206 if span else 200, headers, length))
        if self.command == "HEAD":
            return None
        pace = _Pace(fault.rate if fault and kind == "slow" else cdn.limit_rate, self.home.stopping)
        self._send_plan(file, plan, pace)
        if fault and kind == "stall":
            self.home.stopping.wait(fault.seconds)
        if kind == "reset":
            self.abort()
        elif kind in ("short", "stall"):
            self.close_connection = True
        return None

    def _send_plan(self, file: Path, plan: list[Piece], pace: _Pace) -> None:
        with file.open("rb") as stream:
            for piece in plan:
                start, end = (0, len(piece)) if isinstance(piece, bytes) else piece
                while start < end:
                    block = min(end - start, pace.block)
                    self.seen.sent += block  # counted before the client can see the bytes, corrected below
                    if isinstance(piece, bytes):
                        done = self.connection.send(piece[start : start + block])
                    else:
                        done = os.sendfile(self.connection.fileno(), stream.fileno(), start, block)
                    self.seen.sent += done - block
                    if not done:
                        raise ConnectionError(f"{file} ended early")
                    start += done
                    pace.spend(done)


@lru_cache(maxsize=4)
def _gzipped(body: bytes) -> bytes:
    """Compress a body. Cached, since many connections request the same body and compression is slow."""
    return gzip.compress(body, 1)


class _Pace:
    """Limits one response to a rate in bytes per second; 0 for no limit."""

    def __init__(self, rate: int, stopping: threading.Event) -> None:
        self._rate = rate
        self._stopping = stopping
        self._begin = time.monotonic()
        self._spent = 0
        self.block = min(_BLOCK, max(1, rate // 20)) if rate else _BLOCK

    def spend(self, size: int) -> None:
        """Wait until the rate allows size more bytes."""
        self._spent += size
        if self._rate:
            ahead = self._spent / self._rate - (time.monotonic() - self._begin)
            if ahead > 0 and self._stopping.wait(ahead):
                raise ConnectionError("the server stops")
