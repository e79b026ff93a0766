"""The contract of every downloader, in whole runs in which it downloads every file.

A new downloader adds a row to DOWNLOADERS; the tests need no change.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from gpuaria.urls import authority
from standin import Hub, Repo
from tests.support.repos import contents, expected
from tests.support.user import Done, Serve, User, finish, wait_until

# Settings with which each downloader, by its name in the plan, downloads every file.
DOWNLOADERS: dict[str, dict[str, str]] = {
    "aria2": {"GPUARIA_SMALL_FILE": "0"},
    "http": {"GPUARIA_SMALL_FILE": "1 GB"},
}
PIECE = 1 << 20  # bytes; the smallest part that aria2 gives to a separate connection
SIZE = 12 * PIECE + 7
NAME = "model.safetensors"
BESIDE = "127.0.0.2"  # a mirror with another host name
LENGTHS = (1, 2, 1023, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 1)


@pytest.fixture(params=DOWNLOADERS)
def downloader(request: pytest.FixtureRequest, user: User) -> str:
    """Return the name of a downloader that downloads every file of `user`'s runs."""
    user.env.update(DOWNLOADERS[request.param], GPUARIA_TIMEOUT="2s", GPUARIA_CONNECT_TIMEOUT="2s")
    return str(request.param)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/one: one file of 12 MiB and 7 bytes."""
    data = {NAME: random.Random(4).randbytes(SIZE)}
    return Repo.build("org/one", data, folder=tmp_path_factory.mktemp("one"), direct=True)


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/lengths: files slightly shorter and longer than a piece, with difficult names."""
    names = ("a b/%20 é.bin", "q'uote.bin", "-dash.bin", "文件.bin", "[1-3]{a,b}.bin", "#hash.bin", "out=x.bin")
    data = {name: random.Random(size).randbytes(size) for name, size in zip(names, LENGTHS, strict=True)}
    return Repo.build("org/lengths", data, folder=tmp_path_factory.mktemp("lengths"), direct=True)


def words(*more: str, name: str = "org/one", patience: str = "2s") -> tuple[str, ...]:
    """Return the command line of a fetch into a folder."""
    return ("fetch", name, "--to", "out", "--json", "--patience", patience, *more)


def complete(user: User, done: Done, repo: Repo) -> dict[str, Any]:
    """Check that the run ended well, with the right bytes and nothing left in staging; return its report."""
    report = done.ok().report
    assert contents(user.home / "out") == expected(repo)
    assert not list((user.home / "out" / ".cache" / "huggingface").glob("gpuaria/*"))
    return report


def failed(user: User, done: Done, status: int) -> str:
    """Check that the run ended with `status` and published nothing; return its message about the file."""
    assert done.status == status, (done.status, done.out[-2000:], done.err)
    assert contents(user.home / "out") == {}
    assert "Traceback" not in done.err
    (problem,) = done.report["problems"]
    assert problem["path"] == NAME
    return str(problem["detail"])


def sent(hub: Hub) -> int:
    """Return the number of bytes sent by a hub's byte server."""
    return sum(seen.sent for seen in hub.cdn.requests)


def on_disk(user: User) -> int:
    """Return the number of staged bytes, without holes."""
    files = [path.stat() for path in (user.home / "out").rglob("sha256-*") if path.is_file()]
    return sum(seen.st_blocks * 512 for seen in files)


# --- bytes --------------------------------------------------------------------------------------------------------


def test_the_settings_select_these_downloaders(user: User, serve: Serve, repo: Repo, downloader: str) -> None:
    serve(repo)
    plan = user.quick(*words("--dry-run")).ok().events[-1]
    assert [step["carrier"] for step in plan["steps"]] == [downloader]


def test_every_byte_is_correct(user: User, serve: Serve, lengths: Repo, downloader: str) -> None:
    serve(lengths)
    report = complete(user, user.run(*words(name="org/lengths")), lengths)
    assert report["verdicts"] == {"ok": len(LENGTHS)}
    assert report["bytes_fetched"] >= sum(LENGTHS)


def test_every_byte_is_correct_from_two_mirrors(user: User, serve: Serve, repo: Repo, downloader: str) -> None:
    serve(repo)
    mirror = serve(repo, host=BESIDE)
    complete(user, user.run(*words("--mirror", mirror.url)), repo)


@pytest.mark.parametrize("offset", [0, SIZE - 1])
def test_a_wrong_byte_is_never_published(user: User, serve: Serve, repo: Repo, downloader: str, offset: int) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "flip", offset=offset)
    assert "sha256" in failed(user, user.run(*words()), 4)
    hub.heal()
    complete(user, user.run(*words()), repo)


