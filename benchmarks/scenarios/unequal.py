"""Three mirrors that differ in rate, delay and loss; only together they fill the link."""

from benchmarks.place import Work
from benchmarks.records import ratio
from benchmarks.rivals import aria2, gpuaria
from benchmarks.scenarios.links import GPUARIA, extra
from benchmarks.stage import Stage, mean_rate
from lab import LINK, PAYLOAD, UNEQUAL

LIMIT = f"{PAYLOAD / 1e6:.0f} MB/s: the link"


def one_file(stage: Stage) -> None:
    """Scenario 3: one large file."""
    size = stage.amount(1_500_000_000, 20_000_000)
    repo = stage.repo("one", {"model.gguf": size})
    with stage.network(UNEQUAL, [repo], LINK) as served:
        work = Work(repo, served)
        ours, plain = gpuaria(), aria2("aria2c -x16 -s48", "-x16", "-s48")
        for _ in stage.rounds(reserve=35):
            stage.fetch(ours, work)
            stage.fetch(plain, work)
        extra(stage, aria2("aria2c -x16 -s48 -k1M", "-x16", "-s48", "-k1M"), work, 35)
    seconds, theirs = stage.seconds(GPUARIA), stage.seconds(plain.name)
    share = mean_rate(size, seconds) / PAYLOAD
    stage.row("3a", share, f"{share:.3f}", limit=LIMIT, runs=len(seconds))
    times = ratio(theirs, seconds) if theirs and seconds else float("nan")
    stage.row("3b", times, f"{times:.2f}", limit=LIMIT, runs=min(len(seconds), len(theirs)))


def shards(stage: Stage) -> None:
    """Scenario 4: twenty files."""
    size = stage.amount(200_000_000, 10_000_000)
    repo = stage.repo("shards", {f"model-{i:05d}.gguf": size for i in range(20)})
    with stage.network(UNEQUAL, [repo], LINK) as served:
        work = Work(repo, served)
        ours = gpuaria()
        for _ in stage.rounds(reserve=80):
            stage.fetch(ours, work)
        extra(stage, aria2("aria2c -x16 -s48 -j4", "-x16", "-s48", "-j4"), work, 75)
    seconds = stage.seconds(GPUARIA)
    share = mean_rate(work.size, seconds) / PAYLOAD
    stage.row("4a", share, f"{share:.3f}", limit=LIMIT, runs=len(seconds))
