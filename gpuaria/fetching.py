"""The use case: reference -> manifest -> plan -> verified files -> report. Effects come in as objects."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpuaria import plan as planning
from gpuaria import vouching
from gpuaria.aria2.options import Shape
from gpuaria.disk import space
from gpuaria.disk.layout import Layout
from gpuaria.errors import GpuariaError, Interrupted, NetworkError, NotFound, NotWritable, SomeFilesFailed, WrongBytes
from gpuaria.events import Emit, Finished, Planned, Progress, Waiting
from gpuaria.net import Http
from gpuaria.paths import SafePath, check_together
from gpuaria.records import (
    Address,
    DownloadPlan,
    Manifest,
    Mirror,
    Ranking,
    RemoteFile,
    RepoRef,
    Report,
    Step,
    Verdict,
)
from gpuaria.screening import Screening
from gpuaria.selection import select, selector
from gpuaria.settings.table import Policy
from gpuaria.sources import Source
from gpuaria.transfer.board import Board
from gpuaria.transfer.endgame import Endgame, try_out
from gpuaria.transfer.job import Hands
from gpuaria.transfer.landing import Landing
from gpuaria.transfer.large import LargeFiles
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.small import SmallFiles
from gpuaria.transfer.workers import Workers
from gpuaria.vouching import Court

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import, and often there is nothing to download

_GOOD = ("ok", "unverifiable")
_READS = ("skip", "name", "verify")  # actions that a target which is complete and read-only allows


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for. Empty names and patterns mean the whole repo."""

    ref: RepoRef
    names: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    offline: bool = False

    def chosen(self) -> Callable[[str], bool]:
        """Whether a path of the repo is asked for."""
        return selector(self.names, self.include, self.exclude)

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
    small_jobs: int = 16
    verify_jobs: int = 2
    patience: float = 600.0
    user_agent: str = "gpuaria"


