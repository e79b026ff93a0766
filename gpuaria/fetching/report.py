"""What a run tells: the plan at its start, how far it is, the report at its end."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpuaria.errors import GpuariaError, NetworkError, SomeFilesFailed, WrongBytes
from gpuaria.events import Planned, Progress
from gpuaria.fetching.request import World
from gpuaria.records import DownloadPlan, Manifest, Report, Verdict, outcomes
from gpuaria.storage.layout import Layout
from gpuaria.transfer.board import Board
from gpuaria.transfer.large import LargeFiles


def good(board: Board) -> int:
    """How many files have a verdict that a run may end with as a success."""
    return sum(verdict.good for verdict in board.found())


def reused(manifest: Manifest, board: Board) -> int:
    """Bytes of files in place that did not come in this run."""
    verdicts = board.verdicts
    here = sum(file.size for file in manifest.files if file.path in verdicts and verdicts[file.path].good)
    return max(0, here - board.fetched)


def planned(manifest: Manifest, layout: Layout, plan: DownloadPlan, mirrors: Sequence[str]) -> Planned:
    """What is about to happen, before the first byte."""
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


def progress(large: LargeFiles, requests: int, plan: DownloadPlan, board: Board) -> Progress:
    """How far the run is; `requests` of the metadata client are under way, for small files."""
    active = large.active()
    return Progress(
        done=board.done_bytes
        + large.resting
        + sum(file.done for file in active)
        + sum(job.file.size for job in large.checking),
        total=sum(step.file.size for step in plan.steps if step.file.path in board.wanted),
        speed=sum(file.speed for file in active),
        connections=sum(file.connections for file in active) + requests,
        mirrors=max(large.hosts, 1 if requests else 0),
        verified=len(board.verdicts),
        files=len(plan.steps),
        active=active,
        verifying=len(large.checking),
    )


def report(world: World, manifest: Manifest, layout: Layout, board: Board | None, began: float) -> Report:
    """What happened; `board` is None where nothing was carried out, `began` is of the monotonic clock."""
    verdicts = board.found() if board else ()
    bases = {mirror.name: mirror.base for mirror in world.mirrors}
    pickle_files, misnamed = world.screening.told()
    return Report(
        ref=str(manifest.ref),
        commit=manifest.commit,
        path=str(layout.root),
        files=len(manifest.files),
        bytes_fetched=board.fetched if board else 0,
        bytes_reused=reused(manifest, board) if board else 0,
        seconds=round(time.monotonic() - began, 3),
        hub_requests=world.http.count(world.origin.base),
        vouched_by=manifest.vouched_by,
        trust=manifest.trust,
        verdicts=outcomes(verdicts),
        mirrors=tuple(
            replace(world.probing.told(use), requests=world.http.count(bases[use.name])) for use in board.uses()
        )
        if board
        else (),
        problems=tuple(verdict for verdict in verdicts if not verdict.good),
        pickles=len(world.screening.pickles),
        pickle_files=pickle_files,
        misnamed=misnamed,
        exit_code=_exit_code(verdicts, board.causes if board else {}),
    )


def _exit_code(verdicts: Sequence[Verdict], causes: Mapping[str, GpuariaError]) -> int:
    """Wrong and refused bytes come before failed files; files that failed for want of a network alone say so."""
    if any(verdict.outcome in ("wrong size", "wrong digest", "refused") for verdict in verdicts):
        return WrongBytes.exit_code
    failed = [causes.get(verdict.path) for verdict in verdicts if not verdict.good]
    if failed and all(isinstance(cause, NetworkError) for cause in failed):
        return NetworkError.exit_code
    return SomeFilesFailed.exit_code if failed else 0
