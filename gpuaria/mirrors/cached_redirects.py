"""Cached redirects of small files: the first request finds the target URL's spelling, later ones skip the redirect."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from gpuaria.records import Mirror
from gpuaria.urls import redacted

LONGEST_WAIT = 1.0  # seconds that a first request without a response delays the others
NO_SPELLING = 99  # the redirect cannot be predicted


@dataclass
class CachedRedirects:
    """The spelling of redirect targets that each mirror uses. Thread-safe.

    `presumed`: mirrors whose first request tries the most likely spelling; other mirrors are first asked at the usual
    URL.
    """

    presumed: frozenset[Mirror] = frozenset()
    _spellings: dict[Mirror, int] = field(default_factory=dict)
    _first_request: defaultdict[Mirror, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @contextmanager
    def attempt(self, mirror: Mirror, targets: Sequence[str]) -> Iterator["RedirectAttempt"]:
        """Yield one request's use of the cache until its response begins.

        While the spelling is unknown, one request at a time.
        """
        lock = self._first_request[mirror]
        unknown = bool(targets) and mirror not in self._spellings
        attempt = RedirectAttempt(self, mirror, targets, unknown and lock.acquire(timeout=LONGEST_WAIT))
        if attempt.exclusive and mirror in self._spellings:  # another request found the spelling
            attempt.release()
        try:
            yield attempt
        finally:
            attempt.release()

    def disable(self, mirror: Mirror) -> None:
        """Use the usual URL from now on: a cached redirect led to wrong bytes."""
        self._spellings[mirror] = NO_SPELLING


@dataclass
class RedirectAttempt:
    """One request that uses or finds the spelling. `targets`: the target in each spelling, the most likely first.

    `exclusive`: no other request of this mirror runs until the spelling is known.
    """

    redirects: CachedRedirects
    mirror: Mirror
    targets: Sequence[str]
    exclusive: bool

    @property
    def target(self) -> str:
        """The URL to request directly; empty if the usual one has to be requested."""
        known = self.redirects._spellings.get(self.mirror, 0 if self.mirror in self.redirects.presumed else NO_SPELLING)
        return self.targets[min(known, len(self.targets) - 1)] if self.targets and known != NO_SPELLING else ""

    def record_final_url(self, url: str) -> None:
        """Record that the bytes came from `url`."""
        self._found(next((index for index, target in enumerate(self.targets) if _same_url(target, url)), NO_SPELLING))

    def record_refusal(self, target: str) -> None:
        """Record that `target` does not work; a spelling that failed once is not tried again."""
        index = self.targets.index(target) + 1
        self._found(index if index < len(self.targets) else NO_SPELLING)

    def _found(self, index: int) -> None:
        if self.targets:
            self.redirects._spellings[self.mirror] = max(index, self.redirects._spellings.get(self.mirror, 0))
        self.release()

    def release(self) -> None:
        """Let the other requests of this mirror continue."""
        if self.exclusive:
            self.exclusive = False
            self.redirects._first_request[self.mirror].release()


def _same_url(one: str, other: str) -> bool:
    """True if two URLs are equal after unquoting and both spell slashes inside a file's path the same way."""
    both = [(unquote(redacted(url)), "%2f" in redacted(url).lower()) for url in (one, other)]
    return both[0] == both[1]
