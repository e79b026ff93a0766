"""SIGKILL of gpuaria, of aria2c and of both, at random moments of a download: the next run completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from standin import Hub, Repo
from tests.support.repos import contents, expected
from tests.support.seed import SEED
from tests.support.user import Serve, User, children, wait_until

SIZE = 60_000_000
RATE = 500_000  # bytes per second and connection: 8 MB/s with 16 connections, about eight seconds in all
PER_KILL = 15_000_000  # bytes received in a second between two saves, and as much again for a busy machine
KILLS = int(os.environ.get("GPUARIA_TEST_KILLS", "0"))
WHOM = os.environ.get("GPUARIA_TEST_WHOM", "gpuaria aria2c both").split()
FETCH = ("fetch", "org/huge", "--to", "out", "--json")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/huge: one file of 60 MB."""
    return huge(tmp_path_factory.mktemp("huge"), SIZE)


def huge(folder: Path, size: int) -> Repo:
    """Return a repo with one file of `size` bytes."""
    data = b"".join(random.Random(n).randbytes(min(SIZE, size - n)) for n in range(0, size, SIZE))
    return Repo.build("org/huge", {"w.safetensors": data}, folder=folder, direct=True)


def sent(hub: Hub) -> int:
    """Return the bytes of the file that the byte server has sent so far."""
    return sum(seen.sent for seen in hub.cdn.requests)


def engines(run: subprocess.Popen[str]) -> list[int]:
    """Return the aria2c processes of a run."""
    return [pid for pid in children(run.pid) if _name(pid) == "aria2c"]


def under_way(user: User, hub: Hub, least: int) -> tuple[subprocess.Popen[str], list[int]]:
    """Return a run that was sent more than `least` bytes, and its aria2c."""
    run = user.start(*FETCH)
    wait_until(lambda: sent(hub) > least)
    found = engines(run)
    assert found
    return run, found


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
    """Return whether the file is published; check its bytes if it is."""
    found = contents(user.home / "out") if (user.home / "out").is_dir() else {}
    assert found in ({}, expected(repo))
    return bool(found)


def finish(user: User, repo: Repo) -> None:
    user.run(*FETCH).ok()
    assert contents(user.home / "out") == expected(repo)
    rest = [path.name for path in (user.home / "out").rglob("*") if "sha256-" in path.name or ".aria2" in path.name]
    assert rest == []


@pytest.mark.parametrize(
    ("size", "kills", "moments"),
    [
        pytest.param(SIZE, 6, (1.0, 3.5), id="a few", marks=pytest.mark.timeout(300)),
        pytest.param(300_000_000, 200, (0.5, 4.0), id="200", marks=[pytest.mark.deep, pytest.mark.timeout(3000)]),
    ],
)
@pytest.mark.fault(
    "killed (kill -9): gpuaria, aria2c or both, at any moment",
    where="machine",
    does="The next run resumes. If only aria2c was killed, gpuaria restarts it.",
    sees="nothing",
    status=0,
)
def test_killed_at_random_moments(
    user: User,
    serve: Serve,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    size: int,
    kills: int,
    moments: tuple[float, float],
) -> None:
    """A download is killed repeatedly; when it is complete, a new one begins.

    The bytes downloaded twice are those received since aria2c last saved its progress, at most a second before. With a
    few kills, `moments` counts seconds from the first byte, so that a busy machine does not change how long each run
    receives bytes; the bound is a share of those bytes (1 if nothing were kept). With many kills, `moments` counts from
    the start of the process, and the bound is the documented one.
    """
    chance, kills = random.Random(SEED), KILLS or kills
    repo = huge(tmp_path / "huge", size)
    hub = serve(repo, limit_rate=RATE)
    downloads, done = 0, 0
    while done < kills:
        run, before = user.start(*FETCH), sent(hub)
        if size == SIZE:
            wait_until(lambda run=run, before=before: sent(hub) > before or run.poll() is not None)  # type: ignore[misc]
        whom, moment = chance.choice(WHOM), chance.uniform(*moments)
        with suppress(subprocess.TimeoutExpired):
            run.wait(moment)
        if run.poll() is None:
            done += 1
            found = engines(run)
            kill(found if whom == "aria2c" else [run.pid, *(found if whom == "both" else [])])
            if whom == "aria2c":  # gpuaria restarts it and continues, or is in its last steps
                time.sleep(chance.uniform(0.3, 1.5))
                kill([run.pid, *engines(run)])
            run.wait(30)
            assert run.returncode in (0, -signal.SIGKILL)
        if published(user, repo):
            downloads += 1
            _start_anew(user)
    came = sent(hub)
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    finish(user, repo)
    lost = sent(hub) - (downloads + 1) * size
    share = lost / done / size
    record_property("refetched_share_per_kill", round(share, 4))
    print(f"{done} kills, {downloads + 1} downloads, {lost / done / 1e6:.1f} MB ({100 * share:.1f} %) again for each")
    if size == SIZE:
        assert lost <= came * 0.6, f"{lost} of {came} bytes came in vain"
    else:
        assert share < 0.03


