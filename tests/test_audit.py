"""The audit log: what runs leave in it, that nothing spoils it, and that it spoils no run."""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.disk.audit import AuditLog, lines, rotated
from gpuaria.formats.audit import FileLine, Line, Part, RunLine, clean, dump, load, name
from gpuaria.transfer.origins import Origins
from standin import Hub, Repo

if TYPE_CHECKING:
    from tests.conftest import SMALL, Done, Serve, User, until
else:
    from conftest import SMALL, Done, Serve, User, until

PART = Part("mirror.example", "https://mirror.example", 5)
FILE = FileLine(
    run="0123456789ab",
    at="2026-08-02T10:11:12.123Z",
    user="ann",
    host="node7",
    ref="org/name@main",
    repo="org/name",
    commit="c" * 40,
    vouched_by="https://huggingface.co",
    trust="origin",
    path="/data/name/a.txt",
    content="",
    file="a.txt",
    size=5,
    digest="git-sha1:" + "d" * 40,
    outcome="ok",
    detail="",
    action="download",
    mirrors=(PART,),
)
_BOTH = ("run", "at", "user", "host", "ref", "repo", "commit", "vouched_by", "trust")
RUN = RunLine(
    **{key: getattr(FILE, key) for key in _BOTH},
    seconds=1.5,
    gpuaria="0.1.0",
    asked=("*.txt",),
    flags=(),
    path="/data/name",
    endpoint="https://huggingface.co",
    mirrors=(PART,),
    verdicts={"ok": 1},
    bytes_fetched=5,
    bytes_reused=0,
    exit_code=0,
)
BIG = "model.safetensors"


def state(user: User) -> Path:
    """Where the log is."""
    return user.home / ".local/state/gpuaria"


def entries(user: User) -> list[Line]:
    """All entries, none of which may be damaged."""
    found = [load(line) for line in lines(state(user))]
    assert None not in found
    return [line for line in found if line is not None]


def files(user: User) -> dict[str, FileLine]:
    """The last entry of each file, by its path in the repo."""
    return {line.file: line for line in entries(user) if isinstance(line, FileLine)}


def runs(user: User) -> list[RunLine]:
    """The entries of whole runs."""
    return [line for line in entries(user) if isinstance(line, RunLine)]


def given_by(line: FileLine | RunLine) -> dict[str, int]:
    """Bytes by address."""
    return {part.base: part.bytes for part in line.mirrors}


def story(done: Done) -> dict[str, Any]:
    """What `gpuaria why --json` printed."""
    (told,) = done.events
    assert told["exit_code"] == done.status
    return told


# --- a line ---------------------------------------------------------------------------------------------------------


@given(st.text(), st.lists(st.text(), max_size=3), st.integers(0, 1 << 63))
def test_a_line_is_one_line_whatever_is_in_it(text: str, texts: list[str], number: int) -> None:
    part = Part(text, text, number, number, text)
    for line in (
        dataclasses.replace(FILE, path=text, file=text, detail=text, size=number, mirrors=(part,), problems=(*texts,)),
        dataclasses.replace(RUN, message=text, asked=(*texts,), verdicts={text: number}, mirrors=(part, part)),
    ):
        written = dump(line)
        assert written.isascii()
        assert written[:-1].isprintable()
        assert written.endswith("\n")
        assert load(written) == line


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "3", '"file"', "\0\0\0", '{"event":"file"}', '{"event":[]}', '{"event":{}}'),
        *("[" * 100_000, dump(FILE)[:-9], dump(FILE)[9:], dump(FILE).replace('"size":5', '"size":"5"')),
        *(dump(FILE).replace('"size":5', '"size":true'), dump(FILE).replace('"bytes":5', '"bytes":null')),
        *(dump(FILE).replace('"event":"file"', '"event":"fly"'), dump(RUN).replace('{"ok":1}', '{"ok":[1]}')),
        *(dump(RUN).replace('["*.txt"]', '"*.txt"'), "1" * 5000),
    ],
)
def test_a_damaged_line_says_nothing(text: str) -> None:
    assert load(text) is None
    assert load(text.encode() + b"\xff") is None


