"""The fetch use case: reference -> manifest -> plan -> verified files -> report."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gpuaria import plan as planning
from gpuaria import trust
from gpuaria.audit.recorder import Asked, Recorder
from gpuaria.errors import GpuariaError, NetworkError, NoSpace, NotFound, NotWritable, UsageError
from gpuaria.events import Event, Finished, Waiting, Warned
from gpuaria.fetching import report
from gpuaria.fetching.execute import Destination, execute, rank_mirrors
from gpuaria.fetching.joining import Joined, mirrors_to_join, with_join_hint
from gpuaria.fetching.listed import only_holding_mirrors, warn_about_weak_digests, weakly_hashed, with_listed_servers
from gpuaria.fetching.listings import Question
from gpuaria.fetching.request import FetchRequest, RunLimits, World
from gpuaria.mirrors.hub_files import HubFiles
from gpuaria.mirrors.pool import MirrorPool
from gpuaria.paths import check_together
from gpuaria.records import DownloadPlan, Manifest, Mirror, RemoteFile, Report, Verdict
from gpuaria.sources.protocol import KnowsFreshness, RepoInfo
from gpuaria.storage import space
from gpuaria.storage.layout import Layout
from gpuaria.text import printable
from gpuaria.transfer.results import Results
from gpuaria.trust import ListingTrust, OriginUnavailable

_READ_ONLY_ACTIONS = ("skip", "name", "verify")  # allowed in a read-only target


def fetch(request: FetchRequest, world: World, limits: RunLimits) -> tuple[Report, DownloadPlan]:
    """Download, verify and publish every selected file; return the report and the plan. Failed files set the exit code.

    Raises NotFound, AccessDenied, NetworkError, DiskError, Aria2Error and Interrupted if the whole run fails. The audit
    log records the run in either case.
    """
    audit = Recorder(world.audit, _audited_request(request, world), world.mirrors)
    try:
        report, plan, mirrors = _fetch(request, world, limits, audit)
    except BaseException as error:
        if not request.dry_run:
            audit.fail(error)
            _warn_about_audit_log(world)
        raise
    if not request.dry_run:
        audit.finish(report.exit_code)
        _warn_about_audit_log(world)
        world.mirror_ranking.record_run(report, mirrors, world.probing)
        world.emit(Finished(report))
    return report, plan


def _audited_request(request: FetchRequest, world: World) -> Asked:
    """Return the user's request as the audit log records it."""
    selection = (*request.names, *request.include, *(f"not {text}" for text in request.exclude))
    flags = (("force", request.force), ("offline", request.offline))
    return Asked(str(request.ref), selection, tuple(flag for flag, on in flags if on), world.origin.base)


def _warn_about_audit_log(world: World) -> None:
    if world.audit.problem:
        world.emit(Warned(world.audit.problem))


def _fetch(
    request: FetchRequest, world: World, limits: RunLimits, audit: Recorder
) -> tuple[Report, DownloadPlan, Sequence[Mirror]]:
    began, joined = time.monotonic(), Joined()
    try:
        whole, layout, joined = _resolve_with_joined(request, world, prefer_previous=True)
    except NetworkError as error:
        whole, layout = _use_previous_listing(request, world, error)
    world = with_listed_servers(replace(world, mirrors=(*world.mirrors, *joined.mirrors)), whole)
    audit.set_mirrors(world.mirrors)
    whole = layout.with_pinned(whole)
    chosen = request.selected(whole)
    if chosen.files and not any(file.digest for file in chosen.files):
        chosen = replace(chosen, trust="none")
    with ExitStack() as stack:
        not_writable = None if request.dry_run else _lock_target(stack, layout, world, limits)
        unavailable = request.lock is None and whole.trust in trust.WITHOUT_ORIGIN
        mirrors, counts = rank_mirrors(chosen, world, unavailable)
        wanted, refused = world.screening.split_allowed(chosen.files)
        plan = planning.make(replace(chosen, files=wanted), layout.inspect(chosen.files), mirrors, limits.rules, counts)
        plan = only_holding_mirrors(replace(plan, steps=(*plan.steps, *refused)), world)
        warn_about_weak_digests(chosen, world)
        if any(step.fetches or step.action == "verify" for step in plan.steps):
            joined.announce(world)
        if not request.dry_run:
            world.emit(report.planned(chosen, layout, plan, world, [mirror.name for mirror in mirrors]))
        if request.offline:
            _require_complete(plan, chosen)
        if request.dry_run:
            _warn_about_space(layout, plan, world)
            if would_replace := _would_replace(layout, plan):
                world.emit(Warned(would_replace.message))
            return report.report(world, chosen, layout, None, began), plan, world.mirrors
        if not_writable is not None and any(step.action not in _READ_ONLY_ACTIONS for step in plan.steps):
            raise not_writable
        if not request.force and (would_replace := _would_replace(layout, plan)):
            raise would_replace
        space.check_free(layout.staging, plan.space)
        listing = _listing_to_save(request, world, layout, whole)
        if not_writable is None:
            layout.begin(listing, sure=request.lock is None)
            check_together((file.path for file in chosen.files), case_sensitive=space.case_sensitive(layout.staging))
        pool = MirrorPool(HubFiles(world.source, chosen, world.http), world.mirrors)
        results = Results(pool, (step.file.path for step in plan.steps if step.fetches), _RunListener(audit, world))
        audit.start(chosen, layout, plan, results)
        _probe_unknown_mirrors(chosen, world, plan)
        target = Destination(chosen, layout, mirrors, counts, request.whole, request.lock is not None)
        try:
            execute(plan, target, world, limits, results)
        finally:
            if not_writable is None:
                # A lock file describes the past: it does not change the commit that the cache has for a branch.
                listing = replace(listing, ref=whole.ref)
                layout.finish(listing, complete=request.lock is None and report.good_count(results) == len(plan.steps))
    final = replace(report.report(world, chosen, layout, results, began), weak=len(weakly_hashed(chosen)))
    return final, plan, pool.mirrors


