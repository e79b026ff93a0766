"""Faults of the local machine, in whole runs: disk, clock, limits, other processes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from standin import Hub, Repo
from tests.support.repos import contents, expected
from tests.support.user import GPUARIA, Done, Serve, User, children, wait_until

PAGE = 4096
Mount = Callable[..., Path]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a file system of a few MB at `place` or in the temporary folder."""
    with ExitStack() as stack:

        def mounted(size: str, place: Path = tmp_path / "disk") -> Path:
            place.mkdir(parents=True, exist_ok=True)
            words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(place)], check=True)
            return place

        yield mounted


def fill(place: Path, leave: int = 0) -> Path:
    """Fill the disk at `place` except for `leave` bytes; return the file that does it."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as out:
        while True:
            stats = os.statvfs(place)
            left = stats.f_bavail * stats.f_frsize - leave
            try:
                if left <= 0 or out.write(bytes(min(left, 1 << 20))) == 0:
                    return filler
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return filler
                raise


def sent(hub: Hub) -> int:
    return sum(seen.sent for seen in hub.cdn.requests)


def ended(run: subprocess.Popen[str]) -> Done:
    out, err = run.communicate(timeout=60)
    return Done(run.returncode, out, err)


# --- the disk -----------------------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.fault(
    "disk: full in mid-file",
    where="machine",
    does="Stops. Keeps the received bytes, and the next run resumes.",
    sees="the full folder, and to free space",
    status=8,
)
def test_a_disk_that_fills_up(user: User, serve: Serve, mount: Mount, tmp_path: Path, size: str) -> None:
    data = random.Random(15).randbytes(9_000_000 if size == "large" else 2_000_000)
    repo = Repo.build("org/r", {"w.safetensors": data}, folder=tmp_path / "r", direct=True)
    hub = serve(repo, limit_rate=150_000 if size == "large" else 600_000)
    disk = mount("12m")
    run = user.start("fetch", "org/r", "--to", disk / "out")
    wait_until(lambda: sent(hub) > len(data) * 2 // 3)  # aria2c saves its progress once a second
    filler = fill(disk)
    ended(run).refused(8, "disk", "space")
    assert contents(disk / "out") == {}
    filler.unlink()
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    done = user.run("fetch", "org/r", "--to", disk / "out", "--json").ok()
    assert contents(disk / "out") == expected(repo)
    assert done.report["bytes_fetched"] < len(data) - 1_000_000


@root_only
@pytest.mark.fault(
    "disk: full at any step",
    where="machine",
    does="Stops. A file is published complete or not at all.",
    sees="the full folder, and to free space",
    status=(0, 8),
)
def test_a_disk_with_room_for_a_few_steps(user: User, serve: Serve, small: Repo, mount: Mount) -> None:
    serve(small)
    disk, seen = mount("2m"), set()
    for pages in range(8, 34, 2):
        filler = fill(disk, pages * PAGE)
        done = user.quick("fetch", "org/small", "--to", disk / "out")
        if done.status:
            done.refused(8)
        seen.add(done.status)
        there = contents(disk / "out") if (disk / "out").exists() else {}
        assert there.items() <= expected(small).items()
        assert done.status or there == expected(small)
        filler.unlink()
        if done.status == 0:
            shutil.rmtree(disk / "out")
    assert seen == {0, 8}
    user.quick("fetch", "org/small", "--to", disk / "out").ok()
    assert contents(disk / "out") == expected(small)


@root_only
@pytest.mark.fault(
    "disk: the target is read-only",
    where="machine",
    does="Stops before the download starts.",
    sees="the folder, and to choose another one",
    status=8,
)
def test_a_read_only_target(user: User, serve: Serve, small: Repo, mount: Mount) -> None:
    hub, disk = serve(small), mount("4m")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for flag in ("--to", "--cache-dir"):
        user.quick("fetch", "org/small", flag, disk / "out").refused(8, "read-only", str(disk))
    assert hub.cdn.count() == 0


@root_only
@pytest.mark.fault(
    "disk: the target is on another file system than the home folder",
    where="machine",
    does="No change: unfinished files are stored in the target folder.",
    sees="nothing",
    status=0,
)
def test_a_target_on_another_file_system(user: User, serve: Serve, big: Repo, mount: Mount) -> None:
    serve(big)
    disk = mount("24m")
    user.quick("fetch", "org/big", "--to", disk / "out").ok()
    assert contents(disk / "out") == expected(big)


@root_only
@pytest.mark.fault(
    "disk: a folder inside the target is on another file system",
    where="machine",
    does="Stops, because a file cannot be renamed across file systems.",
    sees="the file, and that its folder is on another file system",
    status=8,
)
def test_a_folder_of_the_target_on_another_file_system(user: User, serve: Serve, small: Repo, mount: Mount) -> None:
    serve(small)
    mount("4m", user.home / "out/sub")
    user.quick("fetch", "org/small", "--to", "out").refused(8, "another file system", "sub")
    assert contents(user.home / "out").items() <= expected(small).items()


@pytest.mark.parametrize("planted", ["file", "folder", "staging"])
@pytest.mark.fault(
    "disk: a symbolic link planted in the target",
    where="machine",
    does="Replaces a link that has a file's name; does not write through a link to a folder.",
    sees="nothing, or the link",
    status=(0, 8),
)
def test_a_planted_symlink(user: User, serve: Serve, small: Repo, planted: str) -> None:
    serve(small)
    out, precious = user.home / "out", user.home / "precious"
    precious.mkdir()
    (precious / "config.json").write_text("mine")
    out.mkdir()
    if planted == "file":
        (out / "config.json").symlink_to(precious / "config.json")
        user.quick("fetch", "org/small", "--to", "out").ok()
        assert not (out / "config.json").is_symlink()
        assert contents(out) == expected(small)
    elif planted == "folder":
        (out / "sub").symlink_to(precious)
        user.quick("fetch", "org/small", "--to", "out").refused(8, "symbolic link", "sub")
    else:
        (out / ".cache").symlink_to(precious)
        user.quick("fetch", "org/small", "--to", "out").refused(8, "symbolic link", ".cache")
    assert {path.name: path.read_text() for path in precious.iterdir()} == {"config.json": "mine"}


@pytest.mark.fault(
    "disk: a hard link planted in the target",
    where="machine",
    does="Replaces the name and never writes to the linked file.",
    sees="nothing",
    status=0,
)
def test_a_planted_hard_link(user: User, serve: Serve, big: Repo) -> None:
    """Also at the name of the staged file."""
    hub = serve(big, limit_rate=200_000)
    out, precious = user.home / "out", user.home / "precious"
    run = user.start("fetch", "org/big", "--to", "out")
    wait_until(lambda: sent(hub) > 2_000_000)
    run.kill()
    run.wait()
    precious.write_bytes(b"mine")
    (staged,) = (path for path in out.rglob("sha256-*") if path.is_file() and path.suffix == "")
    staged.unlink()
    os.link(precious, staged)
    os.link(precious, out / "model.safetensors")
    hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    user.quick("fetch", "org/big", "--to", "out").ok()
    assert contents(out) == expected(big)
    assert precious.read_bytes() == b"mine"
    assert precious.stat().st_nlink == 1


# --- the clock, the limits, the home ------------------------------------------------------------------------------

STEP_BACK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
/* The time of day, and an hour less once this process is a second old. */
static time_t back(void) {
  static __thread int inside; static struct timespec start; struct timespec now;
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  if (inside) return 0;
  inside = 1; real(CLOCK_MONOTONIC, &now); inside = 0;
  if (!start.tv_sec) start = now;
  return now.tv_sec - start.tv_sec >= 1 ? 3600 : 0;
}
int clock_gettime(clockid_t id, struct timespec *out) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(id, out);
  if (id == CLOCK_REALTIME) out->tv_sec -= back();
  return code;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec; out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *out) {
  struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build a library that sets the clock of its processes back."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(STEP_BACK)
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(folder / "clock.so"), str(folder / "clock.c"), "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the library cannot be made: {done.stderr[-200:]}")
    return str(folder / "clock.so")


@pytest.mark.fault(
    "clock: set back one hour in mid-file",
    where="machine",
    does="Continues: time-outs use a monotonic clock.",
    sees="nothing",
    status=0,
)
def test_a_clock_set_back(user: User, serve: Serve, big: Repo, clock: str) -> None:
    code = f"import time; time.sleep(1.1); print(time.time() < {time.time()} - 3000)"
    assert user.command(sys.executable, "-c", code, env={"LD_PRELOAD": clock}).out == "True\n"
    hub = serve(big, limit_rate=180_000, ttl=30)
    began = time.monotonic()
    user.run("fetch", "org/big", "--to", "out", LD_PRELOAD=clock).ok()
    assert time.monotonic() - began > 2
    assert contents(user.home / "out") == expected(big)
    hub.reset()
    user.run("fetch", "org/big", "--to", "out").ok()
    assert hub.cdn.count() == 0


@pytest.mark.fault(
    "limits: 256 open files",
    where="machine",
    does="Stays within the limit, with 16 connections to each of three mirrors and 16 small files at once.",
    sees="nothing",
    status=0,
)
def test_few_file_descriptors(user: User, serve: Serve, big_bytes: bytes, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {f"{n:03d}.txt": b"%d" % n for n in range(150)}
    files |= {"a.safetensors": big_bytes, "b.safetensors": big_bytes[::-1]}
    repo = Repo.build("org/many", files, folder=tmp_path / "many", direct=True)
    hubs = [serve(repo, host=f"127.0.0.{n}", limit_rate=300_000) for n in (1, 2, 3)]
    mirrors = [word for hub in hubs[1:] for word in ("--mirror", hub.url)]
    words = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *GPUARIA, "fetch", "org/many", "--to", "out", *mirrors]
    user.command(*words).ok()
    assert contents(user.home / "out") == expected(repo)


@root_only
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.fault(
    "home: none in HOME and none in the user database",
    where="machine",
    does="Works if GPUARIA_STATE_DIR is set, else stops.",
    sees="nothing, or the variable to set",
    status=(0, 10),
)
def test_no_home(user: User, serve: Serve, small: Repo, told: bool) -> None:
    serve(small)
    (user.temp / "nss").write_text("passwd: files\n")  # nss-systemd would know root nevertheless
    nobody = f'mount --bind {user.temp}/nss /etc/nsswitch.conf && mount --bind /dev/null /etc/passwd && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", nobody, "sh", "env", "-u", "HOME", *GPUARIA, "fetch", "org/small"]
    done = user.command(*words, "--to", "out", env={"GPUARIA_STATE_DIR": str(user.home / "state")} if told else {})
    if told:
        done.ok()
        assert contents(user.home / "out") == expected(small)
    else:
        done.refused(10, "home")


# --- neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "processes: two or eight at once on one cache",
    where="machine",
    does="One downloads, the others wait and then use its files.",
    sees="one line that names the other process",
    status=0,
)
def test_eight_processes_at_once(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    runs = [user.start("fetch", "org/big") for _ in range(8)]
    done = [ended(run).ok() for run in runs]
    assert len({each.path for each in done}) == 1
    assert contents(done[0].path) == expected(big)
    assert sent(hub) < sum(map(len, expected(big).values())) * 1.5


@pytest.mark.fault(
    "aria2c: slow RPC responses",
    where="machine",
    does="Waits three times up to 10 s, then restarts aria2c.",
    sees="nothing",
    status=0,
)
def test_a_slow_aria2c(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big, limit_rate=150_000)
    run = user.start("fetch", "org/big", "--to", "out")
    wait_until(lambda: sent(hub) > 2_000_000 and bool(children(run.pid)))
    (engine,) = children(run.pid)
    os.kill(engine, signal.SIGSTOP)
    try:
        time.sleep(3)
        assert run.poll() is None
    finally:
        os.kill(engine, signal.SIGCONT)
    ended(run).ok()
    assert contents(user.home / "out") == expected(big)


@pytest.mark.deep
@pytest.mark.fault("aria2c: slow RPC responses")
def test_an_aria2c_that_never_responds(user: User, serve: Serve, big: Repo) -> None:
    """Before its first download, gpuaria once waited for it until `--patience` ran out."""
    hub = serve(big)
    hub.fault("/resolve/", delay=4.0)
    run = user.start("fetch", "org/big", "--to", "out")
    wait_until(lambda: bool(children(run.pid)))
    time.sleep(2)
    (engine,) = children(run.pid)
    os.kill(engine, signal.SIGSTOP)
    wait_until(lambda: run.poll() is not None or bool({*children(run.pid)} - {engine}), 60)
    ended(run).ok()
    assert contents(user.home / "out") == expected(big)


@pytest.mark.deep
@pytest.mark.fault("aria2c: slow RPC responses")
def test_an_aria2c_that_stops_responding(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big, limit_rate=150_000)
    run = user.start("fetch", "org/big", "--to", "out")
    wait_until(lambda: sent(hub) > 2_000_000 and bool(children(run.pid)))
    (engine,) = children(run.pid)
    os.kill(engine, signal.SIGSTOP)
    wait_until(lambda: run.poll() is not None or bool({*children(run.pid)} - {engine}), 60)
    ended(run).ok()
    assert contents(user.home / "out") == expected(big)


@pytest.mark.fault(
    "processes: another gpuaria that downloads the same file is stopped (SIGSTOP)",
    where="machine",
    does="Waits for `--patience` after the last byte that the other process stored, then stops.",
    sees="that another gpuaria holds the file, and what to do",
    status=3,
)
@pytest.mark.parametrize("to", ["out", "other"])
def test_a_stopped_holder_of_the_file(user: User, serve: Serve, big: Repo, to: str) -> None:
    hub = serve(big, limit_rate=150_000)
    holder = user.start("fetch", "org/big", "--to", "out")
    wait_until(lambda: sent(hub) > 1_000_000 and bool(children(holder.pid)))
    stopped = [holder.pid, *children(holder.pid)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        done = user.run("fetch", "org/big", "--to", to, "--patience", "3s", "--json")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert done.status == 3, done.err
    waits = [event["text"] for event in done.events if event["event"] == "waiting"]
    problems = done.report["problems"]
    assert problems
    for problem in problems:
        assert "has made no progress for" in problem["detail"]
        assert waits.count(f"{problem['path']}: another fetch on this machine is downloading it") == 1
    ended(holder).ok()
