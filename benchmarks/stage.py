"""One scenario's folder, time and runs."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import content
from benchmarks.goals import GOAL, met
from benchmarks.measure import Process, Usage, Watch
from benchmarks.place import Place, Served, Work, serve
from benchmarks.records import Row, Run, median
from benchmarks.rivals import Contestant
from lab import Host, Loop, Net
from standin import Repo

PATIENCE = 400.0  # seconds that one program may take at full scale


@dataclass(frozen=True, slots=True)
class Terms:
    """Conditions of a run, and when it counts as a success.

    `keep`: reuse the home and the target folder of the last run. `every`: seconds between two samples. `during` is
    called once the program runs. `check`: compare its files with the servers'. `expect`: its exit status.
    """

    keep: bool = False
    every: float = 0.1
    during: Callable[[Process, Watch], None] | None = None
    check: bool = True
    expect: int = 0


USUAL = Terms()


@dataclass
class Stage:
    """One running scenario. `until`: the monotonic time at which the next one has to start."""

    folder: Path
    rounds_wanted: int
    scale: float
    until: float
    lab: bool
    runs: list[Run] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def amount(self, full: int, least: int = 1) -> int:
        """Return a number of bytes or files at the chosen scale."""
        return max(least, round(full * self.scale))

    def rounds(self, reserve: float = 0.0) -> Iterator[int]:
        """Yield the numbers of the rounds that fit, at least one. `reserve`: seconds to leave for later work."""
        began = time.monotonic()
        for number in range(self.rounds_wanted):
            now = time.monotonic()
            if number and now + (now - began) / number > self.until - reserve * self.scale:
                self.say(f"{number} rounds of {self.rounds_wanted}: no time for more")
                return
            yield number

    def time_for(self, seconds: float) -> bool:
        """Return whether an extra run fits that takes `seconds` at full scale."""
        return time.monotonic() + seconds * self.scale < self.until

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"    {text}", flush=True)

    def note(self, text: str) -> None:
        """Add a remark for the documentation of this scenario, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.say(text)

    def repo(self, name: str, files: Mapping[str, int | bytes], seed: int = 0) -> Repo:
        """Build a repo of large files (given by size in bytes) and small ones (given by content)."""
        made: dict[str, bytes | Path] = {}
        for number, (path, what) in enumerate(files.items()):
            if isinstance(what, bytes):
                made[path] = what
            else:
                made[path] = content.large(self.folder / "made" / name / path, what, 1000 * seed + number)
        return Repo.build(f"lab/{name}", made, folder=self.folder / "store" / name)

    @contextmanager
    def network(
        self, hosts: Mapping[str, Host], repos: Sequence[Repo], client_rate: str = "", limit_rate: int = 0
    ) -> Iterator[Served]:
        """Start servers in a network lab, or on the loopback without the permission for one."""
        prefix = f"gq{os.getpid() % 10000}"
        place: Place = Net(hosts, client_rate, prefix) if self.lab else Loop(hosts, prefix)
        with place, serve(place, repos, limit_rate) as served:
            yield served

    @contextmanager
    def loopback(self, repos: Sequence[Repo], limit_rate: int = 0) -> Iterator[Served]:
        """Start hub and CDN on the loopback."""
        with Loop(["cdn", "hub"], f"gq{os.getpid() % 10000}") as place, serve(place, repos, limit_rate) as served:
            yield served

    def fetch(self, who: Contestant, work: Work, *, part: str = "", terms: Terms = USUAL) -> Run:
        """Run a contestant on a work, in a new home and target folder unless `terms` keep them."""
        target, home = self.folder / "run" / "to", self.folder / "run" / "home"
        if not terms.keep:
            shutil.rmtree(target.parent, ignore_errors=True)
            home.mkdir(parents=True)
            os.sync()  # writing back the data of the last run must not slow this one
        words = [str(word) for word in who.words(work, target)]
        work.served.reset()
        with Watch(work.served.counters, terms.every) as watch:
            there = work.served.place.argv("client", words)
            process = Process(there, environment(home, who, work), home, target.with_name("output"))
            usage = self._wait(process, watch, terms.during)
        right = usage.status == terms.expect and (not terms.check or work.right(target))
        run = self._run(who, work, part, usage, right=right)
        run.command, run.samples = readable(words, self.folder), watch.samples
        run.said = target.with_name("output").read_text(errors="replace")[-400:] if not run.right else ""
        self.runs.append(run)
        if not run.right:
            self.note(f"{who.name}: a run is not counted, it ended with status {run.status} or with other bytes")
        self.say(f"{who.name:28s} {part:12s} {run.seconds:7.2f} s{'' if run.right else '  FAILED: ' + run.said[-200:]}")
        return run

    def _wait(self, process: Process, watch: Watch, during: Callable[[Process, Watch], None] | None) -> Usage:
        try:
            if during is not None:
                during(process, watch)
        except BaseException:
            process.wait(0)
            raise
        return process.wait(PATIENCE * max(self.scale, 0.15))

    def _run(self, who: Contestant, work: Work, part: str, usage: Usage, *, right: bool) -> Run:
        return Run(
            who=who.name,
            seconds=round(usage.seconds, 4),
            status=usage.status,
            own_cpu=usage.own_cpu,
            tree_cpu=usage.tree_cpu,
            rss=usage.rss,
            size=work.size,
            files=len(work.files),
            work=part,
            right=right and not usage.late,
            proven=who.verifies,
            hub_requests=work.served.asked(),
            sent=work.served.sent(),
        )

    def good(self, who: str, part: str = "") -> list[Run]:
        """Return the successful runs of a contestant, in order."""
        return [run for run in self.runs if (run.who, run.work) == (who, part) and run.right]

    def seconds(self, who: str, part: str = "") -> list[float]:
        """Return the seconds that its successful runs took."""
        return [run.seconds for run in self.good(who, part)]

    def row(self, key: str, value: float, got: str, *, limit: str, runs: int, note: str = "") -> None:
        """Add the result for a goal. `value` is compared with it; nan: nothing was measured."""
        known = value == value  # not nan
        want = GOAL[key].want
        text = got if known else "no run ended well"
        self.rows.append(Row(key, limit, text, met(want, value) if known and want else None, runs, note))
        self.say(f"{key}: {text} (want {want or 'nothing'})")


def environment(home: Path, who: Contestant, work: Work) -> dict[str, str]:
    """Return an environment without the user's home and settings."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    temp = home / "tmp"
    temp.mkdir(exist_ok=True)
    own = {"HOME": str(home), "TMPDIR": str(temp), "LANG": "C.UTF-8", "HF_ENDPOINT": work.served.origin.url}
    return {**kept, **own, **who.env}


def readable(words: Sequence[str], folder: Path) -> str:
    """Return a command as a user types it, without the paths and signatures of one run."""
    program = "python" if words[0] == sys.executable else Path(words[0]).name
    line = " ".join([program, *words[1:]]).replace(str(folder / "run"), "WORK")
    return re.sub(r"\?X-\S+", "?SIGNED", line)


def mean_rate(size: int, seconds: Sequence[float]) -> float:
    """Return bytes per second, from the median of the times."""
    return size / median(seconds)
