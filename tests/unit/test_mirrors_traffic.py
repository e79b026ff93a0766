"""Bytes per mirror: shares that add up, and the kernel's counters of real sockets."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.aria2 import sockets
from gpuaria.http.client import Http
from gpuaria.mirrors.traffic import Traffic, shares, socket_addresses
from gpuaria.records import Mirror, MirrorUrl

HOSTS = ["127.0.0.1", "::1"]
names = st.text("abcde", min_size=1, max_size=2)
M = Mirror("m", "http://m")


def mirror(name: str) -> Mirror:
    return Mirror(name, f"http://{name}")


def by_mirror(weights: dict[str, float]) -> dict[Mirror, float]:
    return {mirror(name): weight for name, weight in weights.items()}


@given(st.integers(0, 1 << 50), st.dictionaries(names, st.integers(0, 1 << 40).map(float), max_size=6))
def test_shares_add_up_and_are_never_negative(came: int, weights: dict[str, float]) -> None:
    parts = shares(came, by_mirror(weights))
    assert {one.name for one in parts} == set(weights)
    assert sum(parts.values()) == (came if weights else 0)
    assert all(part >= 0 for part in parts.values())


@pytest.mark.parametrize(
    ("came", "weights", "parts"),
    [
        (100, {}, {}),
        (100, {"a": 3.0, "b": 1.0}, {"a": 75, "b": 25}),
        (101, {"a": 0.0, "b": 0.0}, {"a": 51, "b": 50}),
        (7, {"a": 0.0, "b": 5.0}, {"a": 0, "b": 7}),
    ],
)
def test_shares(came: int, weights: dict[str, float], parts: dict[str, int]) -> None:
    assert {one.name: part for one, part in shares(came, by_mirror(weights)).items()} == parts


@contextmanager
def pair(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a client socket of this process and its server side, connected at `host`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no {host}: {error}")
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            server, _ = listener.accept()
            with server:
                yield client, server


def pour(server: socket.socket, client: socket.socket, count: int) -> None:
    """Send `count` bytes and read them all."""
    thread = threading.Thread(target=server.sendall, args=(bytes(count),))
    thread.start()
    while count:
        count -= len(client.recv(min(count, 1 << 16)))
    thread.join()


@pytest.mark.parametrize("host", HOSTS)
def test_the_kernel_counts_what_a_socket_received(host: str) -> None:
    with pair(host) as (client, server):
        where = client.getpeername()[:2]
        pour(server, client, 123_456)
        (found,) = [one for one in sockets.connections(os.getpid()) if one.remote == where]
        assert found.received == 123_456
        assert found.local == client.getsockname()[:2]
        assert where in sockets.listening(os.getpid())


def test_a_v4_connection_on_a_v6_socket_is_reported_as_v4() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::", 0))
        except OSError as error:
            pytest.skip(str(error))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listener.accept()
            with server:
                mine = [one for one in sockets.connections(os.getpid()) if one.remote == client.getsockname()[:2]]
                assert [one.local for one in mine] == [("127.0.0.1", port)]


def test_an_unknown_process_has_no_sockets() -> None:
    assert sockets.connections(0) == []
    assert sockets.connections(1 << 30) == []
    assert sockets.listening(1 << 30) == set()


@pytest.mark.parametrize("host", HOSTS)
def test_traffic_is_counted_per_mirror(host: str) -> None:
    traffic = Traffic()

    def read() -> dict[str, int]:
        return {one.name: count for one, count in traffic.read(os.getpid()).items()}

    with pair(host) as (one, first), pair(host) as (two, second):
        traffic.register_endpoints(mirror("one"), [one.getpeername()[:2]])
        traffic.register_endpoints(mirror("two"), [two.getpeername()[:2]])
        traffic.register_endpoints(mirror("twin of two"), [two.getpeername()[:2]])
        assert read() == {"one": 0, "two": 0}
        pour(first, one, 1000)
        pour(second, two, 50_000)
        assert read() == {"one": 1000, "two": 50_000}
        pour(first, one, 1)
        assert read() == {"one": 1, "two": 0}
    assert {one.name: count for one, count in traffic.received.items()} == {"one": 1001, "two": 50_000}
    assert traffic.read(os.getpid()) == {}
    assert traffic.read(0) == {}


def test_endpoints_are_numeric_and_empty_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    routes = Http().routes
    assert socket_addresses(routes, MirrorUrl(M, "http://127.0.0.1:81/x")) == [("127.0.0.1", 81)]
    assert socket_addresses(routes, MirrorUrl(M, "https://[::1]/x")) == [("::1", 443)]
    assert socket_addresses(routes, MirrorUrl(M, "http://no-such-host.invalid/x")) == []
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    routes = Http().routes  # the environment is read once per host
    assert socket_addresses(routes, MirrorUrl(M, "http://192.0.2.1/x")) == []
    assert socket_addresses(routes, MirrorUrl(M, "https://192.0.2.1/x")) == [("192.0.2.1", 443)]
    monkeypatch.setenv("no_proxy", "192.0.2.1")
    routes = Http().routes
    assert socket_addresses(routes, MirrorUrl(M, "http://192.0.2.1/x")) == [("192.0.2.1", 80)]
