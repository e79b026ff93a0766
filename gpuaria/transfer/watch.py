"""Judging mirrors by what arrives, and noticing that a download has come to its last, slow bytes. Pure.

aria2 gives a connection's speed as the mean of its last 10 s (SpeedCalc), so that a server that fell silent seems to
slow down by a tenth a second. The speed of the last moments is recovered from two readings: of a mean over w seconds,
the last d seconds make d/w.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

WINDOW = 10.0  # seconds of aria2's mean
SPAN = 2.0  # seconds over which the present speed is taken
GRACE = 4.0  # seconds in which a mirror may still get up to speed
SILENT = 0.02  # of its usual speed: it has stalled
WEAK = 0.12  # of its usual speed: it holds pieces back
UNUSED = 3.0  # seconds without any connection after which aria2 has dropped it


@dataclass
class _Seen:
    since: float
    readings: deque[tuple[float, float]] = field(default_factory=deque)
    usual: float = 0.0
    bad_since: float | None = None
    without: float | None = None


@dataclass
class Watch:
    """One download. Times are monotonic seconds, speeds bytes per second."""

    seen: dict[str, _Seen] = field(default_factory=dict)

    def judge(self, now: float, speeds: Mapping[str, list[int]]) -> dict[str, str]:
        """Take in the connections' speeds by mirror, and name mirrors that should be dropped, with the reason.

        A mirror is dropped only if another one is at work: the last one is left to aria2's own timeouts.
        """
        present = {mirror: self._present(now, mirror, rates) for mirror, rates in speeds.items()}
        bad = {}
        for mirror, rate in present.items():
            reason = self._reason(now, mirror, rate, len(speeds[mirror]))
            others = sum(other for name, other in present.items() if name != mirror)
            if reason and others > 0:
                bad[mirror] = reason
        return bad if len(bad) < len(present) else {}

    def forget(self, mirror: str) -> None:
        """Start anew with a mirror that was dropped or that came back."""
        self.seen.pop(mirror, None)

    def _present(self, now: float, mirror: str, rates: list[int]) -> float:
        """The speed of the last SPAN seconds."""
        seen = self.seen.setdefault(mirror, _Seen(now))
        mean = float(sum(rates))
        seen.readings.append((now, mean))
        while len(seen.readings) > 2 and now - seen.readings[1][0] >= SPAN:
            seen.readings.popleft()
        then, before = seen.readings[0]
        passed = now - then
        if passed < SPAN * 0.9:
            return mean
        window = max(passed, min(WINDOW, now - seen.since))
        rate = max(0.0, (mean - before * (1 - passed / window)) * window / passed)
        if not seen.bad_since:
            seen.usual = max(seen.usual * 0.995, min(rate, mean))
        return rate

    def _reason(self, now: float, mirror: str, rate: float, connections: int) -> str:
        seen = self.seen[mirror]
        if now - seen.since < GRACE:
            return ""
        if connections == 0:
            seen.without = seen.without or now
            return "aria2 has dropped it" if now - seen.without >= UNUSED else ""
        seen.without = None
        if seen.usual <= 0:
            return "nothing came from it" if now - seen.since >= 2 * GRACE else ""
        if rate >= WEAK * seen.usual:
            seen.bad_since = None
            return ""
        seen.bad_since = seen.bad_since or now
        if rate < SILENT * seen.usual:
            return "it stopped sending"
        return f"it fell to {100 * rate / seen.usual:.0f} % of its speed" if now - seen.bad_since >= 1 else ""


@dataclass
class Ending:
    """Tells when a download's last bytes should be taken over."""

    readings: deque[tuple[float, int]] = field(default_factory=deque)
    most: int = 0
    pace: float = 0.0

    def near(self, now: float, done: int, total: int, connections: int) -> bool:
        """Whether connections run out of work, or the flow breaks off, with little left to fetch.

        `done` and `total` in bytes. Little is what 2 s would bring at the pace so far.
        """
        self.readings.append((now, done))
        while now - self.readings[0][0] > 3.0:
            self.readings.popleft()
        self.most = max(self.most, connections)
        then, before = self.readings[0]
        if now - then >= 0.5:
            self.pace = max((done - before) / (now - then), self.pace * 0.98)
        left = total - done
        if self.pace <= 0 or left <= 0 or left > self.pace * 2.0:
            return False
        return connections <= self.most // 2 or self._broken_off(now, done)

    def _broken_off(self, now: float, done: int) -> bool:
        """Under a third of the pace in the last half second."""
        recent = next((reading for reading in self.readings if now - reading[0] <= 0.6), None)
        return recent is not None and now - recent[0] >= 0.4 and (done - recent[1]) / (now - recent[0]) < self.pace / 3

    def in_sight(self, done: int, total: int) -> bool:
        """Whether the end is so near that readings should come quickly."""
        return self.pace > 0 and total - done <= self.pace * 2.5
