"""The tail of a large file, downloaded over gpuaria's own connections.

aria2 never requests a piece from two servers and splits nothing below 1 MiB, so the slowest connection decides when a
file ends. The tail divides the missing bytes into small chunks, and every mirror takes the next chunk when it is free.
When none is left, chunks in flight are requested a second time: the first response counts.
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
from gpuaria.transfer.tuning import (
    CANCEL_GRACE,
    FIRST_CHUNK_SECONDS,
    GRACE,
    LARGEST_CHUNK,
    MOST_COPIES,
    SMALLEST_CHUNK,
    is_flow,
)


class TailListener(Protocol):
    """Receives the events of a tail, from its threads."""

    def arrived(self, mirror: Mirror, count: int) -> None:
        """Handle `count` bytes of a mirror that were written."""

    def ended(self) -> None:
        """Handle the end: no connection is active, or every byte is on disk."""


@dataclass
class _Chunk:
    start: int
    end: int
    begun: float  # monotonic seconds
    copies: Counter[Mirror] = field(default_factory=Counter)  # in flight, by mirror
    received: list[Received] = field(default_factory=list)  # of those copies
    stored: bool = False  # a connection has received all its bytes and is writing them
    written: int = 0  # bytes from its start

    @property
    def done(self) -> bool:
        """True if all of it is on disk."""
        return self.written == self.end - self.start


@dataclass
class Tail:
    """Fills gaps of the file `path`, of `size` bytes, from `urls`, with at most `connections` to each mirror.

    Call `start` with some of the gaps while aria2 is still active, so that the connections have reached their speed
    when it stops; then `fill` with the rest. `outcome` reports the result.
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
    bytes_written: int = 0
    _received: int = 0  # bytes over all connections, written or not
    _unclaimed: list[Gap] = field(default_factory=list)
    _chunks: list[_Chunk] = field(default_factory=list)
    _usual_seconds: float = FIRST_CHUNK_SECONDS  # from requesting a chunk to receiving it
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _gaps_known: bool = False  # `fill` was called
    _cancelled: bool = False
    _closed: bool = False
    _writes: int = 0
    active: int = 0  # connections
    _workers: int = 0
    _last_progress: tuple[float, int] = (0.0, 0)  # monotonic seconds and `_received` then

    def start(self, gaps: Sequence[Gap]) -> None:
        """Start filling `gaps`; more may follow."""
        self._unclaimed = [gap for gap in gaps if gap[0] < gap[1]]
        each = max(1, min(self.connections, self.unclaimed_bytes // SMALLEST_CHUNK // max(1, len(self.urls)) + 1))
        mirrors = [mirror for _ in range(each) for mirror in self.urls]
        self.active = self._workers = len(mirrors)
        for mirror in mirrors:
            self.threads.start(f"tail-{mirror.name}", self._run_connection, mirror)

    @property
    def unclaimed_bytes(self) -> int:
        """Bytes that no connection has requested."""
        return sum(end - start for start, end in self._unclaimed)

    def fill(self, gaps: Sequence[Gap]) -> None:
        """Fill these gaps too; all gaps are known now."""
        more = [gap for gap in gaps if gap[0] < gap[1]]
        with self._lock:
            self._gaps_known = True
            self._last_progress = self.clock.monotonic(), self._received
            if self._workers:
                self._unclaimed = sorted((*self._unclaimed, *more))
                self._lock.notify_all()
        if not self._workers and more:
            self.start(more)

    def outcome(self) -> bool | None:
        """Return None while the tail is active; then whether every gap is filled.

        A tail ends when all bytes are on disk, no connection is left, or nothing arrives.
        """
        with self._lock:
            if not self._gaps_known:
                return None
            if self._all_done():
                return True
            now, (moved, received_bytes) = self.clock.monotonic(), self._last_progress
            if is_flow(self._received - received_bytes, now - moved):
                self._last_progress = moved, received_bytes = now, self._received
            stalled = now - moved > self.http.options.timeout + GRACE
            return False if not self.active or stalled or self.threads.stop.is_set() else None

    def complete_to(self) -> int:
        """Return the offset up to which the file is complete; 0 until all gaps are known."""
        with self._lock:
            if not self._gaps_known:
                return 0
            missing = [
                *(start for start, _ in self._unclaimed),
                *(chunk.start for chunk in self._chunks if not chunk.done),
            ]
            return min(missing, default=self.size)

    def written_ranges(self) -> list[Gap]:
        """Return the byte ranges that the tail has written, in order."""
        with self._lock:
            return sorted((chunk.start, chunk.start + chunk.written) for chunk in self._chunks)

    def save(self) -> None:
        """Write the received bytes of chunks in flight, so that a killed run loses little. Raises OSError."""
        with self._lock:
            if self._closed:
                return
            for chunk in self._chunks:
                if chunk.stored:
                    continue
                body, count = max((one.so_far for one in chunk.received), key=_size_of, default=(b"", 0))
                if chunk.written < count < chunk.end - chunk.start:
                    _write(self.path, memoryview(body)[chunk.written : count], chunk.start + chunk.written)
                    chunk.written = count

    def cancel(self) -> None:
        """Let every connection write the bytes it has received, then stop writing."""
        with self._lock:
            self._cancelled = True
            self._lock.notify_all()
            self._lock.wait_for(self._idle, CANCEL_GRACE)
            self._closed = True
            self._lock.wait_for(self._all_written)

    def report_bytes(self, count: Callable[[int], None]) -> None:
        """Call `count` with the bytes written so far, while no bytes are added."""
        with self._lock:
            count(self.bytes_written)

    def _idle(self) -> bool:
        return not self.active or self._all_done()

    def _all_written(self) -> bool:
        return not self._writes

    def _all_done(self) -> bool:
        return self._gaps_known and not self._unclaimed and all(chunk.done for chunk in self._chunks)

    @property
    def _ended(self) -> bool:
        return self._cancelled or self.threads.stop.is_set()

    def _run_connection(self, mirror: Mirror) -> None:
        """Download chunks over one connection until none is left or the mirror fails."""
        connection = RangeConnection(self.http, self.urls[mirror].url, self.size)
        try:
            while (chunk := self._claim(mirror)) is not None:
                self._fetch(chunk, mirror, connection)
        except GpuariaError as error:
            self.reasons[mirror] = error.message
        except OSError as error:
            self.reasons[mirror] = f"cannot write: {error.strerror}"
        finally:
            connection.close()
            with self._lock:
                self.active -= 1
                self._lock.notify_all()
            if not self.active:
                self.listener.ended()

    def _claim(self, mirror: Mirror) -> _Chunk | None:
        """Return the next unclaimed chunk, or another copy of a chunk that is late; None if there is none for `mirror`.

        Chunks get smaller towards the end. A mirror holds at most MOST_COPIES of one chunk, so that a slow mirror
        always leaves copies to the others.
        """
        with self._lock:
            while not self._ended:
                if self._unclaimed:
                    self._chunks.append(self._next_chunk_of_gap())
                    self._chunks[-1].copies[mirror] += 1
                    return self._chunks[-1]
                unwritten = [chunk for chunk in self._chunks if not chunk.stored and chunk.copies[mirror] < MOST_COPIES]
                if not unwritten and self._gaps_known:
                    return None
                now = self.clock.monotonic()
                late = [
                    chunk
                    for chunk in unwritten
                    if not chunk.copies.total() or now - chunk.begun > self._lateness(chunk, mirror)
                ]
                if late:
                    chunk = min(late, key=lambda chunk: (chunk.copies[mirror], chunk.copies.total()))
                    chunk.copies[mirror] += 1
                    return chunk
                self._lock.wait(0.02 if self._gaps_known else 0.1)
        return None

    def _lateness(self, chunk: _Chunk, mirror: Mirror) -> float:
        """Return the seconds after which a chunk counts as late: fewer for a mirror that has no copy of it yet."""
        return self._usual_seconds * (2.5 if chunk.copies[mirror] else 1.25) * chunk.copies.total()

    def _next_chunk_of_gap(self) -> _Chunk:
        length = min(LARGEST_CHUNK, max(SMALLEST_CHUNK, self.unclaimed_bytes // (2 * self._workers)))
        start, end = self._unclaimed.pop(0)
        if end - start > length:
            self._unclaimed.insert(0, (start + length, end))
            end = start + length
        return _Chunk(start, end, self.clock.monotonic())

    def _fetch(self, chunk: _Chunk, mirror: Mirror, connection: RangeConnection) -> None:
        requested_at, received = self.clock.monotonic(), Received()
        with self._lock:
            chunk.received.append(received)
        try:
            body = connection.get(chunk.start, chunk.end, _UnneededCheck(self, chunk), received)
            self._store(chunk, body, mirror, self.clock.monotonic() - requested_at)
        finally:
            with self._lock:
                chunk.received.remove(received)
                chunk.copies[mirror] -= 1
                self._lock.notify_all()

    def unneeded(self, chunk: _Chunk, new_bytes: int) -> bool:
        """Return True if the rest of a chunk is no longer needed; `new_bytes`: its bytes since the last call."""
        with self._lock:
            self._received += new_bytes
        if pause := self.bucket.charge(new_bytes):
            self.threads.stop.wait(pause)
        return chunk.stored or self._ended

    def _store(self, chunk: _Chunk, body: bytes, mirror: Mirror, seconds: float) -> None:
        """Write a chunk that no other connection wrote; an incomplete one only if the tail ends, for a later run."""
        whole = len(body) == chunk.end - chunk.start
        with self._lock:
            if chunk.stored or self._closed or not (whole or self._ended) or len(body) <= chunk.written:
                return
            chunk.stored = True
            self._writes += 1
            if whole:
                chunk_count = sum(other.stored for other in self._chunks)
                self._usual_seconds += (seconds - self._usual_seconds) / min(chunk_count, 8)
        try:
            _write(self.path, memoryview(body), chunk.start)
            chunk.written = len(body)
        finally:
            with self._lock:
                self._writes -= 1
                chunk.stored = chunk.done
                self._lock.notify_all()
                if chunk.done:
                    self.bytes_written += len(body)
                    self.listener.arrived(mirror, len(body))
                all_done = self._all_done()
            if all_done:
                self.listener.ended()


@dataclass(frozen=True, slots=True)
class _UnneededCheck:
    """Callback of a connection for each read of one chunk."""

    tail: Tail
    chunk: _Chunk

    def __call__(self, new_bytes: int) -> bool:
        return self.tail.unneeded(self.chunk, new_bytes)


def _size_of(so_far: tuple[bytes | bytearray, int]) -> int:
    return so_far[1]


def _write(path: Path, body: memoryview, at: int) -> None:
    """Write all of `body`: a write may be partial when the disk is nearly full. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rest = body
        while rest:
            written = os.pwrite(descriptor, rest, at)
            at, rest = at + written, rest[written:]
    finally:
        os.close(descriptor)
