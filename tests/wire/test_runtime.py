"""Many fetches in one process, from many threads: one aria2c, one listing, each byte once, nothing left behind."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gpuaria
from gpuaria.errors import Interrupted, RepoNotFound, UsageError
from gpuaria.events import Event, Progress
from gpuaria.fetching import request_for
from gpuaria.records import Report
from gpuaria.settings import load
from standin import Hub, Repo
from tests.support.checkout import ROOT
from tests.support.repos import contents, expected
from tests.support.user import Serve, User, children, wait_until

pytestmark = pytest.mark.wire
SIZE = 12_000_000  # aria2c downloads files from 8 MB on
PER_CONNECTION = 1_500_000  # bytes per second, so that fetches overlap
Make = Callable[..., gpuaria.Runtime]


def random_bytes(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def make(user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Yield a function that creates runtimes with this user's settings; check that closing them leaves nothing."""
    before, processes = set(threading.enumerate()), set(children(os.getpid()))
    made: list[gpuaria.Runtime] = []
    monkeypatch.chdir(user.home)
    monkeypatch.setenv("TMPDIR", str(user.temp))

    def runtime(**named: object) -> gpuaria.Runtime:
        made.append(gpuaria.Runtime(load(named, user.environ(), user.home)))
        return made[-1]

    yield runtime
    for one in made:
        one.close()
    left = {thread for thread in threading.enumerate() if "standin" not in thread.name} - before
    assert not {thread for thread in left if thread.name.startswith(OURS)}, left
    assert not {pid for pid in set(children(os.getpid())) - processes if b"--conf-path" in _command(pid)}


OURS = ("aria2", "small", "hash", "lookup", "resolve", "relay", "http", "test", "tail")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def aria2_of_this_process() -> set[int]:
    return {pid for pid in children(os.getpid()) if b"--conf-path" in _command(pid)}


def sent(hub: Hub) -> int:
    """Return the bytes of files that the servers sent."""
    seen = [*hub.cdn.requests, *(one for one in hub.requests if "/resolve" in one.target)]
    return sum(one.sent for one in seen if one.status in (200, 206))


def once(hub: Hub, size: int) -> bool:
    """Check that the servers sent `size` bytes once. A file's tail may overlap bytes that aria2c had in flight."""
    return size <= sent(hub) < size * 1.08


def listings(hub: Hub) -> list[str]:
    """Return the requests that list a repo."""
    return [seen.target for seen in hub.requests if "/revision/" in seen.target or "/tree/" in seen.target]


def at_once(*work: Callable[[], Any]) -> list[Any]:
    """Return the results of all calls, each on its own thread; raise the first error."""
    barrier = threading.Barrier(len(work))

    def one(job: Callable[[], Any]) -> Any:
        barrier.wait(20)
        return job()

    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(one, job) for job in work]]


@pytest.fixture
def three(tmp_path: Path) -> Repo:
    """Return a repo with three files for aria2c and two small ones."""
    files = {f"model-{n}.bin": random_bytes(n) for n in range(3)}
    repo = Repo("org/three", tmp_path / "three")
    repo.commit({**files, "config.json": b"{}\n", "tokenizer.bin": random_bytes(9, 50_000)})
    return repo


@pytest.mark.parametrize("to", [True, False], ids=["folder", "cache"])
def test_three_threads_three_files_of_one_repo(make: Make, user: User, serve: Serve, three: Repo, to: bool) -> None:
    hub = serve(three, limit_rate=PER_CONNECTION)
    seen: set[int] = set()
    target = user.home / "out" if to else None

    def listen(event: Event) -> None:
        seen.update(aria2_of_this_process())

    with make() as runtime:

        def fetch(name: str) -> Report:
            return runtime.fetch(request_for(runtime.ref("org/three"), [name, "config.json"]), target, listen)

        names = [f"model-{n}.bin" for n in range(3)]
        reports = at_once(*(partial(fetch, name) for name in names))
        assert len(seen) == 1
    assert len({report.path for report in reports}) == 1
    found = contents(Path(reports[0].path))
    assert found == {name: data for name, data in expected(three).items() if name != "tokenizer.bin"}
    assert once(hub, 3 * SIZE)
    assert len(listings(hub)) == 2  # the branch, and the tree of its commit
    assert not aria2_of_this_process()


def test_eight_threads_with_repos_that_share_files(make: Make, user: User, serve: Serve, tmp_path: Path) -> None:
    common, small = random_bytes(1), random_bytes(2, 300_000)
    repos = []
    for n in range(4):
        repo = Repo(f"org/r{n}", tmp_path / f"r{n}")
        repo.commit({"common.bin": common, "same.txt": small, f"own-{n}.bin": random_bytes(10 + n, 9_000_000)})
        repos.append(repo)
    hub = serve(*repos, limit_rate=4 * PER_CONNECTION)
    with make() as runtime:
        order = [repos[n % 4] for n in range(8)]
        jobs = [partial(runtime.fetch, repo.repo_id) for repo in order]
        reports = at_once(*jobs)
    for repo, report in zip(order, reports, strict=True):
        assert contents(Path(report.path)) == expected(repo)
    assert once(hub, len(common) + len(small) + 4 * 9_000_000)
    assert len(listings(hub)) == 2 * 4


def test_a_second_fetch_reuses_the_files_of_the_first(make: Make, user: User, serve: Serve, three: Repo) -> None:
    hub = serve(three)
    with make() as runtime:
        runtime.fetch("org/three", "one")
        before, asked = sent(hub), len(listings(hub))
        runtime.fetch("org/three", "two")
        assert sent(hub) == before
        assert len(listings(hub)) == asked
    assert contents(user.home / "two") == expected(three)


