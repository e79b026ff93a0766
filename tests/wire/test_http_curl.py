"""The libcurl transport: streams of one HTTP/2 connection, slow readers, stalled servers, a clean shutdown."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuaria.errors import GpuariaError, Interrupted, NetworkError
from gpuaria.http.client import Http, HttpOptions
from gpuaria.http.curl import CurlTransport
from gpuaria.http.messages import Request
from gpuaria.http.route import Routes, Timeouts
from standin.http_server import Handler, Server
from tests.support.fronts import self_signed

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
BIG = 40_000_000
_CONF = """
daemon off; worker_processes 1; pid "{folder}/pid"; error_log "{folder}/error" warn; {user}
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path "{folder}/a"; proxy_temp_path "{folder}/b"; fastcgi_temp_path "{folder}/c";
  uwsgi_temp_path "{folder}/d"; scgi_temp_path "{folder}/e";
  log_format short "$connection $server_protocol"; access_log "{folder}/log" short;
  http2_max_concurrent_streams {streams};
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate "{pem}"; ssl_certificate_key "{pem}";
    root "{folder}/root"; default_type application/octet-stream;
  }}
}}
"""


@dataclass
class Nginx:
    """An HTTP/2 server with `/N` for N in 0..299, and `/big`."""

    url: str
    log: Path
    pem: Path

    def lines(self, count: int) -> list[list[str]]:
        """Return (connection, protocol) of each of `count` requests."""
        until = time.monotonic() + 10
        while len(found := self.log.read_text().splitlines()) < count and time.monotonic() < until:
            time.sleep(0.02)
        return [line.split() for line in found]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[int], Nginx]]:
    if NGINX is None:
        pytest.skip("needs nginx")
    started: list[subprocess.Popen[bytes]] = []

    def start(streams: int) -> Nginx:
        (tmp_path / "root").mkdir()
        for number in range(300):
            (tmp_path / f"root/{number}").write_bytes(b"%d" % number * 100)
        (tmp_path / "root/big").write_bytes(bytes(BIG))
        pem = self_signed(tmp_path, "127.0.0.1")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for folder in (tmp_path, *tmp_path.parents):
            folder.chmod(folder.stat().st_mode | 0o055)
        conf = tmp_path / "conf"
        text = _CONF.format(folder=tmp_path, port=port, pem=pem, streams=streams, user="user root;")
        conf.write_text(text)
        started.append(subprocess.Popen([str(NGINX), "-p", str(tmp_path), "-c", str(conf)], stderr=subprocess.DEVNULL))
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        return Nginx(f"https://127.0.0.1:{port}", tmp_path / "log", pem)

    yield start
    for process in started:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(("streams", "connections"), [(128, 2), (1, 100)])
def test_requests_of_many_threads_share_connections(
    nginx: Callable[[int], Nginx], streams: int, connections: int
) -> None:
    """At most as many streams as the server allows; even with one stream at a time every file is fetched."""
    server = nginx(streams)
    http = Http(HttpOptions(ca_bundle=str(server.pem)))
    with ThreadPoolExecutor(32) as pool:
        bodies = list(pool.map(lambda number: http.get(f"{server.url}/{number}").body, range(300)))
    http.close()
    assert bodies == [b"%d" % number * 100 for number in range(300)]
    seen = server.lines(300)
    assert {protocol for _, protocol in seen} == {"HTTP/2.0"}
    assert len({connection for connection, _ in seen}) <= connections


def test_a_slow_reader_blocks_only_its_own_stream(nginx: Callable[[int], Nginx]) -> None:
    server = nginx(128)
    transport = CurlTransport(Routes(ca_bundle=str(server.pem), timeouts=Timeouts(5, 0.3)))
    slow = transport.open(Request("GET", f"{server.url}/big"))
    chunks = slow.chunks()
    came = len(next(chunks))
    time.sleep(1.0)  # longer than the read time-out: our side is the one that does not read
    assert slow._transfer._received < 4_000_000
    other = transport.open(Request("GET", f"{server.url}/7"))
    assert b"".join(other.chunks()) == b"7" * 100
    assert came + sum(map(len, chunks)) == BIG
    transport.close()


class _Told(Handler):
    def answer(self) -> None:
        path = self.path
        if path == "/moved":
            return self.reply(302, [("Location", "/there")], b"x" * 5000)
        if path == "/trickle":
            self.wfile.write(self.head(200, [], 1000))
            for _ in range(1000):
                self.wfile.write(b"x")
                if self.home.stopping.wait(0.05):
                    return None
        if path == "/silent":
            self.home.stopping.wait(20)
            return None
        return self.reply(200, [], b"fine")


@pytest.fixture
def told() -> Iterator[Server]:
    server = Server(_Told, host="127.0.0.1", port=0, name="told")
    server.start()
    yield server
    server.close()


def test_an_unread_redirect_body_keeps_the_connection_usable(told: Server) -> None:
    http = Http()
    with http.download(f"{told.url}/moved") as (answer, chunks):
        assert (answer.status, b"".join(chunks)) == (200, b"fine")
    with told._guard:
        assert len(told._live) == 1
    http.close()


def test_a_request_has_a_deadline_even_if_bytes_trickle_in(told: Server) -> None:
    transport = CurlTransport(Routes())
    exchange = transport.open(Request("GET", f"{told.url}/trickle", deadline=0.4))
    began = time.monotonic()
    with pytest.raises(NetworkError, match="stopped responding"):
        list(exchange.chunks())
    assert time.monotonic() - began < 5
    transport.close()


def test_close_ends_waiting_requests_and_the_thread(told: Server) -> None:
    transport = CurlTransport(Routes())
    raised: list[GpuariaError] = []

    def ask() -> None:
        try:
            transport.open(Request("GET", f"{told.url}/silent"))
        except GpuariaError as error:
            raised.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while len(told._live) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    loop = transport._loop
    assert loop is not None
    transport.close()
    for thread in threads:
        thread.join(5)
    assert [type(error) for error in raised] == [Interrupted] * 4
    assert not loop._thread.is_alive()
    with pytest.raises(Interrupted):
        transport.open(Request("GET", told.url))


def test_an_abandoned_download_does_not_affect_the_next_request(nginx: Callable[[int], Nginx]) -> None:
    server = nginx(128)
    http = Http(HttpOptions(ca_bundle=str(server.pem)))
    for _ in range(3):
        with http.download(f"{server.url}/big") as (_, chunks):
            next(chunks)
    assert http.get(f"{server.url}/5").body == b"5" * 100
    http.close()
