"""Estimates the remaining time from the average speed of the last seconds; the estimate never grows."""

from dataclasses import dataclass

_AVERAGING = 8.0  # seconds over which the speed is averaged


@dataclass
class Eta:
    """Averages the speed. `left` is the time to show in seconds, None before the first estimate."""

    left: float | None = None
    speed: float = 0.0
    _at: float | None = None
    _done: int = 0

    def read(self, now: float, done: int, total: int) -> float | None:
        """Record that `done` of `total` bytes are on disk at `now` (monotonic seconds); return `left`.

        While the new estimate is higher than `left`, `left` keeps its value.
        """
        if self._at is None or now <= self._at:
            self._at, self._done = now, done
            return self.left
        passed, arrived = now - self._at, max(0, done - self._done)
        weight = min(1.0, passed / _AVERAGING) if self.speed else 1.0
        self.speed += weight * (arrived / passed - self.speed)
        self._at, self._done = now, max(done, self._done)
        if self.speed > 1:
            estimate = max(0, total - done) / self.speed
            self.left = estimate if self.left is None else min(self.left, estimate)
        return self.left