def test_lines_of_other_versions_can_be_read() -> None:
    newer = dump(FILE).replace('"event"', '"colour":"blue","event"')
    assert load(newer) == FILE
    older = {key: value for key, value in json.loads(dump(FILE)).items() if key not in ("problems", "reused")}
    assert load(json.dumps(older)) == FILE


def test_what_may_be_a_secret_is_cut_off() -> None:
    text = "https://u:pw@cdn.example/f?Signature=x&y=z answers 403; (http://b.example/?sig=q)"
    assert clean(text) == "https://cdn.example/f answers 403; (http://b.example/"
    assert name("user:pw@host.example:8080") == "host.example:8080"
    assert name("https://user:pw@host.example/a?b=c") == "https://host.example/a"
    assert len(clean("x" * 9999)) < 1000


# --- the file -------------------------------------------------------------------------------------------------------


def numbered(count: int, start: int = 0) -> list[FileLine]:
    return [dataclasses.replace(FILE, size=number) for number in range(start, start + count)]


def sizes(folder: Path) -> list[int]:
    found = [load(line) for line in lines(folder)]
    return [line.size for line in found if isinstance(line, FileLine)]


def test_the_log_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        log = AuditLog(tmp_path / "a/state", rotate_at=1000)
        for line in numbered(5):
            log.append(dump(line))
    finally:
        os.umask(before)
    log.close()
    assert (tmp_path / "a/state").stat().st_mode & 0o777 == 0o700
    found = list((tmp_path / "a/state").iterdir())
    assert len(found) > 2
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}


def test_nothing_is_made_for_nothing(tmp_path: Path) -> None:
    AuditLog(tmp_path / "state").close()
    assert not (tmp_path / "state").exists()
    assert list(lines(tmp_path / "state")) == []


def test_rotation_loses_nothing_until_there_are_too_many(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, rotate_at=2000, keep=1000)
    for line in numbered(60):
        log.append(dump(line))
    assert sizes(tmp_path) == list(range(60))
    assert len(rotated(tmp_path)) > 5
    assert all(path.suffix == ".gz" for path in rotated(tmp_path))
    assert (tmp_path / "audit.log").stat().st_size < 2000 + len(dump(FILE))
    few = AuditLog(tmp_path, rotate_at=2000, keep=3)
    for line in numbered(60, 60):
        few.append(dump(line))
    kept = sizes(tmp_path)
    assert kept == list(range(kept[0], 120))
    assert len(rotated(tmp_path)) == 3
    assert (log.problem, few.problem) == ("", "")


def test_what_a_crash_left_while_packing_is_read_and_packed_later(tmp_path: Path) -> None:
    (tmp_path / "audit-20200101T000000.000000Z-1.log").write_text(dump(numbered(1)[0]))
    (tmp_path / "audit-20200101T000000.000000Z-1.log.new").write_bytes(b"\x1f\x8b")
    both = tmp_path / "audit-20200101T000001.000000Z-1.log"
    both.write_text(dump(numbered(1, 1)[0]))
    Path(f"{both}.gz").write_bytes(gzip.compress(both.read_bytes()))
    Path(f"{tmp_path}/audit-20200101T000002.000000Z-1.log.gz").write_bytes(gzip.compress(b"{}\n")[:-3])
    assert sizes(tmp_path) == [0, 1]
    log = AuditLog(tmp_path, rotate_at=100)
    for line in numbered(3, 2):
        log.append(dump(line))
    assert sizes(tmp_path) == [0, 1, 2, 3, 4]
    assert all(path.suffix == ".gz" for path in rotated(tmp_path))


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_text(dump(FILE) + dump(FILE)[:50])
    AuditLog(tmp_path).append(dump(RUN))
    assert [load(line) for line in lines(tmp_path)] == [FILE, None, RUN]


WRITER = """
import sys
from pathlib import Path
from gpuaria.disk.audit import AuditLog
from gpuaria.formats.audit import dump, load
line = load(sys.argv[2])
import dataclasses
log = AuditLog(Path(sys.argv[1]), rotate_at=int(sys.argv[4]), keep=10_000)
for number in range(100):
    log.append(dump(dataclasses.replace(line, size=int(sys.argv[3]) + number, detail="x" * (number * 37 % 9000))))
log.close()
assert not log.problem, log.problem
"""


