"""Execution of a plan until every file has a verdict."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from gpuaria import plan as planning
from gpuaria.clock import SYSTEM
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.fetching import report
from gpuaria.fetching.joining import SlowOrigin
from gpuaria.fetching.listed import only_holding_mirrors_of
from gpuaria.fetching.request import RunLimits, World
from gpuaria.paths import SafePath
from gpuaria.records import GOOD_OUTCOMES, DownloadPlan, Manifest, Mirror, RemoteFile, Signature, Step
from gpuaria.storage.layout import Layout
from gpuaria.threads import Threads
from gpuaria.transfer import steering
from gpuaria.transfer.aria2_path import Aria2Path
from gpuaria.transfer.by_aria2 import ByAria2, Engine
from gpuaria.transfer.by_http import ByHttp
from gpuaria.transfer.downloader import Inbox
from gpuaria.transfer.events import Added
from gpuaria.transfer.loop import Loop
from gpuaria.transfer.publisher import Publisher
from gpuaria.transfer.results import Results
from gpuaria.transfer.scheduler import Scheduler
from gpuaria.transfer.services import Services

SMALLEST_SHARE = 65_536  # bytes/s per connection under a speed limit; with less, single requests take too long
PROGRESS_INTERVAL = 0.45  # seconds between progress events


@dataclass(frozen=True, slots=True)
class Destination:
    """The files to publish, their layout, and the mirrors that may serve them, best first.

    `counts`: connection limit of each slow mirror, by name. `whole`: `manifest` is the whole repo. `locked`: `manifest`
    comes from a lock file.
    """

    manifest: Manifest
    layout: Layout
    mirrors: Sequence[Mirror]
    counts: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
    locked: bool = False


def execute(plan: DownloadPlan, target: Destination, world: World, limits: RunLimits, results: Results) -> Results:
    """Execute every step until all files have a verdict. Raises the error that ended the run early, or Interrupted."""
    with ExitStack() as stack:
        threads = Threads(world.stop)
        run = _Run(plan, target, world, limits, results, threads, stack)
        stack.push(run.ended)
        run.drive()
        if threads.error is not None:
            raise threads.error
        if world.stop.is_set():
            raise Interrupted(
                f"interrupted; {report.good_count(results)} of {len(plan.steps)} files are in place",
                "Run the same command again to continue.",
            )
        results.signature = run.signature()
    return results


@dataclass
class _Run:
    """The objects of one execution."""

    plan: DownloadPlan
    target: Destination
    world: World
    limits: RunLimits
    results: Results
    threads: Threads
    stack: ExitStack

    def __post_init__(self) -> None:
        world, limits, layout = self.world, self.limits, self.target.layout
        bucket = world.bucket
        readers = min(limits.small_jobs, max(1, bucket.rate // SMALLEST_SHARE)) if bucket.rate else limits.small_jobs
        self.hashers = self.threads.pool("hash", limits.verify_jobs)
        self.publisher = Publisher(layout, self.results, duplicates_by_owner(self.plan), world.screening, self.hashers)
        pool = self.results.pool
        services = Services(
            http=world.http,
            pool=pool,
            layout=layout,
            publisher=self.publisher,
            results=self.results,
            threads=self.threads,
            clock=SYSTEM,
            bucket=bucket,
            patience=limits.patience,
        )
        self.inbox = Inbox()
        path = Aria2Path(world.http.routes, bucket)
        self.stack.callback(self.threads.close)
        self.stack.callback(path.close)
        rules = steering.TransferLimits(
            jobs=limits.jobs,
            http_jobs=readers,
            per_server=limits.shape.per_server,
            timeout=limits.shape.timeout,
            max_speed=bucket.rate,
            patience=limits.patience,
        )
        self.scheduler = Scheduler(rules, pool, world.origin)
        engine = Engine(world.aria2, limits.shape, limits.user_agent, path)
        aria2, http = ByAria2(services, engine, self.inbox), ByHttp(services, readers, self.inbox)
        self.loop = Loop(services, self.scheduler, aria2, http, self.inbox)
        self.stack.callback(self.loop.close)

    def drive(self) -> None:
        """Start every step, then run the transfer to its end and report progress."""
        for step in self.plan.steps:
            self._start_step(step)
        clock, reported = SYSTEM, 0.0
        slow = SlowOrigin(self.world, self.target.manifest, self.target.mirrors)
        for _ in self.loop.turns():
            if clock.monotonic() - reported >= PROGRESS_INTERVAL:
                reported = clock.monotonic()
                if joined := slow.observe(self.results.fetched, self.loop.needs_bytes, reported):
                    joined.announce(self.world)
                    self.world.probing.record_joined(joined.mirrors, joined.because)
                    self.loop.join(joined.mirrors)
                self.results.emit(report.progress(self.loop, self.plan, self.results))
        if not self.threads.stop.is_set():
            self.results.emit(report.progress(self.loop, self.plan, self.results))

    def ended(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the run for listeners, readers that follow files, and threads that are still active."""
        if error is not None:
            self.world.stop.set()
        self.results.close(error if isinstance(error, GpuariaError) else None)

    def signature(self) -> Signature | None:
        """Return the result of checking the repo's signature; None if it has none."""
        files, target = self.target.manifest.files, self.target
        return self.publisher.signature(files, whole=target.whole, locked=target.locked)

    def _start_step(self, step: Step) -> None:
        publisher, layout = self.publisher, self.target.layout
        if step.action == "refuse":
            publisher.refuse(step.file, step.reason)
        elif step.action == "skip" and self.world.screening.is_known(step.file):
            publisher.keep_published(step.file, step.reason)
        elif step.action in ("skip", "name", "verify"):
            self.hashers.submit(self._recheck, step)
        elif step.fetches:
            self.scheduler.add(step)
        elif step.action == "create":
            layout.staged_path(step.file).touch()
            publisher.publish_staged(step.file, layout.staged_path(step.file))

    def _recheck(self, step: Step) -> None:
        """On a hashing thread: verify bytes that were on disk before this run, if that is still necessary."""
        if step.action == "skip":
            self.publisher.keep_published(step.file, step.reason)
        elif step.action == "name":
            self.publisher.adopt_verified(step.file)
        elif self.publisher.verify_present(step.file).outcome not in (GOOD_OUTCOMES if step.file.pinned else ("ok",)):
            again = planning.replacement_step(step, self.target.mirrors, self.limits.rules, self.target.counts)
            again = only_holding_mirrors_of(again, self.world)
            self.results.report_mismatch(step.file, again.reason)
            self.inbox.put(Added(again))


