"""A small ranged read of a real file: does it answer, how soon, how fast, and does more than one connection help?

One request from the middle of the file, hung up on when enough is known: slow start (RFC 5681 3.1) asks little of a
slow mirror by itself, and several requests one after the other would spend the time of a far one on round trips (60 ms
one way: 3.5 MB/s seen after a second in pieces, 13 MB/s in one). One connection says little about 16: a mirror that
waits for round trips grows with connections, a capped mirror does not. So the read is repeated with several at once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import urljoin

from gpuaria.dns.deadline import BackgroundCall, Deadline, run_all
from gpuaria.dns.findings import NO_TIME
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.mirrors.measure.connection import Straight
from gpuaria.mirrors.measure.findings import BytesFinding, Throughput
from gpuaria.mirrors.measure.range_response import DeclaredRange, Refusal, check, declared, place
from gpuaria.mirrors.measure.stream import SampleLimits, Stream, throughput
from gpuaria.mirrors.measure.tcp import reason
from gpuaria.urls import check_redirect

MAX_REDIRECTS = 4
SHARE = 0.55  # of the time left, for one connection
_STALL = 0.5  # the share of its time that a read may spend waiting for nothing at its end
_LEAST = 64 << 10  # bytes that one of several connections asks for
_REDIRECTS = frozenset([301, 302, 303, 307, 308])


@dataclass(slots=True)
class _Read:
    """One connection's stream and the answer that it came with."""

    limits: SampleLimits
    lane: int = 0
    stream: Stream = field(default_factory=Stream)
    status: int | None = None
    part: DeclaredRange | None = None


def sample(
    url: str,
    carrier: Straight,
    deadline: Deadline,
    *,
    size: int | None = None,
    connections: Sequence[int] = (1, 4),
    limits: SampleLimits | None = None,
) -> BytesFinding:
    """Read from the middle of the file at `url`; `size` is the manifest's, None if unknown.

    The first of `connections` has to be 1; the further ones are tried while there is time, and read twice as much
    together. Never raises for the network. Redirects are followed, not out of TLS.
    """
    asked = limits or SampleLimits()
    first = replace(asked, seconds=min(asked.seconds, SHARE * deadline.remaining()))
    finding, done, lanes = BytesFinding("not measured", problem=NO_TIME), _Read(first), _Lanes(carrier, connections[1:])
    if size == 0:
        return replace(finding, problem="the file is empty")
    try:
        for _ in range(MAX_REDIRECTS):
            finding = replace(finding, final_host=place(url))
            if deadline.expired:
                return finding
            target = _read(carrier, url, size, deadline, done, partial(lanes.prepare, url))
            if not target:
                break
            check_redirect(url, target)
            url = target
        else:
            raise Refusal("redirects in a circle")
        carrier.close()
        found = _finding(done, carrier, finding, _stalled(done, deadline, first))
        if found.state == "measured" and found.ranges:
            found = replace(found, rates=(*found.rates, *lanes.measure(url, size, deadline, asked)))
        return found
    except Interrupted:
        raise
    except Refusal as refused:
        return _finding(done, carrier, finding, refused.problem, refused.retry_after)
    except (GpuariaError, OSError, ValueError) as error:
        problem = reason(error) if not isinstance(error, GpuariaError) else error.message
        return _finding(done, carrier, finding, problem)
    finally:
        carrier.close()
        lanes.close()


def _read(
    carrier: Straight,
    url: str,
    size: int | None,
    deadline: Deadline,
    done: _Read,
    ready: Callable[[], None] = lambda: None,
) -> str:
    """One request and its bytes; gives the target of a redirect, or an empty text. `ready`: once the answer is good."""
    carrier.prepare(url)
    limits = done.limits
    at = _start(size, done.lane, limits)
    end = at + limits.ceiling if size is None else min(at + limits.ceiling, size)
    stream = done.stream
    stream.sent, stream.round_trip = deadline.clock(), carrier.connect or 0.0
    headers = {"range": f"bytes={at}-{end - 1}", "accept-encoding": "identity"}
    (status, got), body = carrier.get(url, headers, lambda: stream.left(deadline, limits))
    done.status = status
    if status in _REDIRECTS and "location" in got:
        carrier.close()
        return urljoin(url, got["location"])
    done.part = declared(status, got)
    check(status, got, done.part, at, size, time.time())
    ready()
    stream.read(body, deadline, limits)
    return ""


