"""How long it will still take, from the speed of the last seconds, never running backwards."""

from dataclasses import dataclass

_MEMORY = 8.0  # seconds over which the speed is averaged


@dataclass
class Eta:
    """Feed it readings; `left` is what to show, in seconds, None while nothing is known."""

    left: float | None = None
    speed: float = 0.0
    _at: float | None = None
    _done: int = 0

    def read(self, now: float, done: int, total: int) -> float | None:
        """Take in that `done` of `total` bytes are here at `now` (monotonic seconds).

        The time shown only falls. Where the estimate rises it stands still until the estimate has come down to it.
        """
        if self._at is None or now <= self._at:
            self._at, self._done = now, done
            return self.left
        passed, came = now - self._at, max(0, done - self._done)
        weight = min(1.0, passed / _MEMORY) if self.speed else 1.0
        self.speed += weight * (came / passed - self.speed)
        self._at, self._done = now, max(done, self._done)
        if self.speed > 1:
            estimate = max(0, total - done) / self.speed
            self.left = estimate if self.left is None else min(self.left, estimate)
        return self.left