@pytest.mark.parametrize(("writers", "rotate_at"), [(2, 16 << 20), (8, 16 << 20), (8, 50_000)])
def test_processes_at_once(tmp_path: Path, writers: int, rotate_at: int) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path), dump(FILE)]
    started = [subprocess.Popen([*words, str(n * 100), str(rotate_at)]) for n in range(writers)]
    assert [one.wait(60) for one in started] == [0] * writers
    assert sorted(sizes(tmp_path)) == list(range(100 * writers))
    assert len(list(lines(tmp_path))) == 100 * writers
    assert bool(rotated(tmp_path)) == (rotate_at < 1 << 20)


def test_threads_at_once(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, rotate_at=20_000, keep=1000)

    def write(start: int) -> None:
        for line in numbered(50, start):
            log.append(dump(line))

    work = [threading.Thread(target=write, args=(n * 50,)) for n in range(8)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(sizes(tmp_path)) == list(range(400))


def test_a_holder_that_is_stopped_holds_nobody_up_for_long(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, rotate_at=100, patience=0.1)
    log.append(dump(FILE))
    with (tmp_path / "audit.log").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for line in numbered(100):
            log.append(dump(line))
        assert len(sizes(tmp_path)) == 101
        assert not rotated(tmp_path)
    log.append(dump(FILE))
    assert len(sizes(tmp_path)) == 102
    assert log.problem == ""


FULL = """
import resource, sys
from pathlib import Path
from gpuaria.disk.audit import AuditLog
log = AuditLog(Path(sys.argv[1]))
line = sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) * 5 // 2, resource.RLIM_INFINITY))
for _ in range(4):
    log.append(line)
assert "cannot be written" in log.problem, log.problem
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(line)
"""


@pytest.mark.fault(
    "the audit log: no room for another line",
    where="machine",
    does="Goes on without, and leaves no half of a line behind. The next line that fits is written.",
    sees="that the audit log cannot be written",
    status=0,
)
def test_a_disk_that_is_full_leaves_no_half_of_a_line(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path), dump(FILE)], check=True, timeout=60)
    assert [load(line) for line in lines(tmp_path)] == [FILE] * 3


# --- who gave what of one file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moves", "before", "given"),
    [
        ([("a", 5), ("b", 3), ("a", 1)], 0, {"a": 6, "b": 3}),
        ([4, ("a", 5)], 4, {"a": 5}),  # some of it was here
        ([4, ("a", 5), 9], 4, {"a": 5}),  # broken off, and gone on with
        ([4, ("a", 5), ("b", 2), 10], 4, {"a": 5, "b": 1}),  # what came last was lost
        ([4, ("a", 5), 3], 3, {}),
        ([4, ("a", 5), 0, ("b", 9)], 0, {"b": 9}),  # thrown away and fetched again
        ([("a", 5), 7, ("b", 2)], 2, {"a": 5, "b": 2}),
        ([], 0, {}),
    ],
)
def test_origins(moves: list[tuple[str, int] | int], before: int, given: dict[str, int]) -> None:
    origins = Origins()
    for move in moves:
        if isinstance(move, int):
            origins.holds(move)
        else:
            origins.came(*move)
    assert (origins.before, origins.given) == (before, given)


# --- what a run leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [True, False], ids=["folder", "cache"])
def test_a_run_and_its_files(user: User, serve: Serve, small: Repo, to: bool) -> None:
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


