"""The arguments of a fetch: the user's request, the numbers of the settings, and all that touches the world."""

import glob
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuaria import plan as planning
from gpuaria.aria2.options import Shape
from gpuaria.aria2.shared import SharedAria2
from gpuaria.audit.log import AuditLog
from gpuaria.content.policy import Screening
from gpuaria.errors import UsageError
from gpuaria.events import Emit
from gpuaria.fetching.listings import Listings
from gpuaria.http.client import Http
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.mirrors.candidates import Candidates
from gpuaria.mirrors.probing import Probing
from gpuaria.mirrors.settled import Remembered
from gpuaria.records import Manifest, Mirror, RepoRef
from gpuaria.selection import select, selector
from gpuaria.settings.table import TrustPolicy
from gpuaria.sources import Source
from gpuaria.storage.target import Target


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """The user's request. Empty names and patterns mean the whole repo.

    With a `lock`, no server is asked for a listing: the lock names the bytes, which may come from any source.
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
        """Return a function that says whether a path of the repo is asked for."""
        return selector(self.names, self.include, self.exclude)

    def selected(self, whole: Manifest) -> Manifest:
        """The files that are asked for. Raises FileNotInRepo, NothingMatched."""
        return select(whole, self.chosen(), self.names, (*self.include, *self.exclude))

    @property
    def whole(self) -> bool:
        """True if every file of the repo is asked for."""
        return not (self.names or self.include or self.exclude)


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The settings that a run needs as numbers: files at once, threads that hash, patience in seconds."""

    rules: planning.PlanRules
    shape: Shape
    jobs: int = 4
    small_jobs: int = 32
    verify_jobs: int = 2
    patience: float = 600.0
    user_agent: str = "gpuaria"


@dataclass(frozen=True, slots=True)
class World:
    """Everything that touches the outside, as one fetch uses it; the runtime builds it. `mirrors[0]` is the origin.

    `candidates`: mirrors that may join while the origin is away or slow.
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
    ranks: Remembered
    screening: Screening
    audit: AuditLog
    candidates: Candidates
    probing: Probing

    @property
    def origin(self) -> Mirror:
        """The endpoint whose listing decides."""
        return self.mirrors[0]


def request_for(
    ref: RepoRef, names: Sequence[str] = (), include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> FetchRequest:
    """Make a request; the folder or file that a pasted URL names selects in the same way as `names`.

    Raises UsageError for an empty name or pattern.
    """
    if any(not text for text in (*names, *include, *exclude)):
        raise UsageError("an empty file name or pattern selects nothing", "Leave it out.")
    if ref.path:
        exact = glob.escape(ref.path)  # a URL is no pattern
        names = (*names, exact)
        include = (*include, *([] if exact.endswith("/") else [f"{exact}/"]))
    return FetchRequest(ref, tuple(names), tuple(include), tuple(exclude))
