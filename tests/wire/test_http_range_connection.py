"""One connection for byte ranges, with real servers that disconnect, stall, send wrong bytes, use TLS or a proxy."""

from __future__ import annotations

import os
import random
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from gpuaria.errors import GpuariaError, Interrupted, NetworkError
from gpuaria.http.client import Http, HttpOptions
from gpuaria.http.range_connection import READ_SIZE, RangeConnection
from gpuaria.http.route import Route, Routes
from standin.http_server import Handler, Server, parse_range
from tests.support.fronts import Front, self_signed
from tests.support.ports import closed_port

SIZE = 1 << 20
DATA = random.Random(6).randbytes(SIZE)
Behave = Callable[["Mirror", int, int], None]


class Mirror(Handler):
    """A server that handles each range with `behave`, and counts connections."""

    behave: Behave
    met: list[object]

    def setup(self) -> None:
        super().setup()
        type(self).met.append(self.connection)

    def answer(self) -> None:
        start, end = parse_range(self.seen.headers.get("range"), SIZE) or (0, SIZE)
        type(self).behave(self, start, end)

    def part(self, start: int, end: int, **headers: str) -> None:
        span = ("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")
        self.reply(206, [span, *((name, value) for name, value in headers.items())], DATA[start:end])


@contextmanager
def serving(behave: Behave) -> Iterator[tuple[str, type[Mirror]]]:
    kind = type("One", (Mirror,), {"behave": staticmethod(behave), "met": []})
    server = Server(kind, host="127.0.0.1", port=0, name="mirror")
    server.start()
    try:
        yield f"{server.url}/file?signed=yes", kind
    finally:
        server.close()


def line(url: str, timeout: float = 5.0, ca_bundle: str = "") -> RangeConnection:
    return RangeConnection(Http(HttpOptions(timeout=timeout, ca_bundle=ca_bundle)), url, SIZE)


def never(came: int) -> bool:
    return False


def test_ranges_share_one_connection() -> None:
    with serving(Mirror.part) as (url, mirror):
        one = line(url)
        for start, end in ((0, 1), (0, SIZE), (READ_SIZE, 3 * READ_SIZE + 1), (SIZE - 1, SIZE)):
            assert one.get(start, end, never) == DATA[start:end]
        one.close()
    assert len(mirror.met) == 1


def hang_up(mirror: Mirror, start: int, end: int) -> None:
    """After the response, without notice."""
    mirror.part(start, end)
    mirror.close_connection = True


def say_so(mirror: Mirror, start: int, end: int) -> None:
    mirror.close_connection = True
    mirror.part(start, end)


@pytest.mark.parametrize("behave", [hang_up, say_so])
def test_a_server_may_disconnect_between_two_requests(behave: Behave) -> None:
    with serving(behave) as (url, mirror):
        one = line(url)
        for start in range(0, SIZE, SIZE // 4):
            assert one.get(start, start + 1000, never) == DATA[start : start + 1000]
            time.sleep(0.02)  # until the end of the response has arrived
        one.close()
    assert len(mirror.met) == 4


def stall(mirror: Mirror, start: int, end: int) -> None:
    mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], end - start))
    mirror.wfile.write(DATA[start : start + 100_000])
    mirror.home.stopping.wait(30)


def silent(mirror: Mirror, start: int, end: int) -> None:
    mirror.home.stopping.wait(30)


def break_off(mirror: Mirror, start: int, end: int) -> None:
    mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], end - start))
    mirror.wfile.write(DATA[start : start + 100_000])
    mirror.close_connection = True


def reset(mirror: Mirror, start: int, end: int) -> None:
    mirror.abort()


def endless(mirror: Mirror, start: int, end: int) -> None:
    mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], None))


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (stall, "stopped responding"),
        (silent, "stopped responding"),
        (break_off, "it sent 100000 bytes for a range of 300000"),
        (reset, "closed the connection"),
        (endless, "it sent None bytes"),
        (lambda mirror, start, end: mirror.part(start, end - 1), "it returned HTTP 206 for a range"),
        (lambda mirror, start, end: mirror.reply(200, [], DATA), "it returned HTTP 200 for a range"),
        (lambda mirror, start, end: mirror.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "closed the connection"),
        (lambda mirror, start, end: mirror.wfile.write(b"HTTP/1.1 206 " + b"x" * 70_000), "closed the connection"),
    ],
)
def test_a_wrong_response_is_an_error(behave: Behave, said: str) -> None:
    with serving(behave) as (url, _):
        one = line(url, timeout=0.5)
        with pytest.raises(GpuariaError, match=said):
            one.get(0, 300_000, never)
        one.close()


