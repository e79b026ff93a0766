"""A way for aria2c to hosts whose addresses it cannot find: it knows no resolver but the system's.

A proxy on loopback that does nothing but CONNECT (RFC 9110 9.3.6), so TLS stays between aria2c and the server. aria2's
own options for this do not reach as far: async-dns-server takes UDP on port 53 only, and holds for a whole daemon.
"""

import base64
import contextlib
import hmac
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable

_CHUNK = 256 * 1024  # bytes
_HEAD = 16 * 1024  # bytes of a request at most
_HASTE = 10.0  # seconds in which a client has to say what it wants


class Relay(socketserver.ThreadingTCPServer):
    """Serves from the start until `close`, those who know the password in `url`. `connect(host, port)` finds a way."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, connect: Callable[[str, int], socket.socket]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.connect = connect
        word = secrets.token_urlsafe(24)
        self.password = "Basic " + base64.b64encode(f"gpuaria:{word}".encode()).decode()
        self.url = f"http://gpuaria:{word}@127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.1,), name="relay", daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end with aria2c's."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken connection is aria2c's to notice, not the terminal's."""


class _Tunnel(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay, client = self.server, self.request
        assert isinstance(relay, Relay)
        client.settimeout(_HASTE)
        head = _head(client)
        method, _, rest = head.partition(" ")
        place = rest.partition(" ")[0]
        host, _, port = place.rpartition(":")
        if not hmac.compare_digest(_field(head, "proxy-authorization").encode(), relay.password.encode()):
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if method != "CONNECT" or not port.isdecimal():
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            server = relay.connect(host.strip("[]"), int(port))
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            client.settimeout(None)
            server.settimeout(None)
            threading.Thread(target=_copy, args=(client, server), name="relay", daemon=True).start()
            _copy(server, client)


def _head(client: socket.socket) -> str:
    """A request up to its empty line. aria2c sends nothing behind it before it has its answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        chunk = client.recv(4096)
        head += chunk
        if not chunk or len(head) > _HEAD:
            raise ConnectionError
    return head.decode("latin-1")


def _field(head: str, name: str) -> str:
    lines = (line.partition(":") for line in head.split("\r\n")[1:])
    return next((value.strip() for key, _, value in lines if key.strip().lower() == name), "")


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Hand everything on until one side ends, then end the other side's reading too."""
    buffer = memoryview(bytearray(_CHUNK))
    with contextlib.suppress(OSError):
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
