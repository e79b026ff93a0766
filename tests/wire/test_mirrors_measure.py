"""Ranged reads of real files from the stand-in hub, freshness, and whole surveys."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gpuaria.dns.deadline import Deadline
from gpuaria.dns.resolvers import Resolvers
from gpuaria.errors import FileNotInRepo, GpuariaError, Interrupted, NetworkError
from gpuaria.mirrors.measure.connection import TimedConnection
from gpuaria.mirrors.measure.findings import BytesFinding, MirrorFindings, read
from gpuaria.mirrors.measure.freshness import compare
from gpuaria.mirrors.measure.sample import sample
from gpuaria.mirrors.measure.stream import SampleLimits
from gpuaria.mirrors.measure.survey import Reads, Tools, survey
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Mirror, RemoteFile, to_json
from gpuaria.sources.huggingface import HuggingFace
from gpuaria.sources.protocol import Stated
from standin import Hub, Repo
from tests.support.ports import closed_port

NAME, PATH, SIZE = "org/model", "model.safetensors", 24 << 20
CONTEXT = ssl.create_default_context()
LIMITS = SampleLimits(seconds=5, ceiling=4 << 20)
ONE = (1,)
HF = HuggingFace()


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    data = random.Random(3).randbytes(SIZE)
    return Repo.build(NAME, {PATH: data, "config.json": b"{}"}, folder=tmp_path_factory.mktemp("store"))


@pytest.fixture
def hub(repo: Repo) -> Iterator[Hub]:
    with Hub([repo], server="embedded") as hub:
        yield hub
        assert not hub.errors


@pytest.fixture(scope="module")
def wanted(repo: Repo) -> RemoteFile:
    entry = repo.commits[repo.head].files[PATH]
    assert entry.sha256 is not None
    return RemoteFile(SafePath(PATH), SIZE, Digest("sha256", entry.sha256), entry.oid)


def address(hub: Hub) -> tuple[str, Mapping[str, str]]:
    """Send one HEAD without following its redirect."""
    with httpx2.Client(trust_env=False, timeout=20) as client:
        answer = client.head(f"{hub.url}/{NAME}/resolve/main/{PATH}")
    if answer.status_code != 302:
        raise NetworkError(f"{hub.url} answers {answer.status_code}")
    return str(answer.headers["location"]), {k.lower(): v for k, v in answer.headers.items()}


def straight(seconds: float = 60, environ: Mapping[str, str] | None = None) -> TimedConnection:
    return TimedConnection(lambda host: ("127.0.0.1",), CONTEXT, environ or {}, Deadline(seconds))


def take(url: str, *, seconds: float = 60, size: int | None = SIZE, connections: tuple[int, ...] = ONE) -> BytesFinding:
    return sample(url, straight(seconds), Deadline(seconds), size=size, connections=connections, limits=LIMITS)


# --- a sound mirror -----------------------------------------------------------------------------------------------


def test_one_request_from_the_middle_of_the_file(hub: Hub) -> None:
    url, _ = address(hub)
    found = take(url)
    middle = SIZE // 2
    assert [seen.headers["range"] for seen in hub.cdn.requests] == [f"bytes={middle}-{middle + (4 << 20) - 1}"]
    assert "authorization" not in hub.cdn.requests[0].headers
    assert (found.state, found.status, found.ranges, found.size, found.problem) == ("measured", 206, True, SIZE, "")
    assert (found.bytes, found.peer, found.final_host) == (4 << 20, "127.0.0.1", url.split("/")[2])
    assert all(x is not None and x > 0 for x in (found.connect, found.first_byte, found.seconds, found.rate))
    assert found.handshake is None
    assert "Signature" not in json.dumps(to_json(found))


def test_several_connections_read_separate_ranges(hub: Hub) -> None:
    url, _ = address(hub)
    found = take(url, connections=(1, 4))
    assert [(r.connections, r.bytes) for r in found.rates] == [(1, 4 << 20), (4, 8 << 20)]
    starts = {seen.headers["range"] for seen in hub.cdn.requests}
    assert len(starts) == hub.cdn.count()


def test_capped_connections_scale_with_their_number(repo: Repo) -> None:
    with Hub([repo], server="embedded", limit_rate=2 << 20) as hub:
        found = sample(
            *(address(hub)[0], straight(), Deadline(60)),
            size=SIZE,
            connections=(1, 4),
            limits=SampleLimits(1.0, 1 << 20),
        )
    assert found.rate is not None
    assert found.rate < 3 << 20
    assert found.rates[-1].tail > 2 * found.rates[0].tail


def test_a_slow_mirror_gets_a_short_read_and_a_correct_rate(hub: Hub) -> None:
    url, _ = address(hub)
    hub.cdn.fault(PATH, "slow", rate=200_000)
    found = sample(url, straight(), Deadline(60), size=SIZE, connections=(1, 4), limits=SampleLimits(1.0))
    assert found.state == "measured"
    assert found.rate is not None
    assert 100_000 < found.rate < 300_000
    assert found.bytes < 400_000
    assert hub.cdn.requests[0].sent < 2 << 20


def test_a_small_file_is_read_whole_and_an_empty_one_not_at_all(hub: Hub, tmp_path: Path) -> None:
    hub.add(Repo.build("o/small", {"w.bin": b"x" * 5000}, folder=tmp_path))
    with httpx2.Client(trust_env=False) as client:
        url = str(client.head(f"{hub.url}/o/small/resolve/main/w.bin").headers["location"])
    found = take(url, size=5000)
    assert (found.state, found.bytes, found.ranges, found.size) == ("measured", 5000, True, 5000)
    assert found.rate is not None
    assert take(url, size=0).problem == "the file is empty"


def test_without_time_nothing_is_sent(hub: Hub) -> None:
    url, _ = address(hub)
    found = take(url, seconds=0)
    assert (found.state, found.problem, hub.cdn.count()) == ("not measured", "no time left", 0)


# --- unsound ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "says"),
    [
        ("html", {}, "returned HTTP 200 with a web page instead of the file"),
        ("status", {"status": 503, "retry_after": 120}, "returned HTTP 503 and asks to wait 120 s"),
        ("status", {"status": 404}, "returned HTTP 404"),
        ("expire", {}, "returned HTTP 403"),
        ("wrong_size", {"delta": -5}, f"declares {SIZE - 5:,} bytes for the file, not {SIZE:,}"),
        ("short", {"after": 100_000}, "closed the connection"),
        ("reset", {"after": 0}, "reset by peer"),
    ],
)
def test_faults_have_their_reasons(hub: Hub, fault: str, options: dict[str, Any], says: str) -> None:
    url, _ = address(hub)
    hub.cdn.fault(PATH, fault, **options)
    found = take(url, connections=(1, 4))
    assert found.state == "failed"
    assert says in found.problem
    assert found.retry_after == options.get("retry_after")
    assert hub.cdn.count() == 1


def test_a_mirror_that_ignores_ranges_is_measured_and_reported(hub: Hub) -> None:
    url, _ = address(hub)
    hub.cdn.fault(PATH, "ignore_range")
    found = take(url, connections=(1, 4))
    assert (found.state, found.status, found.ranges, found.size) == ("measured", 200, False, SIZE)
    assert 4 << 20 <= found.bytes < SIZE
    assert hub.cdn.count() == 1  # more connections would each get the whole file


def test_a_stall_is_a_failure_after_the_received_bytes(hub: Hub) -> None:
    url, _ = address(hub)
    hub.cdn.fault(PATH, "stall", after=100_000)
    found = sample(url, straight(), Deadline(60), size=SIZE, connections=ONE, limits=SampleLimits(seconds=0.6))
    assert (found.state, found.bytes, found.problem) == ("failed", 100_000, "stalled after 100,000 bytes")


def raw(answer: bytes, seen: list[bytes] | None = None, pause: float = 0) -> Callable[[socket.socket], None]:
    def handle(line: socket.socket) -> None:
        head = line.recv(65536)
        if seen is not None:
            seen.append(head)
        line.sendall(answer)
        time.sleep(pause)

    return handle


@contextmanager
def server(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def one(line: socket.socket) -> None:
            with line, suppress(OSError):
                handle(line)

        def loop() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(sock.accept()[0],), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "endless headers"),
        (b"HTTP/1.1 206 P\r\ncontent-range: bytes 5-9/999\r\ncontent-length: 5\r\n\r\n12345", "another range"),
        (b"HTTP/1.1 206 P\r\ncontent-length: 5\r\n\r\n12345", "another range"),
        (b"HTTP/1.1 302 F\r\nlocation: ftp://x/y\r\n\r\n", "redirects to ftp://x"),
        (b"HTTP/1.1 302 F\r\nlocation: ?again\r\n\r\n", "redirects in a loop"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>", "captive portal"),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", "returned HTTP 429 and asks to wait 7 s"),
    ],
)
def test_broken_responses(answer: bytes, says: str) -> None:
    with server(raw(answer)) as base:
        found = take(f"{base}/x", size=None)
    assert found.state == "failed"
    assert says in found.problem


def test_slow_response_headers_end_at_the_deadline() -> None:
    def drip(line: socket.socket) -> None:
        line.recv(65536)
        line.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(400):
            line.sendall(b"x")
            time.sleep(0.05)

    with server(drip) as base:
        found = take(f"{base}/x", seconds=0.5)
    assert (found.state, found.problem) == ("failed", "no response")


def test_a_chunked_response_without_a_length_gives_a_rate() -> None:
    body = b"".join(b"10000\r\n" + b"z" * 65536 + b"\r\n" for _ in range(8)) + b"0\r\n\r\n"
    with server(raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)) as base:
        found = take(f"{base}/x", size=None)
    assert (found.state, found.ranges, found.size) == ("measured", False, None)
    assert found.bytes == len(body)


def test_plain_http_uses_the_proxy_with_absolute_urls() -> None:
    seen: list[bytes] = []
    answer = b"HTTP/1.1 206 P\r\ncontent-range: bytes 0-4/5\r\ncontent-length: 5\r\n\r\n12345"
    with server(raw(answer, seen)) as base:
        environ = {"http_proxy": base.replace("//", "//u:p@")}
        found = sample("http://far.example/f?sig=1", straight(60, environ), Deadline(60), size=5, connections=ONE)
    assert seen[0].startswith(b"GET http://far.example/f?sig=1 HTTP/1.1\r\nhost: far.example\r\n")
    assert b"proxy-authorization: Basic dTpw\r\n" in seen[0]
    assert (found.state, found.bytes, found.peer, found.final_host) == ("measured", 5, "", "far.example")


# --- fresh --------------------------------------------------------------------------------------------------------


COMMIT, HEX = "a" * 40, "5" * 64
FILE = RemoteFile(SafePath("w.bin"), 100, Digest("sha256", HEX), "b" * 40)


@pytest.mark.parametrize(
    ("commit", "size", "etag", "verdict", "says"),
    [
        (COMMIT, "100", f'"{HEX}"', "fresh", ""),
        (COMMIT, "", "", "fresh", ""),
        ("", "100", f'W/"{HEX}"', "fresh", ""),
        ("c" * 40, "100", f'"{HEX}"', "stale", "serves commit cccccccccccc, not aaaaaaaaaaaa"),
        (COMMIT, "99", f'"{HEX}"', "different", "has w.bin with 99 bytes, not 100"),
        (COMMIT, "100", f'"{"6" * 64}"', "different", "has other bytes for w.bin"),
        (COMMIT, "100", '"an-etag-of-another-kind"', "fresh", ""),
        ("", "100", "", "unknown", "sends no commit id"),
        ("", "", "", "unknown", "sends no commit id"),
        ("", "lots", f'"{HEX}"', "unknown", "sends no commit id"),
        ("\x1b[31mred", "", "", "stale", "'\\x1b[31mred'"),
    ],
)
def test_freshness_verdicts(commit: str, size: str, etag: str, verdict: str, says: str) -> None:
    headers = {"x-repo-commit": commit, "x-linked-size": size, "x-linked-etag": etag}
    found = compare(HF.stated({k: v for k, v in headers.items() if v}), COMMIT, FILE)
    assert found.verdict == verdict
    assert says in found.problem
    assert (found.problem == "") == (verdict == "fresh")


# --- surveys ------------------------------------------------------------------------------------------------------


Lookup = Callable[[Mirror], Any]


def look(*hubs: Hub) -> tuple[list[Mirror], Lookup]:
    by_base = {hub.url: hub for hub in hubs}
    return [Mirror(f"m{i}", hub.url) for i, hub in enumerate(hubs)], lambda mirror: address(by_base[mirror.base])


def tools(lookup: Lookup, **options: Any) -> Tools:
    def stated(mirror: Mirror) -> tuple[str, Stated] | None:
        found = lookup(mirror)
        return (found[0], HF.stated(found[1])) if found else None

    return Tools(stated, Resolvers([]), CONTEXT, **options)


def run(
    mirrors: list[Mirror], lookup: Lookup, repo: Repo, wanted: RemoteFile, *, budget: float = 30, **options: Any
) -> tuple[MirrorFindings, ...]:
    return survey(mirrors, repo.head, wanted, tools(lookup, **options), budget, Reads(limits=LIMITS))


def test_a_survey_round_trips_through_json(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    mirrors, lookup = look(hub)
    (found,) = run(mirrors, lookup, repo, wanted)
    assert (found.mirror, found.host, found.addresses, found.failed) == ("m0", "127.0.0.1", ("127.0.0.1",), ("", ""))
    assert found.tcp[0].state == found.lookup.state == found.bytes.state == "measured"
    assert found.icmp[0].state in ("measured", "not measured")
    assert (found.fresh.verdict, found.fresh.commit, found.fresh.size) == ("fresh", repo.head, SIZE)
    assert [r.connections for r in found.bytes.rates] == [1, 4]
    text = json.dumps(to_json(found))
    assert read(MirrorFindings, json.loads(text)) == found
    assert "Signature" not in text


def test_a_stale_and_a_different_mirror_are_not_read(hub: Hub, repo: Repo, wanted: RemoteFile, tmp_path: Path) -> None:
    old = Repo.build(NAME, {PATH: b"old" * 100}, folder=tmp_path / "old")
    with Hub([old], server="embedded") as stale:
        mirrors, lookup = look(hub, stale)
        good, bad = run(mirrors, lookup, repo, wanted)
        assert stale.cdn.count() == 0
    assert good.failed == ("", "")
    assert bad.failed == ("fresh", f"serves commit {old.head[:12]}, not {repo.head[:12]}")
    assert (bad.bytes.state, bad.bytes.problem.partition(":")[0]) == ("not measured", "stale")


def test_a_captive_portal_instead_of_the_bytes(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    hub.cdn.fault(PATH, "html")
    mirrors, lookup = look(hub)
    (found,) = run(mirrors, lookup, repo, wanted)
    assert found.failed[0] == "bytes"
    assert "captive portal" in found.failed[1]


def test_two_mirrors_with_one_byte_server_are_measured_once(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    with Hub([repo], server="embedded", location_base=hub) as front, Hub([repo], server="embedded") as own:
        mirrors, lookup = look(front, own, hub)
        found = run(mirrors, lookup, repo, wanted)
    assert [f.same_pipe_as for f in found] == ["", "", "m0"]
    assert [f.bytes.state for f in found] == ["measured"] * 3
    assert found[0].bytes.rates == found[2].bytes.rates
    once = sum("measured once" in f.bytes.problem for f in found)
    assert once == 1
    assert hub.cdn.count() == 1 + 4  # the requests of one sample


def test_a_byte_server_that_fails_for_one_mirror_is_tried_for_the_other(
    hub: Hub, repo: Repo, wanted: RemoteFile
) -> None:
    hub.cdn.fault(PATH, "expire", times=1)
    with Hub([repo], server="embedded", location_base=hub) as front:
        mirrors, lookup = look(hub, front)
        found = run(mirrors, lookup, repo, wanted)
    assert sorted(f.bytes.state for f in found) == ["failed", "measured"]


def test_a_failed_stage_ends_that_mirror_and_the_others_continue(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    asked: list[str] = []
    good, lookup = look(hub)

    def noting(mirror: Mirror) -> Any:
        asked.append(mirror.name)
        return lookup(mirror)

    mirrors = [Mirror("dead", f"http://127.0.0.1:{closed_port()}"), Mirror("odd", "ftp://127.0.0.1"), *good]
    dead, odd, fine = run(mirrors, noting, repo, wanted)
    assert asked == ["m0"]
    assert dead.failed == ("tcp", "connection refused")
    assert (dead.lookup.state, dead.lookup.problem) == ("not measured", "tcp: connection refused")
    assert (dead.bytes.state, dead.bytes.problem) == ("not measured", "tcp: connection refused")
    assert "not an http URL" in odd.bytes.problem
    assert fine.failed == ("", "")


def test_a_rejected_resolve_keeps_its_message_and_class(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    def refuse(mirror: Mirror) -> Any:
        raise FileNotInRepo("it has no such file")

    (found,) = run(look(hub)[0], refuse, repo, wanted)
    assert found.failed == ("lookup", "it has no such file")
    assert found.lookup.error == "FileNotInRepo"
    assert found.bytes.problem == "lookup: it has no such file"
    (gated,) = run(look(hub)[0], lambda mirror: None, repo, wanted)
    assert (gated.bytes.state, gated.bytes.problem) == ("not measured", "it requires a token")


def test_an_interrupt_and_a_bug_are_not_swallowed(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    def interrupted(mirror: Mirror) -> Any:
        raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        run(look(hub)[0], interrupted, repo, wanted)
    with pytest.raises(ZeroDivisionError):
        run(look(hub)[0], lambda mirror: 1 // 0, repo, wanted)


def test_a_hanging_mirror_does_not_stop_the_others(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    release = threading.Event()
    good, lookup = look(hub)

    def hanging(mirror: Mirror) -> Any:
        if mirror.name == "stuck":
            release.wait(100)
            raise GpuariaError("released")
        return lookup(mirror)

    found = run([Mirror("stuck", hub.url), *good], hanging, repo, wanted, budget=3)
    release.set()
    assert (found[0].lookup.state, found[0].lookup.problem) == ("not measured", "no time left")
    assert (found[0].bytes.state, found[0].fresh.verdict) == ("not measured", "unknown")
    assert found[0].tcp[0].state == "measured"
    assert found[1].failed == ("", "")
    assert found[1].bytes.state == "measured"


def test_without_a_budget_no_mirror_is_contacted(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    mirrors, lookup = look(hub)
    (found,) = run(mirrors, lookup, repo, wanted, budget=0)
    assert (hub.count(), hub.cdn.count()) == (0, 0)
    assert {found.lookup.problem, found.bytes.problem} == {"no time left"}


def test_through_an_unsupported_proxy_nothing_is_measured(hub: Hub, repo: Repo, wanted: RemoteFile) -> None:
    mirrors, lookup = look(hub)
    (found,) = run(mirrors, lookup, repo, wanted, environ={"all_proxy": "socks5://127.0.0.1:9"})
    assert found.proxy == "127.0.0.1:9"
    assert (found.dns, found.icmp, found.tcp[0].state) == ((), (), "not measured")
    assert (found.bytes.state, "socks5" in found.bytes.problem) == ("not measured", True)


def test_an_ipv6_address_in_brackets_works(repo: Repo, wanted: RemoteFile) -> None:
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:
            pytest.skip("no IPv6 here")

        def refuse(mirror: Mirror) -> Any:
            raise NetworkError("no")

        (found,) = run([Mirror("six", f"http://[::1]:{sock.getsockname()[1]}")], refuse, repo, wanted)
    assert (found.host, found.addresses, found.tcp[0].state) == ("::1", ("::1",), "measured")
