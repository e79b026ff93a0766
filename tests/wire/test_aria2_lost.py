"""Lost RPC responses of aria2c: no download starts twice, none is left behind."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpuaria.aria2 import binary
from standin import Repo
from tests.support.ports import free_port
from tests.support.repos import contents, expected
from tests.support.user import Serve, User, wait_until

pytestmark = pytest.mark.wire


class Forgetful(BaseHTTPRequestHandler):
    """Forward requests to aria2c, but disconnect instead of answering the first `forgets` that start a download.

    With `instead`, send that response and forward nothing.
    """

    protocol_version = "HTTP/1.1"
    target = ""
    forgets = 0
    begun = 0
    instead = b""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.instead and b"addMetalink" in body:
            return self._say(self.instead)
        with urllib.request.urlopen(urllib.request.Request(self.target, body), timeout=10) as answer:
            text = answer.read()
        here = type(self)
        if b"addMetalink" in body:
            here.begun += 1
            if here.begun <= here.forgets:
                self.close_connection = True
                return None
        return self._say(text)

    def _say(self, text: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def between(user: User) -> Iterator[type[Forgetful]]:
    """Yield a real aria2c and the proxy in front of it; `.target` is aria2c itself, `.url` the proxy."""
    port = free_port()
    words = [binary.find_binary().path, "--no-conf", "--enable-rpc", f"--rpc-listen-port={port}", "--quiet"]
    process = subprocess.Popen(words, cwd=user.temp, stdin=subprocess.DEVNULL)
    target = f"http://127.0.0.1:{port}/jsonrpc"
    kind = type("Here", (Forgetful,), {"target": target})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kind.url = f"http://127.0.0.1:{server.server_port}/jsonrpc"  # type: ignore[attr-defined]
    wait_until(lambda: _tell(target, "aria2.getVersion") is not None)
    try:
        yield kind
    finally:
        server.shutdown()
        server.server_close()
        process.terminate()
        process.wait()


def _tell(url: str, method: str, *params: object) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": "1", "method": method, "params": params}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as answer:
            return json.load(answer)["result"]
    except OSError:
        return None


def _downloads(url: str) -> list[str]:
    told = [*_tell(url, "aria2.tellActive"), *_tell(url, "aria2.tellWaiting", 0, 99)]
    told += _tell(url, "aria2.tellStopped", 0, 99)
    return [file["path"] for status in told for file in status["files"]]


@pytest.mark.fault(
    "aria2c: an RPC response is lost",
    where="machine",
    does="Checks whether the download started, and does not start it twice.",
    sees="nothing",
    status=0,
)
def test_a_download_with_a_lost_response_is_found(
    user: User, serve: Serve, big: Repo, between: type[Forgetful]
) -> None:
    serve(big)
    between.forgets = 1
    done = user.quick("fetch", "org/big", "--rpc", between.url, "--json").ok()  # type: ignore[attr-defined]
    assert contents(Path(done.report["path"])) == expected(big)
    assert between.begun == 1
    assert _downloads(between.target) == []


def test_no_download_is_left_in_an_unresponsive_aria2c(
    user: User, serve: Serve, big: Repo, between: type[Forgetful]
) -> None:
    """The end of the run finds and removes a download whose gid was lost."""
    hub = serve(big)
    hub.cdn.fault("big.bin", "stall", after=100_000)
    between.forgets = 1
    run = user.start("fetch", "org/big", "--rpc", between.url)  # type: ignore[attr-defined]
    wait_until(lambda: _downloads(between.target) != [])
    run.terminate()
    run.communicate(timeout=20)
    assert _downloads(between.target) == []
    assert between.begun == 1


REFUSAL = b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"No such method: aria2.addMetalink"}}'


@pytest.mark.fault(
    "aria2c: rejects every download, for example because it lacks Metalink",
    where="machine",
    does="Stops at once.",
    sees="aria2c's error message",
    status=9,
)
@pytest.mark.parametrize("limit", ["0", "100M"])
def test_an_aria2c_that_rejects_a_download_ends_the_run(
    user: User, serve: Serve, big: Repo, between: type[Forgetful], limit: str
) -> None:
    """Such a run once retried until `--patience` ran out, and forever with a speed limit."""
    serve(big)
    between.instead = REFUSAL
    run = user.run("fetch", "org/big", "--rpc", between.url, "--patience", "600", GPUARIA_MAX_SPEED=limit)  # type: ignore[attr-defined]
    run.refused(9, "refuses aria2.addMetalink", "No such method")


@pytest.mark.parametrize("answer", [b'{"detail":"Not Found"}', b"[]", b"17", b'{"result":["x"]}', b'{"error":{}}'])
def test_a_json_server_that_is_not_aria2(user: User, serve: Serve, big: Repo, answer: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    serve(big)
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}/jsonrpc"
        user.run("fetch", "org/big", "--rpc", url).refused(9, "is not aria2c")
        assert "is not aria2c" in user.run("doctor", "org/big", "--rpc", url).out
        other.shutdown()
