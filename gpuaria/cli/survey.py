"""The survey behind `gpuaria mirrors`: measures all mirrors and ranks them."""

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from gpuaria.errors import GpuariaError, NetworkError
from gpuaria.events import Emit
from gpuaria.fetching import request_for, with_listed_servers
from gpuaria.mirrors.candidates import may_join
from gpuaria.mirrors.history import History, Past
from gpuaria.mirrors.measure.findings import MirrorFindings
from gpuaria.mirrors.ranking import Ranking
from gpuaria.mirrors.survey import Subject, expectations, rank_findings, reusable, subject_of, survey_mirrors, tools_for
from gpuaria.records import Mirror, RepoKind
from gpuaria.runtime import Runtime
from gpuaria.settings import Settings

USUAL_SIZE = 1_000_000_000  # bytes; the download size to rank for without a repo


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a survey. `size`: the download size ranked for. `problem`: why no file was read."""

    mirrors: tuple[Mirror, ...]
    findings: tuple[MirrorFindings, ...]
    pasts: Mapping[str, Past]
    ranking: Ranking
    subject: Subject | None = None
    size: int = 0
    reused: frozenset[str] = field(default_factory=frozenset)
    problem: GpuariaError | None = None
    remarks: tuple[str, ...] = ()


def survey(
    settings: Settings, text: str, kind: RepoKind | None, revision: str, emit: Emit, stop: threading.Event
) -> Survey:
    """Measure the mirrors in the settings, with a file of the repo `text`; without a file if `text` is empty."""
    with ExitStack() as held:
        runtime = held.enter_context(Runtime(settings, emit=emit, stop=stop))
        ref = runtime.ref(text, kind, revision) if text else None
        world = held.enter_context(runtime.world(None, emit, stop, ref))
        subject, size, problem = None, 0, None
        if ref is not None:
            try:
                chosen = runtime.resolve(request_for(ref), emit, stop)
                subject, size = subject_of(chosen), chosen.size
                world = with_listed_servers(world, chosen)
            except NetworkError as error:
                problem = error  # measure the mirrors without the file
        joining = world.candidates.mirrors if subject is None or not subject.manifest.restricted else ()
        mirrors = (*world.mirrors, *joining)
        history = History.for_this_network(settings.state_dir)
        try:
            known = reusable(mirrors, history, subject)
            pasts = expectations(mirrors, history)  # from before this survey
            tools = tools_for(settings, world.source, world.http, subject, environ=os.environ)
            budget = settings.probe_budget
            findings = survey_mirrors(mirrors, subject, tools, history, budget=budget, known=known)
            liars = [f"resolver {resolver} is not used: {lie}" for resolver, lie in tools.resolvers.liars.items()]
        finally:
            history.close()
        ranking = rank_findings(
            findings, pasts, size or USUAL_SIZE, connections=settings.connections, seed=socket.gethostname()
        )
        remarks = (*liars, *([history.problem] if history.problem else []), *([may_join(joining)] if joining else []))
        return Survey(mirrors, findings, pasts, ranking, subject, size, frozenset(known), problem, remarks)
