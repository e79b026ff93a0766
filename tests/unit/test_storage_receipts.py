"""Receipts are valid while the file is unchanged; a broken database never blocks a run."""

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from gpuaria.records import Digest
from gpuaria.storage.receipts import Receipts

ONE, OTHER = Digest("sha256", "1" * 64), Digest("sha256", "2" * 64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "files" / "ünï code"
    path.parent.mkdir()
    path.write_text("content")
    return path


def test_a_receipt_is_valid_in_the_next_process(tmp_path: Path, file: Path) -> None:
    first = Receipts(tmp_path / "state" / "receipts.sqlite")
    first.record(file, ONE)
    assert first.verified({file: ONE}) == {file}
    first.close()
    second = Receipts(tmp_path / "state" / "receipts.sqlite")
    assert second.verified({file: ONE, file.with_name("missing"): ONE}) == {file}
    assert second.verified({str(file): ONE}) == {str(file)}
    assert second.verified({file: OTHER}) == set()
    assert second.problem == ""


def rewrite(path: Path) -> None:
    path.write_text("CONTENT")


def replace(path: Path) -> None:
    seen = path.stat()
    new = path.with_name("new")
    new.write_text("content")
    os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    os.replace(new, path)


def grow(path: Path) -> None:
    seen = path.stat()
    path.write_text("contents")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def flip_under_the_old_mtime(path: Path) -> None:
    seen = path.stat()
    path.write_text("cOntent")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [rewrite, replace, grow, touch, flip_under_the_old_mtime, make_folder, Path.unlink])
def test_a_changed_file_has_no_valid_receipt(tmp_path: Path, file: Path, change: object) -> None:
    receipts = Receipts(tmp_path / "receipts.sqlite")
    receipts.record(file, ONE)
    time.sleep(0.02)  # the kernel's mtime clock ticks every few milliseconds
    assert callable(change)
    change(file)
    assert receipts.verified({file: ONE}) == set()


def test_a_revoked_receipt_is_deleted_for_the_link_and_its_target(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    state = tmp_path / "receipts.sqlite"
    receipts = Receipts(state)
    for flushed in (False, True):
        receipts.record(file, ONE)
        if flushed:
            receipts.flush()
        receipts.revoke(link)
        assert receipts.verified({file: ONE, link: ONE}) == set()
    receipts.close()
    assert Receipts(state).verified({file: ONE}) == set()


def test_receipts_of_an_older_version_stay_valid(tmp_path: Path, file: Path) -> None:
    """Format 1 has no ctime."""
    state = tmp_path / "receipts.sqlite"
    now = file.stat()
    with closing(sqlite3.connect(state)) as database, database:
        database.execute(
            "create table receipts (folder blob not null, name blob not null, digest text not null, size integer not"
            " null, mtime_ns integer not null, inode integer not null, device integer not null, proved_at real not"
            " null, primary key (folder, name)) without rowid"
        )
        row = (os.fsencode(file.parent), os.fsencode(file.name), str(ONE), now.st_size, now.st_mtime_ns)
        database.execute("insert into receipts values (?,?,?,?,?,?,?,?)", (*row, now.st_ino, now.st_dev, 1.0))
        database.execute("pragma user_version = 1")
    receipts = Receipts(state)
    assert receipts.verified({file: ONE}) == {file}
    receipts.record(file, OTHER)
    assert (receipts.verified({file: OTHER}), receipts.problem) == ({file}, "")


def test_a_link_counts_as_its_target(tmp_path: Path, file: Path) -> None:
    receipts = Receipts(None)
    link, folder = tmp_path / "link", tmp_path / "folder"
    link.symlink_to(file)
    folder.symlink_to(file.parent)
    receipts.record(link, ONE)
    receipts.record(file, ONE)
    assert receipts.verified({link: ONE}) == {link}
    assert receipts.verified({folder / file.name: ONE}) == {folder / file.name}
    other = tmp_path / "other"
    other.write_text("content")
    link.unlink()
    link.symlink_to(other)
    assert receipts.verified({link: ONE}) == set()


def test_missing_files_and_folders_get_no_receipt(tmp_path: Path) -> None:
    receipts = Receipts(None)
    receipts.record(tmp_path / "missing", ONE)
    receipts.record(tmp_path, ONE)
    assert receipts.verified({tmp_path: ONE, tmp_path / "missing": ONE}) == set()


@pytest.mark.parametrize("damage", ["garbage", "newer", "folder", "no folder"])
def test_an_unusable_database_is_reported_without_an_error(tmp_path: Path, file: Path, damage: str) -> None:
    path = tmp_path / "receipts.sqlite"
    if damage == "garbage":
        path.write_bytes(os.urandom(5000))
    elif damage == "newer":
        with sqlite3.connect(path) as database:
            database.execute("pragma user_version = 99")
    elif damage == "folder":
        path.mkdir()
    else:
        (tmp_path / "plain").touch()
        path = tmp_path / "plain" / "receipts.sqlite"
    receipts = Receipts(path)
    assert str(path) in receipts.problem
    receipts.record(file, ONE)
    assert receipts.verified({file: ONE}) == set()
    receipts.close()


def test_later_damage_is_detected(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "receipts.sqlite"
    receipts = Receipts(path)
    receipts.record(file, ONE)
    receipts.flush()
    with sqlite3.connect(path) as database:
        database.execute("drop table receipts")
    assert receipts.problem == ""
    assert receipts.verified({file: ONE}) == set()
    assert receipts.problem
    receipts.record(file, ONE)
    receipts.close()


def test_concurrent_threads_and_connections(tmp_path: Path) -> None:
    files = [tmp_path / f"f{n}" for n in range(2000)]
    for path in files:
        path.touch()
    both = [Receipts(tmp_path / "receipts.sqlite") for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: both[n % 2].record(files[n], ONE), range(2000)))
    for receipts in both:
        receipts.flush()
    assert both[0].verified(dict.fromkeys(files, ONE)) == set(files)
    assert [receipts.problem for receipts in both] == ["", ""]


def test_a_closed_database_stays_closed(tmp_path: Path, file: Path) -> None:
    receipts = Receipts(tmp_path / "receipts.sqlite")
    receipts.close()
    receipts.close()
    receipts.record(file, ONE)
    assert receipts.verified({file: ONE}) == set()
    assert receipts.problem == ""
