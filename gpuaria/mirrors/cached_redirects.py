"""Redirect targets that small files can be asked for directly: the first request finds out, the others wait for it."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from gpuaria.records import Mirror
from gpuaria.urls import redacted

LONGEST_WAIT = 1.0  # seconds for which a first request without a response delays the others
NONE = 99  # the redirect cannot be predicted


@dataclass
class CachedRedirects:
    """By mirror, which spelling of a redirect target is right. Thread-safe.

    `presumed`: mirrors whose first request tries the likeliest spelling; the others are asked at their usual URL first.
    """

    presumed: frozenset[Mirror] = frozenset()
    _known: dict[Mirror, int] = field(default_factory=dict)
    _first: defaultdict[Mirror, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @contextmanager
    def turn(self, mirror: Mirror, targets: Sequence[str]) -> Iterator["Turn"]:
        """One request until its response begins. As long as the spelling is unknown, requests take turns."""
        lock = self._first[mirror]
        unknown = bool(targets) and mirror not in self._known
        turn = Turn(self, mirror, targets, unknown and lock.acquire(timeout=LONGEST_WAIT))
        if turn.alone and mirror in self._known:  # found while this request waited
            turn.end()
        try:
            yield turn
        finally:
            turn.end()

    def mistrust(self, mirror: Mirror) -> None:
        """Ask at the usual URL from now on: a cached redirect led to wrong bytes."""
        self._known[mirror] = NONE


@dataclass
class Turn:
    """One request that uses or finds the spelling. `targets`: the target in each spelling, the likeliest first."""

    redirects: CachedRedirects
    mirror: Mirror
    targets: Sequence[str]
    alone: bool

    @property
    def target(self) -> str:
        """The URL to ask directly; empty where the usual one has to be asked."""
        known = self.redirects._known.get(self.mirror, 0 if self.mirror in self.redirects.presumed else NONE)
        return self.targets[min(known, len(self.targets) - 1)] if self.targets and known != NONE else ""

    def led_to(self, url: str) -> None:
        """Record that the bytes come from `url`."""
        self._found(next((at for at, target in enumerate(self.targets) if _same(target, url)), NONE))

    def refused(self, target: str) -> None:
        """Record that `target` does not work; a spelling that failed once is not tried again."""
        at = self.targets.index(target) + 1
        self._found(at if at < len(self.targets) else NONE)

    def _found(self, at: int) -> None:
        if self.targets:
            self.redirects._known[self.mirror] = max(at, self.redirects._known.get(self.mirror, 0))
        self.end()

    def end(self) -> None:
        """Let the other requests continue."""
        if self.alone:
            self.alone = False
            self.redirects._first[self.mirror].release()


def _same(one: str, other: str) -> bool:
    """True if two URLs name the same thing, and write slashes inside a file's path alike."""
    both = [(unquote(redacted(url)), "%2f" in redacted(url).lower()) for url in (one, other)]
    return both[0] == both[1]
