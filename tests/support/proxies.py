"""A forward proxy on loopback that records its requests."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class ProxyRequest:
    """One request to the proxy."""

    method: str
    target: str
    client: str  # user agent; empty if a client sends none with CONNECT
    authorization: str


class ForwardProxy(socketserver.ThreadingTCPServer):
    """Serve GET with an absolute URL, and CONNECT; reject both without the expected `authorization`."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, authorization: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.authorization, self.asked = authorization, list[ProxyRequest]()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def place(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        """Stop serving first."""
        self.shutdown()
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients may disconnect at any time."""


class SocksProxy(ForwardProxy):
    """The same for SOCKS 5; `authorization` is user:password."""

    def __init__(self, authorization: str = "") -> None:
        super().__init__(authorization)
        self.RequestHandlerClass = _Socks


class _Socks(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        proxy = self.server
        assert isinstance(proxy, SocksProxy)
        offered = self.rfile.read(self.rfile.read(2)[1])
        wanted, given = (2 if proxy.authorization else 0), ""
        self.wfile.write(bytes([5, wanted if wanted in offered else 255]))
        if wanted:
            user = self.rfile.read(self.rfile.read(2)[1])
            given = b":".join((user, self.rfile.read(self.rfile.read(1)[0]))).decode()
            self.wfile.write(bytes([1, given != proxy.authorization]))
        kind = self.rfile.read(4)[3]
        host = socket.inet_ntoa(self.rfile.read(4)) if kind == 1 else self.rfile.read(self.rfile.read(1)[0]).decode()
        port = int.from_bytes(self.rfile.read(2), "big")
        proxy.asked.append(ProxyRequest("SOCKS", f"{host}:{port}", "", given))
        with suppress(OSError), socket.create_connection((host, port)) as far:
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
            threading.Thread(target=_copy, args=(self.connection, far), daemon=True).start()
            _copy(far, self.connection)


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
        asked = ProxyRequest(method, target, fields.get("user-agent", ""), fields.get("proxy-authorization", ""))
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