def test_a_second_run_leaves_one_line(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    for _ in range(2):
        user.quick("fetch", "org/small", "-q").ok()
    user.quick("fetch", "org/small", "--offline", "--include", "*.json\n", "--exclude", "x\u2028", "--dry-run")
    user.quick("fetch", "org/small", "--offline", "--include", "*.json", "--exclude", "x\n\u2028").ok()
    assert [type(line) for line in entries(user)] == [FileLine] * 4 + [RunLine] * 3
    assert [run.verdicts for run in runs(user)] == [{"ok": 4}, {"ok": 4}, {"ok": 1}]
    assert (runs(user)[-1].asked, runs(user)[-1].flags) == (("*.json", "not x\n\u2028"), ("offline",))


def test_what_is_copied_made_or_proven_is_told_apart(user: User, serve: Serve, tmp_path: Path) -> None:
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
    assert found["wrong.txt"].problems == ("the bytes that were here did not match",)
    told = user.quick("why", f"x/{copy}").ok().out
    assert f"copied from {owner} of the same repo" in told
    assert f"4 B from {hub.url[7:]}" in told
    assert "fetched nothing" in user.quick("why", "x/here.txt").ok().out


def test_a_new_snapshot_of_old_bytes(user: User, serve: Serve, tmp_path: Path) -> None:
    """What a cache has already gets a new name: the entry of the first fetch says from whom."""
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
    assert "the bytes came" in user.quick("why", path / "b.bin").ok().out


def test_a_mirror_that_lies_about_small_files(user: User, serve: Serve, tmp_path: Path) -> None:
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
    assert f"on the way: {liar.url[7:]} served wrong bytes" in user.quick("why", blamed[0].path).ok().out
    assert any("wrong bytes" in part.rejected for part in runs(user)[0].mirrors if part.base == liar.url)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory, big_bytes: bytes) -> Repo:
    """org/large: one file of 27 MB, one small one."""
    files = {BIG: big_bytes * 3, "config.json": b"{}"}
    return Repo.build("org/large", files, folder=tmp_path_factory.mktemp("large"), direct=True)


def test_a_large_file_from_two_mirrors(user: User, serve: Serve, large: Repo) -> None:
    hubs = [serve(large, limit_rate=1_000_000), serve(large, host="127.0.0.2", limit_rate=500_000)]
    user.quick("fetch", "org/large", "--to", "x", "--mirror", hubs[1].url, "-q").ok()
    line = files(user)[BIG]
    assert sum(given_by(line).values()) == line.size == 27_000_000
    assert line.about
    for hub in hubs:  # what servers send and nobody keeps is in their count and not in ours
        sent = sum(seen.sent for seen in hub.cdn.requests)
        assert given_by(line)[hub.url] == pytest.approx(sent, abs=6_000_000)
    assert given_by(runs(user)[0])[hubs[1].url] >= given_by(line)[hubs[1].url]
    assert "about" in user.quick("why", "x/" + BIG).ok().out


def test_two_large_files_at_once_are_told_apart(user: User, serve: Serve, tmp_path: Path, big_bytes: bytes) -> None:
    """A mirror that has only one of them has no part in the other."""
    repo = Repo.build("org/two", {"a.bin": big_bytes * 2, "b.bin": big_bytes[::-1] * 2}, folder=tmp_path)
    hub, half = serve(repo, limit_rate=300_000), serve(repo, host="127.0.0.2", limit_rate=300_000)
    half.fault("/resolve/.*/b.bin", status=404)
    user.quick("fetch", "org/two", "--to", "x", "--mirror", half.url, "-q").ok()
    assert given_by(files(user)["b.bin"]) == {hub.url: 18_000_000}
    assert set(given_by(files(user)["a.bin"])) == {hub.url, half.url}
    assert sum(given_by(files(user)["a.bin"]).values()) == 18_000_000
    assert any(half.url[7:] in problem for problem in files(user)["b.bin"].problems)


def test_a_mirror_that_lies_about_a_large_file(user: User, serve: Serve, large: Repo) -> None:
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


