"""A keep-alive connection that downloads byte ranges of one file with little CPU time.

A client that reads every packet wakes up every few kB: 48 connections of httpx2 reached 25 MB/s and used a whole core.
Here the kernel collects a larger chunk first (recv(2): MSG_WAITALL), and the interpreter wakes up once per chunk.
"""

import contextlib
import http.client
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from gpuaria.errors import GpuariaError, NetworkError
from gpuaria.http.client import Http
from gpuaria.http.content_range import ContentRange, bytes_header, content_range
from gpuaria.http.dial import dial
from gpuaria.urls import authority, host_and_port

READ_SIZE = 64 * 1024  # bytes per read
_WAIT_ALL = getattr(socket, "MSG_WAITALL", 0) if sys.platform != "win32" else 0


class Received:
    """The received part of a byte range. `so_far`: a buffer of the range's length, and the number of valid bytes in it.

    Another thread may read `so_far` during the download: buffer and count are replaced together.
    """

    def __init__(self) -> None:
        self.so_far: tuple[bytearray, int] = (bytearray(), 0)


class RangeConnection:
    """Connection to the file at `url` of `size` bytes, for one thread. Behind a proxy, `client` sends the requests."""

    def __init__(self, client: Http, url: str, size: int) -> None:
        self._client, self._url, self._size = client, url, size
        self._connection: http.client.HTTPConnection | None = None

    def get(self, start: int, end: int, should_stop: Callable[[int], bool], received: Received | None = None) -> bytes:
        """Return the bytes from `start` to before `end`, or those received before `should_stop` returns True.

        `should_stop` is called before each read with the number of bytes of the previous one. `received` is updated
        during the download. Raises GpuariaError for a different response, a broken or stalled connection.
        """
        headers, received = bytes_header(start, end), received or Received()
        if self._client.routes.proxied(self._url):
            return self._get_by_client(start, end, headers, should_stop)
        self._client.wait_for_quota(self._url)
        used = self._connection is not None
        try:
            try:
                return self._get(start, end, headers, should_stop, received)
            except (http.client.RemoteDisconnected, ConnectionError):
                if not used:  # a server may close an idle connection at any time (RFC 9112 9.3.1)
                    raise
                self.close()
                return self._get(start, end, headers, should_stop, received)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            host = authority(self._url)
            if isinstance(error, TimeoutError | BlockingIOError) or "timed out" in str(error):
                raise NetworkError(f"{host} stopped responding") from None
            raise NetworkError(f"{host} closed the connection: {error or type(error).__name__}") from None
        except GpuariaError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(
        self, start: int, end: int, headers: dict[str, str], should_stop: Callable[[int], bool], received: Received
    ) -> bytes:
        if self._connection is None:
            self._connection = self._connect()
        parts = urlsplit(self._url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # A signature may cover the host as written in the URL; http.client would add :443.
        own = {"host": authority(self._url), "user-agent": self._client.options.user_agent}
        self._connection.request("GET", target, headers={**own, **headers})
        with contextlib.closing(self._connection.getresponse()) as response:
            self._check(response.status, {"content-range": response.getheader("content-range", "")}, start, end)
            if response.length != end - start:
                raise _wrong_length(response.length, end - start)
            body = self._read_body(response, should_stop, received)
        if len(body) < end - start or response.will_close:
            self.close()
        return body

    def _read_body(
        self, response: http.client.HTTPResponse, should_stop: Callable[[int], bool], received: Received
    ) -> bytes:
        """Return the body: bytes buffered with the head, then the rest, directly from the socket if possible."""
        assert self._connection is not None
        assert response.length is not None
        sock, body = self._connection.sock, bytearray(response.length)
        rest = memoryview(body)
        direct = _WAIT_ALL and type(sock) is socket.socket  # not with TLS, and not if the server closes the connection
        if direct:
            rest = rest[response.readinto(rest[: len(response.fp.peek())]) :]
            sock.settimeout(None)
            received.so_far = body, len(body) - len(rest)
        count = 0
        while rest:
            if should_stop(count):
                return bytes(body[: len(body) - len(rest)])
            count = sock.recv_into(rest[:READ_SIZE], 0, _WAIT_ALL) if direct else response.readinto(rest[:READ_SIZE])
            if not count:
                raise _wrong_length(len(body) - len(rest), len(body))
            rest = rest[count:]
            received.so_far = body, len(body) - len(rest)
        if direct:
            sock.settimeout(self._client.options.timeout)
        return bytes(body)

    def _connect(self) -> http.client.HTTPConnection:
        tls = self._url.startswith("https:")
        host, port = host_and_port(self._url)
        connection = http.client.HTTPConnection(host, port)
        sock = dial(self._client.routes.route(self._url), self._client.routes)
        read = self._client.options.timeout
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = self._client.routes.context().wrap_socket(sock, server_hostname=host) if tls else sock
            connection.sock.settimeout(read)
            if not tls and _WAIT_ALL:  # in place of Python's time-out, under which MSG_WAITALL returns early
                seconds = struct.pack("ll", int(read), int(read % 1 * 1e6))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        except BaseException:
            sock.close()
            raise
        return connection

    def _check(self, status: int, headers: Mapping[str, str], start: int, end: int) -> None:
        if status != 206 or content_range(headers) != ContentRange(start, end, self._size):
            raise GpuariaError(f"it returned HTTP {status} for a range request")

    def _get_by_client(
        self, start: int, end: int, headers: dict[str, str], should_stop: Callable[[int], bool]
    ) -> bytes:
        body = bytearray()
        with self._client.open("GET", self._url, anonymous=True, headers=headers) as (response, chunks):
            self._check(response.status, response.headers, start, end)
            for chunk in chunks:
                body += chunk
                if len(body) > end - start:
                    break
                if should_stop(len(chunk)):
                    return bytes(body)
        if len(body) != end - start:
            raise _wrong_length(len(body), end - start)
        return bytes(body)


def _wrong_length(sent: int | None, wanted: int) -> GpuariaError:
    return GpuariaError(f"it sent {sent} bytes for a range of {wanted}")
