"""`gpuaria doctor`: each problem is real, and the test checks its finding, its line and the exit status."""

from __future__ import annotations

import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from gpuaria.cli.output import findings
from gpuaria.doctor import GROUPS, Finding, examine, exit_status
from gpuaria.errors import UsageError
from gpuaria.records import to_json
from gpuaria.settings import load
from standin import Hub, RateLimit, Repo
from tests.support.doctor import HOST, TOKEN, DoctorRun, captive_portal, http_server, invalid_token, run, run_json
from tests.support.nameserver import NameServer
from tests.support.ports import closed_url
from tests.support.repos import SMALL
from tests.support.user import Serve, User


@pytest.fixture
def dead() -> str:
    """Return a URL on which nothing listens."""
    return closed_url()


@pytest.fixture
def hub(serve: Serve, small: Repo) -> Hub:
    """Return a healthy hub."""
    return serve(small)


def test_everything_ok(user: User, hub: Hub, small: Repo) -> None:
    with Hub([small], server="embedded", location_base=hub) as mirror:
        seen = run_json(user, "org/small", GPUARIA_MIRRORS=mirror.url, HF_TOKEN="hf_good")
        assert seen.status == 0
        seen.has("mirror", "ok", mirror.url, "hub protocol", "bytes")
        assert not [r for r in mirror.requests if "authorization" in r.headers]
    seen.has("endpoint", "ok", hub.url, "TCP", "hub protocol", "bytes", "/s")
    seen.has("aria2c", "ok", "1.3", ", from ", "starts and responds", "HTTPS")
    seen.has("token", "ok", "HF_TOKEN", "valid at 127.0.0.1")
    seen.has("clock", "ok", "within")
    seen.has("quota", "ok", "api")
    seen.has("repo", "ok", "4 files", small.head[:12])
    seen.has("room", "ok", "32.0 kB")
    seen.has("cache", "ok", str(user.home), "free")
    assert {row["state"] for topic in ("locks", "links", "state", "proxy", "DNS", "TLS") for row in seen.of(topic)} == {
        "ok"
    }
    assert not list(user.home.rglob(".gpuaria-doctor-*"))


def test_without_a_repo_and_without_a_token(user: User, hub: Hub) -> None:
    seen = run_json(user)
    assert seen.status == 0
    seen.has("endpoint", "ok", "hub protocol")
    seen.has("token", "ok", "no token is set")
    assert not seen.of("repo")
    assert {row["topic"] for row in seen.findings} <= {topic for _, topics in GROUPS for topic in topics}


def test_text_output(user: User, hub: Hub, dead: str) -> None:
    status, text = run(user, GPUARIA_MIRRORS=dead)
    assert status == 0
    assert "\x1b" not in text
    assert text.endswith("a fetch would work\n")
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  warn  mirror"))
    assert lines[at + 1].strip().startswith("fix: gpuaria mirrors remove 127.0.0.1")
    assert lines[0] == "this machine"


def test_server_text_reaches_the_terminal_escaped() -> None:
    row = Finding("endpoint", "ok", "signed by \x1b[2J\u202eevil\nfix: rm -rf /")
    assert findings.finding_lines(row, colours=False) == ["  ok    endpoint    signed by ?[2J?evil?fix: rm -rf /"]
    assert findings.finding_lines(row, colours=True)[0].startswith("  \x1b[32mok  \x1b[0m")


def test_two_repos_or_an_invalid_repo_name_are_invalid_usage(user: User) -> None:
    with pytest.raises(UsageError, match="one repo"):
        run(user, "a/b", "c/d")
    with pytest.raises(UsageError, match="not a repo name"):
        run(user, "a/b/c")


def test_the_status_is_that_of_the_first_problem_and_unknown_is_never_ok() -> None:
    ok, late = Finding("gpuaria", "ok", ""), Finding("aria2c", "unknown", "", "x", 9)
    warned, bad = Finding("DNS", "warning", "", "x"), Finding("endpoint", "problem", "", "x", 7)
    assert exit_status([ok, warned]) == 0
    assert exit_status([ok, late, warned]) == 9
    assert exit_status([late, bad, Finding("token", "problem", "", "x", 6)]) == 7


