"""A proxy on loopback that gives aria2c gpuaria's name resolution, proxies and shared speed limit.

aria2c uses the system's resolver only, and its speed limits do not count what our HTTP client receives. The relay
supports CONNECT only (RFC 9110 9.3.6), so TLS stays end to end between aria2c and the server. aria2's own options do
not suffice: async-dns-server supports UDP on port 53 only, and applies to the whole daemon.
"""

import base64
import contextlib
import hmac
import secrets
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

_CHUNK = 256 * 1024  # bytes per read without a speed limit
_SMALLEST = 512  # bytes per read under a low limit
_READS_PER_SECOND = 64  # of all tunnels together, under a limit: 16 tunnels are read from four times a second
_HEAD = 16 * 1024  # maximum bytes of a request
_REQUEST_SECONDS = 10.0  # within which a client must send its request

Host = tuple[str, int]


class SpeedLimit(Protocol):
    """A speed limit that several clients share."""

    @property
    def rate(self) -> int:
        """The limit in bytes per second, 0 for none."""

    def charge(self, count: int) -> float:
        """Account for `count` received bytes; return the seconds to sleep before the next read."""


class Relay(socketserver.ThreadingTCPServer):
    """Serve clients that authenticate with the password in `url`, from construction until `close`.

    `connect(host, port)` opens a connection or raises OSError. All tunnels share the speed limit `bucket`.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, connect: Callable[[str, int], socket.socket], bucket: SpeedLimit) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.connect, self.bucket = connect, bucket
        word = secrets.token_urlsafe(24)
        self.password = "Basic " + base64.b64encode(f"gpuaria:{word}".encode()).decode()
        self.url = f"http://gpuaria:{word}@127.0.0.1:{self.server_address[1]}"
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._received: Counter[Host] = Counter()
        threading.Thread(target=self.serve_forever, args=(0.1,), name="relay", daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections and close every tunnel."""
        self.closed.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _hang_up(end)

    def received(self) -> dict[Host, int]:
        """Return bytes received by (host, port), including TLS and headers; hosts are as aria2c names them."""
        with self._lock:
            return dict(self._received)

    def add_received(self, host: Host, size: int) -> None:
        """Count `size` bytes received from `host`."""
        with self._lock:
            self._received[host] += size

    @contextlib.contextmanager
    def tunnel(self, *ends: socket.socket) -> Iterator[None]:
        """Register sockets that `close` shuts down while the context is open."""
        with self._lock:
            self._open.update(ends)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(ends)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print no traceback: aria2c reports the broken connection itself."""


class _Tunnel(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay, client = self.server, self.request
        assert isinstance(relay, Relay)
        client.settimeout(_REQUEST_SECONDS)
        head = _read_head(client)
        method, _, rest = head.partition(" ")
        target = rest.partition(" ")[0]
        host, _, port = target.rpartition(":")
        if not hmac.compare_digest(_header(head, "proxy-authorization").encode(), relay.password.encode()):
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if method != "CONNECT" or not port.isdecimal():
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        name = host.strip("[]"), int(port)
        try:
            server = relay.connect(*name)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with server, relay.tunnel(client, server):
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            client.settimeout(None)
            server.settimeout(None)
            threading.Thread(target=_copy_requests, args=(client, server), name="relay", daemon=True).start()
            _copy_responses(relay, name, server, client)


def _read_head(client: socket.socket) -> str:
    """Read a request head up to its empty line. aria2c sends nothing more until it gets the response."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        chunk = client.recv(4096)
        head += chunk
        if not chunk or len(head) > _HEAD:
            raise ConnectionError
    return head.decode("latin-1")


def _header(head: str, name: str) -> str:
    lines = (line.partition(":") for line in head.split("\r\n")[1:])
    return next((value.strip() for key, _, value in lines if key.strip().lower() == name), "")


def _copy_requests(client: socket.socket, server: socket.socket) -> None:
    """Copy requests until one side closes, then shut both sockets down."""
    buffer = memoryview(bytearray(16 * 1024))
    with contextlib.suppress(OSError):
        while count := client.recv_into(buffer):
            server.sendall(buffer[:count])
    _hang_up(client, server)


def _copy_responses(relay: Relay, host: Host, server: socket.socket, client: socket.socket) -> None:
    """Copy responses at the speed that the limit allows, until one side closes or the relay is closed."""
    buffer = memoryview(bytearray(_CHUNK))
    bounded = False
    with contextlib.suppress(OSError):
        while not relay.closed.is_set():
            rate = relay.bucket.rate
            if rate and not bounded:
                # Without this the kernel buffers megabytes ahead of the limit for each connection.
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, max(64 * 1024, rate // 16))
                bounded = True
            most = min(_CHUNK, max(_SMALLEST, rate // _READS_PER_SECOND)) if rate else _CHUNK
            count = server.recv_into(buffer[:most])
            if not count:
                break
            relay.add_received(host, count)
            client.sendall(buffer[:count])
            if pause := relay.bucket.charge(count):
                relay.closed.wait(pause)
    _hang_up(server, client)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
