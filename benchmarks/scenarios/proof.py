"""Full speed: the cost of verification, and the time from the last byte to the verified file."""

import hashlib
import shutil
import time
from pathlib import Path

from benchmarks.machine import sha256_rate
from benchmarks.measure import Process, Watch
from benchmarks.place import Work
from benchmarks.records import Run, arrived, median, ratio
from benchmarks.rivals import Contestant, aria2, gpuaria, yardsticks
from benchmarks.scenarios.links import GPUARIA, extra
from benchmarks.stage import PATIENCE, Stage, Terms

THEN_SUM = "aria2c -x16, then sha256sum"
SPARE = 4_000_000_000  # bytes of disk to leave free
QUIET = 65_536  # bytes: RPC traffic between gpuaria and aria2c stays below this in EVERY seconds
EVERY = 0.02


def full_speed(stage: Stage) -> None:
    """Scenario 7: gpuaria, plain aria2c, and plain aria2c followed by sha256sum."""
    size = stage.amount(4_000_000_000, 20_000_000)
    repo = stage.repo("one", {"model.gguf": size})
    rates = []
    with stage.loopback([repo]) as served:
        work = Work(repo, served)
        ours, plain = gpuaria(), aria2("aria2c -x16", "-x16", "-s16")
        for _ in stage.rounds(reserve=40):
            rates.append(sha256_rate())
            stage.fetch(ours, work)
            _then_sum(stage, stage.fetch(plain, work), work)
        for yardstick in yardsticks():
            extra(stage, yardstick, work, 10)
    seconds, raw, summed = (stage.seconds(who) for who in (GPUARIA, plain.name, THEN_SUM))
    hashing = size / median(rates)
    limit = f"{max(hashing, median(raw)):.1f} s: " + (
        f"sha256 at {median(rates) / 1e6:.0f} MB/s" if hashing > median(raw) else "aria2c alone"
    )
    for key, theirs in (("7a", raw), ("7b", summed)):
        over = 1 / ratio(theirs, seconds) if theirs and seconds else float("nan")
        got = f"{over:.2f} ({median(seconds):.1f} s against {median(theirs):.1f} s)"
        stage.row(key, over, got, limit=limit, runs=min(len(seconds), len(theirs)))


def _then_sum(stage: Stage, run: Run, work: Work) -> None:
    """Run sha256sum on the files of a run and add its time to that run's."""
    files = [stage.folder / "run" / "to" / path for path in work.files]
    output = stage.folder / "run" / "sum"
    usage = Process(["sha256sum", *map(str, files)], {"PATH": "/usr/bin:/bin"}, stage.folder, output).wait(300)
    said = {line.split()[0] for line in output.read_text().splitlines() if line.strip()}
    right = said == {entry.sha256 for entry in work.repo.commits[work.repo.head].files.values()}
    both = Run(
        THEN_SUM, run.seconds + usage.seconds, usage.status, size=run.size, right=run.right and right, proven=True
    )
    both.command = f"{run.command}; sha256sum WORK/to/*"
    both.more = {"sha256sum": usage.seconds}
    stage.runs.append(both)
    stage.say(f"{THEN_SUM:41s} {both.seconds:7.2f} s")


def last_byte(stage: Stage) -> None:
    """Scenario 8. The servers send at 60 % of the hashing speed; otherwise it would measure sha256."""
    wanted = stage.amount(10_000_000_000, 40_000_000)
    size = min(wanted, shutil.disk_usage(stage.folder).free - SPARE)
    if size < wanted:
        stage.note(f"the disk has room for {size / 1e9:.1f} GB instead of {wanted / 1e9:.0f} GB")
    repo = stage.repo("one", {"model.gguf": size})
    rate = sha256_rate()
    speed = 0.6 * rate
    with stage.loopback([repo], limit_rate=round(speed / 16)) as served:
        work = Work(repo, served)
        for _ in stage.rounds():
            _watch_the_name(stage, gpuaria(), work, stage.folder / "run" / "to" / "model.gguf")
    waits = [run.more["verified"] - run.more["last byte"] for run in stage.good(GPUARIA)]
    got = f"{median(waits):.2f} s ({size / 1e9:.1f} GB at {speed / 1e6:.0f} MB/s)"
    stage.row("8a", median(waits), got, limit=f"0: sha256 at {rate / 1e6:.0f} MB/s keeps up", runs=len(waits))


def _watch_the_name(stage: Stage, who: Contestant, work: Work, final: Path) -> None:
    """Fetch, and note when the last bytes arrived and when the file got its final name (it is verified then)."""
    named: list[float] = []

    def during(process: Process, watch: Watch) -> None:
        end = time.monotonic() + PATIENCE
        while Path(f"/proc/{process.pid}/exe").exists() and time.monotonic() < end:  # not yet a zombie
            if final.exists():
                named.append(time.monotonic() - watch.began)
                return
            time.sleep(0.005)

    run = stage.fetch(who, work, terms=Terms(every=EVERY, during=during))
    run.more = {"verified": named[0] if named else run.seconds, "last byte": last_growth(run)}
    stage.say(f"last byte after {run.more['last byte']:.2f} s, verified after {run.more['verified']:.2f} s")
    run.samples = run.samples[::5]


def last_growth(run: Run) -> float:
    """Return the time of the last sample that grew by more than RPC traffic."""
    last, before = 0.0, 0
    for at, sent in run.samples:
        if arrived(sent) - before > QUIET:
            last = at
        before = arrived(sent)
    return last


def digest_cost(path: Path) -> float:
    """Return the CPU seconds that reading and hashing a file takes."""
    began = time.thread_time()
    with path.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")
    return time.thread_time() - began
