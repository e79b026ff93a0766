"""`gpuaria mirrors`: real surveys of stand-in hubs; the table shows each fault with its reason."""

from __future__ import annotations

import importlib.util
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from standin import Hub, Repo
from tests.support.ports import closed_url
from tests.support.user import Done, Serve, User

PAGE = b"<!DOCTYPE html><html><title>Sign in</title>Please sign in.</html>"
MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture(autouse=True)
def own_resolver(user: User) -> None:
    """Use no DNS server on the internet, and allow enough time on a busy machine."""
    user.env |= {"GPUARIA_RESOLVERS": "system", "GPUARIA_PROBE_BUDGET": "8 s"}


def told(run: Done) -> dict[str, dict[str, Any]]:
    """Return the --json output by mirror name."""
    (report,) = run.events
    return {mirror["name"]: mirror for mirror in report["mirrors"]}


def write_mirrors(user: User, rows: dict[str, str]) -> None:
    path = user.home / ".config/gpuaria/config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    user.env["GPUARIA_MIRRORS"] = ""
    path.write_text("mirrors:\n" + "".join(f"  - name: {name}\n    base: {base}\n" for name, base in rows.items()))


class Portal(BaseHTTPRequestHandler):
    """A server that responds to every request with a login page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(PAGE)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(PAGE)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        """Log nothing."""


class Quiet(ThreadingHTTPServer):
    """A server whose clients may disconnect during the handshake."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: stderr belongs to the command."""


@pytest.fixture
def portal() -> Iterator[str]:
    yield from serving(Quiet(("127.0.0.1", 0), Portal), "http")


