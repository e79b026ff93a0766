"""Whether small files can be asked for where the hub's redirect leads: the first one finds out, the others wait."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LONGEST_WAIT = 1.0  # seconds for which a first file without an answer holds the others up


@dataclass
class Shortcuts:
    """By mirror. Thread-safe."""

    _known: dict[str, bool] = field(default_factory=dict)
    _first: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @contextmanager
    def turn(self, mirror: str) -> Iterator["Turn"]:
        """One request's time until its answer has begun; of requests that do not know the way only one at a time."""
        lock = self._first[mirror]
        turn = Turn(self, mirror, mirror not in self._known and lock.acquire(timeout=LONGEST_WAIT))
        if turn.alone and mirror in self._known:  # found while we waited
            turn.end()
        try:
            yield turn
        finally:
            turn.end()

    def mistrust(self, mirror: str) -> None:
        """Wrong bytes came from there: the long way is asked once more."""
        self._known[mirror] = False


@dataclass
class Turn:
    """What one request knows and finds."""

    shortcuts: Shortcuts
    mirror: str
    alone: bool

    @property
    def short(self) -> bool:
        """Whether to take the shortcut."""
        return self.shortcuts._known.get(self.mirror, False)

    def found(self, leads_there: bool) -> None:
        """The redirect leads where the shortcut goes, or not; a shortcut that once failed is not taken again."""
        self.shortcuts._known[self.mirror] = leads_there and self.shortcuts._known.get(self.mirror, True)
        self.end()

    def end(self) -> None:
        """Let the others go."""
        if self.alone:
            self.alone = False
            self.shortcuts._first[self.mirror].release()