@dataclass(frozen=True, slots=True)
class _RunListener:
    """Passes the events of a run to the audit log and to the user."""

    audit: Recorder
    world: World

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        self.audit.record_file(file, verdict)

    def emit(self, event: Event) -> None:
        self.world.emit(event)


def _probe_unknown_mirrors(manifest: Manifest, world: World, plan: DownloadPlan) -> None:
    """Measure mirrors without history on the largest file to download."""
    large = max((step for step in plan.steps if step.fetches), key=lambda step: step.file.size, default=None)
    if large is not None and len(large.mirrors) > 1:
        unknown = [one for one in large.mirrors if one.name in world.probing.without_rate]
        world.probing.probe_more(unknown, manifest, large.file, world.source)


def _would_replace(layout: Layout, plan: DownloadPlan) -> UsageError | None:
    """Return the error for a plan that replaces files of another repo in the same folder, None for any other plan."""
    touched = [step.file for step in plan.steps if step.fetches or step.action == "verify"]
    found = layout.files_of_another_repo(touched)
    if found is None:
        return None
    other, paths = found
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    folder = layout.root / layout.ref.name.rpartition("/")[2]
    return UsageError(
        f"{layout.ref} would replace {printable(paths[0])}{more} of {other} in {layout.root}",
        f"Choose another folder (--to {folder}), or replace them with --force.",
    )


def _warn_about_space(layout: Layout, plan: DownloadPlan, world: World) -> None:
    """Warn about missing disk space: a dry run does not fail because of it."""
    try:
        space.check_free(layout.staging, plan.space)
    except NoSpace as error:
        world.emit(Warned(error.message))


def _lock_target(stack: ExitStack, layout: Layout, world: World, limits: RunLimits) -> NotWritable | None:
    """Lock the target; return the error if it is not writable: a complete, read-only target can still serve a fetch."""
    try:
        stack.enter_context(layout.lock(limits.patience, lambda who: world.emit(Waiting(who, limits.patience))))
    except NotWritable as error:
        return error
    return None


def resolve(request: FetchRequest, world: World) -> tuple[Manifest, Layout]:
    """Return the manifest of the whole repo at the requested revision, and its layout.

    A saved listing of the commit is used again if it came from the same origin: a commit cannot change.
    """
    whole, layout, _ = _resolve_with_joined(request, world, prefer_previous=False)
    return whole, layout