@pytest.fixture
def strange_certificate(tmp_path: Path) -> Iterator[str]:
    """Serve with an untrusted certificate."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = Quiet(("127.0.0.1", 0), Portal)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    yield from serving(server, "https")


def serving(server: Quiet, scheme: str) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"{scheme}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def other(tmp_path: Path, big_bytes: bytes) -> Repo:
    """Return org/big as another hub has it: the same names, other bytes, another commit."""
    return Repo.build("org/big", {"model.safetensors": big_bytes[:-5]}, folder=tmp_path / "other", direct=True)


def other_size(hub: Hub, repo: Repo) -> None:
    """Make `hub` return the right commit and another size for the file."""
    path = f"/org/big/resolve/{repo.head}/model.safetensors"
    headers = {"X-Repo-Commit": repo.head, "X-Linked-Size": "77", "Location": f"{hub.cdn.url}/x"}
    hub.fault(path, status=302, headers=headers)


def test_every_fault_is_named(
    user: User, serve: Serve, big: Repo, other: Repo, portal: str, strange_certificate: str
) -> None:
    origin, good, size, lagging = serve(big), serve(big), serve(big), serve(big)
    other_size(size, big)
    lagging.fault("/resolve/", status=200, headers={"X-Repo-Commit": other.head})
    write_mirrors(
        user,
        {
            "good": good.url,
            "stale": serve(other).url,
            "lagging": lagging.url,
            "size": size.url,
            "portal": portal,
            "dead": closed_url(),
            "certificate": strange_certificate,
            "pipe": serve(big, location_base=origin).url,
            "onward": onward(serve(big), origin, big),
        },
    )
    done = user.quick("mirrors", "org/big").ok()
    assert done.err == ""
    rows = {line.split()[0]: line for line in done.out.splitlines()[2:]}
    reasons = {
        "good": "MB/s expected",
        "stale": f"stale      rejected  stale: it does not have commit {big.head[:12]}",
        "lagging": f"stale: it serves commit {other.head[:12]}, not {big.head[:12]}",
        "size": "different  rejected  other size: it has model.safetensors with 77 bytes, not 9,000,000",
        "portal": "captive portal: it responds with HTML instead of the file",
        "dead": "tcp: connection refused",
        "certificate": "tls: the certificate cannot be trusted: self-signed certificate",
        "onward": "it only redirects to 127.0.0.1",
    }
    for name, reason in reasons.items():
        assert reason in rows[name], done.out
        assert ("accepted" if name == "good" else "rejected") in rows[name]
    # one of two mirrors with the same byte server is used; the origin comes first in the order
    assert f"same byte server as {origin.url.removeprefix('http://')}" in rows["pipe"]
    assert done.out.splitlines()[0] == (
        f"org/big@main is org/big at {big.head[:12]}; checksums from {origin.url} (origin); "
        "measured with 'model.safetensors' (9.0 MB)"
    )


def onward(hub: Hub, to: Hub, repo: Repo) -> str:
    """Serve a mirror that redirects everything, as hf-mirror.com does outside China."""
    path = f"/org/big/resolve/{repo.head}/model.safetensors"
    hub.fault("/resolve/", status=308, headers={"Location": to.url + path})
    return hub.url


def test_json_is_one_object_with_all_findings(user: User, serve: Serve, big: Repo) -> None:
    origin, second = serve(big), serve(big)
    run = user.quick("mirrors", "org/big", "--mirror", second.url, "--json").ok()
    (report,) = run.events
    assert (report["event"], report["exit_code"], report["commit"]) == ("report", 0, big.head)
    assert report["file"] == "model.safetensors"
    for hub in (origin, second):
        row = told(run)[hub.url.removeprefix("http://")]
        assert (row["verdict"], row["findings"]["fresh"]["verdict"]) == ("accepted", "fresh")
        assert row["expected_rate"] > 0
        assert row["stages"]["TCP"] > 0
        assert row["findings"]["bytes"]["rates"][0]["bytes"] > 0
    assert "Signature" not in run.out
    assert origin.count() == 3  # the commit, the listing, and one resolve
    assert second.count() == 1


def test_why_prints_the_measurements(user: User, serve: Serve, big: Repo) -> None:
    origin = serve(big)
    out = (
        user.quick("mirrors", "org/big", "--why", "--mirror", f"http://localhost:{origin.url.rpartition(':')[2]}")
        .ok()
        .out
    )
    for words in (
        "DNS system A: 127.0.0.1 in ",
        "TCP 127.0.0.1 port ",
        "resolve: ",
        "freshness: fresh (reports commit ",
    ):
        assert words in out
    for words in (
        "ICMP 127.0.0.1: ",
        "4 connections: ",
        "history: none",
        "verdict: accepted, ",
        "same byte server as",
    ):
        assert words in out
    assert "?" not in out  # no query, which may be a signature


def test_recent_findings_are_reused_but_failures_are_not(user: User, serve: Serve, big: Repo) -> None:
    serve(big)
    second = serve(big)
    second.fault("/resolve/", status=503, times=1)
    name = second.url.removeprefix("http://")
    flags = ("mirrors", "org/big", "--mirror", second.url)
    first = told(user.quick(*flags, "--json").ok())
    assert (first[name]["verdict"], first[name]["reason"].partition(" for ")[0]) == (
        "rejected",
        f"{second.url} returned HTTP 503",
    )
    again = told(user.quick(*flags, "--json").ok())
    assert [row["reused"] for row in again.values()] == [True, False]
    assert again[name]["verdict"] == "accepted"
    assert again[name]["past"]["failures"] > 0
    before = second.count()
    assert "reused for: " in user.quick(*flags).ok().out
    assert second.count() == before


def test_without_a_repo_only_the_network_is_measured(user: User, serve: Serve, big: Repo) -> None:
    origin, dead = serve(big), closed_url()
    run = user.quick("mirrors", "--mirror", dead).ok()
    assert run.out.startswith("measured DNS, TCP and TLS only: no repo given to read a file from\n")
    assert "not measured" in run.out
    assert "tcp: connection refused" in run.out
    assert origin.count() == 0


def test_without_any_usable_mirror_the_status_is_7(user: User, serve: Serve, big: Repo) -> None:
    serve(big)
    user.env["HF_ENDPOINT"] = closed_url()
    run = user.quick("mirrors", "--mirror", closed_url())
    run.refused(7, "no usable mirror", "connection refused")
    assert run.out.count("rejected") == 2
    assert told(user.run("mirrors", "--json")).popitem()[1]["reason"] == "tcp: connection refused"


def test_an_unreachable_origin_is_reported_in_the_table(user: User, serve: Serve, big: Repo) -> None:
    good = serve(big)
    user.env |= {"HF_ENDPOINT": closed_url(), "GPUARIA_TRUST": "origin"}
    run = user.quick("mirrors", "org/big", "--mirror", good.url)
    assert run.status == 7
    assert "cannot connect" in run.err
    assert "the repo could not be resolved" in run.out
    assert "tcp: connection refused" in run.out
    assert "accepted" in run.out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("a", "b"), 2, "one repo"),
        (("a/b/c",), 2, "not a repo name"),
        (("a", "--type", "thing"), 2, "--type thing"),
        (("--type", "model"), 2, "need a repo"),
        (("a", "--plot", "x.gif"), 2, "not a .png or .svg file"),
        (("a", "--mirror", "nobody-knows-it"), 2, "nobody-knows-it"),
        (("org/nothing",), 5, "org/nothing"),
    ],
)
def test_bad_input(user: User, serve: Serve, big: Repo, words: tuple[str, ...], status: int, said: str) -> None:
    serve(big)
    user.quick("mirrors", *words).refused(status, said)


def test_offline_nothing_is_measured(user: User) -> None:
    user.quick("mirrors", "gpt2", HF_HUB_OFFLINE="1").refused(2, "offline")


@pytest.mark.skipif(not MATPLOTLIB, reason="needs matplotlib")
@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG"), ("x.svg", b"<?xml")])
def test_a_plot_is_written(user: User, serve: Serve, big: Repo, name: str, start: bytes) -> None:
    serve(big)
    user.quick("mirrors", "org/big", "--mirror", closed_url(), "--plot", name).ok()
    assert (user.home / name).read_bytes().startswith(start)
    user.quick("mirrors", "org/big", "--plot", f"missing/{name}").refused(8, "cannot write")


def test_without_matplotlib_a_plot_is_rejected_before_measuring(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    user.quick("mirrors", "--plot", "x.png").refused(2, "matplotlib", "gpuaria[plot]")


def test_every_json_line_is_an_object(user: User, serve: Serve, big: Repo) -> None:
    serve(big)
    for words in (("mirrors", "org/big", "--json"), ("mirrors", "list", "--json"), ("mirrors", "a", "b", "--json")):
        for line in user.quick(*words).out.splitlines():
            assert json.loads(line)["event"] == "report"
