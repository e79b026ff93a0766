"""Arrival times of a sample read's bytes, and the throughput of several reads. Times are seconds of one clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gpuaria.dns.deadline import Deadline
from gpuaria.mirrors.measure.findings import Throughput

WINDOW = 0.12  # shortest tail window, in seconds
_SETTLED = 0.4  # seconds after which a read may end because its rate is known
_ROUND_TRIPS = 1.5  # shortest tail window, in round trips: slow start sends one burst per round trip
_GROWING = 1.25  # ratio of two windows above which the rate is still growing
_ENOUGH = 1 << 16  # bytes after the first chunk that suffice for a rate


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """Limits of a read: `seconds` after its first byte, `ceiling` bytes, or earlier when its rate has settled."""

    seconds: float = 1.0
    ceiling: int = 4 << 20


@dataclass(slots=True)
class Stream:
    """The progress of one connection. `marks`: time and size of each chunk that arrived."""

    sent: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)
    total: int = 0
    ended: float = 0.0  # time of the last byte, or of the time-out after it
    round_trip: float = 0.0

    @property
    def first(self) -> float | None:
        """The time of the first byte; None before it."""
        return self.marks[0][0] if self.marks else None

    def seconds_left(self, deadline: Deadline, limits: SampleLimits) -> float:
        """Return the seconds that the read may still wait."""
        if not self.marks:
            return deadline.remaining()
        return min(deadline.remaining(), self.marks[0][0] + limits.seconds - deadline.clock())

    def read(self, body: Iterator[bytes], deadline: Deadline, limits: SampleLimits) -> None:
        """Read until a limit is reached. Raises TimeoutError if nothing arrives."""
        try:
            for chunk in body:
                now = deadline.clock()
                self.marks.append((now, len(chunk)))
                self.total += len(chunk)
                self.ended = now
                if self.total >= limits.ceiling or self.seconds_left(deadline, limits) <= 0 or self._settled():
                    return
        except TimeoutError:
            if not self.marks:
                raise
            self.ended = deadline.clock()

    def _settled(self) -> bool:
        """Return True if the rate has stopped growing over two windows; checked at every eighth chunk."""
        span = self.window
        if self.ended - self.marks[0][0] < max(_SETTLED, 2 * span) or len(self.marks) % 8:
            return False
        return tail([self], span)[1] is False

    @property
    def window(self) -> float:
        """The length of the tail window in seconds."""
        return max(WINDOW, _ROUND_TRIPS * self.round_trip)


def tail(streams: Sequence[Stream], window: float) -> tuple[float | None, bool]:
    """Return (rate, growing) of all streams together in the last `window` seconds in which all were reading.

    `rate` in bytes per second, None if that time is too short. `growing`: much faster than in the window before.
    """
    end = min(stream.ended for stream in streams)
    start = max(stream.marks[0][0] for stream in streams)
    if end - start < window:
        return None, True
    earlier = min(window, end - window - start)
    last, before = 0, 0
    for moment, size in (mark for stream in streams for mark in stream.marks):
        if end - window < moment <= end:
            last += size
        elif end - window - earlier < moment <= end - window:
            before += size
    known = earlier >= window / 2
    return last / window, not known or last / window > _GROWING * before / earlier


def throughput(streams: Sequence[Stream]) -> Throughput | None:
    """Return the throughput of the streams together; None if one of them received nothing.

    With few bytes after the first ones, the rate counts from the request and is too low.
    """
    if not streams or not all(stream.marks for stream in streams):
        return None
    total = sum(stream.total for stream in streams)
    opening = sum(stream.marks[0][1] for stream in streams)
    begun, ended = min(stream.marks[0][0] for stream in streams), max(stream.ended for stream in streams)
    whole = ended - min(stream.sent for stream in streams)
    seconds = ended - begun
    if total - opening >= _ENOUGH and seconds > 0:
        rate = (total - opening) / seconds
    elif whole > 0:
        rate = total / whole
    else:
        return None
    late, growing = tail(streams, max(stream.window for stream in streams))
    return Throughput(len(streams), total, seconds, rate, rate if late is None else late, growing)
