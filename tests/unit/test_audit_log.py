"""The audit log: line format, rotation, damage, and concurrent writers."""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.audit.byte_sources import ByteSources
from gpuaria.audit.log import AuditLog, lines, rotated
from gpuaria.audit.record import FileLine, MirrorShare, RunLine, clean, dump, load, name
from tests.support.audit_lines import FILE, PART, logged_sizes

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


@given(st.text(), st.lists(st.text(), max_size=3), st.integers(0, 1 << 63))
def test_an_entry_is_one_line_whatever_it_contains(text: str, texts: list[str], number: int) -> None:
    part = MirrorShare(text, text, number, number, text)
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
def test_a_damaged_line_is_skipped(text: str) -> None:
    assert load(text) is None
    assert load(text.encode() + b"\xff") is None


def test_lines_of_other_versions_are_read() -> None:
    newer = dump(FILE).replace('"event"', '"colour":"blue","event"')
    assert load(newer) == FILE
    older = {key: value for key, value in json.loads(dump(FILE)).items() if key not in ("problems", "reused")}
    assert load(json.dumps(older)) == FILE


def test_possible_secrets_are_cut_off() -> None:
    text = "https://u:pw@cdn.example/f?Signature=x&y=z returned HTTP 403; (http://b.example/?sig=q)"
    assert clean(text) == "https://cdn.example/f returned HTTP 403; (http://b.example/"
    assert name("user:pw@host.example:8080") == "host.example:8080"
    assert name("https://user:pw@host.example/a?b=c") == "https://host.example/a"
    assert len(clean("x" * 9999)) < 1000


def numbered(count: int, start: int = 0) -> list[FileLine]:
    return [dataclasses.replace(FILE, size=number) for number in range(start, start + count)]


def test_only_the_owner_can_read_the_log(tmp_path: Path) -> None:
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


def test_nothing_is_created_without_entries(tmp_path: Path) -> None:
    AuditLog(tmp_path / "state").close()
    assert not (tmp_path / "state").exists()
    assert list(lines(tmp_path / "state")) == []


def test_rotation_keeps_lines_up_to_the_file_limit(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, rotate_at=2000, keep=1000)
    for line in numbered(60):
        log.append(dump(line))
    assert logged_sizes(tmp_path) == list(range(60))
    assert len(rotated(tmp_path)) > 5
    assert all(path.suffix == ".gz" for path in rotated(tmp_path))
    assert (tmp_path / "audit.log").stat().st_size < 2000 + len(dump(FILE))
    few = AuditLog(tmp_path, rotate_at=2000, keep=3)
    for line in numbered(60, 60):
        few.append(dump(line))
    kept = logged_sizes(tmp_path)
    assert kept == list(range(kept[0], 120))
    assert len(rotated(tmp_path)) == 3
    assert (log.problem, few.problem) == ("", "")


def test_an_interrupted_compression_is_finished_later(tmp_path: Path) -> None:
    (tmp_path / "audit-20200101T000000.000000Z-1.log").write_text(dump(numbered(1)[0]))
    (tmp_path / "audit-20200101T000000.000000Z-1.log.new").write_bytes(b"\x1f\x8b")
    both = tmp_path / "audit-20200101T000001.000000Z-1.log"
    both.write_text(dump(numbered(1, 1)[0]))
    Path(f"{both}.gz").write_bytes(gzip.compress(both.read_bytes()))
    Path(f"{tmp_path}/audit-20200101T000002.000000Z-1.log.gz").write_bytes(gzip.compress(b"{}\n")[:-3])
    assert logged_sizes(tmp_path) == [0, 1]
    log = AuditLog(tmp_path, rotate_at=100)
    for line in numbered(3, 2):
        log.append(dump(line))
    assert logged_sizes(tmp_path) == [0, 1, 2, 3, 4]
    assert all(path.suffix == ".gz" for path in rotated(tmp_path))


def test_a_truncated_line_does_not_damage_the_next(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_text(dump(FILE) + dump(FILE)[:50])
    AuditLog(tmp_path).append(dump(RUN))
    assert [load(line) for line in lines(tmp_path)] == [FILE, None, RUN]


def test_concurrent_threads_lose_no_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, rotate_at=20_000, keep=1000)

    def write(start: int) -> None:
        for line in numbered(50, start):
            log.append(dump(line))

    work = [threading.Thread(target=write, args=(n * 50,)) for n in range(8)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(logged_sizes(tmp_path)) == list(range(400))


def test_a_stopped_lock_holder_delays_others_only_briefly(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, rotate_at=100, patience=0.1)
    log.append(dump(FILE))
    with (tmp_path / "audit.log").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for line in numbered(100):
            log.append(dump(line))
        assert len(logged_sizes(tmp_path)) == 101
        assert not rotated(tmp_path)
    log.append(dump(FILE))
    assert len(logged_sizes(tmp_path)) == 102
    assert log.problem == ""


FULL = """
import resource, sys
from pathlib import Path
from gpuaria.audit.log import AuditLog
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
    "audit log: disk full",
    where="machine",
    does="Continues without the line and leaves no partial line. Later lines that fit are written.",
    sees="a warning that the audit log cannot be written",
    status=0,
)
def test_a_full_disk_leaves_no_partial_line(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path), dump(FILE)], check=True, timeout=60)
    assert [load(line) for line in lines(tmp_path)] == [FILE] * 3


@pytest.mark.parametrize(
    ("moves", "before", "given"),
    [
        ([("a", 5), ("b", 3), ("a", 1)], 0, {"a": 6, "b": 3}),
        ([4, ("a", 5)], 4, {"a": 5}),  # some bytes were on disk before
        ([4, ("a", 5), 9], 4, {"a": 5}),  # interrupted and resumed
        ([4, ("a", 5), ("b", 2), 10], 4, {"a": 5, "b": 1}),  # the last bytes were lost
        ([4, ("a", 5), 3], 3, {}),
        ([4, ("a", 5), 0, ("b", 9)], 0, {"b": 9}),  # discarded and downloaded again
        ([("a", 5), 7, ("b", 2)], 2, {"a": 5, "b": 2}),
        ([], 0, {}),
    ],
)
def test_byte_sources(moves: list[tuple[str, int] | int], before: int, given: dict[str, int]) -> None:
    origins = ByteSources()
    for move in moves:
        if isinstance(move, int):
            origins.set_size_on_disk(move)
        else:
            origins.add_bytes(*move)
    assert (origins.on_disk_before, origins.by_mirror) == (before, given)
