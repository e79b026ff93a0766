"""What a run is given: what the user asks for, the numbers of the settings, and all that touches the outside."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuaria import plan as planning
from gpuaria.aria2.options import Shape
from gpuaria.audit.log import AuditLog
from gpuaria.content.policy import Screening
from gpuaria.events import Emit
from gpuaria.http.client import Http
from gpuaria.mirrors.candidates import Candidates
from gpuaria.records import Manifest, Mirror, Ranking, RepoRef, Report
from gpuaria.selection import select, selector
from gpuaria.settings.table import Policy
from gpuaria.sources import Source
from gpuaria.storage.layout import Layout

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import, and often there is nothing to download


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for. Empty names and patterns mean the whole repo.

    With a `lock` nobody is asked what the repo holds: these bytes are wanted, wherever they come from.
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
        """Whether a path of the repo is asked for."""
        return selector(self.names, self.include, self.exclude)

    def selected(self, whole: Manifest) -> Manifest:
        """The files that are asked for. Raises FileNotInRepo, NothingMatched."""
        return select(whole, self.chosen(), self.names, (*self.include, *self.exclude))

    @property
    def whole(self) -> bool:
        """Whether every file of the repo is asked for."""
        return not (self.names or self.include or self.exclude)


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that a run needs as numbers: files at once, threads that hash, patience in seconds."""

    rules: planning.Rules
    shape: Shape
    jobs: int = 4
    small_jobs: int = 32
    verify_jobs: int = 2
    patience: float = 600.0
    user_agent: str = "gpuaria"


@dataclass(frozen=True, slots=True)
class World:
    """Everything that touches the outside, built by cli/ for real. `mirrors[0]` is the origin, which vouches.

    `candidates`: mirrors that may join while the origin is away or slow.

    `expect_download` is told as soon as `daemon` is likely to be called, to get ready in the background.
    `remembered` ranks mirrors for a number of bytes by what they gave before; `remember` is told how a run went.
    """

    http: Http
    source: Source
    mirrors: tuple[Mirror, ...]
    layout: Callable[[RepoRef, str], Layout]
    local_commit: Callable[[RepoRef], str]
    daemon: Callable[[], "Daemon"]
    expect_download: Callable[[], None]
    emit: Emit
    stop: threading.Event
    policy: Policy
    remembered: Callable[[Sequence[Mirror], int], Ranking]
    remember: Callable[[Report, Sequence[Mirror]], None]
    screening: Screening
    audit: AuditLog
    candidates: Candidates

    @property
    def origin(self) -> Mirror:
        """The endpoint whose listing decides."""
        return self.mirrors[0]
