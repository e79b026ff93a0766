"""One file over one link: with a limit for each connection, and with a long round trip and packet loss."""

from benchmarks.place import Work
from benchmarks.records import median, ratio, whole
from benchmarks.rivals import Contestant, aria2, engines, gpuaria, hf, hfd, yardsticks
from benchmarks.stage import Stage, mean_rate
from lab import LINK, PAYLOAD, Host
from standin import Repo

GPUARIA, HF = "gpuaria", "hf download"
CONNECTIONS = 16
PER_CONNECTION = 2_000_000  # bytes/s
FAR = {"cdn": Host(delay=80, loss=0.02), "hub": Host(delay=80, loss=0.02)}


def slow_connections(stage: Stage) -> None:
    """Scenario 1: hf uses one connection, so it gets a small part of the file, and its total time is extrapolated."""
    size = stage.amount(1_000_000_000, 20_000_000)
    repos = _repos(stage, size, part=0.06)
    near = {"cdn": Host(), "hub": Host()}
    with stage.network(near, repos, limit_rate=PER_CONNECTION) as served:
        all_, part, tiny = (Work(repo, served) for repo in repos)
        ours, theirs = gpuaria(), hf()
        for _ in stage.rounds(reserve=75):
            stage.fetch(ours, all_)
            fetch_part(stage, theirs, part)
        fetch_part(stage, theirs, tiny)
        for yardstick in [aria2("aria2c -x16", "-x16", "-s16"), *_axel()]:
            extra(stage, yardstick, all_, 35)
    speed = CONNECTIONS * PER_CONNECTION
    least = max(0.1, size / speed - 1)  # nginx sends the first second of each response at once
    told = f"{least:.1f} s: {CONNECTIONS} connections"
    seconds = stage.seconds(GPUARIA)
    note = (
        "nginx sends the first second of each response at once, so more responses than connections may exceed the limit"
    )
    share = least / median(seconds)
    stage.row("1a", share, f"{share:.3f}", limit=told, runs=len(seconds), note=note)
    against_hf(stage, "1b", limit=told, share=part.size / size)


def long_way(stage: Stage) -> None:
    """Scenario 2: the same with a round trip of 160 ms; hf again gets a part."""
    size = stage.amount(1_500_000_000, 20_000_000)
    repos = _repos(stage, size, part=0.1)
    with stage.network(FAR, repos, LINK) as served:
        all_, part, tiny = (Work(repo, served) for repo in repos)
        ours, many, theirs = gpuaria(), aria2("aria2c -x16", "-x16", "-s16"), hf()
        for _ in stage.rounds(reserve=100):
            stage.fetch(ours, all_)
            stage.fetch(many, all_)
            fetch_part(stage, theirs, part)
        fetch_part(stage, theirs, tiny)
        for yardstick in [hfd(), *engines()]:
            extra(stage, yardstick, all_, 40)
        for yardstick in yardsticks():
            extra(stage, yardstick, part, 30, "part")
    limit = f"{PAYLOAD / 1e6:.0f} MB/s: the link"
    seconds = stage.seconds(GPUARIA)
    times = ratio(stage.seconds(many.name), seconds) if seconds and stage.seconds(many.name) else float("nan")
    share = mean_rate(size, seconds) / PAYLOAD
    stage.row("2a", times, f"{times:.2f} ({share:.2f} of the limit)", limit=limit, runs=len(seconds))
    against_hf(stage, "2b", limit=limit, share=part.size / size)


def _repos(stage: Stage, size: int, part: float) -> list[Repo]:
    sizes = {"all": size, "part": round(size * part), "tiny": 1_000_000}
    return [stage.repo(name, {"model.gguf": length}, seed) for seed, (name, length) in enumerate(sizes.items())]


def _axel() -> list[Contestant]:
    return [who for who in yardsticks() if who.name.startswith("axel")]


def fetch_part(stage: Stage, who: Contestant, work: Work) -> None:
    """Run a rival, if it is installed, on its share of the work; `work` is the repo `part` or `tiny`."""
    if who.missing:
        stage.note(who.missing)
    else:
        stage.fetch(who, work, part=work.name.partition("/")[2])


def extra(stage: Stage, who: Contestant, work: Work, seconds: float, part: str = "") -> None:
    """Add one run beyond the goals if there is time."""
    if who.missing:
        stage.note(f"{who.name}: not run, {who.missing}")
    elif stage.time_for(seconds):
        stage.fetch(who, work, part=part)
    else:
        stage.note(f"{who.name}: not run, there was no time left")


def against_hf(stage: Stage, key: str, *, limit: str, share: float) -> None:
    """Add a row that compares gpuaria with hf, whose total time is extrapolated from its part and its start-up."""
    ours, part, tiny = stage.seconds(GPUARIA), stage.seconds(HF, "part"), stage.seconds(HF, "tiny")
    if not (ours and part and tiny):
        stage.row(key, float("nan"), "", limit=limit, runs=0)
        return
    all_ = whole(median(tiny), median(part), share)
    times = all_ / median(ours)
    note = (
        f"hf did {share:.0%} of the work ({median(part):.1f} s, median of {len(part)}); {all_:.0f} s for all of it "
        "is computed from that and its start-up"
    )
    stage.row(key, times, f"{times:.1f}", limit=limit, runs=len(ours), note=note)
