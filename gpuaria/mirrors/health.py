"""Quarantine of mirrors: reasons, growing pauses, and end of each quarantine."""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from gpuaria.clock import SYSTEM, Clock
from gpuaria.records import Mirror

FIRST_PAUSE = 5.0  # seconds
LONGEST_PAUSE = 120.0  # seconds


@dataclass
class _Quarantine:
    reason: str
    until: float  # monotonic seconds


@dataclass
class Health:
    """The quarantine of one run. Thread-safe."""

    clock: Clock = SYSTEM
    _quarantined: dict[Mirror, _Quarantine] = field(default_factory=dict)
    _pauses: dict[Mirror, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def quarantine(self, mirror: Mirror, reason: str, wait: float | None = None) -> float:
        """Quarantine `mirror` for `wait` seconds if given, else for growing pauses; return the seconds."""
        with self._lock:
            pause = self._pauses.get(mirror, FIRST_PAUSE)
            self._pauses[mirror] = min(LONGEST_PAUSE, pause * 2)
            seconds = pause if wait is None else wait
            self._quarantined[mirror] = _Quarantine(reason, self.clock.monotonic() + seconds)
        return seconds

    def release(self, mirror: Mirror) -> None:
        """End a quarantine: the mirror works again."""
        with self._lock:
            self._quarantined.pop(mirror, None)

    def due(self, wanted: Collection[Mirror]) -> list[Mirror]:
        """Return the mirrors of `wanted` whose quarantine is over.

        Each mirror is returned once, until it is quarantined or released again.
        """
        now = self.clock.monotonic()
        with self._lock:
            found = [mirror for mirror, entry in self._quarantined.items() if entry.until <= now and mirror in wanted]
            for mirror in found:
                self._quarantined[mirror].until = float("inf")
        return found

    def usable(self, mirrors: Sequence[Mirror]) -> list[Mirror]:
        """Return the mirrors that are not quarantined; if every one is, return all of them: a try costs nothing."""
        now = self.clock.monotonic()
        with self._lock:
            quarantined = {mirror for mirror, entry in self._quarantined.items() if now < entry.until}
        return [mirror for mirror in mirrors if mirror not in quarantined] or list(mirrors)
