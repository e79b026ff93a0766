"""Which mirrors are out of use for now, why, and when they may be tried again."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from gpuaria.transfer.board import Board

FIRST_PAUSE = 5.0  # seconds
LONGEST_PAUSE = 120.0


@dataclass
class _Out:
    reason: str
    until: float
    pause: float


@dataclass
class Roster:
    """Shared by all files of a run. Thread-safe."""

    board: Board
    clock: Callable[[], float] = time.monotonic
    _out: dict[str, _Out] = field(default_factory=dict)
    _pauses: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def out(self, mirror: str, reason: str, wait: float | None = None) -> None:
        """Take `mirror` out: for `wait` seconds if it asked for that, else for pauses that grow each time."""
        with self._lock:
            pause = self._pauses.get(mirror, FIRST_PAUSE)
            self._pauses[mirror] = min(LONGEST_PAUSE, pause * 2)
            self._out[mirror] = _Out(reason, self.clock() + (pause if wait is None else wait), pause)
        self.board.rejected(mirror, reason)

    def back(self, mirror: str) -> None:
        """It works again."""
        with self._lock:
            self._out.pop(mirror, None)
        self.board.rejected(mirror, "")

    def due(self, wanted: Collection[str]) -> list[str]:
        """Those of `wanted` that are out and may be tried now; each is named once, until `out` or `back` is called."""
        now = self.clock()
        with self._lock:
            names = [name for name, out in self._out.items() if out.until <= now and name in wanted]
            for name in names:
                self._out[name].until = float("inf")
        return names

    def usable(self, mirrors: Sequence[str]) -> list[str]:
        """Those of `mirrors` that are in use or may be tried again; all of them if there is none: nothing is lost."""
        now = self.clock()
        with self._lock:
            away = {name for name, out in self._out.items() if now < out.until}
            return [name for name in mirrors if name not in away] or list(mirrors)
