"""`gpuaria mirrors`: measure and rank them, and `add`, `remove` and `list`."""

import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuaria.api import USER_AGENT, Session, request_for
from gpuaria.cli import mirrors_table
from gpuaria.cli.app import settings_from
from gpuaria.cli.fetch import known_kind
from gpuaria.cli.main import complain
from gpuaria.cli.mirrors_list import EDITS, edit
from gpuaria.cli.render import Json, Quiet
from gpuaria.errors import GpuariaError, NetworkError, NoUsableMirror, UsageError
from gpuaria.fetching import resolve
from gpuaria.mirrors.history import History, Past
from gpuaria.mirrors.measure.findings import MirrorFindings
from gpuaria.mirrors.survey import Subject, expectations, ranked, reusable, subject_of, survey_mirrors, tools_for
from gpuaria.records import Mirror, Ranking

PLOTS = (".png", ".svg")
USUAL = 1_000_000_000  # bytes that mirrors are ranked for where no repo is named


@dataclass(frozen=True, slots=True)
class Survey:
    """What the command found out. `size`: bytes that the ranking is for. `problem`: why no file was compared."""

    mirrors: tuple[Mirror, ...]
    findings: tuple[MirrorFindings, ...]
    pasts: Mapping[str, Past]
    ranking: Ranking
    subject: Subject | None = None
    size: int = 0
    reused: frozenset[str] = field(default_factory=frozenset)
    problem: GpuariaError | None = None
    remarks: tuple[str, ...] = ()


def command(
    words: Sequence[str],
    kind: str,
    revision: str,
    flags: dict[str, Any],
    *,
    why: bool,
    plot: str | None,
    as_json: bool,
    stop: threading.Event,
) -> int:
    """Print what is known of each mirror and what follows from it; 7 if none can be used."""
    if words and words[0] in EDITS:
        return edit(words[0], words[1:], flags, as_json=as_json)
    if len(words) > 1:
        raise UsageError("mirrors are measured with one repo", f"gpuaria mirrors REF, or one of {', '.join(EDITS)}.")
    if not words and (kind or revision):
        raise UsageError("no repo is named", "gpuaria mirrors REF, or leave --type and --revision out.")
    wanted, target = known_kind(kind), _plot_file(plot)
    found = _measured(words[0] if words else "", wanted, revision, flags, stop)
    status = _status(found)
    if as_json:
        Json(sys.stdout).write("report", mirrors_table.as_json(found, status))
    else:
        print(mirrors_table.show(found))
        if why:
            print("\n" + mirrors_table.explained(found))
    if target:
        from gpuaria.cli import mirrors_plot

        mirrors_plot.write(found, target)
    if status:
        complain(found.problem or _nothing_usable(found))
    return status


def _plot_file(plot: str | None) -> Path | None:
    """Checked before anything is measured. Raises UsageError."""
    if plot is None:
        return None
    path = Path(plot).expanduser()
    if path.suffix.lower() not in PLOTS:
        raise UsageError(f"--plot {plot} is no name of a picture", f"It ends in {' or '.join(PLOTS)}.")
    from gpuaria.cli import mirrors_plot

    mirrors_plot.need()
    return path


def _measured(text: str, kind: Any, revision: str, flags: dict[str, Any], stop: threading.Event) -> Survey:
    settings = settings_from(flags)
    if settings.offline:
        raise UsageError("mirrors cannot be measured offline", "Leave --offline and HF_HUB_OFFLINE out.")
    with Session(settings, emit=Quiet(sys.stderr), stop=stop) as session:
        subject, size, problem = None, 0, None
        if text:
            ref = session.ref(text, kind, revision)
            try:
                subject, size = _subject(session, ref)
            except NetworkError as error:
                problem = error  # the mirrors are what is asked about: go on without the file
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


def _subject(session: Session, ref: Any) -> tuple[Subject | None, int]:
    """The file to read, and the bytes of all that the reference means."""
    request = request_for(ref)
    chosen = request.selected(resolve(request, session.world)[0])
    return subject_of(chosen), chosen.size


def _status(found: Survey) -> int:
    if found.problem is not None:
        return found.problem.exit_code
    return 0 if found.ranking.accepted else NoUsableMirror.exit_code


def _nothing_usable(found: Survey) -> GpuariaError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in found.ranking.rejected)
    return NoUsableMirror(f"no mirror can be used: {reasons}", "gpuaria mirrors REF --why shows every stage.")