def test_a_refused_file(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(Repo.build("org/evil", {"w.bin": pickle.dumps(Runs()), "a.txt": b"a"}, folder=tmp_path))
    assert user.quick("fetch", "org/evil", "--to", "x", "--no-pickle", "-q").status == 4
    line = files(user)["w.bin"]
    assert (line.outcome, line.action) == ("refused", "download")
    assert "imports posix.system" in line.detail
    assert runs(user)[0].verdicts == {"ok": 1, "refused": 1}
    assert "refused, not published: it is a pickle" in user.quick("why", "x/w.bin").ok().out


def slow_run(user: User, hub: Hub) -> subprocess.Popen[str]:
    """A run that has its small file and some megabytes of the large one."""
    run = user.start("fetch", "org/large", "--to", "x", "-q")
    until(lambda: sum(seen.sent for seen in hub.cdn.requests) > 8_000_000 and (user.home / "x/config.json").exists())
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
    assert "had come before" in told
    assert "unfinished" in told


def test_a_small_file_that_was_interrupted(user: User, serve: Serve, tmp_path: Path, big_bytes: bytes) -> None:
    hub = serve(Repo.build("org/half", {"a.bin": big_bytes[:4_000_000]}, folder=tmp_path), limit_rate=1_000_000)
    run = user.start("fetch", "org/half", "--to", "x", "-q")
    until(lambda: sum(seen.sent for seen in hub.cdn.requests) > 1_500_000)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    came = given_by(files(user)["a.bin"])[hub.url]
    user.quick("fetch", "org/half", "--to", "x", "-q").ok()
    line = files(user)["a.bin"]
    assert came <= line.reused < came + 1_000_000  # a connection may have gone on for a moment
    assert given_by(line) == {hub.url: 4_000_000 - line.reused}


def test_a_killed_run_has_told_what_it_published(user: User, serve: Serve, large: Repo) -> None:
    run = slow_run(user, serve(large, limit_rate=500_000))
    run.kill()
    run.wait(30)
    assert list(files(user)) == ["config.json"]
    assert runs(user) == []
    told = user.quick("why", "x/config.json").ok().out
    assert "org/large" in told
    assert "killed" in told


def test_runs_that_end_by_an_error(user: User, serve: Serve, small: Repo) -> None:
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


def test_no_secret_is_in_it(user: User, serve: Serve, large: Repo) -> None:
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
    "the audit log: cannot be written",
    where="machine",
    does="Goes on without.",
    sees="that the audit log cannot be written, once",
    status=0,
)
def test_a_log_that_cannot_be_written_costs_nothing_else(user: User, serve: Serve, small: Repo, kind: str) -> None:
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


# --- why ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(user: User, serve: Serve, small: Repo) -> Path:
    """org/small in the folder x, twice."""
    serve(small)
    user.quick("fetch", "org/small", "--to", "x", "-q").ok()
    user.quick("fetch", "org/small", "--to", "x", "-q", "--force").ok()
    return user.home / "x"


def test_why_a_file(user: User, fetched: Path) -> None:
    told = user.quick("why", "x/weights.bin").ok().out
    assert told.splitlines()[0] == f"{fetched}/weights.bin"
    for words in (
        "weights.bin of org/small, commit ",
        "asked for as org/small@main",
        "(origin): the endpoint itself listed",
        "32.0 kB from 127.0.0.1:",
        "the bytes on the disk still are these",
        "other entries of this name",
    ):
        assert words in told
    found = story(user.quick("why", fetched / "weights.bin", "--json").ok())
    assert (found["found_by"], found["state"], found["entry"]["action"]) == ("path", "same", "replace")
    assert found["run"]["exit_code"] == 0
    assert [other["action"] for other in found["others"]] == ["download"]


def test_why_by_other_names(user: User, fetched: Path) -> None:
    (user.home / "link").symlink_to(fetched)
    (user.home / "file").symlink_to(fetched / "config.json")
    for place in ("link/config.json", "file", "x/../x/sub/../config.json", "~/x/config.json"):
        assert story(user.quick("why", place, "--json").ok())["found_by"] == "path", place