def test_connection_refused() -> None:
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1"):
        line(f"http://127.0.0.1:{closed_port()}/x").get(0, 10, never)


def test_a_read_can_be_cancelled() -> None:
    """The rest of the response is not awaited, and the next range is correct."""
    with serving(Mirror.part) as (url, mirror):
        one = line(url)
        told: list[int] = []

        def over(came: int) -> bool:
            told.append(came)
            return len(told) == 4

        some = one.get(0, SIZE, over)
        assert 0 < sum(told) <= len(some)
        assert 2 * READ_SIZE < len(some) < SIZE
        assert DATA.startswith(some)
        assert one.get(5, 10_000, never) == DATA[5:10_000]
        one.close()
    assert len(mirror.met) == 2


def test_tls_with_a_verified_certificate(front: Front, tmp_path: Path) -> None:
    both = self_signed(tmp_path, "127.0.0.1")
    with serving(Mirror.part) as (url, _):
        secret = f"{front(url, both)}/file"
        one = line(secret, ca_bundle=str(both))
        assert one.get(7, SIZE, never) == DATA[7:]
        assert one.get(0, 7, never) == DATA[:7]
        one.close()
        with pytest.raises(NetworkError, match="CERTIFICATE_VERIFY_FAILED"):
            line(secret).get(0, 7, never)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443), ("https", 8443)])
def test_the_host_header_equals_the_host_of_the_url(scheme: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature may cover the host."""
    heads: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def connect(route: Route, routes: Routes) -> socket.socket:
        assert (route.host, route.port) == ("cdn.example.test", port)
        return socket.create_connection(server.getsockname())

    def answer() -> None:
        far, _ = server.accept()
        heads.append(far.recv(4096).decode())
        far.close()

    named = "cdn.example.test" + (":8443" if port == 8443 else "")
    one = line(f"{scheme}://{named}/file")
    monkeypatch.setattr(one._client.routes, "context", PlainContext)
    monkeypatch.setattr("gpuaria.http.range_connection.dial", connect)
    monkeypatch.setattr(one._client.routes, "proxied", lambda url: False)
    threading.Thread(target=answer, daemon=True).start()
    with server, pytest.raises(NetworkError):
        one.get(0, 10, never)
    assert re.findall(r"(?i)\r\nhost: *(\S*)\r\n", heads[0]) == [named]


class PlainContext:
    """A TLS context without encryption, to read what is sent."""

    def wrap_socket(self, line: socket.socket, server_hostname: str) -> socket.socket:
        assert server_hostname == "cdn.example.test"
        return line


def test_tls_that_stalls(front: Front, tmp_path: Path) -> None:
    both = self_signed(tmp_path, "127.0.0.1")
    with serving(stall) as (url, _), pytest.raises(NetworkError, match="stopped responding"):
        line(f"{front(url, both)}/file", ca_bundle=str(both), timeout=0.5).get(0, 300_000, never)


class Proxy(socketserver.StreamRequestHandler):
    """A proxy for plain HTTP that fetches the URL in the request line."""

    asked: ClassVar[list[str]] = []

    def handle(self) -> None:
        head = b"".join(iter(self.rfile.readline, b"\r\n"))
        target = head.split(b" ")[1].decode()
        self.asked.append(target)
        host, _, path = target.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        with socket.create_connection((name, int(port))) as far:
            far.sendall(head.replace(target.encode(), b"/" + path.encode(), 1) + b"Connection: close\r\n\r\n")
            while data := far.recv(65536):
                self.wfile.write(data)


def test_through_an_environment_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    Proxy.asked.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as proxy, serving(Mirror.part) as (url, _):
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
        assert line(url).get(3, 200_000, never) == DATA[3:200_000]
        proxy.shutdown()
    assert Proxy.asked == [url]


def test_every_request_is_counted_and_none_starts_after_close() -> None:
    stop = threading.Event()
    with serving(Mirror.part) as (url, _):
        web = Http(stop=stop)
        one = RangeConnection(web, url, SIZE)
        one.get(0, 10, never)
        one.get(0, 10, never)
        assert web.request_count(url) == 2
        stop.set()
        with pytest.raises(Interrupted):
            one.get(0, 10, never)
        one.close()
