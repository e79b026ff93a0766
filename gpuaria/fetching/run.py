"""The use case: reference -> manifest -> plan -> verified files -> report. Effects come in as objects."""

import time
from contextlib import ExitStack
from dataclasses import replace

from gpuaria import plan as planning
from gpuaria import vouching
from gpuaria.disk import space
from gpuaria.disk.layout import Layout
from gpuaria.errors import NetworkError, NotFound, NotWritable
from gpuaria.events import Finished, Waiting
from gpuaria.fetching import telling
from gpuaria.fetching.steps import carriers, carry_out
from gpuaria.fetching.world import Limits, Request, World
from gpuaria.paths import check_together
from gpuaria.records import DownloadPlan, Manifest, Report
from gpuaria.selection import select
from gpuaria.transfer.board import Board
from gpuaria.vouching import Court

_READS = ("skip", "name", "verify")  # actions that a target which is complete and read-only allows


def fetch(request: Request, world: World, limits: Limits) -> tuple[Report, DownloadPlan]:
    """Bring every chosen file to its place, verified. Files that failed are in the report, with its exit code.

    Raises NotFound, AccessDenied, NetworkError, DiskError, Aria2Error, Interrupted where the run as a whole ends.
    """
    began = time.monotonic()
    whole, layout = resolve(request, world)
    chosen = select(whole, request.chosen(), request.names, (*request.include, *request.exclude))
    with ExitStack() as held:
        sealed = None if request.dry_run else _locked(held, layout, world, limits)
        names, counts = carriers(chosen, world)
        wanted, refused = world.screening.beforehand(chosen.files)
        plan = planning.make(replace(chosen, files=wanted), layout.look(chosen.files), names, limits.rules, counts)
        plan = replace(plan, steps=(*plan.steps, *refused))
        world.emit(telling.planned(chosen, layout, plan, names))
        if request.offline:
            _need_nothing(plan, chosen)
        if request.dry_run:
            return telling.report(world, chosen, layout, None, began), plan
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
            board.close()
            if sealed is None:
                layout.finish(whole, complete=telling.good(board) == len(plan.steps))
    if board.fatal is not None:
        raise board.fatal
    report = replace(telling.report(world, chosen, layout, board, began), signature=signature)
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


def _need_nothing(plan: DownloadPlan, manifest: Manifest) -> None:
    missing = [step.file.path for step in plan.steps if step.fetches]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(plan.steps)} files of {manifest.ref} are not here, and we are offline: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            "Leave --offline and HF_HUB_OFFLINE out to fetch them.",
        )