@dataclass(frozen=True, slots=True)
class World:
    """Everything that touches the outside, built by cli/ for real. `mirrors[0]` is the origin, which vouches.

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
    remembered: Callable[[Sequence[str], int], Ranking]
    remember: Callable[[Report], None]
    screening: Screening

    @property
    def origin(self) -> Mirror:
        """The endpoint whose listing decides."""
        return self.mirrors[0]


def fetch(request: Request, world: World, limits: Limits) -> tuple[Report, DownloadPlan]:
    """Bring every chosen file to its place, verified. Files that failed are in the report, with its exit code.

    Raises NotFound, AccessDenied, NetworkError, DiskError, Aria2Error, Interrupted where the run as a whole ends.
    """
    began = time.monotonic()
    whole, layout = resolve(request, world)
    chosen = select(whole, request.chosen(), request.names, (*request.include, *request.exclude))
    with ExitStack() as held:
        sealed = None if request.dry_run else _locked(held, layout, world, limits)
        names, counts = _carriers(chosen, world)
        wanted, refused = world.screening.beforehand(chosen.files)
        plan = planning.make(replace(chosen, files=wanted), layout.look(chosen.files), names, limits.rules, counts)
        plan = replace(plan, steps=(*plan.steps, *refused))
        world.emit(_planned(chosen, layout, plan, names))
        if request.offline:
            _need_nothing(plan, chosen)
        if request.dry_run:
            return _report(request, world, chosen, layout, None, began), plan
        if sealed is not None and any(step.action not in _READS for step in plan.steps):
            raise sealed
        space.check(layout.staging, plan.space)
        if sealed is None:
            layout.begin(whole)
            check_together((file.path for file in chosen.files), case_sensitive=space.case_sensitive(layout.staging))
        board = Board(world.emit, world.stop, {step.file.path for step in plan.steps if step.fetches})
        try:
            landing = carry_out(plan, chosen, layout, board, world, limits)
            signature = landing.signature(chosen.files, whole=request.whole)
        finally:
            good = sum(verdict.outcome in _GOOD for verdict in board.verdicts.values())
            if sealed is None:
                layout.finish(whole, complete=good == len(plan.steps))
    if board.fatal is not None:
        raise board.fatal
    report = replace(_report(request, world, chosen, layout, board, began), signature=signature)
    world.remember(report)
    world.emit(Finished(report))
    return report, plan


def _locked(held: ExitStack, layout: Layout, world: World, limits: Limits) -> NotWritable | None:
    """Lock the target, or give the reason why it cannot be written: a complete one, shared read-only, is of use too."""
    try:
        held.enter_context(layout.lock(limits.patience, lambda who: world.emit(Waiting(who, limits.patience))))
    except NotWritable as error:
        return error
    return None


def resolve(request: Request, world: World) -> tuple[Manifest, Layout]:
    """The whole repo at the asked revision. A commit whose listing was kept is not listed again: it cannot change.

    Only a listing from the same endpoint counts: another one's may have been kept on lesser grounds.
    """
    ref = request.ref
    if request.offline:
        layout = world.layout(ref, world.local_commit(ref))
        kept = layout.saved()
        if kept is None:
            raise NotFound(
                f"{ref} is not here, and we are offline", "Leave --offline and HF_HUB_OFFLINE out to fetch it."
            )
        return replace(kept, ref=ref), layout
    court = Court(world.http, world.source, world.mirrors, world.policy, world.emit)
    info = vouching.commit(court, ref)
    if isinstance(info, NetworkError):
        manifest = vouching.by_mirrors(court, ref, request.chosen(), info)
        return manifest, world.layout(ref, manifest.commit)
    layout = world.layout(ref, info.commit)
    kept = layout.saved()
    if kept is not None and (kept.vouched_by, kept.trust, kept.commit) == (world.origin.base, "origin", info.commit):
        return replace(kept, ref=ref, name=info.name, restricted=info.restricted), layout
    world.expect_download()
    return world.source.listing(ref, info, world.origin.base, world.http, request.chosen()), layout


def carry_out(
    plan: DownloadPlan, manifest: Manifest, layout: Layout, board: Board, world: World, limits: Limits
) -> Landing:
    """Run every step until all have a verdict, or until the run is stopped. Raises Interrupted on the user's wish."""
    twins = _twins(plan)
    landing = Landing(layout, board, twins, world.screening)
    roster = Roster(board)
    mirrors = {mirror.name: mirror for mirror in world.mirrors}
    small_pool, hashers = Workers("small", limits.small_jobs), Workers("hash", limits.verify_jobs)
    small = SmallFiles(world.source, manifest, mirrors, world.http, layout, landing, board, roster, limits.patience)

    def lookup(mirror: str, file: RemoteFile) -> Address | None:
        return world.source.address(mirrors[mirror], manifest, file, world.http)

    def finish(path: Path, size: int, gaps: Sequence[tuple[int, int]], addresses: dict[str, Address]) -> bool:
        return Endgame(path, size, gaps, addresses, world.http, board.arrived, world.stop).run()

    large = LargeFiles(
        steps=[step for step in plan.steps if step.carrier == "aria2"],
        hands=Hands(
            lookup=lookup,
            by_http=lambda step: small_pool.submit(partial(small.fetch, step)),
            finish=finish,
            test=partial(try_out, world.http),
        ),
        start=world.daemon,
        layout=layout,
        landing=landing,
        board=board,
        roster=roster,
        hashers=hashers,
        shape=limits.shape,
        user_agent=limits.user_agent,
        jobs=limits.jobs,
        patience=limits.patience,
        origin=world.origin.name,
    )

    def anew(step: Step) -> None:
        """Bytes that were here turned out wrong: fetch the file after all."""
        board.wanted.add(step.file.path)
        names, counts = _carriers(manifest, world)
        fresh = planning.instead(step, names, limits.rules, counts)
        if fresh.carrier == "aria2":
            large.add(fresh)
        else:
            small_pool.submit(partial(small.fetch, fresh))

    for step in plan.steps:
        if step.action == "refuse":
            landing.refused(step.file, step.reason)
        elif step.action == "skip" and world.screening.knows(step.file):
            landing.kept(step.file, step.reason)
        elif step.action in ("skip", "name", "verify"):
            hashers.submit(partial(_recheck, step, landing, board, anew))
        elif step.carrier == "http":
            small_pool.submit(partial(small.fetch, step))
        elif step.action == "create":
            layout.staged(step.file).touch()
            landing.staged(step.file, layout.staged(step.file))
    try:
        _turn(large, (small_pool, hashers), plan, board, world)
    finally:
        large.close()
    return landing


def _turn(large: LargeFiles, pools: Sequence[Workers], plan: DownloadPlan, board: Board, world: World) -> None:
    """The loop: a tick whenever something happened, and a few times a second."""
    told = 0.0
    while not world.stop.is_set():
        board.wake.clear()
        large.tick()
        if not large.busy and not any(pool.pending for pool in pools):
            break
        if time.monotonic() - told >= 0.45:
            told = time.monotonic()
            world.emit(_progress(large, pools[0].busy, plan, board))
        board.wake.wait(large.pause())
    if world.stop.is_set() and board.fatal is None:
        raise Interrupted(
            f"interrupted; {sum(v.outcome in _GOOD for v in board.verdicts.values())} of {len(plan.steps)} files are "
            "in place",
            "Run the same command again to continue.",
        )
    world.emit(_progress(large, pools[0].busy, plan, board))


def _recheck(step: Step, landing: Landing, board: Board, anew: Callable[[Step], None]) -> None:
    """On a hashing thread: look at bytes that were here before us, and prove them if that was not done yet."""
    try:
        if step.action == "skip":
            landing.kept(step.file, step.reason)
        elif step.action == "name":
            landing.proven(step.file)
        elif landing.present(step.file).outcome != "ok":
            anew(step)
    except GpuariaError as error:
        board.fail(error)
    except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
        board.fail(GpuariaError(f"{type(error).__name__} on {step.file.path}: {error}", "Please report this."))


