"""The base of both servers: threaded HTTP/1.1 with keep-alive, without logging, with a journal of requests."""

from __future__ import annotations

import email.utils
import re
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

SYNC_PATH = "/standin-sync"
Headers = Sequence[tuple[str, str]]


@dataclass
class Seen:
    """One received request: header names in lower case; `sent` counts body bytes."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    sent: int = 0


class Journal:
    """A thread-safe list of requests. Each entry is added before the first byte of its response is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Append a request."""
        with self._lock:
            self._seen.append(seen)

    def snapshot(self) -> list[Seen]:
        """Return copies of all entries in the order of arrival."""
        with self._lock:
            return [replace(seen) for seen in self._seen]

    def reset(self) -> None:
        """Clear the journal."""
        with self._lock:
            self._seen.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._seen)


class BadRange(Exception):
    """The requested range is outside the file (416)."""


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """Return start and exclusive end of a single byte range, None for the whole file; raise BadRange as nginx does."""
    if not value or not value.startswith("bytes=") or "," in value:
        return None
    match = re.fullmatch(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", value)
    if not match or match.groups() == ("", ""):
        raise BadRange
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise BadRange
    return start, end


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A threaded server on a background thread. Port 0: the system chooses."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, handler: type[Handler], *, host: str, port: int, name: str) -> None:
        self.journal = Journal()
        self.stopping = threading.Event()
        self.label = name
        self.errors: list[BaseException] = []
        self._live: set[Any] = set()
        self._guard = threading.Lock()
        super().__init__((host, port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name=name, daemon=True)

    @property
    def url(self) -> str:
        """The server's URL without a trailing slash."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"

    def start(self) -> None:
        """Start to serve. The port is open since construction."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and close all connections."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._guard:
            for connection in self._live:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Record the connection, then serve it on a new thread."""
        with self._guard:
            self._live.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, or reset it if abort() marked it."""
        with self._guard:
            self._live.discard(request)
        if request.fileno() >= 0 and request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _HARD:
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore network errors, since clients may disconnect; record other errors, which are bugs."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.errors.append(error)


_HARD = struct.pack("ii", 1, 0)


class Handler(BaseHTTPRequestHandler):
    """One connection. Subclasses implement answer(), which sends exactly one reply per request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    seen: Seen

    def answer(self) -> None:
        """Reply to the request in self.seen."""
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""

    def _run(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, self.path, headers)
        self.answer()

    def do_GET(self) -> None:
        """Handle GET."""
        self._run()

    def do_HEAD(self) -> None:
        """Handle HEAD."""
        self._run()

    def do_POST(self) -> None:
        """Handle POST."""
        self._run()

    @property
    def home(self) -> Server:
        """The server of this connection."""
        return cast(Server, self.server)

    def head(self, status: int, headers: Headers, length: int | None, *, chunked: bool = True) -> bytes:
        """Add the request to the journal and return the response head for a body of length bytes.

        None: no length; the body is chunked if `chunked`, else it ends with the connection.
        """
        self.seen.status = status
        self.home.journal.add(self.seen)
        fixed = [("Date", email.utils.formatdate(usegmt=True)), ("Server", f"standin-{self.home.label}")]
        if length is None:
            fixed += [("Transfer-Encoding", "chunked")] if chunked else []
        elif status != HTTPStatus.NO_CONTENT:
            fixed.append(("Content-Length", str(length)))
        if self.close_connection:
            fixed.append(("Connection", "close"))
        lines = [f"{name}: {value}" for name, value in [*fixed, *headers]]
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Unknown"
        return "\r\n".join([f"HTTP/1.1 {status} {reason}", *lines, "", ""]).encode("latin-1", "replace")

    def reply(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        """Send a whole response. For HEAD the body counts in Content-Length but is not sent."""
        payload = b"" if self.command == "HEAD" else body
        self.seen.sent = len(payload)
        self.wfile.write(self.head(status, headers, len(body)) + payload)

    def abort(self) -> None:
        """End the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD)
        self.close_connection = True