def _start(size: int | None, lane: int, limits: SampleLimits) -> int:
    """Return the first offset: in the middle, each connection in its own part; 0 if the file is small or unknown."""
    if size is None or size < 2 * _LEAST:
        return 0
    start = (size // 2 + lane * limits.ceiling) % size
    return start if start + min(limits.ceiling, size // 2) <= size else size // 2


def _stalled(done: _Read, deadline: Deadline, limits: SampleLimits) -> str:
    """Why a read that ran into its end is none to count on; empty where bytes were coming until then."""
    if not done.stream.marks:
        return "sends no byte"
    silent = deadline.clock() - done.stream.marks[-1][0]
    return f"stalled after {done.stream.total:,} bytes" if silent >= _STALL * limits.seconds else ""


def _finding(
    done: _Read, carrier: Straight, so_far: BytesFinding, problem: str, wait: float | None = None
) -> BytesFinding:
    stream, part = done.stream, done.part
    found = replace(
        so_far,
        state="failed" if problem else "measured",
        problem=problem,
        peer=carrier.peer,
        connect=carrier.connect,
        handshake=carrier.handshake,
        status=done.status,
        ranges=part.ranges if part and done.status in (200, 206) else None,
        size=part.size if part else None,
        bytes=stream.total,
        retry_after=wait,
    )
    one = throughput([stream])
    if stream.first is None or one is None:
        return found
    return replace(found, first_byte=stream.first - stream.sent, seconds=one.seconds, rate=one.rate, rates=(one,))


class _Lanes:
    """The further connections: opened while the first one reads, used when it is done."""

    def __init__(self, carrier: Straight, counts: Sequence[int]) -> None:
        self._carrier, self._counts = carrier, tuple(counts)
        self._lanes: list[Straight] = []
        self._jobs: list[BackgroundCall[bool]] = []

    def prepare(self, url: str) -> None:
        """Open them, in the background."""
        self._lanes = [self._carrier.another() for _ in range(max(self._counts, default=0))]
        self._jobs = [BackgroundCall(partial(_quiet, partial(lane.prepare, url))) for lane in self._lanes]

    def measure(self, url: str, size: int | None, deadline: Deadline, limits: SampleLimits) -> list[Throughput]:
        """One reading for each count, as far as there is time for a few round trips and no connection fails."""
        found: list[Throughput] = []
        for count in self._counts:
            if deadline.remaining() < 0.2 + 3 * (self._carrier.connect or 0.0):
                break
            share = replace(limits, ceiling=max(_LEAST, 2 * limits.ceiling // count))
            reads = [_Read(share, n + 1) for n in range(count)]
            works = [partial(self._one, n, url, size, deadline, reads[n]) for n in range(count)]
            fine = run_all(works, deadline)
            more = throughput([read.stream for read in reads]) if all(fine) else None
            if more is None:
                break
            found.append(more)
        return found

    def _one(self, number: int, url: str, size: int | None, deadline: Deadline, done: _Read) -> bool:
        lane, job = self._lanes[number], self._jobs[number]
        if not job.result(deadline, 0):
            return False
        try:
            return _quiet(partial(_read, lane, url, size, deadline, done))
        finally:
            lane.close()

    def close(self) -> None:
        """Hang up, also on those that are still being opened."""
        for lane, job in zip(self._lanes, self._jobs, strict=True):
            if job.result(Deadline(0), 0) is None:
                BackgroundCall(partial(_close_later, lane, job))
            else:
                lane.close()


def _close_later(lane: Straight, job: BackgroundCall[bool]) -> None:
    job.result(Deadline(30), 0)
    lane.close()


def _quiet(work: Callable[[], str | None]) -> bool:
    """True if it went well and gave no text."""
    try:
        return not work()
    except Interrupted:
        raise
    except (Refusal, GpuariaError, OSError, ValueError):
        return False