def _carriers(manifest: Manifest, world: World) -> tuple[list[str], dict[str, int]]:
    """Who may serve the bytes, best first by what is remembered of them, and connections to each.

    Only the origin sees a credential, so only it has those that need one. Where mirrors had to vouch it is away.
    """
    away = manifest.trust in ("pinned", "quorum", "mirror only")
    names = [m.name for m in world.mirrors if (not away if m.origin else not manifest.restricted)]
    if len(names) < 2:
        return names, {}
    ranked = world.remembered(names, manifest.size).accepted
    return [choice.mirror for choice in ranked], {choice.mirror: choice.connections for choice in ranked}


def _twins(plan: DownloadPlan) -> dict[SafePath, list[RemoteFile]]:
    """Files that get their bytes from another one of the plan, by that one's path."""
    owners = {
        planning.identity(step.file): step.file.path
        for step in sorted(plan.steps, key=lambda step: step.fetches, reverse=True)
        if step.action not in ("copy", "refuse")
    }
    twins: dict[SafePath, list[RemoteFile]] = {}
    for step in plan.steps:
        if step.action == "copy":
            twins.setdefault(owners[planning.identity(step.file)], []).append(step.file)
    return twins


def _need_nothing(plan: DownloadPlan, manifest: Manifest) -> None:
    missing = [step.file.path for step in plan.steps if step.fetches]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(plan.steps)} files of {manifest.ref} are not here, and we are offline: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            "Leave --offline and HF_HUB_OFFLINE out to fetch them.",
        )


def _planned(manifest: Manifest, layout: Layout, plan: DownloadPlan, mirrors: Sequence[str]) -> Planned:
    fetched = [step for step in plan.steps if step.fetches]
    return Planned(
        ref=str(manifest.ref),
        commit=manifest.commit,
        path=str(layout.root),
        files=len(plan.steps),
        fetch_files=len(fetched),
        fetch_bytes=plan.fetch_bytes,
        reuse_bytes=plan.reuse_bytes,
        mirrors=tuple(mirrors),
    )


def _progress(large: LargeFiles, requests: int, plan: DownloadPlan, board: Board) -> Progress:
    """`requests`: of the metadata client, for small files."""
    active = large.active()
    return Progress(
        done=board.done_bytes + sum(file.done for file in active) + sum(job.file.size for job in large.checking),
        total=sum(step.file.size for step in plan.steps if step.file.path in board.wanted),
        speed=sum(file.speed for file in active),
        connections=sum(file.connections for file in active) + requests,
        mirrors=max(large.hosts, 1 if requests else 0),
        verified=len(board.verdicts),
        files=len(plan.steps),
        active=active,
        verifying=len(large.checking),
    )


def _report(
    request: Request, world: World, manifest: Manifest, layout: Layout, board: Board | None, began: float
) -> Report:
    verdicts = dict(board.verdicts) if board else {}
    good = sum(file.size for file in manifest.files if file.path in verdicts and verdicts[file.path].outcome in _GOOD)
    counts: dict[str, int] = {}
    for verdict in verdicts.values():
        counts[verdict.outcome] = counts.get(verdict.outcome, 0) + 1
    bases = {mirror.name: mirror.base for mirror in world.mirrors}
    pickle_files, misnamed = world.screening.told()
    return Report(
        ref=str(manifest.ref),
        commit=manifest.commit,
        path=str(layout.root),
        files=len(manifest.files),
        bytes_fetched=board.fetched if board else 0,
        bytes_reused=max(0, good - board.fetched) if board else 0,
        seconds=round(time.monotonic() - began, 3),
        hub_requests=world.http.count(world.origin.base),
        vouched_by=manifest.vouched_by,
        trust=manifest.trust,
        verdicts=counts,
        mirrors=tuple(replace(use, requests=world.http.count(bases[use.name])) for use in board.uses())
        if board
        else (),
        problems=tuple(verdict for verdict in verdicts.values() if verdict.outcome not in _GOOD),
        pickles=len(world.screening.pickles),
        pickle_files=pickle_files,
        misnamed=misnamed,
        exit_code=_exit_code(list(verdicts.values()), board.causes if board else {}),
    )


def _exit_code(verdicts: Sequence[Verdict], causes: Mapping[str, GpuariaError]) -> int:
    """Wrong and refused bytes come before failed files; files that failed for want of a network alone say so."""
    if any(verdict.outcome in ("wrong size", "wrong digest", "refused") for verdict in verdicts):
        return WrongBytes.exit_code
    failed = [causes.get(verdict.path) for verdict in verdicts if verdict.outcome not in _GOOD]
    if failed and all(isinstance(cause, NetworkError) for cause in failed):
        return NetworkError.exit_code
    return SomeFilesFailed.exit_code if failed else 0