def _resolve_with_joined(
    request: FetchRequest, world: World, *, prefer_previous: bool
) -> tuple[Manifest, Layout, Joined]:
    """Return what `resolve` does, and the mirrors that join because the origin is unavailable.

    `prefer_previous`: the origin's listing of an earlier run comes before a listing from mirrors that join.
    """
    ref = request.ref
    if request.lock is not None:
        world.aria2.preload()
        return replace(request.lock, trust="pinned"), world.target.layout(ref, request.lock.version), Joined()
    if request.offline:
        layout = world.target.layout(ref, world.target.resolved_commit(ref))
        saved = layout.saved_manifest()
        if saved is None:
            raise NotFound(
                f"{ref} is not on disk, and gpuaria is offline",
                "Remove --offline or unset HF_HUB_OFFLINE to download it.",
            )
        return replace(saved, ref=ref), layout, Joined()
    trusted = ListingTrust(world.http, world.source, world.mirrors, world.policy, world.emit, world.candidates.possible)
    if not request.dry_run:  # the printed plan must not depend on the order in which probes finish
        world.probing.start(world.mirrors)
    joined, question = Joined(), Question(ref, world.origin, request.chosen(), world.stop)
    try:
        response = world.listings.origin(question, lambda wanted: trust.ask_origin(trusted, ref, wanted))
    except NetworkError as error:
        raise with_join_hint(world, error) from None
    if isinstance(response, OriginUnavailable):
        joined = mirrors_to_join(world, response)
        world.probing.start(joined.mirrors)
        if joined and prefer_previous and (previous := _previous_listing(request, world)):
            manifest, layout = _use_previous_listing(request, world, response.reason)
            return manifest, layout, Joined() if previous.restricted else joined
        if trust.mirrors_allowed(trusted, ref):
            joined = joined.announce(world)
        response = _listing_without_origin(request, trusted, response, joined, world)
    if isinstance(response, Manifest):
        world.aria2.preload()
        layout = world.target.layout(ref, response.version)
        saved = _saved_origin_listing(layout, world) if response.trust == "mirror only" else None
        return (replace(saved, ref=ref, trust="first seen") if saved else response), layout, joined
    layout = world.target.layout(ref, response.commit)
    if saved := _saved_origin_listing(layout, world):
        return replace(saved, ref=ref, name=response.name, restricted=response.restricted), layout, joined
    world.aria2.preload()
    assert isinstance(world.source, KnowsFreshness)
    source, info, base = world.source, response, world.origin.base
    whole = world.listings.listing(question, info, lambda wanted: source.listing(ref, info, base, world.http, wanted))
    return whole, layout, joined


def _listing_without_origin(
    request: FetchRequest, trusted: ListingTrust, unavailable: OriginUnavailable, joined: Joined, world: World
) -> RepoInfo | Manifest:
    """Return the mirrors' listing if the origin is unavailable, or the origin's late response. Raises NetworkError."""
    trusted = replace(trusted, mirrors=(*trusted.mirrors, *joined.mirrors))
    if len(trusted.mirrors) > 1 and trust.mirrors_allowed(trusted, request.ref):
        return trust.listing_from_mirrors(trusted, request.ref, request.chosen(), unavailable)
    try:
        return unavailable.late_response()
    except NetworkError as error:
        raise with_join_hint(world, error) from None


def _saved_origin_listing(layout: Layout, world: World) -> Manifest | None:
    """Return the listing of this commit that the origin sent in an earlier run; None if there is none.

    Earlier versions saved it as "first seen" if they used it while the origin was unavailable.
    """
    saved = layout.saved_manifest()
    if saved is None or saved.trust not in ("origin", "first seen"):
        return None
    if (saved.vouched_by, saved.version) != (world.origin.base, layout.commit_id):
        return None
    return replace(saved, trust="origin")


def _previous_listing(request: FetchRequest, world: World) -> Manifest | None:
    """Return the listing from the origin's last response for this reference; None if there is none."""
    try:
        return _saved_origin_listing(world.target.layout(request.ref, world.target.resolved_commit(request.ref)), world)
    except GpuariaError:
        return None


def _use_previous_listing(request: FetchRequest, world: World, error: NetworkError) -> tuple[Manifest, Layout]:
    """Return the listing from the origin's last response and warn the user. Raises `error` if there is none."""
    ref, saved = request.ref, _previous_listing(request, world)
    if saved is None:
        raise error from None
    layout = world.target.layout(ref, saved.version)
    world.emit(Warned(f"{error.message}; continuing with commit {saved.version[:12]}, the last known one of {ref}"))
    return replace(saved, ref=ref, trust="first seen"), layout


def _listing_to_save(request: FetchRequest, world: World, layout: Layout, whole: Manifest) -> Manifest:
    """Return the listing to store in the target: `whole`, or the stored one if that contains the same files.

    A listing from the origin keeps that status if it is used, or confirmed by mirrors, while the origin is unavailable.
    A lock file that names some of the files does not make `gpuaria verify` forget the others.
    """
    if whole.trust == "origin":
        return whole
    saved = layout.saved_manifest() if request.lock else _saved_origin_listing(layout, world)
    if saved is None or not set(whole.files) <= set(saved.files):
        return whole
    return saved if request.lock else replace(saved, ref=whole.ref)


def _require_complete(plan: DownloadPlan, manifest: Manifest) -> None:
    """Raise NotFound if the plan needs a download: for a fetch that is offline."""
    missing = [step.file.path for step in plan.steps if step.fetches]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(plan.steps)} files of {manifest.ref} are not on disk, and gpuaria is offline: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            "Remove --offline or unset HF_HUB_OFFLINE to download them.",
        )
