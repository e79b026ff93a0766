"""The tail with real local servers, some with wrong bytes, stalls or resets; only the gaps are written."""

import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpuaria.http.client import Http, HttpOptions
from gpuaria.mirrors import suitability
from gpuaria.records import Mirror, MirrorUrl
from gpuaria.threads import Threads
from gpuaria.transfer.pace import Pace
from gpuaria.transfer.tail import Tail
from gpuaria.transfer.tuning import MOST_COPIES
from standin.http_server import Handler, Server, parse_range
from tests.support.ports import closed_url

SIZE = 6 << 20
DATA = random.Random(5).randbytes(SIZE)
GAPS = [(0, 100_000), (1 << 20, 3 << 20), (SIZE - 777, SIZE)]
LEFT = sum(end - start for start, end in GAPS)
Behave = Callable[["Answers", int, int], None]


class Answers(Handler):
    """A mirror that handles each range with `behave`."""

    behave: Behave

    def answer(self) -> None:
        start, end = parse_range(self.seen.headers.get("range"), SIZE) or (0, SIZE)
        type(self).behave(self, start, end)

    def part(self, start: int, end: int, *, status: int = 206, said: str = "", body: bytes | None = None) -> None:
        span = said or f"bytes {start}-{end - 1}/{SIZE}"
        self.reply(status, [("Content-Range", span)], DATA[start:end] if body is None else body)


def good(mirror: Answers, start: int, end: int) -> None:
    mirror.part(start, end)


def slow(mirror: Answers, start: int, end: int) -> None:
    """Send five bytes a second, within the read time-out: the range would take hours."""
    mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], end - start))
    for at in range(start, end):
        mirror.wfile.write(DATA[at : at + 1])
        if mirror.home.stopping.wait(0.2):
            return


def stall(mirror: Answers, start: int, end: int) -> None:
    mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], end - start))
    mirror.home.stopping.wait(60)


