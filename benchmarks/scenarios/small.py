"""Many small files with a long round trip, alone and together with large ones."""

import math

from benchmarks import content
from benchmarks.place import Work
from benchmarks.records import Run, median, ratio
from benchmarks.rivals import aria2, gpuaria, hf
from benchmarks.scenarios.links import FAR, GPUARIA, against_hf, fetch_part
from benchmarks.stage import Stage
from lab import LINK, PAYLOAD

ROUND_TRIP = 0.160  # seconds
IN_FLIGHT = 32  # requests: the default of the setting small_jobs
PAGE = 1000  # files on one page of a listing
PART = 0.2  # share of the files for slow contestants


def alone(stage: Stage) -> None:
    """Scenario 5. hf gets a part of the files, and its total time is extrapolated."""
    count = stage.amount(2000, 60)
    files = content.small(count, seed=5)
    some = dict(list(files.items())[: round(count * PART)])
    repos = [stage.repo("all", files), stage.repo("part", some), stage.repo("tiny", dict(list(files.items())[:1]))]
    with stage.network(FAR, repos, LINK) as served:
        all_, part, tiny = (Work(repo, served) for repo in repos)
        ours, plain, theirs = gpuaria(), aria2("aria2c -j16", "-j16", final=False), hf()
        for _ in stage.rounds(reserve=5):
            stage.fetch(ours, all_)
            stage.fetch(plain, all_)
            fetch_part(stage, theirs, part)
        fetch_part(stage, theirs, tiny)
    least = count * ROUND_TRIP / IN_FLIGHT
    limit = f"{least:.1f} s: {IN_FLIGHT} requests in flight"
    against_hf(stage, "5a", limit=limit, share=len(part.files) / count)
    seconds, other = stage.seconds(GPUARIA), stage.seconds(plain.name)
    times = ratio(other, seconds) if other and seconds else float("nan")
    got = f"{times:.2f} ({median(seconds) / least:.2f} x the limit)"
    stage.row("5b", times, got, limit=limit, runs=min(len(seconds), len(other)))
    beyond = median(run.hub_requests - run.files for run in stage.good(GPUARIA))
    pages = math.ceil(count / PAGE)
    stage.row("5c", beyond, f"{beyond:.0f}", limit=f"{1 + pages}: the commit, and its listing", runs=len(seconds))


def mixed(stage: Stage) -> None:
    """Scenario 6: each part alone, then both in one repo."""
    count, size = stage.amount(3000, 60), stage.amount(100_000_000, 10_000_000)
    little = content.small(count, seed=6)
    big = {f"model-{i:05d}.gguf": size for i in range(8)}
    repos = [stage.repo("mixed", {**little, **big}), stage.repo("small", little), stage.repo("large", big)]
    with stage.network(FAR, repos, LINK) as served:
        works = [Work(repo, served) for repo in repos]
        for _ in stage.rounds():
            for work in works:
                stage.fetch(gpuaria(), work, part=work.name.partition("/")[2])
    both, small, large = (stage.seconds(GPUARIA, part) for part in ("mixed", "small", "large"))
    limit = f"{max(8 * size / PAYLOAD, count * ROUND_TRIP / IN_FLIGHT):.1f} s: the link, or the requests in flight"
    rounds = len(both)
    if not (both and small and large):
        stage.row("6a", float("nan"), "", limit=limit, runs=0)
        stage.row("6b", float("nan"), "", limit=limit, runs=0)
        return
    done = ratio(
        [large_done(run, 8 * size) for run in stage.good(GPUARIA, "mixed")],
        [large_done(run, 8 * size) for run in stage.good(GPUARIA, "large")],
    )
    note = "time until the CDN, which has only the large files, has sent 99 % of their bytes"
    stage.row("6a", done, f"{done:.2f}", limit=limit, runs=rounds, note=note)
    total = median(both) / max(median(small), median(large))
    got = f"{total:.2f} ({median(both):.1f} s; {median(small):.1f} s small, {median(large):.1f} s large alone)"
    stage.row("6b", total, got, limit=limit, runs=rounds)


def large_done(run: Run, size: int) -> float:
    """Return the seconds until the CDN sent 99 % of `size` bytes, counting packet headers."""
    name = "cdn" if run.samples and "cdn" in run.samples[-1][1] else "loopback"
    return next((at for at, sent in run.samples if sent[name] >= 0.99 * size), run.seconds)
