"""A sample read of a file: response, time to first byte, throughput, and the gain from more connections.

One request from the middle of the file, aborted when enough is known. Slow start (RFC 5681 3.1) limits the load on a
slow mirror, and several requests in sequence would spend the time on round trips (60 ms one way: 3.5 MB/s seen after a
second in pieces, 13 MB/s in one). One connection predicts little about 16: a mirror limited by round trips gains from
more connections, a capped mirror does not. So the read is repeated with several at once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import urljoin

from gpuaria.dns.deadline import BackgroundCall, Deadline, run_all
from gpuaria.dns.findings import NO_TIME
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.mirrors.measure.connection import TimedConnection
from gpuaria.mirrors.measure.findings import BytesFinding, Throughput
from gpuaria.mirrors.measure.range_response import DeclaredRange, Refusal, check, declared, host_and_port
from gpuaria.mirrors.measure.stream import SampleLimits, Stream, throughput
from gpuaria.mirrors.measure.tcp import reason
from gpuaria.urls import check_redirect

MAX_REDIRECTS = 4
SHARE = 0.55  # share of the remaining time for the read over one connection
_STALL = 0.5  # share of its time that a read may spend without bytes at its end
_SMALLEST_READ = 64 << 10  # bytes per connection
_REDIRECTS = frozenset([301, 302, 303, 307, 308])


@dataclass(slots=True)
class _Read:
    """One connection's stream and its response."""

    limits: SampleLimits
    connection_number: int = 0
    stream: Stream = field(default_factory=Stream)
    status: int | None = None
    part: DeclaredRange | None = None


def sample(
    url: str,
    connection: TimedConnection,
    deadline: Deadline,
    *,
    size: int | None = None,
    connections: Sequence[int] = (1, 4),
    limits: SampleLimits | None = None,
) -> BytesFinding:
    """Read from the middle of the file at `url`; `size` is the manifest's, None if unknown.

    The first of `connections` must be 1; the others are tried while there is time, and together read twice as much.
    Never raises for network errors. Redirects are followed, but not from TLS to plain text.
    """
    full_limits = limits or SampleLimits()
    first = replace(full_limits, seconds=min(full_limits.seconds, SHARE * deadline.remaining()))
    finding, read_state, extra = (
        BytesFinding("not measured", problem=NO_TIME),
        _Read(first),
        _ExtraConnections(connection, connections[1:]),
    )
    if size == 0:
        return replace(finding, problem="the file is empty")
    try:
        for _ in range(MAX_REDIRECTS):
            finding = replace(finding, final_host=host_and_port(url))
            if deadline.expired:
                return finding
            target = _read(connection, url, size, deadline, read_state, partial(extra.prepare, url))
            if not target:
                break
            check_redirect(url, target)
            url = target
        else:
            raise Refusal("redirects in a loop")
        connection.close()
        found = _finding(read_state, connection, finding, _stalled(read_state, deadline, first))
        if found.state == "measured" and found.ranges:
            found = replace(found, rates=(*found.rates, *extra.measure(url, size, deadline, full_limits)))
        return found
    except Interrupted:
        raise
    except Refusal as refused:
        return _finding(read_state, connection, finding, refused.problem, refused.retry_after)
    except (GpuariaError, OSError, ValueError) as error:
        problem = reason(error) if not isinstance(error, GpuariaError) else error.message
        return _finding(read_state, connection, finding, problem)
    finally:
        connection.close()
        extra.close()


def _read(
    connection: TimedConnection,
    url: str,
    size: int | None,
    deadline: Deadline,
    read_state: _Read,
    ready: Callable[[], None] = lambda: None,
) -> str:
    """Send one request and read its bytes; return the target of a redirect, or "".

    `ready` is called when the response is good.
    """
    connection.ensure_connected(url)
    limits = read_state.limits
    at = _start(size, read_state.connection_number, limits)
    end = at + limits.ceiling if size is None else min(at + limits.ceiling, size)
    stream = read_state.stream
    stream.sent, stream.round_trip = deadline.clock(), connection.connect or 0.0
    headers = {"range": f"bytes={at}-{end - 1}", "accept-encoding": "identity"}
    (status, got), body = connection.request(url, headers, lambda: stream.seconds_left(deadline, limits))
    read_state.status = status
    if status in _REDIRECTS and "location" in got:
        connection.close()
        return urljoin(url, got["location"])
    read_state.part = declared(status, got)
    check(status, got, read_state.part, at, size, time.time())
    ready()
    stream.read(body, deadline, limits)
    return ""