def test_two_processes_share_a_download(user: User, serve: Serve, three: Repo) -> None:
    hub = serve(three, limit_rate=PER_CONNECTION)
    runs = [user.start("fetch", "org/three", "--to", "out", "-q") for _ in range(2)]
    for run in runs:
        out, err = run.communicate(timeout=90)
        assert run.returncode == 0, err
        assert out.strip().endswith("out")
    assert contents(user.home / "out") == expected(three)
    assert once(hub, sum(map(len, expected(three).values())))


def test_another_process_takes_over_the_files_of_a_killed_one(user: User, serve: Serve, three: Repo) -> None:
    serve(three, limit_rate=PER_CONNECTION // 8)
    first = user.start("fetch", "org/three", "--to", "out", "-q")
    wait_until(lambda: any((user.home / "out").rglob("sha256-*")))
    second = user.start("fetch", "org/three", "--to", "out", "-q", "--patience", "60s")
    first.kill()
    first.communicate()
    _, err = second.communicate(timeout=90)
    assert second.returncode == 0, err
    assert contents(user.home / "out") == expected(three)


def test_one_fetch_is_interrupted_and_the_other_continues(make: Make, user: User, serve: Serve, three: Repo) -> None:
    serve(three, limit_rate=PER_CONNECTION // 4)
    stop, begun = threading.Event(), threading.Event()

    def first() -> object:
        try:
            return runtime.fetch("org/three", "out", lambda event: begun.set(), stop)
        except Interrupted as error:
            return error

    def second() -> object:
        begun.wait(20)
        threading.Timer(1.0, stop.set).start()
        return runtime.fetch("org/three", "out")

    with make() as runtime:
        interrupted, report = at_once(first, second)
    assert isinstance(interrupted, Interrupted)
    assert contents(Path(report.path)) == expected(three)


def test_close_interrupts_and_waits(make: Make, serve: Serve, three: Repo) -> None:
    serve(three, limit_rate=PER_CONNECTION // 8)
    begun, runtime = threading.Event(), make()

    def fetch() -> object:
        try:
            return runtime.fetch("org/three", "out", lambda event: begun.set())
        except Interrupted as error:
            return error

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fetch)
        assert begun.wait(20)
        runtime.close()
        assert isinstance(running.result(20), Interrupted)
    with pytest.raises(UsageError, match="closed"):
        runtime.fetch("org/three")


def test_the_speed_limit_can_change(make: Make) -> None:
    with make(max_speed="10MB") as runtime:
        assert runtime.limit == 10_000_000
        runtime.limit = 20_000_000
        assert (runtime.limit, runtime.bucket.rate) == (20_000_000, 20_000_000)


class Slowing:
    """A listener that sets a speed limit once part of a file has arrived."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.runtime: gpuaria.Runtime | None = None
        self.done, self.since = 0, 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.done > SIZE // 10 and self.runtime and not self.since:
            self.done, self.since = event.done, time.monotonic()
            self.runtime.limit = self.rate


def test_a_limit_set_in_mid_download_applies(make: Make, serve: Serve, tmp_path: Path) -> None:
    """The limit applies to aria2's running downloads and to the tail; the bound uses the measured time."""
    size, slowing = 3 * SIZE, Slowing(3_000_000)
    serve(Repo.build("org/one", {"a.bin": random_bytes(5, size)}, folder=tmp_path / "one"), limit_rate=PER_CONNECTION)
    with make() as runtime:
        slowing.runtime = runtime
        runtime.fetch("org/one", "out", slowing)
    passed = time.monotonic() - slowing.since
    assert slowing.since, "there was no event while it was downloading"
    in_flight = 6_000_000  # bytes in kernel buffers or from connections about to be closed may still arrive
    assert (size - slowing.done - in_flight) / passed < slowing.rate * 1.1


def test_failed_listings_are_not_cached(make: Make, serve: Serve, three: Repo, tmp_path: Path) -> None:
    hub = serve(three)
    with make() as runtime:
        for _ in range(2):
            with pytest.raises(RepoNotFound):
                runtime.resolve("org/later")
        later = Repo("org/later", tmp_path / "later")
        later.commit({"a.txt": b"a"})
        hub.add(later)
        assert [file.path for file in runtime.resolve("org/later").files] == ["a.txt"]
        assert runtime.resolve(request_for(runtime.ref("org/later"), ["a.txt"])).size == 1
    assert len(listings(hub)) == 2 + 2


def test_a_failed_file_is_in_the_report(make: Make, serve: Serve, three: Repo) -> None:
    hub = serve(three)
    hub.fault("/config.json", status=404, times=None)
    with make() as runtime, pytest.raises(gpuaria.FetchFailed) as caught:
        runtime.fetch("org/three", "out")
    assert [problem.path for problem in caught.value.report.problems] == ["config.json"]


def test_the_example_of_the_guide_works(
    user: User, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repos = [Repo(f"org/{name}", tmp_path / name) for name in ("one", "two", "three")]
    for repo in repos:
        repo.commit({"config.json": b"{}\n", f"{repo.repo_id[4:]}.bin": random_bytes(3, 1000)})
    hub = serve(*repos)
    for name, value in {**user.environ(), "HF_ENDPOINT": hub.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(user.home)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "guide.md").read_text(), re.MULTILINE | re.DOTALL)
    (example,) = [block for block in blocks if "Runtime" in block]
    exec(compile(example, "guide.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [contents(Path(line.split()[0])) for line in lines] == [expected(repo) for repo in repos]