def _start_anew(user: User) -> None:
    for path in sorted((user.home / "out").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.fault("killed (kill -9): gpuaria, aria2c or both, at any moment")
def test_gpuaria_restarts_a_killed_aria2c(user: User, serve: Serve, repo: Repo, times: int) -> None:
    hub = serve(repo, limit_rate=RATE)
    run = user.start(*FETCH)
    for number in range(1, times + 1):
        wait_until(lambda number=number: sent(hub) > number * SIZE // (times + 1) and engines(run) != [])  # type: ignore[misc]
        kill(engines(run))
    assert run.wait(60) == 0
    assert published(user, repo)
    assert sent(hub) < SIZE + times * PER_KILL


@pytest.mark.fault(
    "aria2c: crashes on every start",
    where="machine",
    does="Restarts it three times, then stops. Keeps the received bytes.",
    sees="that aria2c crashed",
    status=9,
)
def test_an_aria2c_that_crashes_on_every_start_ends_the_run(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE // 3)
    run = user.start(*FETCH)
    wait_until(lambda: sent(hub) > 0)
    while run.poll() is None:
        kill(engines(run))
        time.sleep(0.05)
    assert run.returncode == 9
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    finish(user, repo)


def test_an_interrupted_run_stops_soon_together_with_aria2c(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE)
    run, found = under_way(user, hub, SIZE // 8)
    run.send_signal(signal.SIGINT)
    assert run.wait(10) == 130
    wait_until(lambda: gone(found), 3)
    before = sent(hub)
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    finish(user, repo)
    assert sent(hub) - before < SIZE - SIZE // 8 + PER_KILL * 2 // 3


def test_aria2c_does_not_outlive_a_killed_gpuaria(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE)
    run, found = under_way(user, hub, SIZE // 8)
    kill([run.pid])
    run.wait()  # a zombie still counts as a process
    wait_until(lambda: gone(found), 10)


@pytest.mark.fault("killed (kill -9): gpuaria, aria2c or both, at any moment")
def test_killed_during_the_tail(user: User, serve: Serve, repo: Repo) -> None:
    """Our own connections download the tail; their requests lack a header that aria2 sends."""
    hub = serve(repo, limit_rate=RATE * 3)
    run = user.start(*FETCH)
    wait_until(lambda: any("want-digest" not in seen.headers for seen in hub.cdn.requests))
    kill([run.pid, *engines(run)])
    run.wait()
    if not published(user, repo):
        before = sent(hub)
        finish(user, repo)
        assert sent(hub) - before < PER_KILL * 2


def test_interrupted_in_the_last_second(user: User, serve: Serve, tmp_path: Path) -> None:
    """Bytes that our own connections downloaded are not downloaded again."""
    size = 150_000_000
    repo = huge(tmp_path, size)
    hub = serve(repo, limit_rate=RATE * 4)
    run = user.start(*FETCH)
    wait_until(lambda: _ours(hub) > 20_000_000)
    run.send_signal(signal.SIGINT)
    run.wait(10)
    before = sent(hub)
    assert not published(user, repo)
    finish(user, repo)
    assert sent(hub) < size + 12_000_000, f"{before / 1e6:.0f} MB and {(sent(hub) - before) / 1e6:.0f} MB"


def _ours(hub: Hub) -> int:
    """Return the bytes requested without a header that aria2 sends."""
    return sum(seen.sent for seen in hub.cdn.requests if "want-digest" not in seen.headers)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.deep) for n in (1, 2))])
def test_killed_after_the_last_byte(user: User, serve: Serve, repo: Repo, seed: int) -> None:
    """The file is being verified, synced and published."""
    hub = serve(repo)
    run = user.start(*FETCH)
    wait_until(lambda: sent(hub) >= SIZE)
    time.sleep(random.Random(seed).uniform(0, 0.15))
    kill([run.pid, *engines(run)])
    run.wait()
    if not published(user, repo):
        before = sent(hub)
        finish(user, repo)
        assert sent(hub) - before <= SIZE * 1.5, "at this speed it may all be of the last second"


def test_the_next_run_stops_the_aria2c_of_a_killed_run(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=RATE)
    run, orphans = under_way(user, hub, SIZE // 4)
    kill([run.pid])
    user.run(*FETCH).ok()
    assert gone(orphans)
    assert published(user, repo)
    assert not list(user.temp.glob("gpuaria-*"))
