"""The same command again: with nothing left to do, with a large listing, and after a kill -9."""

import http.client
import signal
import time
from urllib.parse import urlsplit

from benchmarks import content
from benchmarks.measure import Process, Watch
from benchmarks.place import Work
from benchmarks.records import Run, arrived, median
from benchmarks.rivals import Contestant, aria2, gpuaria, hf
from benchmarks.scenarios.links import GPUARIA
from benchmarks.stage import Stage, Terms
from lab import LINK, Host, inside

WARM, COLD, PLAN, BROKEN = "again", "first", "plan", "killed"
LISTED = 100_000
PAYLOAD_OF_PACKET = 1448 / 1500  # of a full packet with TCP timestamps
PER_CONNECTION = 4_000_000  # bytes/s: slow enough for a kill at the half


def nothing_to_do(stage: Stage) -> None:
    """Scenario 9, both parts."""
    repo = stage.repo("done", content.small(stage.amount(1000, 50), seed=9))
    huge = stage.repo("huge", {f"part-{i // 1000:03d}/{i:06d}.json": b"%d" % i for i in range(stage.amount(LISTED))})
    with stage.loopback([repo, huge]) as served:
        work = Work(repo, served)
        for who in (gpuaria(), hf()):
            if who.missing:
                stage.note(who.missing)
                continue
            stage.fetch(who, work, part=COLD)
            for _ in range(stage.rounds_wanted):
                stage.fetch(who, work, part=WARM, terms=Terms(keep=True, check=False))
        listing = Work(huge, served)
        plan = gpuaria(extra=["--dry-run", "-q"])
        hub = []
        for _ in stage.rounds():
            hub.append(walk(listing))
            stage.fetch(plan, listing, part=PLAN, terms=Terms(check=False))
    _rows(stage, median(hub))


def _rows(stage: Stage, hub: float) -> None:
    warm, plan = stage.good(GPUARIA, WARM), stage.good(GPUARIA, PLAN)
    seconds, asked = median(run.seconds for run in warm), median(run.hub_requests for run in warm)
    theirs = median(stage.seconds("hf download", WARM))
    stage.row("9a", seconds, f"{seconds:.2f} s (hf: {theirs:.2f} s)", limit="one request", runs=len(warm))
    stage.row("9b", asked, f"{asked:.0f}", limit="one request", runs=len(warm))
    planned, memory = median(run.seconds for run in plan), median(run.rss / 1e6 for run in plan)
    limit = f"{hub:.1f} s: this hub's own time for its pages"
    stage.row("9c", planned, f"{planned:.1f} s", limit=limit, runs=len(plan))
    stage.row("9d", memory, f"{memory:.0f} MB", limit="-", runs=len(plan))


def walk(work: Work) -> float:
    """Return the seconds that reading every page of a listing takes, without any processing."""
    began = time.monotonic()
    place = urlsplit(work.served.origin.url)
    target = f"/api/models/{work.name}/tree/{work.repo.head}?recursive=true&expand=false"
    with inside(work.served.place.space("client")):
        connection = http.client.HTTPConnection(place.netloc)
        connection.connect()
    while target:
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        link = answer.headers.get("Link", "")
        after = urlsplit(link[1 : link.index(">")]) if link else None
        target = f"{after.path}?{after.query}" if after else ""
    connection.close()
    return time.monotonic() - began


def killed(stage: Stage) -> None:
    """Scenario 10: kill -9 of the program, not of its aria2c, then the same command again.

    Uses a link of 500 Mbit/s if a lab is possible: nginx's own limit sends a second's worth of bytes in one burst.
    """
    size = stage.amount(1_000_000_000, 60_000_000)
    repo = stage.repo("one", {"model.gguf": size})
    part = stage.repo("part", {"model.gguf": size // (5 if stage.lab else 20)}, seed=1)
    with stage.network(
        {"cdn": Host(), "hub": Host()}, [repo, part], LINK, 0 if stage.lab else PER_CONNECTION
    ) as served:
        all_, some = Work(repo, served), Work(part, served)
        for number in stage.rounds(reserve=45):
            twice(stage, gpuaria(), all_)
            if number == 0:
                twice(stage, aria2("aria2c -x16 -c", "-x16", "-s16", "-c"), all_)
                theirs = hf()
                if theirs.missing:
                    stage.note(theirs.missing)
                else:
                    twice(stage, theirs, some, "part")
    again = {who: median(run.more["again"] for run in stage.good(who, part)) for who, part in _others(stage)}
    runs = stage.good(GPUARIA)
    share = median(run.more["again"] for run in runs)
    others = ", ".join(f"{who}: {100 * value:.0f} %" for who, value in again.items() if who != GPUARIA)
    got = f"{100 * share:.2f} %" + (f" ({others})" if others else "")
    note = "payload received in both runs, minus the size of the file; includes the listing"
    stage.row("10a", 100 * share, got, limit="0", runs=len(runs), note=note)


def _others(stage: Stage) -> list[tuple[str, str]]:
    return list(dict.fromkeys((run.who, run.work) for run in stage.runs if run.work != BROKEN))


def twice(stage: Stage, who: Contestant, work: Work, part: str = "") -> Run:
    """Kill the program after half of the bytes, run it again, and record the share that was downloaded twice."""
    payload = PAYLOAD_OF_PACKET if "client" in work.served.counters else 1.0

    def kill(process: Process, watch: Watch) -> None:
        end = time.monotonic() + 120
        while watch.arrived() * payload < work.size / 2 and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()

    killed = Terms(during=kill, every=0.02, check=False, expect=-signal.SIGKILL)
    first = stage.fetch(who, work, part=BROKEN, terms=killed)
    second = stage.fetch(who, work, part=part, terms=Terms(keep=True))
    come = sum(arrived(run.samples[-1][1]) for run in (first, second))
    second.more["again"] = payload * come / work.size - 1
    stage.say(f"{100 * second.more['again']:.2f} % of the file was downloaded again")
    return second
