"""The use case: reference -> manifest -> plan -> verified files -> report. Effects come in as objects."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gpuaria import plan as planning
from gpuaria import trust
from gpuaria.audit.recorder import Asked, Recorder
from gpuaria.errors import GpuariaError, NetworkError, NoSpace, NotFound, NotWritable
from gpuaria.events import Event, Finished, Waiting, Warned
from gpuaria.fetching import report
from gpuaria.fetching.execute import Destination, carriers, execute
from gpuaria.fetching.joining import Joined, explained, joining
from gpuaria.fetching.listed import from_holders, warn_of_weak, weak, with_listed_servers
from gpuaria.fetching.listings import Question
from gpuaria.fetching.request import FetchRequest, RunLimits, World
from gpuaria.mirrors.hub_files import HubFiles
from gpuaria.mirrors.pool import MirrorPool
from gpuaria.paths import check_together
from gpuaria.records import DownloadPlan, Manifest, Mirror, RemoteFile, Report, Verdict
from gpuaria.sources.protocol import KnowsFreshness, RepoInfo
from gpuaria.storage import space
from gpuaria.storage.layout import Layout
from gpuaria.transfer.results import Results
from gpuaria.trust import Away, ListingTrust

_READS = ("skip", "name", "verify")  # actions that a target which is complete and read-only allows


def fetch(request: FetchRequest, world: World, limits: RunLimits) -> tuple[Report, DownloadPlan]:
    """Bring every chosen file to its place, verified. Files that failed are in the report, with its exit code.

    Raises NotFound, AccessDenied, NetworkError, DiskError, Aria2Error, Interrupted where the run as a whole ends. The
    audit log tells of it either way.
    """
    audit = Recorder(world.audit, _asked(request, world), world.mirrors)
    try:
        report, plan, mirrors = _fetch(request, world, limits, audit)
    except BaseException as error:
        if not request.dry_run:
            audit.broke(error)
            _warn_of_log(world)
        raise
    if not request.dry_run:
        audit.ended(report.exit_code)
        _warn_of_log(world)
        world.ranks.note(report, mirrors, world.probing)
        world.emit(Finished(report))
    return report, plan


def _asked(request: FetchRequest, world: World) -> Asked:
    """Return the user's request as the audit log records it."""
    selection = (*request.names, *request.include, *(f"not {text}" for text in request.exclude))
    flags = (("force", request.force), ("offline", request.offline))
    return Asked(str(request.ref), selection, tuple(flag for flag, on in flags if on), world.origin.base)


def _warn_of_log(world: World) -> None:
    if world.audit.problem:
        world.emit(Warned(world.audit.problem))


def _fetch(
    request: FetchRequest, world: World, limits: RunLimits, audit: Recorder
) -> tuple[Report, DownloadPlan, Sequence[Mirror]]:
    began, joined = time.monotonic(), Joined()
    try:
        whole, layout, joined = _resolved(request, world, as_before=True)
    except NetworkError as error:
        whole, layout = _as_before(request, world, error)
    world = with_listed_servers(replace(world, mirrors=(*world.mirrors, *joined.mirrors)), whole)
    audit.uses(world.mirrors)
    whole = layout.pinned(whole)
    chosen = request.selected(whole)
    if chosen.files and not any(file.digest for file in chosen.files):
        chosen = replace(chosen, trust="none")
    with ExitStack() as held:
        sealed = None if request.dry_run else _locked(held, layout, world, limits)
        away = request.lock is None and whole.trust in trust.WITHOUT_ORIGIN
        mirrors, counts = carriers(chosen, world, away)
        wanted, refused = world.screening.beforehand(chosen.files)
        plan = planning.make(replace(chosen, files=wanted), layout.look(chosen.files), mirrors, limits.rules, counts)
        plan = from_holders(replace(plan, steps=(*plan.steps, *refused)), world)
        warn_of_weak(chosen, world)
        if any(step.fetches or step.action == "verify" for step in plan.steps):
            joined.say(world)
        if not request.dry_run:
            world.emit(report.planned(chosen, layout, plan, world, [mirror.name for mirror in mirrors]))
        if request.offline:
            _need_nothing(plan, chosen)
        if request.dry_run:
            _warn_of_space(layout, plan, world)
            return report.report(world, chosen, layout, None, began), plan, world.mirrors
        if sealed is not None and any(step.action not in _READS for step in plan.steps):
            raise sealed
        space.check(layout.staging, plan.space)
        listing = _to_save(request, world, layout, whole)
        if sealed is None:
            layout.begin(listing, sure=request.lock is None)
            check_together((file.path for file in chosen.files), case_sensitive=space.case_sensitive(layout.staging))
        pool = MirrorPool(HubFiles(world.source, chosen, world.http), world.mirrors)
        results = Results(pool, (step.file.path for step in plan.steps if step.fetches), _Heard(audit, world))
        audit.begins(chosen, layout, plan, results)
        _deepen(chosen, world, plan)
        target = Destination(chosen, layout, mirrors, counts, request.whole, request.lock is not None)
        try:
            execute(plan, target, world, limits, results)
        finally:
            if sealed is None:
                # A lock tells of the past: what the cache knows a branch to be now, it does not change.
                listing = replace(listing, ref=whole.ref)
                layout.finish(listing, complete=request.lock is None and report.good(results) == len(plan.steps))
    told = replace(report.report(world, chosen, layout, results, began), weak=len(weak(chosen)))
    return told, plan, pool.mirrors