def _start(size: int | None, connection_number: int, limits: SampleLimits) -> int:
    """Return the first offset: in the middle, each connection in its own range.

    The offset is 0 if the file is small or its size unknown.
    """
    if size is None or size < 2 * _SMALLEST_READ:
        return 0
    start = (size // 2 + connection_number * limits.ceiling) % size
    return start if start + min(limits.ceiling, size // 2) <= size else size // 2


def _stalled(read_state: _Read, deadline: Deadline, limits: SampleLimits) -> str:
    """Return why a read that hit its time limit is unreliable; empty if bytes arrived until the end."""
    if not read_state.stream.marks:
        return "sent no data"
    silent = deadline.clock() - read_state.stream.marks[-1][0]
    return f"stalled after {read_state.stream.total:,} bytes" if silent >= _STALL * limits.seconds else ""


def _finding(
    read_state: _Read, connection: TimedConnection, so_far: BytesFinding, problem: str, wait: float | None = None
) -> BytesFinding:
    stream, part = read_state.stream, read_state.part
    found = replace(
        so_far,
        state="failed" if problem else "measured",
        problem=problem,
        peer=connection.peer,
        connect=connection.connect,
        handshake=connection.handshake,
        status=read_state.status,
        ranges=part.ranges if part and read_state.status in (200, 206) else None,
        size=part.size if part else None,
        bytes=stream.total,
        retry_after=wait,
    )
    one = throughput([stream])
    if stream.first is None or one is None:
        return found
    return replace(found, first_byte=stream.first - stream.sent, seconds=one.seconds, rate=one.rate, rates=(one,))


class _ExtraConnections:
    """Additional connections: opened while the first one reads, used after it."""

    def __init__(self, connection: TimedConnection, counts: Sequence[int]) -> None:
        self._first, self._counts = connection, tuple(counts)
        self._connections: list[TimedConnection] = []
        self._jobs: list[BackgroundCall[bool]] = []

    def prepare(self, url: str) -> None:
        """Open the connections in the background."""
        self._connections = [self._first.same_peer_connection() for _ in range(max(self._counts, default=0))]
        self._jobs = [
            BackgroundCall(partial(_succeeds, partial(connection.ensure_connected, url)))
            for connection in self._connections
        ]

    def measure(self, url: str, size: int | None, deadline: Deadline, limits: SampleLimits) -> list[Throughput]:
        """Return one throughput for each count, as long as there is time and no connection fails."""
        found: list[Throughput] = []
        for count in self._counts:
            if deadline.remaining() < 0.2 + 3 * (self._first.connect or 0.0):
                break
            share = replace(limits, ceiling=max(_SMALLEST_READ, 2 * limits.ceiling // count))
            reads = [_Read(share, n + 1) for n in range(count)]
            calls = [partial(self._read_one, n, url, size, deadline, reads[n]) for n in range(count)]
            succeeded = run_all(calls, deadline)
            more = throughput([read.stream for read in reads]) if all(succeeded) else None
            if more is None:
                break
            found.append(more)
        return found

    def _read_one(self, number: int, url: str, size: int | None, deadline: Deadline, read_state: _Read) -> bool:
        connection, job = self._connections[number], self._jobs[number]
        if not job.result(deadline, 0):
            return False
        try:
            return _succeeds(partial(_read, connection, url, size, deadline, read_state))
        finally:
            connection.close()

    def close(self) -> None:
        """Close all connections, including those that are still being opened."""
        for connection, job in zip(self._connections, self._jobs, strict=True):
            if job.result(Deadline(0), 0) is None:
                BackgroundCall(partial(_close_later, connection, job))
            else:
                connection.close()


def _close_later(connection: TimedConnection, job: BackgroundCall[bool]) -> None:
    job.result(Deadline(30), 0)
    connection.close()


def _succeeds(work: Callable[[], str | None]) -> bool:
    """Return True if `work` raised nothing and returned no text."""
    try:
        return not work()
    except Interrupted:
        raise
    except (Refusal, GpuariaError, OSError, ValueError):
        return False
