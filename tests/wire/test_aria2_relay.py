"""The relay between aria2c and servers: one speed limit for all tunnels, bytes counted per host, a clean shutdown."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gpuaria.aria2.relay import Relay
from gpuaria.http.ratelimit import TokenBucket


class Source:
    """A server that sends zeros until the client disconnects."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()[:2]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._send, args=(line,), daemon=True).start()

    def _send(self, line: socket.socket) -> None:
        try:
            while True:
                line.sendall(bytes(16_384))
        except OSError:
            line.close()


@pytest.fixture
def source() -> Iterator[Source]:
    one = Source()
    yield one
    one.listener.close()


def tunnel(relay: Relay, host: str, port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", relay.server_address[1]))
    line.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nProxy-Authorization: {relay.password}\r\n\r\n".encode())
    assert line.recv(39) == b"HTTP/1.1 200 Connection established\r\n\r\n"
    return line


def drain(lines: list[socket.socket], seconds: float) -> int:
    """Return the bytes received over all of them in that time."""
    came, until = [0] * len(lines), time.monotonic() + seconds

    def read(number: int) -> None:
        lines[number].settimeout(0.2)
        while time.monotonic() < until:
            try:
                came[number] += len(lines[number].recv(65_536))
            except TimeoutError:
                continue

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(lines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(came)


def test_all_tunnels_share_one_limit_that_can_change(source: Source) -> None:
    bucket = TokenBucket(200_000)
    relay = Relay(lambda host, port: socket.create_connection(source.address), bucket)
    try:
        began = time.monotonic()
        lines = [tunnel(relay, "far.example", 443) for _ in range(8)]
        came = drain(lines, 2.0)
        ended = time.monotonic()  # a busy machine is late
        assert 200_000 < came < 200_000 * (ended - began) + 100_000
        bucket.charge(100_000)  # bytes of other clients count too
        assert drain(lines, 1.0) < 200_000 * (time.monotonic() - ended) - 30_000
        bucket.rate = 0
        assert drain(lines, 1.0) > 2_000_000
    finally:
        relay.close()


def test_bytes_are_counted_by_requested_host(source: Source) -> None:
    relay = Relay(lambda host, port: socket.create_connection(source.address), TokenBucket(0))
    try:
        first, second = tunnel(relay, "one.example", 443), tunnel(relay, "[::1]", 80)
        read = drain([first], 0.3)
        second.close()
        counted = relay.received()
        assert counted["one.example", 443] >= read > 0
        assert set(counted) <= {("one.example", 443), ("::1", 80)}
    finally:
        relay.close()


@pytest.mark.parametrize("rate", [0, 1000])
def test_close_ends_every_tunnel_and_thread(source: Source, rate: int) -> None:
    relay = Relay(lambda host, port: socket.create_connection(source.address), TokenBucket(rate))
    lines = [tunnel(relay, "far.example", 443) for _ in range(4)]
    drain(lines, 0.3)
    relay.close()
    for line in lines:
        line.settimeout(5)
        with suppress(ConnectionError):
            while line.recv(65_536):
                pass
    until = time.monotonic() + 5
    while left := [thread for thread in threading.enumerate() if thread.name == "relay"]:
        assert time.monotonic() < until, left
        time.sleep(0.02)


def test_the_password_is_the_one_in_the_url() -> None:
    relay = Relay(lambda host, port: socket.create_connection((host, port)), TokenBucket(0))
    try:
        user = relay.url.removeprefix("http://").partition("@")[0]
        assert base64.b64decode(relay.password.removeprefix("Basic ")).decode() == user
    finally:
        relay.close()
