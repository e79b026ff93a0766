"""Arguments of a fetch: the user's request, limits from the settings, and the objects with side effects."""

import glob
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuaria import plan as planning
from gpuaria.aria2.options import DownloadLimits
from gpuaria.aria2.shared import SharedAria2
from gpuaria.audit.log import AuditLog
from gpuaria.content.policy import Screening
from gpuaria.errors import UsageError
from gpuaria.events import Emit
from gpuaria.fetching.listings import Listings
from gpuaria.http.client import Http
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.mirrors.candidates import Candidates
from gpuaria.mirrors.configured import MirrorRanking
from gpuaria.mirrors.probing import Probing
from gpuaria.records import Manifest, Mirror, RepoRef
from gpuaria.selection import select, selector
from gpuaria.settings.table import TrustPolicy
from gpuaria.sources import Source
from gpuaria.storage.target import Target


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """The user's request; without names and patterns it selects the whole repo.

    With a `lock`, no listing is requested: the lock file states the digests, so the bytes may come from any source.
    """

    ref: RepoRef
    names: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    offline: bool = False
    lock: Manifest | None = None

    def chosen(self) -> Callable[[str], bool]:
        """Return a predicate that is true for the paths that the request selects."""
        return selector(self.names, self.include, self.exclude)

    def selected(self, whole: Manifest) -> Manifest:
        """Return the manifest of the selected files. Raises FileNotInRepo, NothingMatched."""
        return select(whole, self.chosen(), self.names, (*self.include, *self.exclude))

    @property
    def whole(self) -> bool:
        """True if the request selects every file of the repo."""
        return not (self.names or self.include or self.exclude)


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Numeric settings of a run: concurrent large and small files, hashing threads, stall time-out in seconds."""

    rules: planning.PlanRules
    shape: DownloadLimits
    jobs: int = 4
    small_jobs: int = 32
    verify_jobs: int = 2
    patience: float = 600.0
    user_agent: str = "gpuaria"


@dataclass(frozen=True, slots=True)
class World:
    """The objects with side effects that one fetch uses; the runtime builds it. `mirrors[0]` is the origin.

    `candidates`: mirrors that may join if the origin is unavailable or slow.
    """

    http: Http
    source: Source
    mirrors: tuple[Mirror, ...]
    target: Target
    aria2: SharedAria2
    listings: Listings
    bucket: TokenBucket
    emit: Emit
    stop: threading.Event
    policy: TrustPolicy
    mirror_ranking: MirrorRanking
    screening: Screening
    audit: AuditLog
    candidates: Candidates
    probing: Probing

    @property
    def origin(self) -> Mirror:
        """The endpoint whose listing decides."""
        return self.mirrors[0]


def request_for(
    ref: RepoRef, names: str | Sequence[str] = (), include: str | Sequence[str] = (), exclude: str | Sequence[str] = ()
) -> FetchRequest:
    """Return a request; the folder or file that a pasted URL names is added to `names`.

    A string is one name or pattern. Raises UsageError for an empty one.
    """
    names, include, exclude = (_listed(given) for given in (names, include, exclude))
    if any(not text for text in (*names, *include, *exclude)):
        raise UsageError("an empty file name or pattern selects nothing", "Leave it out.")
    if ref.path:
        exact = glob.escape(ref.path)  # a URL is not a pattern
        names = (*names, exact)
        include = (*include, *([] if exact.endswith("/") else [f"{exact}/"]))
    return FetchRequest(ref, names, include, exclude)


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return a sequence of names as a tuple; a string is one name."""
    return (given,) if isinstance(given, str) else tuple(given)
