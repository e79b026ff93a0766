"""The audit log written by runs."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpuaria.audit.log import lines
from gpuaria.audit.record import FileLine, LogLine, RunLine, load
from standin import Hub, Repo
from tests.support.repos import SMALL
from tests.support.user import Done, Serve, User, wait_until

BIG = "model.safetensors"


def state(user: User) -> Path:
    """Return the folder of the log."""
    return user.home / ".local/state/gpuaria"


def entries(user: User) -> list[LogLine]:
    """Return all entries; none may be damaged."""
    found = [load(line) for line in lines(state(user))]
    assert None not in found
    return [line for line in found if line is not None]


def files(user: User) -> dict[str, FileLine]:
    """Return the last entry of each file, by its path in the repo."""
    return {line.file: line for line in entries(user) if isinstance(line, FileLine)}


def runs(user: User) -> list[RunLine]:
    """Return the entries of whole runs."""
    return [line for line in entries(user) if isinstance(line, RunLine)]


def given_by(line: FileLine | RunLine) -> dict[str, int]:
    """Return the bytes by URL."""
    return {part.base: part.bytes for part in line.mirrors}


def story(done: Done) -> dict[str, Any]:
    """Return the output of `gpuaria why --json`."""
    (told,) = done.events
    assert told["exit_code"] == done.status
    return told


# --- what a run leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [True, False], ids=["folder", "cache"])
def test_the_entries_of_a_run_and_its_files(user: User, serve: Serve, small: Repo, to: bool) -> None:
    hub = serve(small)
    words = ["--to", "x"] if to else []
    path = user.quick("fetch", "org/small", *words, "-q").ok().path
    commit = small.resolve("main")
    (run,) = runs(user)
    assert set(files(user)) == set(SMALL)
    for file, line in files(user).items():
        assert line.path == f"{path}/{file}"
        assert Path(line.content or line.path).read_bytes() == SMALL[file]
        assert bool(line.content) != to
        assert (line.size, line.outcome, line.action) == (len(SMALL[file]), "ok", "download")
        assert (line.run, line.user, line.host) == (run.run, run.user, run.host)
        assert (line.repo, line.commit, line.trust, line.vouched_by) == ("org/small", commit, "origin", hub.url)
        assert given_by(line) == {hub.url: len(SMALL[file])}
        assert (line.reused, line.problems, line.about) == (0, (), False)
    assert files(user)["weights.bin"].digest.startswith("sha256:")
    assert files(user)["config.json"].digest.startswith("git-sha1:")
    assert (run.ref, run.commit, run.path, run.endpoint) == ("org/small@main", commit, str(path), hub.url)
    assert (run.verdicts, run.exit_code, run.error) == ({"ok": 4}, 0, "")
    assert given_by(run) == {hub.url: sum(map(len, SMALL.values()))}
    assert 0 < run.seconds < 90


def test_a_second_run_writes_one_line(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    for _ in range(2):
        user.quick("fetch", "org/small", "-q").ok()
    user.quick("fetch", "org/small", "--offline", "--include", "*.json\n", "--exclude", "x\u2028", "--dry-run")
    user.quick("fetch", "org/small", "--offline", "--include", "*.json", "--exclude", "x\n\u2028").ok()
    assert [type(line) for line in entries(user)] == [FileLine] * 4 + [RunLine] * 3
    assert [run.verdicts for run in runs(user)] == [{"ok": 4}, {"ok": 4}, {"ok": 1}]
    assert (runs(user)[-1].asked, runs(user)[-1].flags) == (("*.json", "not x\n\u2028"), ("offline",))


def test_copied_created_and_verified_files_are_distinguished(user: User, serve: Serve, tmp_path: Path) -> None:
    content = {"a.txt": b"same", "b.txt": b"same", "empty": b"", "here.txt": b"here", "wrong.txt": b"right"}
    hub = serve(Repo.build("org/kinds", content, folder=tmp_path, direct=True))
    (user.home / "x").mkdir()
    (user.home / "x/here.txt").write_bytes(b"here")
    (user.home / "x/wrong.txt").write_bytes(b"WRONG")
    user.quick("fetch", "org/kinds", "--to", "x", "-q").ok()
    found = files(user)
    actions = {file: (line.action, line.reused, given_by(line)) for file, line in found.items()}
    copy, owner = ("a.txt", "b.txt") if found["a.txt"].action == "copy" else ("b.txt", "a.txt")
    assert actions == {
        owner: ("download", 0, {hub.url: 4}),
        copy: ("copy", 4, {}),
        "empty": ("create", 0, {}),
        "here.txt": ("verify", 4, {}),
        "wrong.txt": ("replace", 0, {hub.url: 5}),
    }
    assert found[copy].same_as == owner
    assert found["wrong.txt"].problems == ("the local file did not match its checksum",)
    told = user.quick("why", f"x/{copy}").ok().out
    assert f"copied from {owner} in the same repo" in told
    assert f"4 B from {hub.url[7:]}" in told
    assert "downloaded nothing" in user.quick("why", "x/here.txt").ok().out


def test_a_new_snapshot_of_cached_bytes(user: User, serve: Serve, tmp_path: Path) -> None:
    """Cached bytes get a new name; the entry of the first fetch says which mirror delivered them."""
    repo = Repo.build("org/moving", {"a.txt": b"one", "b.bin": b"kept" * 100}, folder=tmp_path, direct=True)
    hub = serve(repo)
    user.quick("fetch", "org/moving", "-q").ok()
    repo.commit({"a.txt": b"two", "b.bin": b"kept" * 100}, message="next")
    path = user.quick("fetch", "org/moving", "-q").ok().path
    line = files(user)["b.bin"]
    assert (line.action, line.mirrors, line.reused, line.commit) == ("name", (), 400, repo.resolve("main"))
    told = story(user.quick("why", path / "b.bin", "--json").ok())
    assert told["entry"]["action"] == "name"
    assert told["source"]["mirrors"][0]["base"] == hub.url
    assert "downloaded 20" in user.quick("why", path / "b.bin").ok().out


def test_a_mirror_with_wrong_small_files(user: User, serve: Serve, tmp_path: Path) -> None:
    content = {f"{n}.bin": bytes([n]) * 1000 for n in range(8)}
    repo = Repo.build("org/many", content, folder=tmp_path)
    hub, liar = serve(repo), serve(repo, host="127.0.0.2")
    liar.cdn.fault(".bin", "flip", offset=10)
    user.quick("fetch", "org/many", "--to", "x", "--mirror", liar.url, "-q").ok()
    assert {file: given_by(line) for file, line in files(user).items()} == {key: {hub.url: 1000} for key in content}
    blamed = [line for line in files(user).values() if line.problems]
    assert blamed
    for line in blamed:
        assert f"{liar.url[7:]} served wrong bytes: sha256" in line.problems[0]
    assert f"problem: {liar.url[7:]} served wrong bytes" in user.quick("why", blamed[0].path).ok().out
    assert any("failed its checksum" in part.rejected for part in runs(user)[0].mirrors if part.base == liar.url)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory, big_bytes: bytes) -> Repo:
    """Return org/large: one file of 27 MB, one small one."""
    files = {BIG: big_bytes * 3, "config.json": b"{}"}
    return Repo.build("org/large", files, folder=tmp_path_factory.mktemp("large"), direct=True)


def test_a_large_file_from_two_mirrors(user: User, serve: Serve, large: Repo) -> None:
    hubs = [serve(large, limit_rate=1_000_000), serve(large, host="127.0.0.2", limit_rate=500_000)]
    user.quick("fetch", "org/large", "--to", "x", "--mirror", hubs[1].url, "-q").ok()
    line = files(user)[BIG]
    assert sum(given_by(line).values()) == line.size == 27_000_000
    assert line.about
    for hub in hubs:  # the server counts bytes that no client received
        sent = sum(seen.sent for seen in hub.cdn.requests)
        assert given_by(line)[hub.url] == pytest.approx(sent, abs=6_000_000)
    assert given_by(runs(user)[0])[hubs[1].url] >= given_by(line)[hubs[1].url]
    assert "about" in user.quick("why", "x/" + BIG).ok().out


def test_two_large_files_at_once_are_attributed_separately(
    user: User, serve: Serve, tmp_path: Path, big_bytes: bytes
) -> None:
    """A mirror that has only one of them gets no share of the other."""
    repo = Repo.build("org/two", {"a.bin": big_bytes * 2, "b.bin": big_bytes[::-1] * 2}, folder=tmp_path)
    hub, half = serve(repo, limit_rate=300_000), serve(repo, host="127.0.0.2", limit_rate=300_000)
    half.fault("/resolve/.*/b.bin", status=404)
    user.quick("fetch", "org/two", "--to", "x", "--mirror", half.url, "-q").ok()
    assert given_by(files(user)["b.bin"]) == {hub.url: 18_000_000}
    assert set(given_by(files(user)["a.bin"])) == {hub.url, half.url}
    assert sum(given_by(files(user)["a.bin"]).values()) == 18_000_000
    assert any(half.url[7:] in problem for problem in files(user)["b.bin"].problems)


def test_a_mirror_with_a_wrong_large_file(user: User, serve: Serve, large: Repo) -> None:
    hub, liar = serve(large, limit_rate=1_000_000), serve(large, host="127.0.0.2", limit_rate=1_000_000)
    for offset in range(1000, 27_000_000, 500_000):
        liar.cdn.fault(BIG, "flip", offset=offset)
    user.quick("fetch", "org/large", "--to", "x", "--mirror", liar.url, "-q").ok()
    line = files(user)[BIG]
    assert given_by(line) == {hub.url: 27_000_000}
    assert any("served wrong bytes" in problem and liar.url[7:] in problem for problem in line.problems)


def test_wrong_bytes_from_the_only_server(user: User, serve: Serve, large: Repo) -> None:
    hub = serve(large)
    hub.cdn.fault(BIG, "flip", offset=10_000)
    assert user.quick("fetch", "org/large", "--to", "x", "-q").status == 4
    line = files(user)[BIG]
    assert (line.outcome, set(given_by(line))) == ("wrong digest", {hub.url})
    assert runs(user)[0].verdicts == {"ok": 1, "wrong digest": 1}
    assert runs(user)[0].exit_code == 4
    told = user.quick("why", "x/" + BIG).ok().out
    assert "wrong digest: sha256" in told
    assert "there is no such file" in told


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_a_file_with_rejected_content(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(Repo.build("org/evil", {"w.bin": pickle.dumps(Runs()), "a.txt": b"a"}, folder=tmp_path))
    assert user.quick("fetch", "org/evil", "--to", "x", "--no-pickle", "-q").status == 4
    line = files(user)["w.bin"]
    assert (line.outcome, line.action) == ("refused", "download")
    assert "imports posix.system" in line.detail
    assert runs(user)[0].verdicts == {"ok": 1, "refused": 1}
    assert "refused, not published: it is a pickle" in user.quick("why", "x/w.bin").ok().out


def slow_run(user: User, hub: Hub) -> subprocess.Popen[str]:
    """Return a run that has its small file and a few megabytes of the large one."""
    run = user.start("fetch", "org/large", "--to", "x", "-q")
    wait_until(
        lambda: sum(seen.sent for seen in hub.cdn.requests) > 8_000_000 and (user.home / "x/config.json").exists()
    )
    return run


def test_an_interrupted_run_and_the_next(user: User, serve: Serve, large: Repo) -> None:
    hub = serve(large, limit_rate=500_000)
    run = slow_run(user, hub)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    (first,) = runs(user)
    assert (first.exit_code, first.error) == (130, "Interrupted")
    assert first.verdicts == {"ok": 1}
    begun = files(user)[BIG]
    assert begun.outcome == "unfinished"
    assert 3_000_000 < given_by(begun)[hub.url] < 27_000_000
    user.quick("fetch", "org/large", "--to", "x", "-q").ok()
    line = files(user)[BIG]
    assert (line.outcome, line.run) == ("ok", runs(user)[1].run)
    assert line.reused > 3_000_000
    assert line.reused + given_by(line)[hub.url] == 27_000_000
    told = user.quick("why", "x/" + BIG).ok().out
    assert "left by an earlier" in told
    assert "unfinished" in told


def test_a_small_file_that_was_interrupted(user: User, serve: Serve, tmp_path: Path, big_bytes: bytes) -> None:
    hub = serve(Repo.build("org/half", {"a.bin": big_bytes[:4_000_000]}, folder=tmp_path), limit_rate=1_000_000)
    run = user.start("fetch", "org/half", "--to", "x", "-q")
    wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > 1_500_000)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    came = given_by(files(user)["a.bin"])[hub.url]
    user.quick("fetch", "org/half", "--to", "x", "-q").ok()
    line = files(user)["a.bin"]
    assert came <= line.reused < came + 1_000_000  # a connection may have continued for a moment
    assert given_by(line) == {hub.url: 4_000_000 - line.reused}


def test_a_killed_run_has_logged_its_published_files(user: User, serve: Serve, large: Repo) -> None:
    run = slow_run(user, serve(large, limit_rate=500_000))
    run.kill()
    run.wait(30)
    assert list(files(user)) == ["config.json"]
    assert runs(user) == []
    told = user.quick("why", "x/config.json").ok().out
    assert "org/large" in told
    assert "killed" in told


def test_runs_that_end_with_an_error(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    assert user.quick("fetch", "org/nobody", "-q").status == 5
    (run,) = runs(user)
    assert (run.exit_code, run.error, run.ref, run.commit) == (5, "RepoNotFound", "org/nobody@main", "")
    assert "org/nobody" in run.message
    hub.close()
    assert user.quick("fetch", "org/small", "-q", "--patience", "1s").status == 7
    assert runs(user)[-1].error == "NetworkError"
    assert files(user) == {}


@pytest.mark.timeout(120)
def test_eight_fetches_at_once(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    started = [user.start("fetch", "org/small", "--to", f"x{n}", "-q") for n in range(8)]
    assert [run.wait(90) for run in started] == [0] * 8
    assert len(entries(user)) == 8 * 5
    assert {run.path for run in runs(user)} == {str(user.home / f"x{n}") for n in range(8)}
    assert {line.path for line in entries(user) if isinstance(line, FileLine)} == {
        f"{user.home}/x{n}/{file}" for n in range(8) for file in SMALL
    }


def test_the_log_contains_no_secret(user: User, serve: Serve, large: Repo) -> None:
    hub = serve(large, tokens=["hf_marker_7f3a"])
    hub.cdn.fault(BIG, "status", times=2, status=503)
    hub.cdn.fault(BIG, "expire", times=2)
    user.env["HF_TOKEN"] = "hf_marker_7f3a"
    user.run("fetch", "org/large", "--mirror", hub.url.replace("http://", "http://ann:pw_marker@"), "-q")
    user.run("fetch", "org/large/../x?token=hf_marker_7f3a", "-q")
    user.run("fetch", "org/large", "-q").ok()
    text = b"\n".join(lines(state(user))).decode()
    assert "org/large" in text
    for secret in ("marker", "Signature", "Policy", "Key-Pair-Id", "?"):
        assert secret not in text


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "file for a folder"])
@pytest.mark.fault(
    "audit log: not writable",
    where="machine",
    does="Continues without it.",
    sees="one warning that the audit log cannot be written",
    status=0,
)
def test_an_unwritable_log_does_not_stop_a_run(user: User, serve: Serve, small: Repo, kind: str) -> None:
    serve(small)
    place = state(user) / "audit.log"
    (place.parent.parent if kind == "file for a folder" else place.parent).mkdir(parents=True)
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to(user.home / "elsewhere")
    else:
        place.parent.write_bytes(b"")
    done = user.quick("fetch", "org/small", "-q").ok()
    assert done.err.count("the audit log cannot be written") == 1
    assert not (user.home / "elsewhere").exists()
    assert user.quick("fetch", "org/nobody", "-q").status == 5
