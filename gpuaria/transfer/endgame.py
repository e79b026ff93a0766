"""The last bytes of a large file, which aria2 would wait for.

aria2 never asks two servers for one piece and cuts nothing below 1 MiB, so the slowest connection decides when a file
ends. Here what is still missing is cut small, every mirror takes the next cut when it is free, and cuts that are under
way are asked for a second time when there are no others left: whoever comes first counts.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.content_range import bytes_header
from gpuaria.http.range_connection import RangeConnection
from gpuaria.http.ratelimit import retry_after
from gpuaria.records import Address
from gpuaria.transfer.unfit import why_unfit
from gpuaria.transfer.watch import in_earnest

SMALLEST_CUT = 128 * 1024  # bytes
LARGEST_CUT = 2 << 20
MOST_COPIES = 2  # of one cut from one mirror
LAST_WORDS = 0.3  # seconds for connections that are called off to write what they have
FIRST_WAIT = 0.25  # seconds after which a cut is late, as long as none has come


@dataclass
class _Cut:
    start: int
    end: int
    begun: float  # monotonic seconds
    copies: Counter[str] = field(default_factory=Counter)  # under way, by mirror
    taken: bool = False  # somebody has its bytes and writes them
    written: int = 0  # bytes from its start

    @property
    def done(self) -> bool:
        """Whether all of it is here."""
        return self.written == self.end - self.start


@dataclass
class Endgame:
    """Fills gaps (start, end) of the file `path`, of `size` bytes, from `addresses`.

    `start` with some of them while aria2 is still at work, so that the connections are warm when it lets go; `finish`
    with the rest. `arrived` is told (mirror, bytes) as they are written; `reached`, once `finish` has named every gap,
    up to which byte the file is there. `connections` to each mirror at most.
    """

    path: Path
    size: int
    addresses: Mapping[str, Address]
    http: Http
    arrived: Callable[[str, int], None]
    stop: threading.Event
    reached: Callable[[int], None] = lambda end: None
    connections: int = 16
    reasons: dict[str, str] = field(default_factory=dict)
    came: int = 0  # bytes written
    _heard: int = 0  # bytes that came over any connection, written or not
    _free: list[tuple[int, int]] = field(default_factory=list)
    _cuts: list[_Cut] = field(default_factory=list)
    _usual: float = FIRST_WAIT  # seconds from asking for a cut to having it
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _over: threading.Event = field(default_factory=threading.Event)
    _sealed: bool = False  # every gap is known
    _called_off: bool = False
    _closed: bool = False
    _writing: int = 0
    working: int = 0  # connections
    _workers: int = 0

    def start(self, gaps: Sequence[tuple[int, int]]) -> None:
        """Begin to fill them; more may follow."""
        self._free = [gap for gap in gaps if gap[0] < gap[1]]
        each = max(1, min(self.connections, self.left // SMALLEST_CUT // max(1, len(self.addresses)) + 1))
        names = [name for _ in range(each) for name in self.addresses]
        self.working = self._workers = len(names)
        for name in names:
            threading.Thread(target=self._work, args=(name,), name=f"endgame-{name}", daemon=True).start()

    @property
    def left(self) -> int:
        """Bytes that nobody has begun with."""
        return sum(end - start for start, end in self._free)

    def finish(self, gaps: Sequence[tuple[int, int]]) -> bool:
        """Fill these too, and work until all is here or next to nothing comes: whether every gap is filled."""
        more = [gap for gap in gaps if gap[0] < gap[1]]
        with self._lock:
            self._sealed = True
            if self._workers:
                self._free = sorted((*self._free, *more))
                if self._all_done():
                    return True
                self._lock.notify_all()
        if not self._workers:
            if not more:
                return True
            self.start(more)
        moved, heard = time.monotonic(), self._heard
        while not self._over.wait(0.1):
            now = time.monotonic()
            if in_earnest(self._heard - heard, now - moved):
                moved, heard = now, self._heard
            if self.stop.is_set() or now - moved > self.http.options.timeout + 2:
                return False
        return self._all_done()

    def filled(self) -> list[tuple[int, int]]:
        """What it has written, in order."""
        with self._lock:
            return sorted((cut.start, cut.start + cut.written) for cut in self._cuts)

    def call_off(self) -> None:
        """Let every connection write what it has, and nothing after that."""
        with self._lock:
            self._called_off = True
            self._lock.notify_all()
            self._lock.wait_for(lambda: not self.working or self._all_done(), LAST_WORDS)
            self._closed = True
            self._lock.wait_for(lambda: not self._writing)

    def counted(self, tell: Callable[[int], None]) -> None:
        """Call `tell` with the bytes written so far, while none are added."""
        with self._lock:
            tell(self.came)

    def _all_done(self) -> bool:
        return self._sealed and not self._free and all(cut.done for cut in self._cuts)

    @property
    def _ended(self) -> bool:
        return self._called_off or self.stop.is_set()

    def _work(self, mirror: str) -> None:
        """One connection: cut after cut, until there is none left or the mirror fails."""
        line = RangeConnection(self.http, self.addresses[mirror].url, self.size)
        try:
            while (cut := self._next(mirror)) is not None:
                self._fetch(cut, mirror, line)
        except GpuariaError as error:
            self.reasons[mirror] = error.message
        except OSError as error:
            self.reasons[mirror] = f"cannot write: {error.strerror}"
        finally:
            line.close()
            with self._lock:
                self.working -= 1
                self._lock.notify_all()
                if self.working == 0:
                    self._over.set()

    def _next(self, mirror: str) -> _Cut | None:
        """A share of what nobody has begun, smaller and smaller; then another copy of a cut that is late.

        None when all is done, or `mirror` has as many copies of each as it may have: however slow one mirror is, the
        others always have a turn.
        """
        with self._lock:
            while not self._ended:
                if self._free:
                    self._cuts.append(self._cut())
                    self._cuts[-1].copies[mirror] += 1
                    return self._cuts[-1]
                left = [cut for cut in self._cuts if not cut.taken and cut.copies[mirror] < MOST_COPIES]
                if not left and self._sealed:
                    return None
                now = time.monotonic()
                late = [cut for cut in left if not cut.copies.total() or now - cut.begun > self._patience(cut, mirror)]
                if late:
                    cut = min(late, key=lambda cut: (cut.copies[mirror], cut.copies.total()))
                    cut.copies[mirror] += 1
                    return cut
                self._lock.wait(0.02 if self._sealed else 0.1)
        return None

    def _patience(self, cut: _Cut, mirror: str) -> float:
        """Seconds until a cut counts as late: sooner for a mirror that does not have it yet."""
        return self._usual * (2.5 if cut.copies[mirror] else 1.25) * cut.copies.total()

    def _cut(self) -> _Cut:
        left = sum(end - start for start, end in self._free)
        share = min(LARGEST_CUT, max(SMALLEST_CUT, left // (2 * self._workers)))
        start, end = self._free.pop(0)
        if end - start > share:
            self._free.insert(0, (start + share, end))
            end = start + share
        return _Cut(start, end, time.monotonic())

    def _fetch(self, cut: _Cut, mirror: str, line: RangeConnection) -> None:
        asked = time.monotonic()
        try:
            body = line.get(cut.start, cut.end, partial(self._needless, cut))
            self._take(cut, body, mirror, time.monotonic() - asked)
        finally:
            with self._lock:
                cut.copies[mirror] -= 1
                self._lock.notify_all()

    def _needless(self, cut: _Cut, came: int) -> bool:
        """Whether nobody wants the rest of a cut any more; `came`: bytes of it since this was last asked."""
        with self._lock:
            self._heard += came
        return cut.taken or self._ended

    def _take(self, cut: _Cut, body: bytes, mirror: str, seconds: float) -> None:
        """Write a cut that nobody wrote before; its beginning too once all ends, so that a later run has that."""
        whole = len(body) == cut.end - cut.start
        with self._lock:
            if cut.taken or self._closed or not (whole or self._ended) or len(body) <= cut.written:
                return
            cut.taken = True
            self._writing += 1
            if whole:
                came = sum(other.taken for other in self._cuts)
                self._usual += (seconds - self._usual) / min(came, 8)
        try:
            _write(self.path, body, cut.start)
            cut.written = len(body)
        finally:
            with self._lock:
                self._writing -= 1
                cut.taken = cut.done
                self._lock.notify_all()
                if cut.done:
                    self.came += len(body)
                    self.arrived(mirror, len(body))
                    self._tell()
                if self._all_done():
                    self._over.set()

    def _tell(self) -> None:
        if self._sealed:
            missing = [*(start for start, _ in self._free), *(cut.start for cut in self._cuts if not cut.done)]
            self.reached(min(missing, default=self.size))


def _write(path: Path, body: bytes, at: int) -> None:
    """All of `body`: the system may take less at once when the disk is nearly full. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rest = memoryview(body)
        while rest:
            written = os.pwrite(descriptor, rest, at)
            at, rest = at + written, rest[written:]
    finally:
        os.close(descriptor)


def try_out(http: Http, address: Address) -> tuple[str, float | None]:
    """Whether an address gives aria2 bytes now: ("", None), or why not and how many seconds it asks to wait."""
    headers = bytes_header(0, SMALLEST_CUT)
    try:
        with http.open("GET", address.url, anonymous=True, headers=headers) as (answer, chunks):
            if answer.status not in (200, 206):
                return f"it answers {answer.status}", retry_after(answer.headers, time.time())
            if next(iter(chunks), b""):
                return why_unfit(answer), None
            return "it sends nothing", None
    except GpuariaError as error:
        return error.message, None
