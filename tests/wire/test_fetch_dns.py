"""Runs with a broken system resolver: other resolvers serve our HTTP client and aria2c."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpuaria.aria2.relay import Relay
from gpuaria.dns.deadline import Deadline
from gpuaria.dns.fallback import FallbackResolver as Known
from gpuaria.dns.findings import DnsAnswer
from gpuaria.dns.resolvers import Resolvers
from gpuaria.http.ratelimit import TokenBucket
from standin import Hub, Repo
from tests.support.fronts import Front, self_signed
from tests.support.nameserver import FaultyNameServer, NameServer, start, with_host
from tests.support.repos import contents, expected
from tests.support.user import Done, Serve, User, finish, wait_until

SIZE = 9_000_000
ALL = {name: ["127.0.0.1"] for name in ("hub.test", "one.test", "two.test")}
privileged = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare, for a resolv.conf of its own"
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return org/r: three large files and a small one."""
    data = random.Random(12).randbytes(SIZE)
    files = {f"{n}.safetensors": data[n:] for n in range(3)}
    return Repo.build("org/r", {**files, "config.json": b"{}"}, folder=tmp_path / "r", direct=True)


@pytest.fixture
def honest() -> Iterator[NameServer]:
    """Return a resolver with correct addresses, over TCP only."""
    with NameServer(ALL, udp=False) as server:
        yield server


def by_aria2(hub: Hub) -> bool:
    """Return whether the large files were downloaded in segments."""
    return sum(seen.status == 206 for seen in hub.cdn.requests) > 4


def right(done: Done, user: User, repo: Repo, *words: str) -> None:
    """Check that the repo is complete, every byte was downloaded once, and the output has `words`."""
    done.ok()
    assert contents(user.home / "out") == expected(repo)
    assert done.report["bytes_fetched"] < 3 * SIZE * 1.2
    warned = " ".join(event["text"] for event in done.events if event["event"] == "warned")
    assert all(word in warned for word in words), warned


@privileged
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("lost", "reports that it does not exist"),
        ("silent", "does not respond"),
        ("astray", "returns no reachable IP address"),
    ],
)
@pytest.mark.fault(
    "DNS: the system's resolver times out, fails or returns false addresses, and UDP to other resolvers is blocked",
    where="server",
    does="Uses the addresses from the configured resolvers, for aria2c too.",
    sees="one line for each affected host",
    status=0,
)
def test_a_broken_system_resolver(
    user: User,
    serve: Serve,
    repo: Repo,
    names: FaultyNameServer,
    honest: NameServer,
    tmp_path: Path,
    how: str,
    said: str,
) -> None:
    hub = serve(repo)
    setattr(names, how, "test")
    done = finish(start(user, hub, tmp_path, GPUARIA_RESOLVERS=honest.spec))
    right(
        done,
        user,
        repo,
        f"hub.test: the system's resolver {said}",
        f"one.test: the system's resolver {said}",
        honest.spec,
    )
    assert by_aria2(hub)


@privileged
def test_other_resolvers_are_not_asked_while_the_system_resolver_works(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, honest: NameServer, tmp_path: Path
) -> None:
    hub = serve(repo)
    done = finish(start(user, hub, tmp_path, GPUARIA_RESOLVERS=honest.spec))
    right(done, user, repo)
    assert honest.asked == []
    assert not [event for event in done.events if event["event"] == "warned"]


@privileged
@pytest.mark.parametrize("sealed", [False, True])
def test_the_public_hub_is_known_to_redirect_small_files(
    user: User, serve: Serve, names: FaultyNameServer, tmp_path: Path, *, sealed: bool
) -> None:
    """Known by its host name, so no probe is needed; if that changes, it costs one request."""
    files: dict[str, bytes | Path] = {f"{n}.json": b"%d" % n for n in range(40)}
    hub = serve(Repo.build("org/r", files, folder=tmp_path / "small"), sealed_cache=sealed)
    (tmp_path / "hosts").write_text("127.0.0.1 localhost huggingface.co\n")
    finish(start(user, hub, tmp_path, HF_ENDPOINT=with_host("huggingface.co", hub.url))).ok()
    assert contents(user.home / "out") == files
    long = [seen for seen in hub.requests if "/resolve/" in seen.target]
    assert (len(long), hub.count()) == ((40, 2 + 1 + 2 * 40) if sealed else (0, 2 + 40))


@privileged
def test_a_name_that_stops_resolving_in_mid_run(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, honest: NameServer, tmp_path: Path
) -> None:
    """The system resolver does not know the name of the third file."""
    hub = serve(repo, limit_rate=200_000)
    names.lost = "two.test"
    run = start(user, hub, tmp_path, GPUARIA_RESOLVERS=honest.spec)
    wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > SIZE)
    hub.location_base = with_host("two.test", hub.cdn.url)
    right(finish(run), user, repo, "two.test: the system's resolver reports that it does not exist")


