"""Speed of one download, and detection of its last, slow bytes. Pure."""

from collections import deque
from dataclasses import dataclass, field

from gpuaria.transfer.tuning import END_SECONDS, IDLE_SECONDS


@dataclass
class Pace:
    """One download's `rate` in bytes per second, and the conditions for taking its end over from aria2."""

    readings: deque[tuple[float, int]] = field(default_factory=deque)
    rate: float = 0.0
    idle_since: float | None = None

    def near_end(self, now: float, done: int, remaining: int, connections: int, usual_connections: int) -> bool:
        """Return True if connections run out of work, or the flow drops, shortly before the end.

        `done` and `remaining` in bytes; `usual_connections`: the number while all had work. Shortly before the end:
        END_SECONDS at the rate so far.
        """
        self.readings.append((now, done))
        while now - self.readings[0][0] > 3.0:
            self.readings.popleft()
        then, before = self.readings[0]
        if now - then >= 0.5:
            self.rate = max((done - before) / (now - then), self.rate * 0.98)
        if self.rate <= 0 or remaining <= 0 or remaining > self.rate * END_SECONDS:
            return False
        few = usual_connections * (0.8 if remaining <= self.rate * END_SECONDS / 5 else 0.25)
        return connections <= few or self._flow_broke(now, done)

    def blocked_by_slow(self, now: float, done: int, remaining: int, *, idle: bool) -> bool:
        """Return True if slow connections have held the last pieces for IDLE_SECONDS, and would for as long again.

        `idle`: there are mirrors without work.
        """
        self.idle_since = (self.idle_since or now) if idle else None
        if self.idle_since is None or now - self.idle_since < IDLE_SECONDS:
            return False
        then, before = next((reading for reading in self.readings if now - reading[0] <= IDLE_SECONDS), (now, done))
        rate = (done - before) / (now - then) if now > then else 0.0
        return remaining > rate * IDLE_SECONDS

    def _flow_broke(self, now: float, done: int) -> bool:
        """Return True if the last half second brought less than a third of the rate."""
        recent = next((reading for reading in self.readings if now - reading[0] <= 0.6), None)
        return recent is not None and now - recent[0] >= 0.4 and (done - recent[1]) / (now - recent[0]) < self.rate / 3

    def end_in_sight(self, remaining: int) -> bool:
        """Return True if the end is so near that readings should be frequent."""
        return self.rate > 0 and remaining <= self.rate * 2.5
