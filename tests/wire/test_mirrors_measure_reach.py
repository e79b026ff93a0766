"""ICMP, TCP, TLS and proxies with real sockets, black holes included."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from gpuaria.dns.deadline import BackgroundCall, Deadline, run_all
from gpuaria.errors import NetworkError
from gpuaria.http.route import Proxy, Route, proxy_for, route
from gpuaria.mirrors.measure import tcp
from gpuaria.mirrors.measure.icmp import ping
from tests.support.clock import FakeClock

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")
PLAIN = ssl.create_default_context()


# --- time ---------------------------------------------------------------------------------------------------------


def test_together_keeps_order_returns_none_for_late_jobs_and_raises_bugs() -> None:
    never = threading.Event()
    assert run_all([lambda: 1, lambda: 2, never.wait], Deadline(0.2), 0) == [1, 2, None]
    with pytest.raises(ZeroDivisionError):
        run_all([lambda: 1 // 0], Deadline(5))
    never.set()


def test_a_stuck_thread_does_not_block_the_process_exit() -> None:
    code = (
        "import threading\nfrom gpuaria.dns.deadline import BackgroundCall, Deadline\n"
        "print(BackgroundCall(threading.Event().wait).result(Deadline(0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "None\n"


def test_within_returns_the_earlier_deadline() -> None:
    clock = FakeClock(0.0)
    deadline = Deadline(3, clock)
    assert (deadline.within(1).remaining(), deadline.within(9).remaining()) == (1, 3)
    clock.now = 4
    assert (deadline.remaining(), deadline.expired) == (0, True)


# --- icmp ---------------------------------------------------------------------------------------------------------


@needs_root
def test_loopback_replies_to_pings_in_both_families() -> None:
    for found in ping(["127.0.0.1", "::1", "127.0.0.9"], Deadline(10)):
        assert (found.state, found.loss, found.problem) == ("measured", 0.0, "")
        assert found.rtt is not None
        assert 0 < found.rtt < 1
        assert found.jitter is not None


@needs_root
def test_without_privilege_the_result_is_not_permitted() -> None:
    if Path("/proc/sys/net/ipv4/ping_group_range").read_text().split() != ["1", "0"]:
        pytest.skip("this system lets everyone ping")
    code = (
        "import os\nfrom gpuaria.mirrors.measure.icmp import ping\nfrom gpuaria.dns.deadline import Deadline\n"
        "import icmplib, encodings.idna\n"  # before privileges are dropped
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for f in ping(['127.0.0.1', '::1'], Deadline(5)): print(f.state, '|', f.problem, '|', f.rtt)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "not measured | not permitted | None\n" * 2, done.stderr


@needs_root
def test_ping_groups_are_enough_without_raw_sockets() -> None:
    name = f"gp-ping{os.getpid()}"
    code = (
        "import os\nfrom gpuaria.mirrors.measure.icmp import ping\nfrom gpuaria.dns.deadline import Deadline\n"
        "import icmplib, encodings.idna\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(ping(['127.0.0.1'], Deadline(10))[0].state)\n"
    )
    with namespace(name):
        run(f"ip netns exec {name} sysctl -qw net.ipv4.ping_group_range='0 2147483647'")
        command = ["ip", "netns", "exec", name, sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "measured\n", done.stderr


@needs_root
def test_no_reply_and_no_route_are_failures() -> None:
    name = f"gp-hole{os.getpid()}"
    code = (
        "from gpuaria.mirrors.measure.icmp import ping\nfrom gpuaria.dns.deadline import Deadline\n"
        "for f in ping(['10.9.9.9', '192.0.2.9'], Deadline(1.5)): print(f.state, '|', f.problem, '|', f.loss)\n"
    )
    with namespace(name):
        run(f"ip -n {name} link add hole type veth peer name far; ip -n {name} link set far up")
        run(f"ip -n {name} link set hole up; ip -n {name} addr add 10.9.9.1/24 dev hole")
        run(f"ip -n {name} neigh add 10.9.9.9 lladdr 02:00:00:00:00:09 dev hole")
        command = ["ip", "netns", "exec", name, sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "failed | no reply to 2 pings | 1.0\nfailed | no route to host | None\n", done.stderr


def test_pings_without_time_are_not_measured() -> None:
    if ROOT:
        assert ping(["127.0.0.1"], Deadline(0))[0].problem == "no time left"


def run(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


@contextmanager
def namespace(name: str) -> Iterator[None]:
    try:
        run(f"ip netns add {name}; ip -n {name} link set lo up")
    except subprocess.CalledProcessError:
        pytest.skip("no network namespaces here")
    try:
        yield
    finally:
        run(f"ip netns del {name}")


# --- servers ------------------------------------------------------------------------------------------------------


@contextmanager
def server(
    handle: Callable[[socket.socket], None] = lambda line: None, host: str = "127.0.0.1", port: int = 0
) -> Iterator[int]:
    """Accept connections; handle each with `handle` on a separate thread."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as sock:

        def one(line: socket.socket) -> None:
            with line, suppress(OSError, ssl.SSLError):
                handle(line)

        def loop() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(sock.accept()[0],), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        yield sock.getsockname()[1]
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def black_hole(host: str = "127.0.0.77", port: int = 0) -> Iterator[int]:
    """Return a port that never answers a SYN: its backlog of one is full, and no connection is accepted."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        time.sleep(0.05)
        yield sock.getsockname()[1]


def test_connect_times_and_refusals_are_distinguished() -> None:
    with server() as port:
        found, tls = tcp.measure(Route("h", port, False), ["127.0.0.1", "127.0.0.2"], PLAIN, Deadline(10))
    assert [(f.address, f.port, f.state) for f in found] == [
        ("127.0.0.1", port, "measured"),
        ("127.0.0.2", port, "failed"),
    ]
    assert found[0].seconds is not None
    assert found[1].problem == "connection refused"
    assert tls == ()


def test_the_order_of_happy_eyeballs() -> None:
    assert tcp.happy_eyeballs(["1.1.1.1", "1.1.1.2", "1.1.1.1", "::1", "::2", "::3"]) == (
        *("::1", "1.1.1.1", "::2", "1.1.1.2", "::3"),
    )
    assert tcp.happy_eyeballs([]) == ()


def test_a_black_hole_does_not_delay_the_others() -> None:
    stood: list[str] = []
    with black_hole() as port, server(port=port):
        addresses = ["127.0.0.77", "127.0.0.1"]
        found, _ = tcp.measure(Route("h", port, False), addresses, PLAIN, Deadline(0.8), stood.append)
        with tcp.connect(Route("h", port, False), addresses, PLAIN, Deadline(30)).sock or socket.socket() as line:
            assert line.getpeername()[0] == "127.0.0.1"
    assert stood == ["127.0.0.1"]
    assert [(f.address, f.state, f.problem) for f in found] == [
        ("127.0.0.77", "failed", "no response"),
        ("127.0.0.1", "measured", ""),
    ]


def test_a_silent_address_gets_a_second_attempt() -> None:
    """As after a lost SYN: by then the backlog has room again."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock, ExitStack() as stack:
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        time.sleep(0.05)

        def empty_the_queue() -> None:
            time.sleep(0.12)
            with suppress(OSError):
                while True:
                    stack.enter_context(sock.accept()[0])

        BackgroundCall(empty_the_queue)
        line = tcp.connect(Route("h", sock.getsockname()[1], False), ["127.0.0.1"], PLAIN, Deadline(30))
        line.close()
        sock.shutdown(socket.SHUT_RDWR)
    assert line.tcp.seconds is not None
    assert line.tcp.seconds < 0.9  # the kernel resends the SYN of the first attempt after a second