def test_a_wrong_byte_of_one_mirror_is_repaired_from_another(
    user: User, serve: Serve, repo: Repo, downloader: str
) -> None:
    wrong = serve(repo)
    wrong.cdn.fault(NAME, "flip", offset=SIZE // 2)
    complete(user, user.run(*words("--mirror", serve(repo, host=BESIDE).url, patience="20s")), repo)


# --- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["short", "reset", "stall"])
def test_a_broken_connection_is_resumed(user: User, serve: Serve, repo: Repo, downloader: str, kind: str) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, kind, times=1, after=700_000)
    complete(user, user.run(*words(patience="20s")), repo)
    assert sent(hub) < 1.5 * SIZE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_later_run_resumes_an_earlier_one(
    user: User, serve: Serve, repo: Repo, downloader: str, number: signal.Signals
) -> None:
    hub = serve(repo, limit_rate=SIZE // 8)
    run = user.start(*words(), GPUARIA_MAX_SPEED=f"{SIZE // 8}")
    wait_until(lambda: on_disk(user) > SIZE // 2)
    time.sleep(1.5)  # seconds; progress is saved every second
    run.send_signal(number)
    finish(run)
    if number == signal.SIGKILL:
        time.sleep(1)  # aria2c ends after gpuaria
    assert contents(user.home / "out") == {}
    hub.reset()
    report = complete(user, user.run(*words()), repo)
    assert report["bytes_reused"] > SIZE // 4
    assert sent(hub) < SIZE - SIZE // 4


# --- lengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [5, -5])
def test_a_body_of_another_length_is_rejected(
    user: User, serve: Serve, repo: Repo, downloader: str, delta: int
) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "wrong_size", delta=delta)
    failed(user, user.run(*words()), 7)
    hub.heal()
    complete(user, user.run(*words()), repo)


@pytest.mark.parametrize("delta", [5, -5])
def test_a_mirror_with_another_length_is_dropped(
    user: User, serve: Serve, repo: Repo, downloader: str, delta: int
) -> None:
    serve(repo).cdn.fault(NAME, "wrong_size", delta=delta)
    complete(user, user.run(*words("--mirror", serve(repo, host=BESIDE).url, patience="20s")), repo)


def test_a_web_page_instead_of_the_bytes_is_rejected(user: User, serve: Serve, repo: Repo, downloader: str) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "html")
    failed(user, user.run(*words()), 7)
    hub.heal()
    complete(user, user.run(*words()), repo)


# --- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hinder",
    [
        lambda hub: hub.cdn.fault(NAME, "slow", rate=20_000),
        lambda hub: hub.cdn.fault(NAME, "stall", after=100),
        lambda hub: hub.cdn.fault(NAME, "status", status=503),
    ],
    ids=["slow", "silent", "refusing"],
)
def test_a_run_stops_within_two_seconds(
    user: User, serve: Serve, repo: Repo, downloader: str, hinder: Callable[[Hub], object]
) -> None:
    hub = serve(repo)
    hinder(hub)
    run = user.start(*words(patience="10 min"))
    wait_until(lambda: bool(hub.cdn.requests))
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    before = time.monotonic()
    done = finish(run)
    assert time.monotonic() - before < 3  # seconds; two, plus a margin for a busy machine
    assert done.status == 130
    assert done.report["exit_code"] == 130
    assert contents(user.home / "out") == {}
    seen = hub.cdn.count()
    time.sleep(0.5)
    assert hub.cdn.count() == seen


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_status_is_reported_with_its_server(
    user: User, serve: Serve, repo: Repo, downloader: str, status: int
) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "status", status=status)
    done = user.run(*words())
    detail = failed(user, done, 7)
    assert authority(hub.cdn.url) in detail or authority(hub.url) in detail
    assert str(status) in detail
    said = [event["text"] for event in done.events if event["event"] == "waiting" and NAME in event["text"]]
    assert all(str(status) in text for text in said), said


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_mirror_with_an_error_status_is_dropped_and_reported(
    user: User, serve: Serve, repo: Repo, downloader: str, status: int
) -> None:
    serve(repo)
    mirror = serve(repo, host=BESIDE)
    mirror.fault("/resolve/", status=status)
    report = complete(user, user.run(*words("--mirror", mirror.url, patience="20s")), repo)
    assert mirror.cdn.count() == 0
    rejected = {use["name"] for use in report["mirrors"] if use["rejected"]}
    if status == 403:  # 404 concerns this file only, and 503 may end before the file is complete
        asked = any("/resolve/" in seen.target for seen in mirror.requests)
        assert rejected == ({authority(mirror.url)} if asked else set())
    assert rejected <= {authority(mirror.url)}
