"""The steps of a plan, carried out until every file has a verdict."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from gpuaria import plan as planning
from gpuaria.clock import SYSTEM
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.fetching import report
from gpuaria.fetching.joining import SlowOrigin
from gpuaria.fetching.listed import from_holder
from gpuaria.fetching.request import RunLimits, World
from gpuaria.paths import SafePath
from gpuaria.records import GOOD, DownloadPlan, Manifest, Mirror, RemoteFile, Signature, Step
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

SLICE = 65_536  # bytes per second and connection: under a limit, fewer of them than that make one wait for long
TELL = 0.45  # seconds between two events of progress


@dataclass(frozen=True, slots=True)
class Destination:
    """The files to put in place, where, and the mirrors that may serve them, best first.

    `counts`: connections to each much weaker mirror, by name. `whole`: `manifest` is the whole repo. `locked`: it is
    what a lock file names.
    """

    manifest: Manifest
    layout: Layout
    mirrors: Sequence[Mirror]
    counts: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
    locked: bool = False


def execute(plan: DownloadPlan, target: Destination, world: World, limits: RunLimits, results: Results) -> Results:
    """Run every step until all have a verdict. Raises the error that ended the run before, or Interrupted."""
    with ExitStack() as held:
        threads = Threads(world.stop)
        run = _Run(plan, target, world, limits, results, threads, held)
        held.push(run.ended)
        run.turns()
        if threads.error is not None:
            raise threads.error
        if world.stop.is_set():
            raise Interrupted(
                f"interrupted; {report.good(results)} of {len(plan.steps)} files are in place",
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
    held: ExitStack

    def __post_init__(self) -> None:
        world, limits, layout = self.world, self.limits, self.target.layout
        bucket = world.bucket
        readers = min(limits.small_jobs, max(1, bucket.rate // SLICE)) if bucket.rate else limits.small_jobs
        self.hashers = self.threads.pool("hash", limits.verify_jobs)
        self.publisher = Publisher(layout, self.results, twins_of(self.plan), world.screening, self.hashers)
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
        self.held.callback(self.threads.close)
        self.held.callback(path.close)
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
        self.held.callback(self.loop.close)

    def turns(self) -> None:
        """Begin with every step, and drive the transfer to its end."""
        for step in self.plan.steps:
            self._begin(step)
        clock, told = SYSTEM, 0.0
        slow = SlowOrigin(self.world, self.target.manifest, self.target.mirrors)
        for _ in self.loop.turns():
            if clock.monotonic() - told >= TELL:
                told = clock.monotonic()
                if joined := slow.observe(self.results.fetched, self.loop.owed, told):
                    joined.say(self.world)
                    self.world.probing.joined(joined.mirrors, joined.because)
                    self.loop.join(joined.mirrors)
                self.results.emit(report.progress(self.loop, self.plan, self.results))
        if not self.threads.stop.is_set():
            self.results.emit(report.progress(self.loop, self.plan, self.results))

    def ended(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the run for those that listen, follow files, or still have threads active."""
        if error is not None:
            self.world.stop.set()
        self.results.close(error if isinstance(error, GpuariaError) else None)

    def signature(self) -> Signature | None:
        """The result of checking the repo's signature, if it has one."""
        files, target = self.target.manifest.files, self.target
        return self.publisher.signature(files, whole=target.whole, locked=target.locked)

    def _begin(self, step: Step) -> None:
        publisher, layout = self.publisher, self.target.layout
        if step.action == "refuse":
            publisher.refused(step.file, step.reason)
        elif step.action == "skip" and self.world.screening.knows(step.file):
            publisher.kept(step.file, step.reason)
        elif step.action in ("skip", "name", "verify"):
            self.hashers.submit(self._recheck, step)
        elif step.fetches:
            self.scheduler.add(step)
        elif step.action == "create":
            layout.staged(step.file).touch()
            publisher.staged(step.file, layout.staged(step.file))

    def _recheck(self, step: Step) -> None:
        """On a hashing thread: verify bytes that were on disk before this run, if that was not done yet."""
        if step.action == "skip":
            self.publisher.kept(step.file, step.reason)
        elif step.action == "name":
            self.publisher.proven(step.file)
        elif self.publisher.present(step.file).outcome not in (GOOD if step.file.pinned else ("ok",)):
            again = planning.instead(step, self.target.mirrors, self.limits.rules, self.target.counts)
            again = from_holder(again, self.world)
            self.results.mismatch(step.file, again.reason)
            self.inbox.put(Added(again))


def carriers(manifest: Manifest, world: World, away: bool) -> tuple[list[Mirror], dict[str, int]]:
    """Eligible mirrors ranked by past throughput, with a connection limit for each.

    Bytes that need a credential come from the origin and from mirrors that have one of their own. `away`: the origin
    could not be reached, and is asked only if there is no other mirror.
    """
    found = [m for m in world.mirrors if (not away if m.primary else m.own_token or not manifest.restricted)]
    found = [mirror for mirror in found if not _silent(mirror, world)] or found or [world.origin]
    if len(found) < 2:
        return found, {}
    named = {mirror.name: mirror for mirror in found}
    ranked = world.ranks.ranking(found, manifest.size, world.probing).accepted
    return [named[choice.mirror] for choice in ranked], {choice.mirror: choice.connections for choice in ranked}


def _silent(mirror: Mirror, world: World) -> bool:
    """True if a mirror has been asked in this run and has sent no response."""
    return bool(world.http.request_count(mirror.base)) and not world.http.response_count(mirror.base)


def twins_of(plan: DownloadPlan) -> dict[SafePath, list[RemoteFile]]:
    """Files that get their bytes from another one of the plan, by that one's path."""
    twins: dict[SafePath, list[RemoteFile]] = {}
    for step in plan.steps:
        if step.owner is not None:
            twins.setdefault(step.owner, []).append(step.file)
    return twins
