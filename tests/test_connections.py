"""Connections that are lent to one request at a time, against a real server."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpuaria import connections
from gpuaria.connections import Connections
from gpuaria.errors import ConfigError
from standin.wire import Handler, Server


class Counted(Handler):
    """Says at which of the server's connections a request came."""

    def answer(self) -> None:
        self.reply(200, [], str(self.client_address[1]).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(Counted, host="127.0.0.1", port=0, name="counted")
    running.start()
    yield running
    running.close()


@pytest.fixture
def lent() -> Iterator[Connections]:
    made = Connections("test", 2.0, 2.0, ssl.create_default_context)
    yield made
    made.close()


def test_one_after_the_other_share_a_connection(server: Server, lent: Connections) -> None:
    ports = set()
    for _ in range(5):
        with lent.one(server.url) as client:
            ports.add(client.get(server.url).text)
    assert len(ports) == 1


def test_each_at_once_has_one_and_they_are_used_again(server: Server, lent: Connections) -> None:
    together = threading.Barrier(4)

    def ask() -> str:
        with lent.one(server.url) as client:
            together.wait(5)
            return str(client.get(server.url).text)

    with ThreadPoolExecutor(4) as pool:
        ports = [{task.result() for task in [pool.submit(ask) for _ in range(4)]} for _ in range(3)]
    assert len(ports[0]) == 4
    assert ports == [ports[0]] * 3


def test_no_more_stay_open_than_are_of_use(server: Server, lent: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_IDLE", 1)
    with lent.one(server.url) as one, lent.one(server.url) as other:
        assert one is not other
        one.get(server.url)
        other.get(server.url)
    assert [one.is_closed, other.is_closed].count(True) == 1


def test_closed_while_one_is_in_use(server: Server, lent: Connections) -> None:
    with lent.one(server.url) as client:
        client.get(server.url)
        lent.close()
        assert client.is_closed
    with lent.one(server.url) as fresh:
        assert fresh is not client
        assert fresh.get(server.url).status_code == 200


def test_a_proxy_of_no_use_is_named_without_its_password(lent: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://me:hidden@127.0.0.1:1")
    with pytest.raises(ConfigError, match="proxy") as caught, lent.one("http://127.0.0.1/"):
        pass
    assert "hidden" not in str(caught.value)