def rank_mirrors(manifest: Manifest, world: World, unavailable: bool) -> tuple[list[Mirror], dict[str, int]]:
    """Return the eligible mirrors ranked by past throughput, and a connection limit for each.

    Bytes that need a credential come only from the origin and from mirrors with a token of their own. `unavailable`:
    the origin could not be reached, and is used only if there is no other mirror.
    """
    eligible = [m for m in world.mirrors if (not unavailable if m.primary else m.own_token or not manifest.restricted)]
    eligible = [mirror for mirror in eligible if not _unresponsive(mirror, world)] or eligible or [world.origin]
    if len(eligible) < 2:
        return eligible, {}
    named = {mirror.name: mirror for mirror in eligible}
    ranked = world.mirror_ranking.rank(eligible, manifest.size, world.probing).accepted
    return [named[choice.mirror] for choice in ranked], {choice.mirror: choice.connections for choice in ranked}


def _unresponsive(mirror: Mirror, world: World) -> bool:
    """True if a mirror was sent requests in this run and has not responded."""
    return bool(world.http.request_count(mirror.base)) and not world.http.response_count(mirror.base)


def duplicates_by_owner(plan: DownloadPlan) -> dict[SafePath, list[RemoteFile]]:
    """Return the files that are copied from another file of the plan, by that file's path."""
    duplicates: dict[SafePath, list[RemoteFile]] = {}
    for step in plan.steps:
        if step.owner is not None:
            duplicates.setdefault(step.owner, []).append(step.file)
    return duplicates