def test_a_failed_connection_gives_every_reason_once() -> None:
    with black_hole() as port, pytest.raises(NetworkError, match="connection refused"):
        tcp.connect(Route("h", port, False), ["127.0.0.1", "127.0.0.2"], PLAIN, Deadline(10))


def test_without_time_nothing_is_tried() -> None:
    found, tls = tcp.measure(Route("h", 9, True), ["127.0.0.1"], PLAIN, Deadline(0))
    assert (found[0].state, found[0].problem, tls[0].state) == ("not measured", "no time left", "not measured")


# --- tls ----------------------------------------------------------------------------------------------------------


class Authority:
    """An OpenSSL certificate authority in a folder."""

    _KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    _OLD = (
        "-startdate 20200101000000Z -enddate 20200201000000Z"  # x509 of OpenSSL 3.0 cannot make an expired certificate
    )
    _CONFIG = """[ca]
default_ca = it
[it]
database = index
new_certs_dir = .
default_md = sha256
policy = any
rand_serial = yes
unique_subject = no
[any]
commonName = supplied
"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run(f"req -x509 {self._KEY} -days 9 -subj /CN=ca -keyout ca.key -out ca.pem")
        self.context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        (folder / "config").write_text(self._CONFIG)
        (folder / "index").write_text("")

    def _run(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name: str, *, expired: bool = False, own: bool = False) -> ssl.SSLContext:
        """Return a server context with a certificate for `name`; expired, or self-signed with `own`."""
        key = f"{name}{expired:d}{own:d}"
        (self.folder / "ext").write_text(f"subjectAltName=DNS:{name}\n")
        self._run(f"req {self._KEY} -subj /CN={name} -keyout {key}.key -out {key}.csr")
        if own:
            self._run(f"x509 -req -in {key}.csr -key {key}.key -days 5 -extfile ext -out {key}.pem")
        else:
            dates = self._OLD if expired else "-days 5"
            signer = "-config config -cert ca.pem -keyfile ca.key"
            self._run(f"ca -batch -notext {signer} -in {key}.csr {dates} -extfile ext -out {key}.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{key}.pem", self.folder / f"{key}.key")
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def shake(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def handle(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as secure:
            secure.recv(1)

    return handle


def test_a_handshake_gives_version_and_time(authority: Authority) -> None:
    with server(shake(authority.issue("good.test"))) as port:
        found, tls = tcp.measure(Route("good.test", port, True), ["127.0.0.1"], authority.context, Deadline(10))
    assert found[0].state == "measured"
    assert (tls[0].state, tls[0].version, tls[0].problem) == ("measured", "TLSv1.3", "")
    assert tls[0].seconds is not None


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("good.test", {"expired": True}, "expired"),
        ("other.test", {}, "not valid for 'good.test'"),
        ("good.test", {"own": True}, "self-signed"),
    ],
)
def test_a_bad_certificate_is_a_separate_finding(
    authority: Authority, name: str, options: dict[str, bool], says: str
) -> None:
    with server(shake(authority.issue(name, **options))) as port:
        found, tls = tcp.measure(Route("good.test", port, True), ["127.0.0.1"], authority.context, Deadline(10))
    assert found[0].state == "measured"
    assert (tls[0].state, tls[0].seconds) == ("failed", None)
    assert says in tls[0].certificate_problem
    assert tls[0].certificate_problem in tls[0].problem


def test_a_server_without_tls_is_not_a_certificate_problem() -> None:
    with server(lambda line: line.sendall(b"SSH-2.0-nothing\r\n")) as port:
        _, tls = tcp.measure(Route("good.test", port, True), ["127.0.0.1"], PLAIN, Deadline(10))
    assert (tls[0].state, tls[0].certificate_problem) == ("failed", "")
    assert tls[0].problem.startswith("no TLS")


def test_a_server_that_accepts_and_does_not_respond_fails_in_tls() -> None:
    with server(lambda line: time.sleep(5)) as port:
        line = tcp.attempt_connection(Route("good.test", port, True), "127.0.0.1", PLAIN, Deadline(0.5))
    assert line.tls is not None
    assert (line.tcp.state, line.tls.state, line.sock) == ("measured", "failed", None)


# --- proxies ------------------------------------------------------------------------------------------------------


def tunnel(
    seen: list[bytes], answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", target: int = 0
) -> Callable[[socket.socket], None]:
    """Run a proxy that connects every CONNECT to a port on loopback."""

    def handle(line: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += line.recv(4096)
        seen.append(head)
        line.sendall(answer)
        with socket.create_connection(("127.0.0.1", target)) as far:
            BackgroundCall(lambda: copy(far, line))
            copy(line, far)

    return handle


def copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)


def test_tls_is_measured_through_the_proxy_by_name_without_showing_its_password(authority: Authority) -> None:
    seen: list[bytes] = []
    with server(shake(authority.issue("good.test"))) as port, server(tunnel(seen, target=port)) as through:
        there = route("https://good.test/x", {"https_proxy": f"http://me:s%3Acret@127.0.0.1:{through}"})
        found, tls = tcp.measure(there, [], authority.context, Deadline(10))
    assert (found[0].address, found[0].port, found[0].state) == ("good.test", 443, "measured")
    assert tls[0].state == "measured"
    assert seen[0].startswith(b"CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n")
    assert b"Proxy-Authorization: Basic bWU6czpjcmV0\r\n" in seen[0]
    assert "cret" not in repr(there)
    assert str(there.proxy) == f"127.0.0.1:{through}"


def test_a_proxy_that_rejects_is_reported(authority: Authority) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    with server(tunnel([], refusal)) as through:
        there = Route("good.test", 443, True, Proxy("http", "127.0.0.1", through))
        found, tls = tcp.measure(there, [], authority.context, Deadline(10))
    assert found[0].state == "failed"
    assert found[0].problem == (
        f"the proxy 127.0.0.1:{through}: refuses a tunnel to good.test: 407 Proxy Authentication Required"
    )
    assert tls == ()


def test_an_unsupported_proxy_is_not_used_for_measurements() -> None:
    there = route("https://good.test", {"ALL_PROXY": "socks5h://127.0.0.1"})
    found, tls = tcp.measure(there, [], PLAIN, Deadline(10))
    assert (found[0].state, tls[0].state) == ("not measured", "not measured")
    assert "socks5h" in found[0].problem
    assert there.proxy
    assert there.proxy.port == 1080


@pytest.mark.parametrize(
    ("environ", "host", "expected"),
    [
        ({}, "a.org", None),
        ({"https_proxy": "p:3128"}, "a.org", "p:3128"),
        ({"HTTPS_PROXY": "http://p:3128/"}, "a.org", "p:3128"),
        ({"HTTPS_PROXY": "p:1", "https_proxy": "q:2"}, "a.org", "q:2"),
        ({"HTTPS_PROXY": "p:1", "https_proxy": ""}, "a.org", None),
        ({"http_proxy": "p:1"}, "a.org", None),
        ({"all_proxy": "http://[::1]:3"}, "a.org", "[::1]:3"),
        ({"https_proxy": "p:1", "no_proxy": "b.org,.a.org"}, "x.a.org", None),
        ({"https_proxy": "p:1", "NO_PROXY": "*"}, "a.org", None),
        ({"https_proxy": "p:1", "no_proxy": "b.org"}, "a.org", "p:1"),
    ],
)
def test_the_choice_of_a_proxy(environ: dict[str, str], host: str, expected: str | None) -> None:
    found = proxy_for("https", host, 443, environ)
    assert (str(found) if found else None) == expected


def test_http_proxy_is_not_taken_from_a_cgi_request() -> None:
    assert proxy_for("http", "a.org", 80, {"HTTP_PROXY": "p:1"}) is not None
    assert proxy_for("http", "a.org", 80, {"HTTP_PROXY": "p:1", "REQUEST_METHOD": "GET"}) is None


@pytest.mark.parametrize("url", ["ftp://a.org/x", "/only/a/path", "https:///x", "https://a:99999/"])
def test_invalid_http_urls(url: str) -> None:
    with pytest.raises(ValueError):
        route(url, {})
