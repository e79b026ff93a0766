"""Judging mirrors by what arrives, and noticing that a download has come to its last, slow bytes. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

SPAN = 1.5  # seconds over which the present speed is taken
GRACE = 4.0  # seconds in which a mirror may get up to speed
SILENT = 0.02  # of its usual speed: it has stalled
WEAK = 0.12  # of its usual speed: it holds pieces back
HEALTHY = 0.4  # of their usual speed is what the others must have: else the trouble is on our side
POOR = 0.002  # of what the others send: it holds pieces for longer than they would need for the whole
UNUSED = 3.0  # seconds without any connection after which aria2 has dropped it
IDLE = 2.0  # seconds
LITTLE = 1.2  # seconds at its pace that a download is from its end
TRICKLE = 256  # bytes per second; what stays below it is as good as silent
MEMORY = 6.0  # seconds over which the usual speed is averaged


def in_earnest(count: int, seconds: float) -> bool:
    """Whether `count` bytes in that time are more than a trickle."""
    return count >= TRICKLE * max(1.0, seconds)


@dataclass
class _Seen:
    since: float
    readings: deque[tuple[float, int]] = field(default_factory=deque)
    usual: float = 0.0
    most: int = 0
    present: float = 0.0
    weak_since: float | None = None
    without: float | None = None


@dataclass
class Watch:
    """All mirrors of a run. Times are monotonic seconds, speeds bytes per second."""

    seen: dict[str, _Seen] = field(default_factory=dict)

    def judge(self, now: float, received: Mapping[str, int], connections: Mapping[str, int]) -> dict[str, str]:
        """Take in what each mirror has sent so far, and name mirrors that should be dropped, with the reason.

        A mirror is blamed only while the others do well, so the last one never is: aria2's own timeouts see to it.
        """
        for mirror, count in received.items():
            self._read(now, mirror, count, connections.get(mirror, 0))
        bad = {mirror: reason for mirror in received if (reason := self._reason(now, mirror))}
        good = {mirror: seen for mirror, seen in self.seen.items() if mirror in received and mirror not in bad}
        usual = sum(seen.usual for seen in good.values())
        for mirror, seen in good.items():
            if seen.most and now - seen.since >= GRACE and seen.usual < POOR * usual:
                bad[mirror] = f"it sends {seen.usual / 1000:.0f} kB/s beside {usual / 1e6:.1f} MB/s"
        return bad if usual and sum(seen.present for seen in good.values()) >= HEALTHY * usual else {}

    def forget(self, mirror: str) -> None:
        """Start anew with a mirror that was dropped or that came back."""
        self.seen.pop(mirror, None)

    def _read(self, now: float, mirror: str, count: int, connections: int) -> None:
        seen = self.seen.setdefault(mirror, _Seen(now))
        seen.readings.append((now, count))
        while len(seen.readings) > 2 and now - seen.readings[1][0] >= SPAN:
            seen.readings.popleft()
        then, before = seen.readings[0]
        passed = now - then
        seen.present = max(0.0, (count - before) / passed) if passed > 0 else 0.0
        seen.most = max(seen.most, connections)
        seen.without = None if connections else seen.without or now
        expected = seen.usual * connections / seen.most if seen.most else 0.0
        weak = expected > 0 and seen.present < WEAK * expected and now - seen.since >= GRACE
        seen.weak_since = (seen.weak_since or now) if weak else None
        if not weak and len(seen.readings) > 2:
            step = now - seen.readings[-2][0]
            weight = min(1.0, step / MEMORY) if now - seen.since > GRACE else 1.0
            seen.usual += weight * (seen.present - seen.usual)

    def _reason(self, now: float, mirror: str) -> str:
        seen = self.seen[mirror]
        if now - seen.since < GRACE:
            return ""
        if seen.without is not None:
            return "aria2 has dropped it" if now - seen.without >= UNUSED else ""
        if seen.usual <= 0:
            return "nothing came from it"
        if seen.weak_since is None:
            return ""
        if seen.present < SILENT * seen.usual:
            return "it stopped sending"
        fell = 100 * seen.present / seen.usual
        return f"it fell to {fell:.0f} % of its speed" if now - seen.weak_since >= 1.0 else ""


@dataclass
class Ending:
    """Tells when a download's last bytes should be taken over."""

    readings: deque[tuple[float, int]] = field(default_factory=deque)
    pace: float = 0.0
    waiting_since: float | None = None

    def near(self, now: float, done: int, left: int, connections: int, most: int) -> bool:
        """Whether connections run out of work, or the flow breaks off, with little left to fetch.

        `done` and `left` in bytes; `most`: connections when there was work for all. Little is what LITTLE seconds
        would bring at the pace so far.
        """
        self.readings.append((now, done))
        while now - self.readings[0][0] > 3.0:
            self.readings.popleft()
        then, before = self.readings[0]
        if now - then >= 0.5:
            self.pace = max((done - before) / (now - then), self.pace * 0.98)
        if self.pace <= 0 or left <= 0 or left > self.pace * LITTLE:
            return False
        few = most * (0.8 if left <= self.pace * LITTLE / 5 else 0.25)
        return connections <= few or self._broken_off(now, done)

    def held_up(self, now: float, done: int, left: int, *, idle: bool) -> bool:
        """Whether slow connections hold the last pieces from mirrors that are `idle`, and would for IDLE seconds more.

        They must have been for IDLE seconds already.
        """
        self.waiting_since = (self.waiting_since or now) if idle else None
        if self.waiting_since is None or now - self.waiting_since < IDLE:
            return False
        then, before = next((reading for reading in self.readings if now - reading[0] <= IDLE), (now, done))
        rate = (done - before) / (now - then) if now > then else 0.0
        return left > rate * IDLE

    def _broken_off(self, now: float, done: int) -> bool:
        """Under a third of the pace in the last half second."""
        recent = next((reading for reading in self.readings if now - reading[0] <= 0.6), None)
        return recent is not None and now - recent[0] >= 0.4 and (done - recent[1]) / (now - recent[0]) < self.pace / 3

    def in_sight(self, left: int) -> bool:
        """Whether the end is so near that readings should come quickly."""
        return self.pace > 0 and left <= self.pace * 2.5