@privileged
def test_an_address_with_a_wrong_certificate(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, front: Front, tmp_path: Path
) -> None:
    """The certificate exposes the false address; the correct address gets the right host name."""
    certificate = {name: self_signed(tmp_path, name) for name in ("hub.test", "one.test", "liar.test")}
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("".join(path.read_text() for path in certificate.values()))
    hub = serve(repo)
    url = {"hub.test": front(hub.url, certificate["hub.test"]), "one.test": front(hub.cdn.url, certificate["one.test"])}
    ports = {name: int(text.rpartition(":")[2]) for name, text in url.items()}
    names.wrong, names.astray = "127.0.0.78", "test"
    liars = [Liar(names.wrong, port, certificate["liar.test"]) for port in ports.values()]
    with NameServer(ALL) as server:
        run = start(
            user,
            hub,
            tmp_path,
            GPUARIA_RESOLVERS=server.spec,
            HF_ENDPOINT=with_host("hub.test", url["hub.test"]),
            SSL_CERT_FILE=str(bundle),
            location=with_host("one.test", url["one.test"]),
        )
        done = finish(run)
    right(done, user, repo, "hub.test: the system's resolver", "one.test: the system's resolver")
    assert by_aria2(hub)
    assert all(liar.met for liar in liars)


@privileged
def test_a_tls_inspecting_network_is_reported_by_its_certificate(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, front: Front, tmp_path: Path
) -> None:
    """If no other address responds, the first finding is the useful one."""
    hub = serve(repo)
    url = front(hub.url, self_signed(tmp_path, "hub.test"))
    with NameServer({"hub.test": ["127.0.0.79"]}) as server:
        run = start(
            user, hub, tmp_path, GPUARIA_RESOLVERS=server.spec, HF_ENDPOINT=with_host("hub.test", url), patience="1s"
        )
        done = finish(run)
    done.refused(7, "the certificate of hub.test", "cannot be trusted", "SSL_CERT_FILE")


class Liar:
    """A server with the wrong certificate on the right port of another address."""

    def __init__(self, host: str, port: int, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.socket = socket.create_server((host, port))
        self.met = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            line, _ = self.socket.accept()
            self.met += 1
            try:
                self.context.wrap_socket(line, server_side=True).close()
            except OSError:
                line.close()


def relayed(relay: Relay, request: bytes) -> bytes:
    """Return the relay's response to a request; PASSWORD is replaced by its password."""
    with socket.create_connection(relay.server_address) as line:  # type: ignore[arg-type]
        line.sendall(request.replace(b"PASSWORD", relay.password.encode()))
        return line.recv(4096)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT there:80 HTTP/1.1\r\n\r\n", b"407"),
        (b"CONNECT there:80 HTTP/1.1\r\nProxy-Authorization: Basic Z3B1YXJpYTp4\r\n\r\n", b"407"),
        (b"GET http://there/ HTTP/1.1\r\nProxy-Authorization: PASSWORD\r\n\r\n", b"405"),
        (b"CONNECT there HTTP/1.1\r\nProxy-Authorization: PASSWORD\r\n\r\n", b"405"),
        (b"CONNECT gone:80 HTTP/1.1\r\nProxy-Authorization: PASSWORD\r\n\r\n", b"502"),
        (b"CONNECT there:80 HTTP/1.1\r\nproxy-authorization: PASSWORD\r\n\r\n", b"200"),
        (b"x" * 20_000, b""),
    ],
)
def test_the_relay_needs_its_password(request_: bytes, status: bytes) -> None:
    asked = []

    def connect(host: str, port: int) -> socket.socket:
        asked.append((host, port))
        if host == "gone":
            raise OSError
        return socket.create_connection(("127.0.0.1", far.getsockname()[1]))

    with socket.create_server(("127.0.0.1", 0)) as far:
        relay = Relay(connect, TokenBucket(0))
        try:
            answer = b""
            with suppress(ConnectionError):
                answer = relayed(relay, request_)
        finally:
            relay.close()
    assert answer.split(b" ")[1:2] == ([status] if status else [])
    assert bool(asked) == (status in (b"200", b"502"))


def test_internal_names_are_not_sent_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver of the same network is asked, those on the internet are not."""
    told: list[str] = []
    asked: list[list[str]] = []

    class Watched(Resolvers):
        def query(self, host: str, deadline: Deadline, *, settle: float | None = None) -> tuple[DnsAnswer, ...]:
            asked.append([server.spec for server in self.servers])
            return super().query(host, deadline, settle=settle)

    monkeypatch.setattr("gpuaria.dns.resolvers.Resolvers", Watched)
    with NameServer({"nas.internal": ["10.1.2.3"]}) as near:
        known = Known(("system", near.spec, "8.8.8.8"), ssl.create_default_context, told.append)
        assert known.overrides("nas.internal") == ("10.1.2.3",)
    known.confirm("nas.internal", "10.1.2.3")
    assert asked == [[near.spec]]
    assert told == [f"nas.internal: the system's resolver reports that it does not exist; using {near.spec}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "a.localhost", ""])
def test_hosts_that_need_no_resolver(host: str) -> None:
    with NameServer({}) as server:
        known = Known((server.spec,), ssl.create_default_context, pytest.fail)
        assert known.overrides(host) == ()
        assert server.asked == []
