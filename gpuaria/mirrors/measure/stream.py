"""One connection's ranged read, as moments and bytes, and what several of them come to. Seconds of one clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gpuaria.dns.deadline import Deadline
from gpuaria.mirrors.measure.findings import Throughput

WINDOW = 0.12  # seconds of the tail at the least
_SETTLED = 0.4  # seconds after which a read may end because its rate is known
_ROUND_TRIPS = 1.5  # of the tail at the least: slow start comes in one burst for each
_GROWING = 1.25
_ENOUGH = 1 << 16  # bytes after the first ones that make a rate


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """When a read ends: `seconds` after its first byte, after `ceiling` bytes, or when its rate has settled."""

    seconds: float = 1.0
    ceiling: int = 4 << 20


@dataclass(slots=True)
class Stream:
    """The progress of one connection. `marks`: moment and bytes of each piece that arrived."""

    sent: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)
    total: int = 0
    ended: float = 0.0  # when the last byte came, or when waiting for more was given up
    round_trip: float = 0.0

    @property
    def first(self) -> float | None:
        """When the first byte came."""
        return self.marks[0][0] if self.marks else None

    def left(self, deadline: Deadline, limits: SampleLimits) -> float:
        """Seconds that may still be waited."""
        if not self.marks:
            return deadline.remaining()
        return min(deadline.remaining(), self.marks[0][0] + limits.seconds - deadline.clock())

    def read(self, body: Iterator[bytes], deadline: Deadline, limits: SampleLimits) -> None:
        """Take what comes until a limit is reached. Raises TimeoutError if nothing came at all."""
        try:
            for chunk in body:
                now = deadline.clock()
                self.marks.append((now, len(chunk)))
                self.total += len(chunk)
                self.ended = now
                if self.total >= limits.ceiling or self.left(deadline, limits) <= 0 or self._settled():
                    return
        except TimeoutError:
            if not self.marks:
                raise
            self.ended = deadline.clock()

    def _settled(self) -> bool:
        """True if the rate has stopped growing, over two windows; looked at now and then."""
        span = self.window
        if self.ended - self.marks[0][0] < max(_SETTLED, 2 * span) or len(self.marks) % 8:
            return False
        return tail([self], span)[1] is False

    @property
    def window(self) -> float:
        """The tail's length."""
        return max(WINDOW, _ROUND_TRIPS * self.round_trip)


def tail(streams: Sequence[Stream], window: float) -> tuple[float | None, bool]:
    """Bytes per second of all streams together in the last `window` seconds in which all were reading, and whether
    that is much more than in the window before."""
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
    """Return the throughput of the streams together; None if one of them brought nothing.

    Without enough bytes after the first ones, the time since the request counts: the rate is then too low.
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
