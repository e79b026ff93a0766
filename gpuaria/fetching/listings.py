"""Commits and listings of repos, requested once for all fetches of a runtime."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.records import Manifest, Mirror, RepoRef
from gpuaria.sources.protocol import RepoInfo, Wanted
from gpuaria.trust import Away, Told

FRESH = 30.0  # seconds for which a branch is taken to mean the same commit
_MOST = 64  # answers that are kept; a listing of ten thousand files takes some 10 MB
_LOOK = 0.1  # seconds between two looks at the stop event of a fetch that waits for another one

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """A question of one fetch: what the origin has under a reference. `wanted`: the paths that the fetch selects."""

    ref: RepoRef
    origin: Mirror
    wanted: Wanted
    stop: threading.Event

    def key(self, *more: str) -> Hashable:
        """Return what makes the questions of two fetches the same; the selection does not count."""
        return self.origin.base, self.ref.source, self.ref.kind, self.ref.name, self.ref.revision, *more


@dataclass
class _Pending:
    """One request: open until `over`. `until`: seconds of the clock for which the answer is kept."""

    over: threading.Event = field(default_factory=threading.Event)
    answer: object = None
    error: GpuariaError | None = None
    shared: bool = False
    until: float = 0.0


class Listings:
    """The commits and listings that the fetches of one runtime share. Thread-safe.

    The listing of a commit is kept, since a commit cannot change; what a branch means is kept for FRESH seconds. That
    the origin cannot be reached is shared with the fetches that wait for it, and not kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[Hashable, _Pending] = {}
        self._guard = threading.Lock()

    def origin(self, question: Question, ask: Callable[[Wanted], Told | Away]) -> Told | Away:
        """Return what the origin says that the revision is: what `ask` gives, or gave to another fetch."""
        found = self._once(question.key("origin"), question, ask, FRESH)
        return replace(found, ref=question.ref) if isinstance(found, Manifest) else found

    def listing(self, question: Question, info: RepoInfo, ask: Callable[[Wanted], Manifest]) -> Manifest:
        """Return the listing of a commit: what `ask` gives, or gave to another fetch."""
        found = self._once(question.key("listing", info.commit), question, ask, float("inf"))
        return replace(found, ref=question.ref)

    def _once(self, key: Hashable, question: Question, ask: Callable[[Wanted], T], seconds: float) -> T:
        while True:
            asked, first = self._join(key)
            if first:
                return self._ask(asked, question, ask, seconds)
            while not asked.over.wait(_LOOK):
                if question.stop.is_set():
                    raise Interrupted("interrupted", "Run the same command again to continue.")
            if asked.error is not None:
                raise asked.error
            if asked.shared:
                return asked.answer  # type: ignore[return-value]

    def _join(self, key: Hashable) -> tuple[_Pending, bool]:
        """The request for `key`, and whether the caller has to make it."""
        with self._guard:
            known = self._asked.get(key)
            if known is not None and (not known.over.is_set() or (known.shared and self._clock() < known.until)):
                return known, False
            self._asked.pop(key, None)
            over = [old for old, one in self._asked.items() if one.over.is_set()]
            for old in over[: max(0, len(self._asked) - _MOST + 1)]:
                del self._asked[old]
            self._asked[key] = _Pending()
            return self._asked[key], True

    def _ask(self, asked: _Pending, question: Question, ask: Callable[[Wanted], T], seconds: float) -> T:
        """Make a request for all who wait. An answer in which a name was left out, since this fetch does not want it
        and it is unsafe, is not for others; where this fetch is interrupted another one asks again."""
        selective = False

        def wanted(path: str) -> bool:
            nonlocal selective
            selective = True
            return question.wanted(path)

        try:
            answer = ask(wanted)
            asked.answer, asked.shared = answer, not selective
            asked.until = 0.0 if isinstance(answer, Away) else self._clock() + seconds
            return answer
        except Interrupted:
            raise
        except GpuariaError as error:
            asked.error = None if selective else error
            raise
        finally:
            asked.over.set()
