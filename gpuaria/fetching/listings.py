"""Commits and listings of repos, requested once for all fetches of a runtime."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.records import Manifest, Mirror, RepoRef
from gpuaria.sources.protocol import RepoInfo, Wanted
from gpuaria.trust import OriginResponse, OriginUnavailable

BRANCH_SECONDS = 30.0  # for which a branch is assumed to point to the same commit
_MOST_RESPONSES = 64  # kept; a listing of ten thousand files takes about 10 MB
_STOP_POLL = 0.1  # seconds between checks of the stop event while waiting for another fetch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """The listing that one fetch needs from the origin. `wanted`: the paths that the fetch selects."""

    ref: RepoRef
    origin: Mirror
    wanted: Wanted
    stop: threading.Event

    def key(self, *more: str) -> Hashable:
        """Return the cache key: equal for two fetches of the same revision, whatever files they select."""
        return self.origin.base, self.ref.source, self.ref.kind, self.ref.name, self.ref.revision, *more


@dataclass
class _SharedRequest:
    """One request, finished when `over` is set. `until`: clock seconds until which its response may be used again."""

    over: threading.Event = field(default_factory=threading.Event)
    response: object = None
    error: GpuariaError | None = None
    shared: bool = False
    until: float = 0.0


class Listings:
    """Commits and listings shared by the fetches of one runtime. Thread-safe.

    The listing of a commit is kept for good, the commit of a branch for BRANCH_SECONDS. An origin that cannot be
    reached is reported to the fetches that wait for it, and not kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[Hashable, _SharedRequest] = {}
        self._guard = threading.Lock()

    def origin(
        self, question: Question, ask: Callable[[Wanted], OriginResponse | OriginUnavailable]
    ) -> OriginResponse | OriginUnavailable:
        """Return the origin's response for the revision, from `ask` or from another fetch's request."""
        found = self._share(question.key("origin"), question, ask, BRANCH_SECONDS)
        return replace(found, ref=question.ref) if isinstance(found, Manifest) else found

    def listing(self, question: Question, info: RepoInfo, ask: Callable[[Wanted], Manifest]) -> Manifest:
        """Return the listing of a commit, from `ask` or from another fetch's request."""
        found = self._share(question.key("listing", info.commit), question, ask, float("inf"))
        return replace(found, ref=question.ref)

    def _share(self, key: Hashable, question: Question, ask: Callable[[Wanted], T], seconds: float) -> T:
        while True:
            request, first = self._join(key)
            if first:
                return self._ask(request, question, ask, seconds)
            while not request.over.wait(_STOP_POLL):
                if question.stop.is_set():
                    raise Interrupted("interrupted", "Run the same command again to continue.")
            if request.error is not None:
                raise request.error
            if request.shared:
                return request.response  # type: ignore[return-value]

    def _join(self, key: Hashable) -> tuple[_SharedRequest, bool]:
        """Return the request for `key`, and whether the caller has to make it."""
        with self._guard:
            known = self._asked.get(key)
            if known is not None and (not known.over.is_set() or (known.shared and self._clock() < known.until)):
                return known, False
            self._asked.pop(key, None)
            over = [old for old, one in self._asked.items() if one.over.is_set()]
            for old in over[: max(0, len(self._asked) - _MOST_RESPONSES + 1)]:
                del self._asked[old]
            self._asked[key] = _SharedRequest()
            return self._asked[key], True

    def _ask(self, request: _SharedRequest, question: Question, ask: Callable[[Wanted], T], seconds: float) -> T:
        """Make a request for all waiting fetches.

        A response is not shared if this fetch left out an unsafe name that it does not select; if this fetch is
        interrupted, another one makes the request.
        """
        selective = False

        def wanted(path: str) -> bool:
            nonlocal selective
            selective = True
            return question.wanted(path)

        try:
            response = ask(wanted)
            request.response, request.shared = response, not selective
            request.until = 0.0 if isinstance(response, OriginUnavailable) else self._clock() + seconds
            return response
        except Interrupted:
            raise
        except GpuariaError as error:
            request.error = None if selective else error
            raise
        finally:
            request.over.set()
