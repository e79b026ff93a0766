"""Resolvers over real packets: correct, false, slow, truncated, without UDP, over TLS and HTTPS."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuaria.dns import false_answers as rules
from gpuaria.dns.deadline import Deadline
from gpuaria.dns.findings import DnsAnswer, TlsFinding
from gpuaria.dns.resolvers import Resolvers, mark_lies
from gpuaria.dns.server import parse_server
from gpuaria.errors import ConfigError, NetworkError
from gpuaria.mirrors.measure.survey import Tools, survey
from gpuaria.paths import SafePath
from gpuaria.records import Mirror, RemoteFile
from tests.support.clock import FakeClock
from tests.support.nameserver import NameServer, Zone

HOST = "hub.example-models.com"
PUBLIC, OTHER, SIX = "93.184.216.34", "151.101.1.69", "2606:4700::6810:84e5"


def ask(resolvers: Resolvers, host: str = HOST, *, seconds: float = 10, settle: float = 10) -> tuple[DnsAnswer, ...]:
    return resolvers.query(host, Deadline(seconds), settle=settle)


def of(answers: tuple[DnsAnswer, ...], spec: str, family: int = 4) -> DnsAnswer:
    return next(a for a in answers if a.resolver == spec and a.family == family)


# --- one resolver -------------------------------------------------------------------------------------------------


def test_both_address_families_with_time_and_ttl() -> None:
    with NameServer({HOST: [PUBLIC, SIX]}, ttl=77) as server:
        answers = ask(Resolvers([server.spec], system=False))
    four, six = of(answers, server.spec), of(answers, server.spec, 6)
    assert (four.state, four.addresses, four.ttl, four.lies) == ("measured", (PUBLIC,), 77.0, ())
    assert (six.state, six.addresses) == ("measured", (SIX,))
    assert four.seconds is not None
    assert 0 < four.seconds < 5
    assert sorted(server.asked) == [("udp", "A"), ("udp", "AAAA")]


def test_a_name_without_ipv6_is_a_valid_response() -> None:
    with NameServer({HOST: [PUBLIC]}) as server:
        resolvers = Resolvers([server.spec], system=False)
        answers = ask(resolvers)
    assert (of(answers, server.spec, 6).state, of(answers, server.spec, 6).addresses) == ("measured", ())
    assert resolvers.usable(answers) == (PUBLIC,)


def test_the_ttl_is_the_smallest_in_the_chain() -> None:
    with NameServer({HOST: [PUBLIC]}, ttl=100, alias="edge.example.net") as server:
        assert of(ask(Resolvers([server.spec], system=False)), server.spec).ttl == 50


@pytest.mark.parametrize("how", [{"truncate": True}, {"udp": False}])
def test_tcp_is_used_if_udp_is_truncated_or_blocked(how: dict[str, bool]) -> None:
    with NameServer({HOST: [PUBLIC]}, **how) as server:  # type: ignore[arg-type]
        answers = ask(Resolvers([server.spec], system=False))
    assert of(answers, server.spec).addresses == (PUBLIC,)
    assert ("tcp", "A") in server.asked


@pytest.mark.parametrize(("rcode", "text"), [(dns.rcode.SERVFAIL, "returned SERVFAIL"), (dns.rcode.REFUSED, "REFUSED")])
def test_an_error_code_is_a_failure_with_its_name(rcode: int, text: str) -> None:
    with NameServer({HOST: [PUBLIC]}, rcode=rcode) as server:
        found = of(ask(Resolvers([server.spec], system=False)), server.spec)
    assert (found.state, found.seconds) == ("failed", None)
    assert text in found.problem


def test_the_system_resolver_reads_etc_hosts_and_a_private_name_is_not_false() -> None:
    resolvers = Resolvers()
    answers = ask(resolvers, "localhost")
    assert "127.0.0.1" in resolvers.usable(answers)
    assert not resolvers.liars


def test_an_ip_address_needs_no_resolver() -> None:
    assert ask(Resolvers(["192.0.2.53"]), "127.0.0.1") == ()
    assert ask(Resolvers(["192.0.2.53"]), "[::1]") == ()


@pytest.mark.parametrize(
    ("spec", "way", "host", "port"),
    [
        ("8.8.8.8", "plain", "8.8.8.8", 53),
        ("127.0.0.1:5353", "plain", "127.0.0.1", 5353),
        ("2606:4700::1111", "plain", "2606:4700::1111", 53),
        ("[::1]:5353", "plain", "::1", 5353),
        ("tls://1.1.1.1", "tls", "1.1.1.1", 853),
        ("tls://[::1]:8853", "tls", "::1", 8853),
        ("https://1.1.1.1/dns-query", "https", "1.1.1.1", 443),
        ("System", "system", "", 53),
    ],
)
def test_valid_resolver_settings(spec: str, way: str, host: str, port: int) -> None:
    server = parse_server(spec)
    assert (server.transport, server.host, server.port) == (way, host, port)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "dns.google",
        "8.8.8.8:0",
        "8.8.8.8:x",
        "tls://one.one",
        "https://",
        "[::1]x",
        "[::1",
        "[8.8.8.8",
        "8.8.8.8]:53",
    ],
)
def test_invalid_resolver_settings(spec: str) -> None:
    with pytest.raises(ConfigError, match="is not a DNS server"):
        Resolvers([spec])


# --- encrypted ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a self-signed certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=resolver", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True)
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return folder / "both"


@contextmanager
def doh(zone: Zone, context: ssl.SSLContext) -> Iterator[tuple[str, NameServer]]:
    """Serve DNS over HTTPS: the responses of a NameServer to POST."""
    names = NameServer(zone)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = names.reply(self.rfile.read(int(self.headers["content-length"])), "https")
            self.send_response(200 if self.path == "/dns-query" else 404)
            self.send_header("content-type", "application/dns-message")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *rest: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *rest: object) -> None:
            pass

    with names, Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}/dns-query", names
        server.shutdown()


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_dns_over_tls_and_https_with_a_trusted_certificate(certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    zone: Zone = {HOST: [PUBLIC, SIX]}
    with NameServer(zone, context=serving(certificate)) as dot, doh(zone, serving(certificate)) as (url, names):
        spec = f"tls://{dot.spec}"
        answers = ask(Resolvers([spec, url], system=False, context=trusting))
    assert [of(answers, s, f).addresses for s in (spec, url) for f in (4, 6)] == [(PUBLIC,), (SIX,)] * 2
    assert {way for way, _ in dot.asked} == {"tls"}
    assert {way for way, _ in names.asked} == {"https"}


def test_a_resolver_with_an_untrusted_certificate_is_reported_and_ignored(certificate: Path) -> None:
    zone: Zone = {HOST: [PUBLIC]}
    with NameServer(zone, context=serving(certificate)) as dot, doh(zone, serving(certificate)) as (url, _):
        spec = f"tls://{dot.spec}"
        answers = ask(Resolvers([spec, url], system=False, context=ssl.create_default_context()))
    for one in answers:
        assert (one.state, one.addresses) == ("failed", ())
        assert "certificate cannot be trusted" in one.problem
    assert not dot.asked


def test_doh_with_404_is_a_failure(certificate: Path) -> None:
    with doh({HOST: [PUBLIC]}, serving(certificate)) as (url, _):
        wrong = url.replace("dns-query", "wrong")
        trusting = ssl.create_default_context(cafile=str(certificate))
        found = of(ask(Resolvers([wrong], system=False, context=trusting)), wrong)
    assert found.state == "failed"
    assert "404" in found.problem


# --- several ------------------------------------------------------------------------------------------------------


@contextmanager
def several(*zones: Zone, **options: Any) -> Iterator[tuple[Resolvers, list[NameServer]]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(NameServer(zone)) for zone in zones]
        yield Resolvers([s.spec for s in servers], system=False, **options), servers


@pytest.mark.parametrize("lie", ["10.1.2.3", "127.0.0.1", "0.0.0.0", "203.0.113.7", "169.254.1.1", "240.0.0.1"])
def test_a_resolver_with_a_special_address_for_a_public_name_is_shown_and_disabled(lie: str) -> None:
    with several({HOST: [lie], "b.example.org": [PUBLIC]}, {HOST: [OTHER], "b.example.org": [OTHER]}) as (it, servers):
        answers = ask(it)
        liar = of(answers, servers[0].spec)
        assert liar.lies
        assert lie in liar.lies[0]
        assert it.usable(answers) == (OTHER,)
        assert list(it.liars) == [servers[0].spec]
        before = len(servers[0].asked)
        later = ask(it, "b.example.org")
        assert len(servers[0].asked) == before
        assert of(later, servers[0].spec).state == "not measured"
        assert "false answers" in of(later, servers[0].spec).problem
        assert it.usable(later) == (OTHER,)


def test_an_earlier_response_of_a_false_resolver_is_not_used() -> None:
    with several({HOST: ["10.1.2.3"], "b.example.org": [PUBLIC]}, {"b.example.org": [OTHER]}) as (it, _):
        earlier = ask(it, "b.example.org")
        assert set(it.usable(earlier)) == {PUBLIC, OTHER}
        ask(it)
        assert it.usable(earlier) == (OTHER,)


def test_nxdomain_against_a_majority_is_false_but_one_against_one_is_not() -> None:
    with several({}, {HOST: [PUBLIC]}, {HOST: [OTHER]}) as (it, servers):
        answers = ask(it)
        assert "does not exist" in of(answers, servers[0].spec).lies[0]
        assert set(it.usable(answers)) == {PUBLIC, OTHER}
    with several({}, {HOST: [PUBLIC]}) as (it, _):
        answers = ask(it)
        assert not it.liars
        assert it.usable(answers) == (PUBLIC,)


def test_different_addresses_elsewhere_are_not_false() -> None:
    with several({HOST: [PUBLIC]}, {HOST: [OTHER]}, {HOST: [PUBLIC, SIX]}) as (it, _):
        answers = ask(it)
        assert not it.liars
        assert it.usable(answers) == (PUBLIC, OTHER, SIX)


def test_a_silent_resolver_delays_no_other() -> None:
    with NameServer({HOST: [PUBLIC]}) as good, NameServer({HOST: [OTHER]}, mute=threading.Event()) as slow:
        it = Resolvers([slow.spec, good.spec], system=False)
        answers = it.query(HOST, Deadline(30))
        found = of(answers, slow.spec)
        assert it.usable(answers) == (PUBLIC,)
    assert (found.state, found.seconds) == ("not measured", None)
    assert "slower than the other resolvers" in found.problem


def test_a_resolver_without_a_response_in_time_has_failed() -> None:
    with NameServer({HOST: [PUBLIC]}, mute=threading.Event()) as slow:
        answers = Resolvers([slow.spec], system=False).query(HOST, Deadline(60))
    assert {(a.state, a.problem) for a in answers} == {("failed", "does not respond")}


def test_without_time_there_is_no_verdict() -> None:
    with NameServer({HOST: [PUBLIC]}, mute=threading.Event()) as slow:
        answers = Resolvers([slow.spec], system=False).query(HOST, Deadline(0))
    assert {(a.state, a.problem) for a in answers} == {("not measured", "no time left")}


def test_the_cache_respects_the_ttl() -> None:
    clock = FakeClock()
    with NameServer({HOST: [PUBLIC, SIX]}, ttl=60) as server:
        it = Resolvers([server.spec], system=False, clock=clock)
        ask(it)
        clock.advance(59)
        assert it.usable(ask(it)) == (PUBLIC, SIX)
        assert len(server.asked) == 2
        clock.advance(2)
        ask(it)
        assert len(server.asked) == 4


def test_a_ttl_of_zero_and_failures_are_not_cached() -> None:
    with NameServer({HOST: [PUBLIC]}, ttl=0) as server:
        it = Resolvers([server.spec], system=False)
        for host in (HOST, HOST, "nowhere.example.org", "nowhere.example.org"):
            ask(it, host)
        assert server.asked.count(("udp", "A")) == 4


def test_a_wrong_certificate_at_one_address_exposes_its_resolver() -> None:
    it = Resolvers([], system=False)
    answers = tuple(DnsAnswer(name, HOST, 4, "measured", (address,)) for name, address in (("a", PUBLIC), ("b", OTHER)))
    wrong = TlsFinding(OTHER, "failed", problem="x", certificate_problem="Hostname mismatch")
    assert (
        it.mark_certificate_lies(answers, [wrong]) == answers
    )  # no correct address to compare: perhaps the mirror's own fault
    marked = it.mark_certificate_lies(answers, [wrong, TlsFinding(PUBLIC, "measured", 0.1, "TLSv1.3")])
    assert [bool(a.lies) for a in marked] == [False, True]
    assert it.usable(marked) == (PUBLIC,)


# --- the rules ----------------------------------------------------------------------------------------------------


def answer(name: str, *addresses: str, problem: str = "") -> DnsAnswer:
    return DnsAnswer(name, HOST, 4, "failed" if problem else "measured", addresses, problem=problem)


def test_the_system_may_know_an_internal_name() -> None:
    inside, outside = answer("system", "10.2.3.4"), answer("8.8.8.8", problem="NXDOMAIN")
    assert not any(a.lies for a in mark_lies([inside, outside]))
    assert mark_lies([inside, answer("8.8.8.8", problem="does not respond")])[0].lies
    assert mark_lies([inside, answer("8.8.8.8", PUBLIC)])[0].lies
    assert mark_lies([answer("8.8.8.8", "10.2.3.4"), answer("system", problem="NXDOMAIN")])[0].lies


def test_fake_addresses_of_a_local_proxy_are_a_last_resort() -> None:
    it = Resolvers([], system=False)
    fake, real = answer("system", "198.18.0.9"), answer("8.8.8.8", PUBLIC)
    assert "local proxy" in mark_lies([fake])[0].lies[0]
    assert it.usable(mark_lies([fake])) == ("198.18.0.9",)
    assert it.usable(mark_lies([fake, real])) == (PUBLIC,)


@given(st.ip_addresses())
@example(ipaddress.ip_address("2002:100::"))
@example(ipaddress.ip_address("2002:a00:1::"))
def test_a_public_name_never_has_a_non_global_address(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if isinstance(ip, ipaddress.IPv6Address) and ip.sixtofour:  # judged by the embedded address
        assert bool(rules.special_range(str(ip))) == bool(rules.special_range(str(ip.sixtofour)))
    elif not ip.is_global:
        assert rules.why_false(str(ip), HOST)
    elif ip.version == 4 and not ip.is_multicast:
        assert not rules.why_false(str(ip), HOST)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_counts(ip: ipaddress.IPv4Address) -> None:
    for outer in (f"::ffff:{ip}", f"64:ff9b::{ip}"):
        assert bool(rules.special_range(outer)) == bool(rules.special_range(str(ip)))


@given(st.sampled_from(["10.0.0.0/8", "192.168.0.0/16", "fc00::/7", "127.0.0.0/8", "fe80::/10"]), st.data())
def test_a_private_name_may_have_a_private_address_but_no_name_an_unspecified_one(
    net: str, data: st.DataObject
) -> None:
    network = ipaddress.ip_network(net)
    ip = network[data.draw(st.integers(0, min(network.num_addresses, 2**64) - 1))]
    for host in ("localhost", "mirror", "mirror.lan", "m.local", "a.internal", "lab.test", "10.0.0.1", "x.home.arpa"):
        assert not rules.why_false(str(ip), host)
        assert rules.why_false("0.0.0.0", host)
    for host in (HOST, "local.example.com", "lan", "test.org"):
        assert bool(rules.why_false(str(ip), host)) == (host != "lan")


@pytest.mark.parametrize("address", ["224.0.0.1", "ff02::1", "::1", "2001:db8::1", "fec0::1", "100.64.0.1", "3fff::1"])
def test_special_addresses(address: str) -> None:
    assert rules.special_range(address)
    assert rules.why_false(address, HOST)


# --- in a survey --------------------------------------------------------------------------------------------------


@contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refuse(mirror: Mirror) -> None:
    raise NetworkError("refused by the test")


def survey_one(base: str, resolvers: Resolvers, lookup: Callable[[Mirror], Any] = refuse) -> Any:
    tools = Tools(lookup, resolvers, ssl.create_default_context(), pings=False)
    return survey([Mirror("m", base)], "0" * 40, RemoteFile(SafePath("w.bin"), 1, None), tools, budget=5)[0]


def test_failover_between_resolvers_gives_a_connection() -> None:
    zone = {"mirror.test": ["127.0.0.1"]}
    with NameServer({}, rcode=dns.rcode.SERVFAIL) as broken, NameServer(zone) as good, listener() as port:
        found = survey_one(f"http://mirror.test:{port}", Resolvers([broken.spec, good.spec], system=False))
    assert found.addresses == ("127.0.0.1",)
    assert found.tcp[0].state == "measured"
    assert found.failed == ("lookup", "refused by the test")


def test_only_false_addresses_are_a_dns_failure_without_a_connection() -> None:
    looked: list[Mirror] = []
    with NameServer({HOST: ["127.0.0.1"]}) as liar, listener() as port:
        found = survey_one(f"http://{HOST}:{port}", Resolvers([liar.spec], system=False), looked.append)
    assert found.failed[0] == "dns"
    assert "127.0.0.1 is a loopback address" in found.failed[1]
    assert (found.tcp, found.addresses, looked) == ((), (), [])
    assert found.bytes.problem == f"no IP address found for {HOST}"
