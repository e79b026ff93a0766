"""Events of a run: the plan at its start, its progress, and the report at its end."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpuaria.errors import GpuariaError, NetworkError, SomeFilesFailed, WrongBytes
from gpuaria.events import Planned, Progress
from gpuaria.fetching.request import World
from gpuaria.records import DownloadPlan, Manifest, Report, Verdict, count_outcomes
from gpuaria.storage.layout import Layout
from gpuaria.transfer.loop import Loop
from gpuaria.transfer.results import Results


def good_count(results: Results) -> int:
    """Return the number of files whose verdict counts as a success."""
    return sum(verdict.good for verdict in results.verdicts_so_far())


def reused_bytes(manifest: Manifest, results: Results) -> int:
    """Return the bytes of files in place that were not downloaded in this run."""
    verdicts = results.verdicts
    in_place = sum(file.size for file in manifest.files if file.path in verdicts and verdicts[file.path].good)
    return max(0, in_place - results.fetched)


def planned(manifest: Manifest, layout: Layout, plan: DownloadPlan, world: World, mirrors: Sequence[str]) -> Planned:
    """Return the event that describes a plan before the download starts."""
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
        reasons=world.probing.reasons,
    )


def progress(loop: Loop, plan: DownloadPlan, results: Results) -> Progress:
    """Return the progress of a run."""
    active, hashing = loop.active(), loop.hashing
    return Progress(
        done=results.done_bytes
        + loop.bytes_awaiting_retry
        + sum(one.done for one in active)
        + sum(one.size for one in hashing),
        total=sum(step.file.size for step in plan.steps if step.file.path in results.wanted),
        speed=sum(one.speed for one in active),
        connections=sum(one.connections for one in active) + loop.http_requests,
        mirrors=loop.serving_count,
        verified=good_count(results),
        files=len(plan.steps),
        active=active,
        verifying=len(hashing),
    )


def report(world: World, manifest: Manifest, layout: Layout, results: Results | None, began: float) -> Report:
    """Return the report of a run; `results` is None for a dry run, `began` is in monotonic seconds."""
    verdicts = results.verdicts_so_far() if results else ()
    bases = {mirror.name: mirror.base for mirror in (results.pool.mirrors if results else world.mirrors)}
    pickle_files, misnamed = world.screening.for_report()
    return Report(
        ref=str(manifest.ref),
        commit=manifest.commit,
        path=str(layout.root),
        files=len(manifest.files),
        bytes_fetched=results.fetched if results else 0,
        bytes_reused=reused_bytes(manifest, results) if results else 0,
        seconds=round(time.monotonic() - began, 3),
        hub_requests=world.http.request_count(world.origin.base),
        vouched_by=manifest.vouched_by,
        trust=manifest.trust,
        verdicts=count_outcomes(verdicts),
        mirrors=tuple(
            replace(world.probing.with_probe_results(use), requests=world.http.request_count(bases[use.name]))
            for use in results.mirror_uses()
        )
        if results
        else (),
        problems=tuple(verdict for verdict in verdicts if not verdict.good),
        pickles=len(world.screening.pickles),
        pickle_files=pickle_files,
        misnamed=misnamed,
        signature=results.signature if results else None,
        exit_code=_exit_code(verdicts, results.causes if results else {}),
    )


def _exit_code(verdicts: Sequence[Verdict], causes: Mapping[str, GpuariaError]) -> int:
    """Return the exit status of the worst verdict; NetworkError's if all failures are network errors."""
    if any(verdict.outcome in ("wrong size", "wrong digest", "refused") for verdict in verdicts):
        return WrongBytes.exit_code
    failed = [causes.get(verdict.path) for verdict in verdicts if not verdict.good]
    if failed and all(isinstance(cause, NetworkError) for cause in failed):
        return NetworkError.exit_code
    return SomeFilesFailed.exit_code if failed else 0
