"""Whether small files can be asked for where the hub's redirect leads: the first one finds out, the others wait."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from gpuaria.urls import bare

LONGEST_WAIT = 1.0  # seconds for which a first file without an answer holds the others up
NONE = 99  # there is no shortcut


@dataclass
class Shortcuts:
    """By mirror, which of the ways to write a shortcut is right. Thread-safe.

    `presumed`: mirrors whose first file tries the likeliest one, where others are asked the long way.
    """

    presumed: frozenset[str] = frozenset()
    _known: dict[str, int] = field(default_factory=dict)
    _first: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @contextmanager
    def turn(self, mirror: str, ways: Sequence[str]) -> Iterator["Turn"]:
        """One request's time until its answer has begun; of requests that do not know the way only one at a time."""
        lock = self._first[mirror]
        turn = Turn(self, mirror, ways, bool(ways) and mirror not in self._known and lock.acquire(timeout=LONGEST_WAIT))
        if turn.alone and mirror in self._known:  # found while we waited
            turn.end()
        try:
            yield turn
        finally:
            turn.end()

    def mistrust(self, mirror: str) -> None:
        """Wrong bytes came from there: the long way is asked once more."""
        self._known[mirror] = NONE


@dataclass
class Turn:
    """What one request knows and finds. `ways`: its shortcut as hubs write it, the likeliest first."""

    shortcuts: Shortcuts
    mirror: str
    ways: Sequence[str]
    alone: bool

    @property
    def way(self) -> str:
        """The shortcut to take; empty for the long way."""
        known = self.shortcuts._known.get(self.mirror, 0 if self.mirror in self.shortcuts.presumed else NONE)
        return self.ways[min(known, len(self.ways) - 1)] if self.ways and known != NONE else ""

    def led(self, url: str) -> None:
        """The bytes come from there."""
        self._found(next((at for at, way in enumerate(self.ways) if _same(way, url)), NONE))

    def refused(self, way: str) -> None:
        """It is no way after all; one that once failed is not taken again."""
        at = self.ways.index(way) + 1
        self._found(at if at < len(self.ways) else NONE)

    def _found(self, at: int) -> None:
        if self.ways:
            self.shortcuts._known[self.mirror] = max(at, self.shortcuts._known.get(self.mirror, 0))
        self.end()

    def end(self) -> None:
        """Let the others go."""
        if self.alone:
            self.alone = False
            self.shortcuts._first[self.mirror].release()


def _same(one: str, other: str) -> bool:
    """Whether two addresses name the same thing, and slashes inside a file's path are written alike."""
    both = [(unquote(bare(url)), "%2f" in bare(url).lower()) for url in (one, other)]
    return both[0] == both[1]