def test_connection_refused(user: User, dead: str) -> None:
    seen = run_json(user, "org/small", HF_ENDPOINT=dead)
    assert seen.status == 7
    seen.has("endpoint", "problem", dead, "TCP failed", "refused", fix="export HF_ENDPOINT=https://huggingface.co")
    seen.has("clock", "unknown", "the clock was not checked")
    seen.has("repo", "unknown", "org/small", fix="gpuaria resolve")


def test_an_endpoint_that_accepts_and_does_not_respond(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        seen = run_json(user, "org/small", HF_ENDPOINT=f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert seen.status == 7
    seen.has("endpoint", "unknown", "TCP", "hub protocol: no response", fix="curl -sv")
    seen.has("aria2c", "ok", "starts and responds")


def look_up(user: User, *specs: str) -> tuple[int, DoctorRun]:
    """Run the checks with these resolvers; the settings accept no port."""
    environ = user.environ(HF_ENDPOINT=f"http://{HOST}:9")
    settings = replace(load({}, environ, user.home), resolvers=specs)
    found = examine(settings, environ, "", None, "", with_trace=False)
    return found.exit_code, DoctorRun(found.exit_code, str(found), to_json(found)["findings"])


def test_unknown_host_name(user: User) -> None:
    with NameServer({}) as names:
        status, seen = look_up(user, names.spec)
    assert status == 7
    seen.has("endpoint", "problem", "DNS failed", fix="export HF_ENDPOINT=")
    seen.has("DNS", "warning", names.spec, "does not exist", fix="export GPUARIA_RESOLVERS=https://")


def test_a_resolver_with_false_answers(user: User) -> None:
    with NameServer({HOST: ["10.0.0.1"]}) as liar, NameServer({HOST: ["93.184.216.34"]}) as honest:
        _, seen = look_up(user, liar.spec, honest.spec)
    seen.has(
        "DNS", "warning", liar.spec, "gives false answers", "10.0.0.1 is a private", fix=f"RESOLVERS={honest.spec}"
    )
    seen.has("DNS", "ok", honest.spec, "ms", f"1 address of {HOST}")


def test_a_resolver_that_does_not_respond(user: User) -> None:
    with NameServer({HOST: []}, mute=threading.Event()) as mute:
        status, seen = look_up(user, mute.spec)
    assert status == 7
    seen.has("DNS", "warning", mute.spec, "does not respond", fix="export GPUARIA_RESOLVERS=")


@pytest.mark.parametrize("words", [(), ("org/small",)])
def test_a_captive_portal(words: tuple[str, ...], user: User) -> None:
    with http_server(captive_portal) as portal:
        seen = run_json(user, *words, HF_ENDPOINT=portal, HF_TOKEN=TOKEN)
    assert seen.status == 7
    seen.has("endpoint", "problem", "hub protocol failed", "does not respond like a hub (text/html", fix="HF_ENDPOINT=")
    assert TOKEN not in seen.text


def test_a_portal_that_redirects(user: User) -> None:
    def away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://login.example/")
        handler.end_headers()

    with http_server(away) as portal:
        seen = run_json(user, HF_ENDPOINT=portal)
    seen.has("endpoint", "problem", "redirects to login.example", fix="log in")


def test_a_mirror_that_is_stale_or_not_a_hub_is_a_warning(user: User, hub: Hub, dead: str, tmp_path: Path) -> None:
    old = Repo.build("org/small", {**SMALL, "config.json": b"{}"}, folder=tmp_path, direct=True)
    with http_server(captive_portal) as portal, Hub([old], server="embedded") as stale:
        behind = stale.url
        seen = run_json(user, "org/small", GPUARIA_MIRRORS=f"{portal},{behind},{dead}")
    assert seen.status == 0
    seen.has("mirror", "warning", portal, "hub protocol failed", fix="gpuaria mirrors remove")
    seen.has("mirror", "warning", behind, "hub protocol failed", fix="gpuaria mirrors remove")
    seen.has("mirror", "warning", dead, "TCP failed", fix=f"leave --mirror {dead} out")


def test_a_mirror_replaces_an_unreachable_endpoint(user: User, dead: str, hub: Hub) -> None:
    for words in ([], ["org/small"]):
        seen = run_json(user, *words, HF_ENDPOINT=dead, GPUARIA_MIRRORS=hub.url)
        assert seen.status == 0
        seen.has("endpoint", "warning", "TCP failed", "mirrors can replace it", fix="export HF_ENDPOINT=")
    seen.has("repo", "warning", "4 files", f"file list only from {hub.url}", "mirror only", fix="--revision")
    user.quick("fetch", "org/small", HF_ENDPOINT=dead, GPUARIA_MIRRORS=hub.url).ok()
    seen = run_json(user, HF_ENDPOINT=dead, GPUARIA_MIRRORS=hub.url, GPUARIA_TRUST="origin")
    assert seen.status == 7
    seen.has("endpoint", "problem", "TCP failed")


def test_a_mirror_replaces_an_endpoint_that_does_not_respond(user: User, hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}"
        seen = run_json(user, "org/small", HF_ENDPOINT=silent, GPUARIA_MIRRORS=hub.url)
    assert seen.status == 0
    seen.has("endpoint", "unknown", "hub protocol: no response")
    seen.has("mirror", "ok", hub.url, "bytes")


def test_a_mirror_has_the_bytes_that_the_endpoint_lacks(user: User, hub: Hub, small: Repo) -> None:
    hub.cdn.fault("weights.bin", "status", status=503)
    with Hub([small], server="embedded") as mirror:
        seen = run_json(user, "org/small", GPUARIA_MIRRORS=mirror.url)
    assert seen.status == 0
    seen.has("endpoint", "warning", "bytes failed", "mirrors can replace it")
    seen.has("repo", "ok", "bytes are available")


def test_the_bytes_fail(user: User, hub: Hub) -> None:
    hub.cdn.fault("weights.bin", "status", status=503)
    seen = run_json(user, "org/small")
    assert seen.status == 7
    seen.has("endpoint", "problem", "hub protocol", "bytes failed", "503")


def test_a_proxy_that_does_not_respond(user: User, hub: Hub, dead: str) -> None:
    secret = dead.replace("http://", f"http://me:{TOKEN}@")
    seen = run_json(user, http_proxy=secret)
    assert seen.status == 7
    seen.has("proxy", "problem", "127.0.0.1 through proxy", "does not respond", fix="export no_proxy=127.0.0.1")
    assert TOKEN not in seen.text


def test_an_unsupported_kind_of_proxy(user: User, hub: Hub) -> None:
    seen = run_json(user, all_proxy="socks4://127.0.0.1:9")
    assert seen.status == 10
    seen.has("proxy", "problem", "socks4", fix="no_proxy=")


def test_an_untrusted_certificate(user: User, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with http_server(invalid_token, context) as url:
        seen = run_json(user, HF_ENDPOINT=url)
        assert seen.status == 7
        seen.has("TLS", "problem", "signed by Nosy Networks", "cannot be trusted", fix="export SSL_CERT_FILE=")
        seen.has("endpoint", "problem", "TLS failed", fix="export SSL_CERT_FILE=")
        told = run_json(user, HF_ENDPOINT=url, SSL_CERT_FILE=str(certificate))
    told.has("TLS", "ok", "signed by Nosy Networks")
    told.has("endpoint", "ok", "TLS", "hub protocol")
    assert told.status == 0


def test_a_proxy_that_inspects_tls(user: User, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with http_server(invalid_token, context) as inside, inspecting(int(inside.rpartition(":")[2])) as proxy:
        user.env |= {"HF_ENDPOINT": f"https://{HOST}", "https_proxy": proxy.replace("//", f"//me:{TOKEN}@")}
        seen = run_json(user, SSL_CERT_FILE=str(certificate))
        assert seen.status == 0
        fix = f"export SSL_CERT_FILE={certificate}"
        seen.has("TLS", "warning", "signed by Nosy Networks", "inspects TLS", fix=fix)
        seen.has("proxy", "ok", f"{HOST} through proxy 127.0.0.1:")
        told = run_json(user)
    told.has("TLS", "problem", "signed by Nosy Networks", fix="export SSL_CERT_FILE=")
    assert told.status == 7
    assert TOKEN not in seen.text + told.text


@contextmanager
def inspecting(port: int) -> Iterator[str]:
    """Start a proxy that connects every CONNECT to `port` of this machine."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            with socket.create_connection(("127.0.0.1", port)) as there:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
                back.start()
                pump(self.connection, there)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one side disconnects."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_an_invalid_certificate_bundle(user: User, hub: Hub) -> None:
    seen = run_json(user, SSL_CERT_FILE=str(user.home / "nothing.pem"))
    assert seen.status == 7
    seen.has("TLS", "problem", "nothing.pem", fix="unset SSL_CERT_FILE")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a self-signed certificate for 127.0.0.1 and HOST."""
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-days", "2", "-subj", "/O=Nosy Networks/CN=box", "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{HOST}"]
    subprocess.run([*words, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True)
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return folder / "both"


@pytest.mark.parametrize(("shift", "side"), [(-3600.0, "60 min ahead of"), (3600.0, "60 min behind")])
def test_a_wrong_clock(shift: float, side: str, user: User) -> None:
    with http_server(lambda handler: invalid_token(handler, time.time() + shift)) as url:
        seen = run_json(user, HF_ENDPOINT=url)
    assert seen.status == 7
    seen.has("clock", "problem", side, fix="timedatectl set-ntp true")
    seen.has("endpoint", "ok", "hub protocol")


def test_an_invalid_token(user: User, hub: Hub) -> None:
    for words in ([], ["org/small"]):
        seen = run_json(user, *words, HF_TOKEN=TOKEN)
        assert seen.status == 6
        seen.has("token", "problem", "rejects the token from HF_TOKEN", fix="unset HF_TOKEN")
        seen.has("endpoint", "ok", "hub protocol")
        assert TOKEN not in seen.text
        assert TOKEN not in run(user, *words, HF_TOKEN=TOKEN)[1]


def test_a_token_from_the_file_of_hf_auth_login(user: User, hub: Hub) -> None:
    file = user.home / ".cache/huggingface/token"
    file.parent.mkdir(parents=True)
    file.write_text("hf_good\n")
    run_json(user).has("token", "ok", str(file), "valid")
    file.write_text(f"{TOKEN}\n{TOKEN}\n")
    seen = run_json(user)
    assert seen.status == 10
    seen.has("token", "problem", str(file), "one token alone")
    assert TOKEN not in seen.text


def test_a_token_is_not_sent_unencrypted(user: User) -> None:
    seen = run_json(user, HF_ENDPOINT="http://no.such.host.invalid", HF_TOKEN=TOKEN)
    seen.has("token", "warning", "not sent", "not encrypted", fix="export HF_ENDPOINT=https://no.such.host.invalid")
    assert TOKEN not in seen.text


@pytest.mark.parametrize(("token", "text"), [("", "you must accept its terms first"), ("hf_good", "no access to it")])
def test_a_gated_repo(token: str, text: str, user: User, serve: Serve, tmp_path: Path) -> None:
    repo = Repo.build("org/gated", SMALL, folder=tmp_path / "gated")
    repo.gated = "auto"
    serve(repo)
    seen = run_json(user, "org/gated", HF_TOKEN=token)
    assert seen.status == 6
    seen.has("repo", "problem", "org/gated is gated", text, fix="/org/gated")
    seen.has("endpoint", "ok", "hub responds")


def test_an_unknown_repo(user: User, hub: Hub) -> None:
    seen = run_json(user, "org/nowhere", HF_TOKEN="hf_good")
    assert seen.status == 5
    seen.has("repo", "problem", "org/nowhere", fix="spelling")


def test_the_quota_is_almost_used_up(user: User, serve: Serve, small: Repo) -> None:
    serve(small, rate=RateLimit(api=9))
    seen = run_json(user)
    seen.has("quota", "warning", "few requests", "of api", fix="hf auth login")


def test_a_traceroute(user: User, hub: Hub) -> None:
    route = run_json(user, trace=True).of("route")[0]
    assert route["state"] in ("ok", "warning")
    assert "127.0.0.1" in route["text"] or "not permitted" in route["text"]
