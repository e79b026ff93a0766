"""kill -9 of gpuaria, of aria2c, of both, at random moments of one download: the next run ends right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from standin import Hub, Repo

if TYPE_CHECKING:
    from tests.conftest import Serve, User, children, contents, expected, until
else:
    from conftest import Serve, User, children, contents, expected, until

SIZE = 60_000_000
RATE = 1_500_000  # bytes per second and connection: some 24 MB/s, more than two seconds for all
PER_KILL = 30_000_000  # bytes: what comes in a second between two savings, the pieces begun, the aria2c not yet gone
ROUNDS = int(os.environ.get("GPUARIA_TEST_KILLS", "12"))
SEED = int(os.environ.get("GPUARIA_TEST_SEED", "1"))
WHOM = os.environ.get("GPUARIA_TEST_WHOM", "gpuaria aria2c both").split()
FETCH = ("fetch", "org/huge", "--to", "out", "--json")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """org/huge: one file of 60 MB."""
    content = {"w.safetensors": random.Random(6).randbytes(SIZE)}
    return Repo.build("org/huge", content, folder=tmp_path_factory.mktemp("huge"), direct=True)


def sent(hub: Hub) -> int:
    """Bytes of the file that the byte server gave out so far."""
    return sum(seen.sent for seen in hub.cdn.requests)


def engines(run: subprocess.Popen[str]) -> list[int]:
    """The aria2c of a run."""
    return [pid for pid in children(run.pid) if _name(pid) == "aria2c"]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def gone(pids: list[int]) -> bool:
    return not any(_name(pid) == "aria2c" and not _zombie(pid) for pid in pids)


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def published(user: User, repo: Repo) -> bool:
    """Whether the file has its name; if so, it is right."""
    found = contents(user.home / "out") if (user.home / "out").is_dir() else {}
    assert found in ({}, expected(repo))
    return bool(found)


def finish(user: User, repo: Repo) -> None:
    user.run(*FETCH).ok()
    assert contents(user.home / "out") == expected(repo)
    rest = [path.name for path in (user.home / "out").rglob("*") if "sha256-" in path.name or ".aria2" in path.name]
    assert rest == []


@pytest.mark.timeout(60 + 20 * ROUNDS)
@pytest.mark.fault(
    "killed (kill -9): gpuaria, aria2c or both, at any moment",
    where="machine",
    does="The next run goes on where it was. Where aria2c alone was killed gpuaria starts another one.",
    sees="nothing",
    status=0,
)
def test_killed_at_random_moments(
    user: User, serve: Serve, repo: Repo, record_property: Callable[[str, object], None]
) -> None:
    """One download is killed again and again; when it is complete, a new one begins."""
    chance = random.Random(SEED)
    hub = serve(repo, limit_rate=RATE)
    kills = downloads = 0
    while kills < ROUNDS:
        run = user.start(*FETCH)
        whom, moment = chance.choice(WHOM), chance.uniform(0.3, 2.5)
        with suppress(subprocess.TimeoutExpired):
            run.wait(moment)
        if run.poll() is None:
            kills += 1
            found = engines(run)
            kill(found if whom == "aria2c" else [run.pid, *(found if whom == "both" else [])])
            if whom == "aria2c":  # gpuaria starts another one and goes on, or is in its last steps
                time.sleep(chance.uniform(0.3, 1.5))
                kill([run.pid, *engines(run)])
            run.wait(30)
            assert run.returncode in (0, -signal.SIGKILL)
        if published(user, repo):
            downloads += 1
            _start_anew(user)
    finish(user, repo)
    downloads += 1
    lost = sent(hub) - downloads * SIZE
    share = lost / kills / SIZE
    record_property("refetched_share_per_kill", round(share, 4))
    print(f"{kills} kills, {downloads} downloads, {lost / kills / 1e6:.1f} MB ({100 * share:.1f} %) again for each")
    assert lost <= kills * PER_KILL


def _start_anew(user: User) -> None:
    for path in sorted((user.home / "out").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.fault("killed (kill -9): gpuaria, aria2c or both, at any moment")
def test_gpuaria_starts_another_aria2c(user: User, serve: Serve, repo: Repo, times: int) -> None:
    hub = serve(repo, limit_rate=RATE)
    run = user.start(*FETCH)
    for number in range(1, times + 1):
        until(lambda number=number: sent(hub) > number * SIZE // 4 and engines(run) != [])  # type: ignore[misc]
        kill(engines(run))
    assert run.wait(60) == 0
    assert published(user, repo)
    assert sent(hub) < SIZE + times * PER_KILL


@pytest.mark.fault(
    "aria2c: dies whenever it runs",
    where="machine",
    does="Starts it three times more, then stops. What had arrived is kept.",
    sees="that aria2c died",
    status=9,
)
def test_an_aria2c_that_dies_whenever_it_runs_ends_the_run(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE // 8)
    run = user.start(*FETCH)
    until(lambda: sent(hub) > 0)
    while run.poll() is None:
        kill(engines(run))
        time.sleep(0.05)
    assert run.returncode == 9
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    finish(user, repo)


def test_an_interrupted_run_ends_soon_and_takes_aria2c_along(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE // 4)
    run = user.start(*FETCH)
    until(lambda: sent(hub) > SIZE // 8)
    found = engines(run)
    assert found
    run.send_signal(signal.SIGINT)
    assert run.wait(10) == 130
    until(lambda: gone(found), 3)
    before = sent(hub)
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    finish(user, repo)
    assert sent(hub) - before < SIZE - SIZE // 8 + PER_KILL // 3


def test_aria2c_does_not_outlive_a_killed_gpuaria(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE // 4)
    run = user.start(*FETCH)
    until(lambda: sent(hub) > SIZE // 8)
    found = engines(run)
    assert found
    kill([run.pid])
    run.wait()  # a process that nobody has waited for still counts as one
    until(lambda: gone(found), 10)


@pytest.mark.fault("killed (kill -9): gpuaria, aria2c or both, at any moment")
def test_killed_in_the_endgame(user: User, serve: Serve, repo: Repo) -> None:
    """The last bytes are asked for by ourselves, with a header that aria2 does not send."""
    hub = serve(repo, limit_rate=RATE)
    run = user.start(*FETCH)
    until(lambda: any(seen.headers.get("accept-encoding") == "identity" for seen in hub.cdn.requests))
    kill([run.pid, *engines(run)])
    run.wait()
    if not published(user, repo):
        before = sent(hub)
        finish(user, repo)
        assert sent(hub) - before < PER_KILL


@pytest.mark.parametrize("seed", range(3))
def test_killed_when_all_is_here(user: User, serve: Serve, repo: Repo, seed: int) -> None:
    """While it is proven, sealed and named."""
    hub = serve(repo)
    run = user.start(*FETCH)
    until(lambda: sent(hub) >= SIZE)
    time.sleep(random.Random(seed).uniform(0, 0.15))
    kill([run.pid, *engines(run)])
    run.wait()
    if not published(user, repo):
        before = sent(hub)
        finish(user, repo)
        assert sent(hub) - before <= SIZE + PER_KILL // 3, "at this speed it may all be of the last second"