@dataclass(frozen=True, slots=True)
class _Heard:
    """Passes what happens during a run to the audit log and to the user."""

    audit: Recorder
    world: World

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        self.audit.settled(file, verdict)

    def emit(self, event: Event) -> None:
        self.world.emit(event)


def _deepen(manifest: Manifest, world: World, plan: DownloadPlan) -> None:
    """Measure mirrors of which the history knows nothing by the largest file that is to be fetched from them."""
    large = max((step for step in plan.steps if step.fetches), key=lambda step: step.file.size, default=None)
    if large is not None and len(large.mirrors) > 1:
        unknown = [one for one in large.mirrors if one.name in world.probing.unknown]
        world.probing.deepen(unknown, manifest, large.file, world.source)


def _warn_of_space(layout: Layout, plan: DownloadPlan, world: World) -> None:
    """Warn about missing disk space: a dry run does not fail for that."""
    try:
        space.check(layout.staging, plan.space)
    except NoSpace as error:
        world.emit(Warned(error.message))


def _locked(held: ExitStack, layout: Layout, world: World, limits: RunLimits) -> NotWritable | None:
    """Lock the target; return why it cannot be written, if so: a complete, read-only target still serves a fetch."""
    try:
        held.enter_context(layout.lock(limits.patience, lambda who: world.emit(Waiting(who, limits.patience))))
    except NotWritable as error:
        return error
    return None


def resolve(request: FetchRequest, world: World) -> tuple[Manifest, Layout]:
    """Return the whole repo at the requested revision. A saved listing of a commit is used again: it cannot change.

    Only a listing from the same endpoint counts: another one's may have been kept on lesser grounds.
    """
    whole, layout, _ = _resolved(request, world, as_before=False)
    return whole, layout


