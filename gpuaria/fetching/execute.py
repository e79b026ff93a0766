"""The steps of a plan, carried out by three kinds of hands until every file has a verdict."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from gpuaria.aria2.options import Shape
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.fetching import report
from gpuaria.fetching.request import Limits, World
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.paths import SafePath
from gpuaria.records import Address, DownloadPlan, Manifest, Mirror, RemoteFile, Step
from gpuaria.storage.layout import Layout
from gpuaria.transfer import unfit
from gpuaria.transfer.aria2_path import Aria2Path
from gpuaria.transfer.board import Board
from gpuaria.transfer.endgame import Endgame, try_out
from gpuaria.transfer.flow import endpoints
from gpuaria.transfer.job import Hands
from gpuaria.transfer.landing import Landing
from gpuaria.transfer.large import LargeFiles
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.small import SmallFiles
from gpuaria.transfer.workers import Workers

SLICE = 65_536  # bytes per second and connection: under a limit, fewer of them than that make one wait for long


def carry_out(
    plan: DownloadPlan,
    manifest: Manifest,
    instead: Callable[[Step], Step],
    layout: Layout,
    board: Board,
    world: World,
    limits: Limits,
) -> Landing:
    """Run every step until all have a verdict, or until the run is stopped. Raises Interrupted on the user's wish.

    `instead` gives the step for a file that was taken to be here, and has other bytes.
    """
    twins = twins_of(plan)
    landing = Landing(layout, board, twins, world.screening)
    roster = Roster(board)
    mirrors = {mirror.name: mirror for mirror in world.mirrors}
    shape, bucket = _limited(limits.shape, plan)
    readers = min(limits.small_jobs, max(1, bucket.rate // SLICE)) if bucket.rate else limits.small_jobs
    small_pool, hashers = Workers("small", readers), Workers("hash", limits.verify_jobs)
    small = SmallFiles(
        world.source, manifest, mirrors, world.http, layout, landing, board, roster, limits.patience, bucket
    )

    def by_http(step: Step) -> None:
        small_pool.submit(partial(small.fetch, step))

    def lookup(mirror: str, file: RemoteFile) -> Address | None:
        return world.source.locate(mirrors[mirror], manifest, file, world.http)

    def endgame(
        file: RemoteFile, path: Path, addresses: Mapping[str, Address], reached: Callable[[int], None], each: int
    ) -> Endgame:
        arrived = partial(board.arrived, file.path)
        return Endgame(path, file.size, addresses, world.http, arrived, world.stop, reached, each)

    path = Aria2Path(world.http.routes, TokenBucket(0))  # aria2c keeps to its own share of the limit
    large = LargeFiles(
        steps=[step for step in plan.steps if step.carrier == "aria2"],
        hands=Hands(
            lookup=lookup,
            by_http=by_http,
            endgame=endgame,
            test=partial(try_out, world.http),
            unfit=partial(unfit.ask, world.http),
            places=partial(endpoints, world.http.routes),
            path=path.options,
        ),
        aria2=world.aria2,
        layout=layout,
        landing=landing,
        board=board,
        roster=roster,
        hashers=hashers,
        shape=shape,
        user_agent=limits.user_agent,
        jobs=limits.jobs,
        patience=limits.patience,
        origin=world.origin.name,
    )

    def anew(step: Step) -> None:
        """Bytes that were here turned out wrong: fetch the file after all."""
        board.wanted.add(step.file.path)
        board.trouble(step.file.path, "the bytes that were here did not match")
        fresh = instead(step)
        board.mismatch(step.file, fresh.reason)
        if fresh.carrier == "aria2":
            large.add(fresh)
        else:
            by_http(fresh)

    for step in plan.steps:
        if step.action == "refuse":
            landing.refused(step.file, step.reason)
        elif step.action == "skip" and world.screening.knows(step.file):
            landing.kept(step.file, step.reason)
        elif step.action in ("skip", "name", "verify"):
            hashers.submit(partial(_recheck, step, landing, board, anew))
        elif step.carrier == "http":
            by_http(step)
        elif step.action == "create":
            layout.staged(step.file).touch()
            landing.staged(step.file, layout.staged(step.file))
    try:
        _turn(large, small_pool, hashers, plan, board, world)
    finally:
        large.close()
        path.close()
    return landing


def _limited(shape: Shape, plan: DownloadPlan) -> tuple[Shape, TokenBucket]:
    """The speed limit, divided between aria2 and the metadata client by the bytes that each of them has to fetch."""
    bytes_of = {"aria2": 0, "http": 0}
    for step in plan.steps:
        if step.carrier in bytes_of:
            bytes_of[step.carrier] += step.file.size
    limit, whole = shape.max_speed, sum(bytes_of.values())
    if not limit or not all(bytes_of.values()):
        return shape, TokenBucket(limit)
    small = max(1, limit * bytes_of["http"] // whole)
    return replace(shape, max_speed=max(1, limit - small)), TokenBucket(small)


def _turn(large: LargeFiles, small: Workers, hashers: Workers, plan: DownloadPlan, board: Board, world: World) -> None:
    """The loop: a tick whenever something happened, and a few times a second."""
    told = 0.0
    while not world.stop.is_set():
        board.wake.clear()
        large.tick()
        # In this order: hashing finds files to fetch, and aria2 leaves some to the metadata client.
        if not (hashers.pending or large.busy or small.pending):
            break
        if time.monotonic() - told >= 0.45:
            told = time.monotonic()
            world.emit(report.progress(large, small.busy, plan, board))
        board.wake.wait(large.pause())
    if world.stop.is_set() and board.fatal is None:
        raise Interrupted(
            f"interrupted; {report.good(board)} of {len(plan.steps)} files are in place",
            "Run the same command again to continue.",
        )
    world.emit(report.progress(large, small.busy, plan, board))


def _recheck(step: Step, landing: Landing, board: Board, anew: Callable[[Step], None]) -> None:
    """On a hashing thread: look at bytes that were here before us, and prove them if that was not done yet."""
    try:
        if step.action == "skip":
            landing.kept(step.file, step.reason)
        elif step.action == "name":
            landing.proven(step.file)
        elif landing.present(step.file).outcome not in (("ok", "unverifiable") if step.file.pinned else ("ok",)):
            anew(step)
    except GpuariaError as error:
        board.fail(error)
    except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
        board.fail(GpuariaError(f"{type(error).__name__} on {step.file.path}: {error}", "Please report this."))


def carriers(manifest: Manifest, world: World, away: bool) -> tuple[list[str], dict[str, int]]:
    """Who may serve the bytes, best first by what is remembered of them, and connections to each.

    Bytes that need a credential come from the origin and from mirrors that have one of their own. `away`: the origin
    could not be reached, and is asked only if there is nobody else.
    """
    mirrors = [m for m in world.mirrors if (not away if m.origin else m.own_token or not manifest.restricted)]
    mirrors = [mirror for mirror in mirrors if not _silent(mirror, world)] or mirrors or [world.origin]
    if len(mirrors) < 2:
        return [mirror.name for mirror in mirrors], {}
    ranked = world.ranks.ranking(mirrors, manifest.size, world.probing).accepted
    return [choice.mirror for choice in ranked], {choice.mirror: choice.connections for choice in ranked}


def _silent(mirror: Mirror, world: World) -> bool:
    """Whether a mirror has been asked in this run and has sent no response."""
    return bool(world.http.count(mirror.base)) and not world.http.responses(mirror.base)


def twins_of(plan: DownloadPlan) -> dict[SafePath, list[RemoteFile]]:
    """Files that get their bytes from another one of the plan, by that one's path."""
    twins: dict[SafePath, list[RemoteFile]] = {}
    for step in plan.steps:
        if step.owner is not None:
            twins.setdefault(step.owner, []).append(step.file)
    return twins