def reset(mirror: Answers, start: int, end: int) -> None:
    mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], end - start))
    mirror.wfile.write(DATA[start : (start + end) // 2])
    mirror.abort()


def short(mirror: Answers, start: int, end: int) -> None:
    """Send a body shorter than declared."""
    mirror.part(start, end, body=DATA[start : end - 1])


BAD: dict[str, Behave] = {
    "slow": slow,
    "stall": stall,
    "reset": reset,
    "short": short,
    "long": lambda mirror, start, end: mirror.part(start, end, body=DATA[start:end] + b"more"),
    "empty": lambda mirror, start, end: mirror.part(start, end, body=b""),
    "200": lambda mirror, start, end: mirror.reply(200, [], DATA),
    "200 with the part": lambda mirror, start, end: mirror.part(start, end, status=200),
    "403": lambda mirror, start, end: mirror.reply(403, [], b"<Error/>"),
    "503": lambda mirror, start, end: mirror.reply(503, [("Retry-After", "3600")], b""),
    "html": lambda mirror, start, end: mirror.reply(200, [("Content-Type", "text/html")], b"<html>"),
    "another part": lambda mirror, start, end: mirror.part(start, end, said=f"bytes 1-{end - start}/{SIZE}"),
    "another size": lambda mirror, start, end: mirror.part(start, end, said=f"bytes {start}-{end - 1}/{SIZE + 1}"),
    "no Content-Range": lambda mirror, start, end: mirror.reply(206, [], DATA[start:end]),
    "redirect": lambda mirror, start, end: mirror.reply(302, [("Location", "http://127.0.0.1:1/")], b""),
}


class Mirrors:
    """Servers by name, each with its URL."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.addresses: dict[str, MirrorUrl] = {}
        self.servers: dict[str, Server] = {}

    def add(self, name: str, behave: Behave) -> None:
        server = Server(type("One", (Answers,), {"behave": staticmethod(behave)}), host="127.0.0.1", port=0, name=name)
        server.start()
        self._stack.callback(server.close)
        self.servers[name] = server
        self.addresses[name] = MirrorUrl(Mirror(name, server.url), f"{server.url}/file?signed=yes")

    def dead(self, name: str) -> None:
        """Return a mirror on which nothing listens."""
        self.addresses[name] = MirrorUrl(Mirror(name, "http://dead"), f"{closed_url()}/file?signed=yes")


@pytest.fixture
def mirrors() -> Iterator[Mirrors]:
    with ExitStack() as stack:
        yield Mirrors(stack)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the staged file: correct except for the gaps, which are empty."""
    data = bytearray(DATA)
    for start, end in GAPS:
        data[start:end] = bytes(end - start)
    staged = tmp_path / "staged"
    staged.write_bytes(data)
    return staged


class Ran:
    """Run one tail to its end."""

    def __init__(self, path: Path, mirrors: Mirrors, *, timeout: float = 1.0) -> None:
        self.came: Counter[str] = Counter()
        self.stop = threading.Event()
        self.http = Http(HttpOptions(connect_timeout=2.0, timeout=timeout), stop=self.stop)
        urls = {url.mirror: url for url in mirrors.addresses.values()}
        self.tail = Tail(path, SIZE, urls, self.http, Threads(self.stop), self)

    def arrived(self, mirror: Mirror, count: int) -> None:
        self.came[mirror.name] += count

    def ended(self) -> None:
        """Poll the outcome repeatedly."""

    @property
    def reasons(self) -> dict[str, str]:
        return {mirror.name: reason for mirror, reason in self.tail.reasons.items()}

    def run(self, gaps: Sequence[tuple[int, int]] = GAPS) -> bool:
        self.tail.fill(gaps)
        while (outcome := self.tail.outcome()) is None:
            time.sleep(0.01)
        return outcome


def test_one_good_mirror_fills_all_gaps(path: Path, mirrors: Mirrors) -> None:
    mirrors.add("good", good)
    ran = Ran(path, mirrors)
    assert ran.run()
    assert path.read_bytes() == DATA
    assert ran.came == {"good": LEFT}


def test_without_gaps_no_request_is_sent(path: Path, mirrors: Mirrors) -> None:
    mirrors.add("good", good)
    ran = Ran(path, mirrors)
    assert ran.run([(5, 5)])
    assert len(mirrors.servers["good"].journal) == 0


@pytest.mark.parametrize("most", [1, 3])
def test_the_connection_limit_is_respected(path: Path, mirrors: Mirrors, most: int) -> None:
    lock, now, seen = threading.Lock(), Counter[str](), Counter[str]()

    def counted(mirror: Answers, start: int, end: int) -> None:
        name = str(mirror.server.server_address)
        with lock:
            now[name] += 1
            seen[name] = max(seen[name], now[name])
        time.sleep(0.02)
        with lock:
            now[name] -= 1
        good(mirror, start, end)

    mirrors.add("a", counted)
    mirrors.add("b", counted)
    ran = Ran(path, mirrors)
    ran.tail.connections = most
    assert ran.run()
    assert path.read_bytes() == DATA
    assert list(seen.values()) == [most, most]


def test_a_tail_started_early_takes_the_rest_later(path: Path, mirrors: Mirrors) -> None:
    mirrors.add("good", good)
    ran = Ran(path, mirrors)
    ran.tail.start(GAPS[1:])
    while ran.tail.bytes_written < LEFT - GAPS[0][1]:
        time.sleep(0.01)
    assert ran.tail.unclaimed_bytes == 0
    assert path.read_bytes()[GAPS[0][1] :] == DATA[GAPS[0][1] :]
    assert ran.tail.complete_to() == 0, "it is not known yet what is missing before"
    assert ran.run(GAPS[:1])
    assert path.read_bytes() == DATA
    assert ran.came == {"good": LEFT}
    assert ran.tail.complete_to() == SIZE


def test_a_tail_started_early_with_nothing_left(path: Path, mirrors: Mirrors) -> None:
    mirrors.add("good", good)
    ran = Ran(path, mirrors)
    ran.tail.start(GAPS)
    while ran.tail.bytes_written < LEFT:
        time.sleep(0.01)
    assert ran.run([])
    assert path.read_bytes() == DATA


def test_a_tail_started_early_with_failing_mirrors(path: Path, mirrors: Mirrors) -> None:
    mirrors.dead("dead")
    ran = Ran(path, mirrors)
    ran.tail.start(GAPS[1:])
    assert not ran.run(GAPS[:1])


def test_a_cancelled_tail_writes_nothing_more(path: Path, mirrors: Mirrors) -> None:
    asked, let_go = threading.Semaphore(0), threading.Event()

    def late(mirror: Answers, start: int, end: int) -> None:
        asked.release()
        let_go.wait(10)
        good(mirror, start, end)

    mirrors.add("late", late)
    before = path.read_bytes()
    ran = Ran(path, mirrors, timeout=30.0)
    ran.tail.start(GAPS)
    for _ in range(3):
        assert asked.acquire(timeout=5)
    ran.tail.cancel()
    let_go.set()
    assert not ran.run([])
    assert path.read_bytes() == before
    assert not ran.came


def test_the_beginnings_of_ranges_in_flight_are_saved(path: Path, mirrors: Mirrors) -> None:
    """A killed run loses only the bytes since the last save."""
    let_go = threading.Event()

    def halves(mirror: Answers, start: int, end: int) -> None:
        middle = start + (end - start) // 2
        mirror.wfile.write(mirror.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")], end - start))
        mirror.wfile.write(DATA[start:middle])
        let_go.wait(30)
        mirror.wfile.write(DATA[middle:end])

    mirrors.add("halves", halves)
    ran = Ran(path, mirrors, timeout=30.0)
    ran.tail.connections = 2
    ran.tail.start(GAPS[1:2])

    def saved() -> int:
        ran.tail.save()
        return sum(end - start for start, end in ran.tail.written_ranges())

    began = time.monotonic()
    while saved() < 300_000 and time.monotonic() - began < 20:
        time.sleep(0.05)
    written = path.read_bytes()
    for start, end in ran.tail.written_ranges():
        assert written[start:end] == DATA[start:end]
    assert saved() >= 300_000
    assert ran.tail.bytes_written == 0, "they are not credited before they are whole"
    let_go.set()
    assert ran.run([GAPS[0], GAPS[2]])
    assert path.read_bytes() == DATA


def test_a_cancelled_complete_tail_does_not_wait(path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late duplicate has no use, and the thread that drives the downloads must not wait for it."""
    monkeypatch.setattr("gpuaria.transfer.tail.CANCEL_GRACE", 600.0)
    mirrors.add("good", good)
    mirrors.add("stall", stall)
    ran = Ran(path, mirrors, timeout=600.0)
    assert ran.run()
    assert ran.tail.active
    ran.tail.cancel()


def test_only_the_gaps_are_requested(path: Path, mirrors: Mirrors) -> None:
    mirrors.add("good", good)
    asked = set()
    assert Ran(path, mirrors).run()
    for seen in mirrors.servers["good"].journal.snapshot():
        start, end = parse_range(seen.headers["range"], SIZE) or (0, SIZE)
        assert any(a <= start < end <= b for a, b in GAPS)
        asked |= set(range(start, end, 777))
    assert "authorization" not in seen.headers


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_mirror_next_to_a_good_one(path: Path, mirrors: Mirrors, kind: str) -> None:
    mirrors.add("bad", BAD[kind])
    mirrors.add("good", good)
    ran = Ran(path, mirrors, timeout=30.0)
    assert ran.run()
    assert path.read_bytes() == DATA
    assert ran.came == {"good": LEFT}


def test_a_dead_a_slow_and_a_good_mirror(path: Path, mirrors: Mirrors) -> None:
    mirrors.dead("dead")
    mirrors.add("slow", slow)
    mirrors.add("good", good)
    ran = Ran(path, mirrors, timeout=30.0)
    assert ran.run()
    assert path.read_bytes() == DATA
    assert "dead" in ran.reasons


@pytest.mark.parametrize("kind", BAD)
def test_without_a_good_mirror_the_tail_fails_and_writes_nothing(path: Path, mirrors: Mirrors, kind: str) -> None:
    mirrors.add("bad", BAD[kind])
    mirrors.dead("dead")
    before = path.read_bytes()
    ran = Ran(path, mirrors)
    assert not ran.run()
    assert path.read_bytes() == before
    assert set(ran.reasons) == ({"dead"} if kind == "slow" else {"bad", "dead"})
    assert len(mirrors.servers["bad"].journal) <= 64, "each connection tries once"


def test_a_temporarily_bad_mirror_is_harmless(path: Path, mirrors: Mirrors) -> None:
    left = iter(range(8))
    mirrors.add(
        "moody", lambda mirror, start, end: (short if next(left, None) is not None else good)(mirror, start, end)
    )
    ran = Ran(path, mirrors)
    assert ran.run() == (path.read_bytes() == DATA)


def test_duplicates_are_bounded_and_counted_once(path: Path, mirrors: Mirrors) -> None:
    for name in "abc":
        mirrors.add(name, good)
    ran = Ran(path, mirrors)
    assert ran.run()
    assert path.read_bytes() == DATA
    assert ran.came.total() == LEFT
    sent = Counter(seen.headers["range"] for server in mirrors.servers.values() for seen in server.journal.snapshot())
    assert max(sent.values()) <= MOST_COPIES * 3  # from each of the three


def test_a_fast_mirror_is_asked_once_for_each_byte(path: Path, mirrors: Mirrors) -> None:
    def steady(mirror: Answers, start: int, end: int) -> None:
        time.sleep(0.1)
        good(mirror, start, end)

    mirrors.add("steady", steady)
    assert Ran(path, mirrors).run()
    sent = [seen.headers["range"] for seen in mirrors.servers["steady"].journal.snapshot()]
    assert len(sent) == len(set(sent))


@pytest.mark.parametrize(
    ("rate", "idle", "since"),
    [(0, True, 2.0), (32_000, True, 2.0), (32_000, False, None), (20_000_000, True, None)],
)
def test_slow_connections_hold_the_last_pieces(rate: float, idle: bool, since: float | None) -> None:
    """With 16 MB left, mirrors that were idle for two seconds are faster than the trickling ones."""
    pace, total, found = Pace(), 20_000_000, None
    for tick in range(60):
        now, done = 100 + tick / 4, int(min(total, 4_000_000 + rate * tick / 4))
        pace.near_end(now, done, total - done, 16, 20)
        if found is None and pace.blocked_by_slow(now, done, total - done, idle=idle):
            found = tick / 4
    assert found == since


def test_stop_ends_the_tail_at_once(path: Path, mirrors: Mirrors) -> None:
    mirrors.add("stall", stall)
    ran = Ran(path, mirrors, timeout=60.0)
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(ran.run()), daemon=True)
    thread.start()
    time.sleep(0.2)
    ran.stop.set()
    thread.join(5)
    assert results == [False]


def test_a_missing_file_or_a_link_is_not_written(path: Path, mirrors: Mirrors, tmp_path: Path) -> None:
    mirrors.add("good", good)
    other = tmp_path / "other"
    path.rename(other)
    before = other.read_bytes()
    assert not Ran(path, mirrors).run()
    path.symlink_to(other)
    ran = Ran(path, mirrors)
    assert not ran.run()
    assert other.read_bytes() == before
    assert os.strerror(errno.ELOOP) in ran.reasons["good"]


@pytest.mark.parametrize(
    ("kind", "reason", "wait"),
    [
        ("403", "it returned HTTP 403", None),
        ("503", "it returned HTTP 503", 3600.0),
        ("empty", "it sent no data", None),
        ("redirect", "it returned HTTP 302", None),
    ],
)
def test_probing_a_url(mirrors: Mirrors, kind: str, reason: str, wait: float | None) -> None:
    mirrors.add("one", BAD[kind])
    assert suitability.refusal(Http(HttpOptions(timeout=2.0)), mirrors.addresses["one"]) == (reason, wait)


def test_probing_a_good_and_a_dead_url(mirrors: Mirrors) -> None:
    mirrors.add("good", good)
    mirrors.dead("dead")
    assert suitability.refusal(Http(HttpOptions(timeout=2.0)), mirrors.addresses["good"]) == ("", None)
    assert suitability.refusal(Http(HttpOptions(timeout=2.0)), mirrors.addresses["dead"])[0]
