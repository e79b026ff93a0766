"""An HTTP/1.1 connection (RFC 9112) for sample reads that records the duration of its set-up stages."""

import http.client
import io
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from gpuaria.dns.deadline import Deadline
from gpuaria.errors import NetworkError
from gpuaria.http.route import Route, route
from gpuaria.mirrors.measure import tcp

Head = tuple[int, Mapping[str, str]]
ResolveHost = Callable[[str], Sequence[str]]
_HEAD_LIMIT = 65536
_CHUNK = 1 << 16


class TimedConnection:
    """Sends range requests to one server, one after the other. `resolve` returns a host's addresses, best first.

    `connect` and `handshake` in seconds, None if unknown; `peer`: an address or empty; `proxy`: host:port. Every
    operation ends at `deadline`.
    """

    def __init__(
        self,
        resolve: ResolveHost,
        context: ssl.SSLContext,
        environ: Mapping[str, str],
        deadline: Deadline,
        user_agent: str = "gpuaria",
    ) -> None:
        self._resolve, self._context, self._environ = resolve, context, environ
        self._deadline, self._user_agent = deadline, user_agent
        self._sock: socket.socket | None = None
        self._route: Route | None = None
        self.connect: float | None = None
        self.handshake: float | None = None
        self.peer = self.proxy = ""

    def ensure_connected(self, url: str) -> None:
        """Connect to the server of `url`, unless already connected to it. Raises NetworkError."""
        target_route = route(url, self._environ)
        if self._sock is not None and target_route == self._route:
            return
        self.close()
        addresses = [] if target_route.proxy else list(self._resolve(target_route.host))
        if not addresses and not target_route.proxy:
            raise NetworkError(f"no IP address found for {target_route.host}")
        attempt = tcp.connect(target_route, addresses, self._context, self._deadline)
        self._sock, self._route = attempt.sock, target_route
        self.connect, self.handshake = attempt.tcp.seconds, attempt.tls.seconds if attempt.tls else None
        self.proxy = str(target_route.proxy or "")
        self.peer = "" if target_route.proxy else attempt.address

    def request(
        self, url: str, headers: Mapping[str, str], patience: Callable[[], float]
    ) -> tuple[Head, Iterator[bytes]]:
        """Send a request; return head and raw body, each read with a time-out of `patience()` seconds.

        The body must be read to its end, or the connection closed, before the next request. Raises OSError,
        GpuariaError.
        """
        self.ensure_connected(url)
        assert self._sock is not None
        assert self._route is not None
        self._sock.settimeout(max(0.001, patience()))
        self._sock.sendall(self._request(url, headers))
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self._receive(patience)
            data += chunk
            if not chunk or len(data) > _HEAD_LIMIT:
                raise NetworkError("closed the connection" if not chunk else "sent endless headers")
        head, _, rest = data.partition(b"\r\n\r\n")
        status, got = _parse(head)
        return (status, got), self._body(rest, got, patience)

    def _request(self, url: str, headers: Mapping[str, str]) -> bytes:
        target_route, parts = self._route, urlsplit(url)
        assert target_route is not None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"host": target_route.host_header, "user-agent": self._user_agent, "accept": "*/*", **headers}
        if target_route.proxy and not target_route.tls:  # RFC 9112 3.2.2
            target = f"http://{target_route.host_header}{target}"
            if target_route.proxy.authorization:
                sent["proxy-authorization"] = target_route.proxy.authorization
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        if any(re.search(r"[\r\n\0]", attempt) for attempt in lines):
            raise NetworkError("its URL contains invalid characters")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _receive(self, patience: Callable[[], float]) -> bytes:
        assert self._sock is not None
        left = patience()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv(_CHUNK)

    def _body(self, rest: bytes, headers: Mapping[str, str], patience: Callable[[], float]) -> Iterator[bytes]:
        """Yield the body's bytes as they arrive, including chunk framing, which is accurate enough for a rate."""
        length = headers.get("content-length", "")
        left = int(length) if re.fullmatch(r"\d{1,18}", length) and "transfer-encoding" not in headers else None
        again = left is not None and headers.get("connection", "").lower() != "close"
        chunk = rest
        while left is None or left > 0:
            chunk = chunk or self._receive(patience)
            if not chunk:
                self.close()
                if left:
                    raise NetworkError(f"closed the connection {left:,} bytes before the end")
                return
            piece = chunk if left is None else chunk[:left]
            left = None if left is None else left - len(piece)
            chunk = b""
            yield piece
        if not again:
            self.close()

    def same_peer_connection(self) -> "TimedConnection":
        """Return another connection to the same peer address."""
        known, resolve = self.peer, self._resolve
        target_route = self._route.host if self._route else ""
        same: ResolveHost = lambda host: (known,) if known and host == target_route else resolve(host)  # noqa: E731
        return TimedConnection(same, self._context, self._environ, self._deadline, self._user_agent)

    def close(self) -> None:
        """Close the connection; the measured times stay available."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _parse(head: bytes) -> Head:
    first, _, rest = head.partition(b"\r\n")
    match = re.match(rb"HTTP/1\.[01] (\d{3})\b", first)
    if not match:
        raise NetworkError("does not speak HTTP")
    try:
        fields = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
    except http.client.HTTPException as error:
        raise NetworkError(f"sent invalid headers ({type(error).__name__})") from None
    return int(match[1]), {name.lower(): str(value) for name, value in fields.items()}