def test_why_in_the_cache(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    snapshot = user.quick("fetch", "org/small", "-q").ok().path
    for place in (snapshot / "weights.bin", (snapshot / "weights.bin").resolve()):
        found = story(user.quick("why", place, "--json").ok())
        assert (found["found_by"], found["state"], found["entry"]["file"]) == ("path", "same", "weights.bin")
    for place in (snapshot, snapshot.parent.parent):
        assert "4 ok; exit status 0" in user.quick("why", place).ok().out
        (run,) = story(user.quick("why", place, "--json").ok())["runs"]
        assert run["path"] == str(snapshot)


def test_why_a_file_that_was_moved(user: User, fetched: Path) -> None:
    for file in ("weights.bin", "config.json"):
        (fetched / file).rename(user.home / "moved")
        told = user.quick("why", "moved").ok().out
        assert f"found by its digest: the name is not known, but these are the bytes of {fetched}/{file}" in told
        assert user.quick("why", fetched / file).status == 3
        assert "not there any more" in user.quick("why", fetched / file).out


def test_why_a_file_that_was_changed(user: User, fetched: Path) -> None:
    (fetched / "config.json").write_bytes(b'{"n": 2}\n')
    done = user.quick("why", "x/config.json")
    assert done.status == 4
    assert "CHANGED since" in done.out
    (fetched / "config.json").write_bytes(SMALL["sub/other.txt"])
    done = user.quick("why", "x/config.json", "--json")
    assert (done.status, story(done)["state"], story(done)["now"]["file"]) == (4, "changed", "sub/other.txt")
    assert f"they are those of {fetched}/sub/other.txt" in user.quick("why", "x/config.json").out
    (fetched / "config.json").write_bytes(b"")
    assert "they are those" not in user.quick("why", "x/config.json").out


def test_why_what_is_not_known(user: User, fetched: Path) -> None:
    (user.home / "own.txt").write_bytes(b"my own")
    (user.home / "empty").write_bytes(b"")
    user.quick("why", "own.txt").refused(5, "neither the name nor the bytes", "own.txt")
    user.quick("why", "empty").refused(5, "neither the name nor the bytes")  # of all that is empty in the world
    user.quick("why", "x/nothing").refused(5, "does not know", "no such file")
    user.quick("why", "x/sub").refused(5, "destination", "--to")
    user.quick("why", "n" * 5000).refused(8, "too long")
    os.mkfifo(fetched / "pipe")
    user.quick("why", "x/pipe").refused(5, "does not know")
    user.quick("why", "x/config.json/more").refused(5, "does not know")
    (state(user) / "audit.log").unlink()
    user.quick("why", "x/config.json").refused(5, "neither the name nor the bytes")
    assert json.loads(user.quick("why", "x/config.json", "--json").out)["exit_code"] == 5


def test_why_with_a_damaged_log(user: User, fetched: Path) -> None:
    log = state(user) / "audit.log"
    whole = log.read_bytes()
    log.write_bytes(b"\0\xff garbage config.json\n" + whole[:100] + b"\n" + whole + whole[:200])
    found = story(user.quick("why", "x/config.json", "--json").ok())
    assert (found["state"], len(found["others"])) == ("same", 1)


def test_why_without_a_digest_that_can_be_computed(user: User, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"12345")
    log = AuditLog(state(user))
    for digest in ("", "sha9:00"):
        log.append(dump(dataclasses.replace(FILE, path=str(tmp_path / "a.txt"), digest=digest)))
        done = user.quick("why", tmp_path / "a.txt").ok()
        assert "the bytes on the disk cannot be compared" in done.out


def test_why_asks_nobody(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    user.quick("fetch", "org/small", "--to", "x", "-q").ok()
    hub.reset()
    user.quick("why", "x/config.json").ok()
    user.quick("why", "x").ok()
    assert hub.requests == []


def test_why_says_what_the_trust_means(user: User, serve: Serve, tmp_path: Path) -> None:
    hub, other = serve(Repo.build("org/held", {"a.txt": b"a"}, folder=tmp_path)), "http://127.0.0.1:9"
    user.env["HF_ENDPOINT"] = other
    user.quick("fetch", "org/held", "--to", "x", "--mirror", hub.url).ok()
    told = user.quick("why", "x/a.txt").ok().out
    assert f"vouched for by {hub.url} (mirror only): the endpoint was away, and one mirror alone said" in told
    commit = hub.repos[("model", "org/held")].resolve("main")
    user.quick("fetch", "org/held", "--to", "y", "--mirror", hub.url, "--revision", str(commit)).ok()
    assert "(pinned): nobody's word was needed" in user.quick("why", "y/a.txt").ok().out
