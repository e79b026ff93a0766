"""The end of a large file, downloaded by gpuaria's own connections.

aria2 never asks two servers for one piece and splits nothing below 1 MiB, so the slowest connection decides when a file
ends. The tail cuts the missing bytes small; every mirror takes the next cut when it is free. When no cut is left, the
tail asks for those in flight a second time: the first response counts.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gpuaria.clock import SYSTEM, Clock
from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.range_connection import RangeConnection, Received
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.records import Mirror, MirrorUrl
from gpuaria.threads import Threads
from gpuaria.transfer.ranges import Gap
from gpuaria.transfer.tuning import FIRST_WAIT, GRACE, LARGEST_CUT, LAST_WORDS, MOST_COPIES, SMALLEST_CUT, is_flow


class TailListener(Protocol):
    """Gets what happens in a tail, from its threads."""

    def arrived(self, mirror: Mirror, count: int) -> None:
        """`count` bytes of a mirror were written."""

    def ended(self) -> None:
        """No connection is active any more, or every byte is there."""


@dataclass
class _Cut:
    start: int
    end: int
    begun: float  # monotonic seconds
    copies: Counter[Mirror] = field(default_factory=Counter)  # in flight, by mirror
    received: list[Received] = field(default_factory=list)  # of those copies
    taken: bool = False  # a connection has its bytes and writes them
    written: int = 0  # bytes from its start

    @property
    def done(self) -> bool:
        """True if all of it is on disk."""
        return self.written == self.end - self.start


@dataclass
class Tail:
    """Fills gaps of the file `path`, of `size` bytes, from `urls`, with `connections` to each mirror at most.

    `start` with some of the gaps while aria2 is still active, so that the connections are warm when it stops; `fill`
    with the rest. After that `outcome` tells how it ended.
    """

    path: Path
    size: int
    urls: Mapping[Mirror, MirrorUrl]
    http: Http
    threads: Threads
    listener: TailListener
    connections: int = 16
    bucket: TokenBucket = field(default_factory=TokenBucket)
    clock: Clock = SYSTEM
    reasons: dict[Mirror, str] = field(default_factory=dict)
    came: int = 0  # bytes written
    _heard: int = 0  # bytes that came over any connection, written or not
    _free: list[Gap] = field(default_factory=list)
    _cuts: list[_Cut] = field(default_factory=list)
    _usual: float = FIRST_WAIT  # seconds from asking for a cut to having it
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _sealed: bool = False  # every gap is known
    _called_off: bool = False
    _closed: bool = False
    _writing: int = 0
    working: int = 0  # connections
    _workers: int = 0
    _moved: tuple[float, int] = (0.0, 0)  # monotonic seconds and `_heard` when bytes last came

    def start(self, gaps: Sequence[Gap]) -> None:
        """Begin to fill them; more may follow."""
        self._free = [gap for gap in gaps if gap[0] < gap[1]]
        each = max(1, min(self.connections, self.left // SMALLEST_CUT // max(1, len(self.urls)) + 1))
        mirrors = [mirror for _ in range(each) for mirror in self.urls]
        self.working = self._workers = len(mirrors)
        for mirror in mirrors:
            self.threads.start(f"tail-{mirror.name}", self._work, mirror)

    @property
    def left(self) -> int:
        """Bytes that no connection has begun with."""
        return sum(end - start for start, end in self._free)

    def fill(self, gaps: Sequence[Gap]) -> None:
        """Fill these gaps too: now all are known."""
        more = [gap for gap in gaps if gap[0] < gap[1]]
        with self._lock:
            self._sealed = True
            self._moved = self.clock.monotonic(), self._heard
            if self._workers:
                self._free = sorted((*self._free, *more))
                self._lock.notify_all()
        if not self._workers and more:
            self.start(more)

    def outcome(self) -> bool | None:
        """Return None while the tail is active; then whether every gap is filled.

        A tail ends when all bytes are on disk, no connection is left, or nothing comes.
        """
        with self._lock:
            if not self._sealed:
                return None
            if self._all_done():
                return True
            now, (moved, heard) = self.clock.monotonic(), self._moved
            if is_flow(self._heard - heard, now - moved):
                self._moved = moved, heard = now, self._heard
            stalled = now - moved > self.http.options.timeout + GRACE
            return False if not self.working or stalled or self.threads.stop.is_set() else None

    def reached(self) -> int:
        """Return the byte up to which the file is complete; 0 as long as not every gap is known."""
        with self._lock:
            if not self._sealed:
                return 0
            missing = [*(start for start, _ in self._free), *(cut.start for cut in self._cuts if not cut.done)]
            return min(missing, default=self.size)

    def filled(self) -> list[Gap]:
        """Return the byte ranges that the tail has written, in order."""
        with self._lock:
            return sorted((cut.start, cut.start + cut.written) for cut in self._cuts)

    def save(self) -> None:
        """Write the beginnings of cuts in flight, so that a run that is killed loses little. Raises OSError."""
        with self._lock:
            if self._closed:
                return
            for cut in self._cuts:
                if cut.taken:
                    continue
                body, count = max((one.so_far for one in cut.received), key=_count, default=(b"", 0))
                if cut.written < count < cut.end - cut.start:
                    _write(self.path, memoryview(body)[cut.written : count], cut.start + cut.written)
                    cut.written = count

    def call_off(self) -> None:
        """Let every connection write what it has, and nothing after that."""
        with self._lock:
            self._called_off = True
            self._lock.notify_all()
            self._lock.wait_for(self._quiet, LAST_WORDS)
            self._closed = True
            self._lock.wait_for(self._written)

    def count_into(self, count: Callable[[int], None]) -> None:
        """Call `count` with the bytes written so far, while none are added."""
        with self._lock:
            count(self.came)

    def _quiet(self) -> bool:
        return not self.working or self._all_done()

    def _written(self) -> bool:
        return not self._writing

    def _all_done(self) -> bool:
        return self._sealed and not self._free and all(cut.done for cut in self._cuts)

    @property
    def _ended(self) -> bool:
        return self._called_off or self.threads.stop.is_set()

    def _work(self, mirror: Mirror) -> None:
        """Download cut after cut over one connection, until none is left or the mirror fails."""
        line = RangeConnection(self.http, self.urls[mirror].url, self.size)
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
            if not self.working:
                self.listener.ended()

    def _next(self, mirror: Mirror) -> _Cut | None:
        """A share of what no connection has begun, smaller and smaller; then another copy of a cut that is late.

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
                now = self.clock.monotonic()
                late = [cut for cut in left if not cut.copies.total() or now - cut.begun > self._patience(cut, mirror)]
                if late:
                    cut = min(late, key=lambda cut: (cut.copies[mirror], cut.copies.total()))
                    cut.copies[mirror] += 1
                    return cut
                self._lock.wait(0.02 if self._sealed else 0.1)
        return None

    def _patience(self, cut: _Cut, mirror: Mirror) -> float:
        """Seconds until a cut counts as late: sooner for a mirror that does not have it yet."""
        return self._usual * (2.5 if cut.copies[mirror] else 1.25) * cut.copies.total()

    def _cut(self) -> _Cut:
        left = sum(end - start for start, end in self._free)
        share = min(LARGEST_CUT, max(SMALLEST_CUT, left // (2 * self._workers)))
        start, end = self._free.pop(0)
        if end - start > share:
            self._free.insert(0, (start + share, end))
            end = start + share
        return _Cut(start, end, self.clock.monotonic())

    def _fetch(self, cut: _Cut, mirror: Mirror, line: RangeConnection) -> None:
        asked, received = self.clock.monotonic(), Received()
        with self._lock:
            cut.received.append(received)
        try:
            body = line.get(cut.start, cut.end, _Needless(self, cut), received)
            self._take(cut, body, mirror, self.clock.monotonic() - asked)
        finally:
            with self._lock:
                cut.received.remove(received)
                cut.copies[mirror] -= 1
                self._lock.notify_all()

    def needless(self, cut: _Cut, came: int) -> bool:
        """True if the rest of a cut is not needed any more; `came`: bytes of it since this was last asked."""
        with self._lock:
            self._heard += came
        if pause := self.bucket.charge(came):
            self.threads.stop.wait(pause)
        return cut.taken or self._ended

    def _take(self, cut: _Cut, body: bytes, mirror: Mirror, seconds: float) -> None:
        """Write a cut that no other connection wrote; its beginning too once all ends, so that a later run has that."""
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
            _write(self.path, memoryview(body), cut.start)
            cut.written = len(body)
        finally:
            with self._lock:
                self._writing -= 1
                cut.taken = cut.done
                self._lock.notify_all()
                if cut.done:
                    self.came += len(body)
                    self.listener.arrived(mirror, len(body))
                over = self._all_done()
            if over:
                self.listener.ended()


@dataclass(frozen=True, slots=True)
class _Needless:
    """Asked by a connection for each slice of one cut."""

    tail: Tail
    cut: _Cut

    def __call__(self, came: int) -> bool:
        return self.tail.needless(self.cut, came)


def _count(so_far: tuple[bytes | bytearray, int]) -> int:
    return so_far[1]


def _write(path: Path, body: memoryview, at: int) -> None:
    """All of `body`: the system may take less at once when the disk is nearly full. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rest = body
        while rest:
            written = os.pwrite(descriptor, rest, at)
            at, rest = at + written, rest[written:]
    finally:
        os.close(descriptor)
