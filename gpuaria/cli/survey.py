"""The survey behind `gpuaria mirrors`: measures every mirror, and ranks them."""

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuaria import fetching
from gpuaria.api import USER_AGENT, Session, request_for
from gpuaria.errors import GpuariaError, NetworkError
from gpuaria.events import Emit
from gpuaria.mirrors.history import History, Past
from gpuaria.mirrors.measure.findings import MirrorFindings
from gpuaria.mirrors.survey import Subject, expectations, ranked, reusable, subject_of, survey_mirrors, tools_for
from gpuaria.records import Kind, Mirror, Ranking, RepoRef
from gpuaria.settings import Settings

USUAL = 1_000_000_000  # bytes that mirrors are ranked for where no repo is named


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a survey. `size`: bytes that the ranking is for. `problem`: why no file was compared."""

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
    settings: Settings, text: str, kind: Kind | None, revision: str, emit: Emit, stop: threading.Event
) -> Survey:
    """Measure the mirrors of the settings with a file of the repo `text`, or, if it is empty, without a file."""
    with Session(settings, emit=emit, stop=stop) as session:
        subject, size, problem = None, 0, None
        if text:
            ref = session.ref(text, kind, revision)
            try:
                subject, size = _subject(session, ref)
            except NetworkError as error:
                problem = error  # the question is about the mirrors: continue without the file
        world, history = session.world, History.here(settings.state_dir)
        try:
            known = reusable(world.mirrors, history, subject)
            pasts = expectations(world.mirrors, history)  # as they were before this survey
            tools = tools_for(settings, world.source, world.http, subject, environ=os.environ, user_agent=USER_AGENT)
            budget = settings.probe_budget
            findings = survey_mirrors(world.mirrors, subject, tools, history, budget=budget, known=known)
            liars = [f"the resolver {who} is not used: {lie}" for who, lie in tools.resolvers.liars.items()]
        finally:
            history.close()
        ranking = ranked(findings, pasts, size or USUAL, connections=settings.connections, seed=socket.gethostname())
        remarks = (*liars, *([history.problem] if history.problem else []))
        return Survey(world.mirrors, findings, pasts, ranking, subject, size, frozenset(known), problem, remarks)


def _subject(session: Session, ref: RepoRef) -> tuple[Subject | None, int]:
    """Return the file to read, and the size of all files that the reference means."""
    request = request_for(ref)
    chosen = request.selected(fetching.resolve(request, session.world)[0])
    return subject_of(chosen), chosen.size
