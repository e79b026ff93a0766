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
from pathlib import Path

from gpuaria.errors import GpuariaError
from gpuaria.net import Http
from gpuaria.rates import retry_after
from gpuaria.records import Address
from gpuaria.transfer.unfit import why_unfit

SMALLEST_CUT = 128 * 1024  # bytes
LARGEST_CUT = 2 << 20
MOST_COPIES = 2  # of one cut from one mirror
FIRST_WAIT = 0.25  # seconds after which a cut is late, as long as none has come
CONNECTIONS = 16  # to each mirror


@dataclass
class _Cut:
    start: int
    end: int
    begun: float  # monotonic seconds
    copies: Counter[str] = field(default_factory=Counter)  # under way, by mirror
    taken: bool = False  # somebody has its bytes and writes them
    done: bool = False


@dataclass
class Endgame:
    """Fills `gaps` (start, end) of the file `path`, of `size` bytes, from `addresses`.

    `arrived` is told (mirror, bytes) as they are written. `run` returns whether every gap is filled.
    """

    path: Path
    size: int
    gaps: Sequence[tuple[int, int]]
    addresses: Mapping[str, Address]
    http: Http
    arrived: Callable[[str, int], None]
    stop: threading.Event
    reasons: dict[str, str] = field(default_factory=dict)
    _free: list[tuple[int, int]] = field(default_factory=list)
    _cuts: list[_Cut] = field(default_factory=list)
    _usual: float = FIRST_WAIT  # seconds from asking for a cut to having it
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _over: threading.Event = field(default_factory=threading.Event)
    _working: int = 0
    _workers: int = 1

    def run(self) -> bool:
        """Work until all is here or no mirror is left."""
        self._free = [gap for gap in self.gaps if gap[0] < gap[1]]
        left = sum(end - start for start, end in self._free)
        if not left:
            return True
        each = max(1, min(CONNECTIONS, left // SMALLEST_CUT // max(1, len(self.addresses)) + 1))
        names = [name for _ in range(each) for name in self.addresses]
        self._working = self._workers = len(names)
        for name in names:
            threading.Thread(target=self._work, args=(name,), name=f"endgame-{name}", daemon=True).start()
        while not self._over.wait(0.1):
            if self.stop.is_set():
                return False
        return self._all_done()

    def _all_done(self) -> bool:
        return not self._free and all(cut.done for cut in self._cuts)

    def _work(self, mirror: str) -> None:
        """One connection: cut after cut, until there is none left or the mirror fails."""
        try:
            while (cut := self._next(mirror)) is not None and not self.stop.is_set():
                self._fetch(cut, mirror)
        except GpuariaError as error:
            self.reasons[mirror] = error.message
        except OSError as error:
            self.reasons[mirror] = f"cannot write: {error.strerror}"
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0:
                    self._over.set()

    def _next(self, mirror: str) -> _Cut | None:
        """A share of what nobody has begun, smaller and smaller; then another copy of a cut that is late.

        None when all is done, or `mirror` has as many copies of each as it may have: however slow one mirror is, the
        others always have a turn.
        """
        with self._lock:
            while not self.stop.is_set():
                if self._free:
                    self._cuts.append(self._cut())
                    self._cuts[-1].copies[mirror] += 1
                    return self._cuts[-1]
                left = [cut for cut in self._cuts if not cut.taken and cut.copies[mirror] < MOST_COPIES]
                if not left:
                    return None
                now = time.monotonic()
                late = [cut for cut in left if not cut.copies.total() or now - cut.begun > self._patience(cut, mirror)]
                if late:
                    cut = min(late, key=lambda cut: (cut.copies[mirror], cut.copies.total()))
                    cut.copies[mirror] += 1
                    return cut
                self._lock.wait(0.02)
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

    def _fetch(self, cut: _Cut, mirror: str) -> None:
        url = self.addresses[mirror].url
        wanted = f"bytes {cut.start}-{cut.end - 1}/{self.size}"
        headers = {"range": f"bytes={cut.start}-{cut.end - 1}", "accept-encoding": "identity"}
        body, asked = bytearray(), time.monotonic()
        try:
            with self.http.open("GET", url, anonymous=True, headers=headers) as (answer, chunks):
                if answer.status != 206 or answer.headers.get("content-range") != wanted:
                    raise GpuariaError(f"it answers {answer.status} to a range")
                for chunk in chunks:
                    body += chunk
                    if cut.taken or len(body) > cut.end - cut.start or self.stop.is_set():
                        break
            if len(body) == cut.end - cut.start:
                self._take(cut, bytes(body), mirror, time.monotonic() - asked)
            elif not cut.taken and not self.stop.is_set():
                raise GpuariaError(f"it sends {len(body)} bytes for a range of {cut.end - cut.start}")
        finally:
            with self._lock:
                cut.copies[mirror] -= 1
                self._lock.notify_all()

    def _take(self, cut: _Cut, body: bytes, mirror: str, seconds: float) -> None:
        """Write a cut that nobody wrote before."""
        with self._lock:
            if cut.taken:
                return
            cut.taken = True
            came = sum(other.taken for other in self._cuts)
            self._usual += (seconds - self._usual) / min(came, 8)
        try:
            _write(self.path, body, cut.start)
        except OSError:
            cut.taken = False
            raise
        self.arrived(mirror, len(body))
        with self._lock:
            cut.done = True
            self._lock.notify_all()
            if self._all_done():
                self._over.set()


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
    headers = {"range": f"bytes=0-{SMALLEST_CUT - 1}", "accept-encoding": "identity"}
    try:
        with http.open("GET", address.url, anonymous=True, headers=headers) as (answer, chunks):
            if answer.status not in (200, 206):
                return f"it answers {answer.status}", retry_after(answer.headers, time.time())
            if next(iter(chunks), b""):
                return why_unfit(answer), None
            return "it sends nothing", None
    except GpuariaError as error:
        return error.message, None
