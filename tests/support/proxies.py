"""A forward proxy on loopback that remembers what it was asked for."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """One request to the proxy."""

    method: str
    target: str
    client: str  # user agent, empty for CONNECT of clients that send none
    authorization: str


class ForwardProxy(socketserver.ThreadingTCPServer):
    """Serves GET with an absolute URL, and CONNECT; refuses both without the `authorization` it wants."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, authorization: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.authorization, self.asked = authorization, list[Asked]()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        """Stop serving first."""
        self.shutdown()
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients hang up as they like."""


class _Forwarding(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        proxy = self.server
        assert isinstance(proxy, ForwardProxy)
        lines = list(iter(self.rfile.readline, b"\r\n"))
        if not lines or lines[-1] == b"":
            return
        method, target, _ = lines[0].decode().split(" ", 2)
        fields = {
            key.strip().lower(): value.strip() for key, _, value in (x.decode().partition(":") for x in lines[1:])
        }
        asked = Asked(method, target, fields.get("user-agent", ""), fields.get("proxy-authorization", ""))
        proxy.asked.append(asked)
        if asked.authorization != proxy.authorization:
            self.wfile.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        parts = urlsplit(target if "://" in target else f"//{target}")
        with suppress(OSError), socket.create_connection((parts.hostname or "", parts.port or 80)) as far:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Go\r\n\r\n")
                threading.Thread(target=_copy, args=(self.connection, far), daemon=True).start()
            else:
                path = target.partition("://")[2].partition("/")[2]
                kept = [line for line in lines[1:] if not line.lower().startswith((b"proxy-", b"connection:"))]
                head = [f"{method} /{path} HTTP/1.1\r\n".encode(), *kept, b"Connection: close\r\n\r\n"]
                far.sendall(b"".join(head))
            _copy(far, self.connection)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