def _resolved(request: FetchRequest, world: World, *, as_before: bool) -> tuple[Manifest, Layout, Joined]:
    """See `resolve`; with the mirrors that join because the origin is away.

    `as_before`: a listing that the origin gave at an earlier run comes before that of mirrors which only join.
    """
    ref = request.ref
    if request.lock is not None:
        world.aria2.preload()
        return replace(request.lock, trust="pinned"), world.target.layout(ref, request.lock.version), Joined()
    if request.offline:
        layout = world.target.layout(ref, world.target.commit(ref))
        kept = layout.saved()
        if kept is None:
            raise NotFound(
                f"{ref} is not here, and we are offline", "Leave --offline and HF_HUB_OFFLINE out to fetch it."
            )
        return replace(kept, ref=ref), layout, Joined()
    trusted = ListingTrust(world.http, world.source, world.mirrors, world.policy, world.emit, world.candidates.possible)
    if not request.dry_run:  # the plan that it prints must not depend on which probe is quickest
        world.probing.start(world.mirrors)
    joined, question = Joined(), Question(ref, world.origin, request.chosen(), world.stop)
    try:
        told = world.listings.origin(question, lambda wanted: trust.ask_origin(trusted, ref, wanted))
    except NetworkError as error:
        raise explained(world, error) from None
    if isinstance(told, Away):
        joined = joining(world, told)
        world.probing.start(joined.mirrors)
        if joined and as_before and (before := _before(request, world)):
            return *_as_before(request, world, told.reason), joined if not before.restricted else Joined()
        if trust.may_stand_in(trusted, ref):
            joined = joined.say(world)
        told = _stood_in(request, trusted, told, joined, world)
    if isinstance(told, Manifest):
        world.aria2.preload()
        layout = world.target.layout(ref, told.version)
        kept = _kept(layout, world) if told.trust == "mirror only" else None
        return (replace(kept, ref=ref, trust="first seen") if kept else told), layout, joined
    layout = world.target.layout(ref, told.commit)
    if kept := _kept(layout, world):
        return replace(kept, ref=ref, name=told.name, restricted=told.restricted), layout, joined
    world.aria2.preload()
    assert isinstance(world.source, KnowsFreshness)
    source, info, base = world.source, told, world.origin.base
    whole = world.listings.listing(question, info, lambda wanted: source.listing(ref, info, base, world.http, wanted))
    return whole, layout, joined


def _stood_in(
    request: FetchRequest, trusted: ListingTrust, away: Away, joined: Joined, world: World
) -> RepoInfo | Manifest:
    """Return the mirrors' listing while the origin is away, or the origin's late response. Raises NetworkError."""
    trusted = replace(trusted, mirrors=(*trusted.mirrors, *joined.mirrors))
    if len(trusted.mirrors) > 1 and trust.may_stand_in(trusted, request.ref):
        return trust.by_mirrors(trusted, request.ref, request.chosen(), away)
    try:
        return away.at_last()
    except NetworkError as error:
        raise explained(world, error) from None


def _kept(layout: Layout, world: World) -> Manifest | None:
    """The listing of this commit that the origin gave at an earlier run, None if there is none.

    Earlier versions saved it as "first seen" when they used it while the origin was away.
    """
    kept = layout.saved()
    if kept is None or kept.trust not in ("origin", "first seen"):
        return None
    if (kept.vouched_by, kept.version) != (world.origin.base, layout.commit_id):
        return None
    return replace(kept, trust="origin")


def _before(request: FetchRequest, world: World) -> Manifest | None:
    """The listing from when the origin was last heard, None where it never was."""
    try:
        return _kept(world.target.layout(request.ref, world.target.commit(request.ref)), world)
    except GpuariaError:
        return None


def _as_before(request: FetchRequest, world: World, error: NetworkError) -> tuple[Manifest, Layout]:
    """The listing from when the origin was last heard, said aloud. Raises `error` where it never was."""
    ref, kept = request.ref, _before(request, world)
    if kept is None:
        raise error from None
    layout = world.target.layout(ref, kept.version)
    world.emit(
        Warned(f"{error.message}; going on with commit {kept.version[:12]}, which {ref} was when it last answered")
    )
    return replace(kept, ref=ref, trust="first seen"), layout


def _to_save(request: FetchRequest, world: World, layout: Layout, whole: Manifest) -> Manifest:
    """The listing that the target keeps: `whole`, or the kept one where that has the same files.

    A listing of the origin stays the origin's when it is used, or confirmed by mirrors, while the origin is away. A
    lock that names a part of the files does not make `gpuaria verify` forget the others.
    """
    if whole.trust == "origin":
        return whole
    kept = layout.saved() if request.lock else _kept(layout, world)
    if kept is None or not set(whole.files) <= set(kept.files):
        return whole
    return kept if request.lock else replace(kept, ref=whole.ref)


def _need_nothing(plan: DownloadPlan, manifest: Manifest) -> None:
    missing = [step.file.path for step in plan.steps if step.fetches]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(plan.steps)} files of {manifest.ref} are not here, and we are offline: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            "Leave --offline and HF_HUB_OFFLINE out to fetch them.",
        )
