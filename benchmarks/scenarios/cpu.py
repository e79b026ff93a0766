"""CPU seconds per gigabyte, of gpuaria's own process and together with its aria2c."""

from benchmarks.place import Work
from benchmarks.records import Run, median
from benchmarks.rivals import aria2, gpuaria
from benchmarks.scenarios.links import GPUARIA
from benchmarks.scenarios.proof import digest_cost
from benchmarks.stage import Stage

FULL, PACED, START = "full speed", "64 MB/s", "start-up"
TINY = 10_000_000  # bytes: large enough for aria2
PER_CONNECTION = 4_000_000  # bytes/s of each of 16 connections


def per_gigabyte(stage: Stage) -> None:
    """Scenario 11. The cost of hashing is measured on the same file right after each run."""
    size, paced = stage.amount(2_000_000_000, 20_000_000), stage.amount(1_000_000_000, 20_000_000)
    for part, length, rate in ((FULL, size, 0), (PACED, paced, PER_CONNECTION)):
        repo = stage.repo(part.partition(" ")[0], {"model.gguf": length})
        tiny = stage.repo("tiny", {"model.gguf": TINY})
        with stage.loopback([repo, tiny], limit_rate=rate) as served:
            work = Work(repo, served)
            plain = aria2("aria2c -x16", "-x16", "-s16")
            for _ in stage.rounds(reserve=60 if part == FULL else 0):
                run = stage.fetch(gpuaria(), work, part=part)
                run.more["hashing"] = digest_cost(stage.folder / "run" / "to" / "model.gguf") if run.right else 0.0
                stage.fetch(plain, work, part=part)
                if part == FULL:
                    stage.fetch(gpuaria(), Work(tiny, served), part=START)
    start = median(run.own_cpu for run in stage.good(GPUARIA, START))
    for key, part in (("11a", FULL), ("11b", PACED)):
        runs = stage.good(GPUARIA, part)
        own = median(per_gb(run, run.own_cpu - run.more["hashing"]) for run in runs)
        hashing = median(per_gb(run, run.more["hashing"]) for run in runs)
        startup = median(per_gb(run, start) for run in runs)
        got = f"{own:.2f} s/GB ({startup:.2f} of it start-up, as for 10 MB; hashing {hashing:.2f} s/GB more)"
        stage.row(key, own, got, limit="0", runs=len(runs))
    tree, alone = (median(per_gb(run, run.tree_cpu) for run in stage.good(who, FULL)) for who in (GPUARIA, plain.name))
    got = f"{tree:.2f} s/GB against {alone:.2f} s/GB"
    stage.row("11c", tree, got, limit=f"{alone:.2f} s/GB: aria2c alone", runs=len(stage.good(GPUARIA, FULL)))


def per_gb(run: Run, seconds: float) -> float:
    """Return seconds per 10^9 bytes."""
    return seconds / run.size * 1e9
