"""One gpuaria per target: a waiting run reports the holder, and a dead process holds no file lock."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub.utils import WeakFileLock

from gpuaria.errors import DiskError, Locked
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef
from gpuaria.storage import claims
from gpuaria.storage.hf_cache import HfCache
from gpuaria.storage.hf_folder import HfFolder as Folder
from gpuaria.storage.layout import Layout
from gpuaria.storage.locks import TargetLock, lock_file, unlock_file
from gpuaria.storage.receipts import Receipts
from tests.support.checkout import ROOT

HOLD = """
import sys, time
from pathlib import Path
from gpuaria.storage.locks import TargetLock
with TargetLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the file lock until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@contextmanager
def without_rights() -> Iterator[Path]:
    """Return a folder that is not writable for this process, even if the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)
            os.chmod(name, 0o700)


def test_a_waiting_run_reports_the_holder_and_gives_up(tmp_path: Path) -> None:
    path, words = tmp_path / "target.lock", list[str]()
    with another_process(path) as process:
        start = time.monotonic()
        with pytest.raises(Locked) as caught:
            TargetLock(path, 0.4, words.append).acquire()
        assert 0.3 < time.monotonic() - start < 5
        pattern = rf"waiting for gpuaria process {process.pid} on \S+, since \d\d:\d\d:\d\d"
        assert re.fullmatch(pattern, words[0])
        assert re.fullmatch(f"gave up {pattern}", caught.value.message)
        with pytest.raises(Locked):
            TargetLock(path).acquire()


def test_a_waiting_run_gets_the_lock_when_the_holder_ends(tmp_path: Path) -> None:
    path, words = tmp_path / "target.lock", list[str]()
    with another_process(path) as process:
        assert process.stdin is not None
        threading.Timer(0.3, process.stdin.close).start()
        with TargetLock(path, 20, words.append) as lock:
            assert len(words) == 1
            assert json.loads(lock.holder.read_text())["pid"] == os.getpid()
    assert not lock.holder.exists()
    assert path.exists()


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "target.lock"
    with another_process(path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert TargetLock(path).holder.exists()
    with TargetLock(path) as lock:
        assert json.loads(lock.holder.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("word", ["", "[]", '{"pid": "x"}', '{"pid": 1, "host": "\\u001b[2J", "since": 1e99}'])
def test_damaged_information_about_the_holder(tmp_path: Path, word: str) -> None:
    path = tmp_path / "target.lock"
    with TargetLock(path) as lock:
        lock.holder.write_text(word)
        with pytest.raises(Locked, match="another process that has locked"):
            TargetLock(path).acquire()


def test_information_about_the_holder_cannot_control_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "target.lock"
    with TargetLock(path) as lock:
        lock.holder.write_text(json.dumps({"pid": 1, "host": "\x1b[2J", "since": 0}))
        with pytest.raises(Locked) as caught:
            TargetLock(path).acquire()
    assert "\x1b" not in caught.value.message


def test_threads_exclude_each_other_too(tmp_path: Path) -> None:
    inside: list[int] = []

    def work(n: int) -> None:
        with TargetLock(tmp_path / "target.lock", 20):
            inside.append(n)
            time.sleep(0.02)
            assert inside.pop() == n

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []


def test_missing_permission_is_one_error() -> None:
    ref = RepoRef("hf", "model", "a/b")
    manifest = Manifest(ref, "a/b", "0" * 40, "http://hub", "origin", ())
    with without_rights() as folder:
        with pytest.raises(DiskError, match=f"no permission for {folder}"):
            TargetLock(folder / "target.lock").acquire()
        with pytest.raises(DiskError, match=f"no permission for {folder}"):
            TargetLock(folder / "deeper" / "target.lock").acquire()
        layouts = (Folder(folder, ref, "0" * 40, Receipts(None)), HfCache(folder, ref, "0" * 40, Receipts(None)))
        for layout in layouts:
            assert layout.inspect([]) == {}
            with pytest.raises(DiskError, match=f"no permission for {folder}"):
                layout.lock(0)
            with pytest.raises(DiskError, match=f"no permission for {folder}"):
                layout.begin(manifest)


FILE = RemoteFile(SafePath.parse("x"), 1, Digest("sha256", "1" * 64), "2" * 40)


def layouts_of(place: Path, commit: str = "0" * 40) -> tuple[Layout, ...]:
    ref = RepoRef("hf", "model", "a/b")
    return Folder(place / "to", ref, commit, Receipts(None)), HfCache(place / "hub", ref, commit, Receipts(None))


def test_layouts_lock_their_target_and_keep_the_staging_folder(tmp_path: Path) -> None:
    for layout in layouts_of(tmp_path):
        with layout.lock(0):
            assert not layout.staging.exists()
            with pytest.raises(Locked):  # until the first fetch has written the shared files
                layout.lock(0).acquire()
        layout.lock(0).acquire()


def test_fetches_of_one_commit_share_their_target(tmp_path: Path) -> None:
    ref = RepoRef("hf", "model", "a/b")
    manifest = Manifest(ref, "a/b", "0" * 40, "http://hub", "origin", ())
    for first, second in zip(layouts_of(tmp_path), layouts_of(tmp_path), strict=True):
        one, two = first.lock(0), second.lock(0)
        with one:
            first.begin(manifest)
            with pytest.raises(Locked):
                second.lock(0).acquire()
            first.claim(FILE)
            (first.staging / "tmp-of-the-first").touch()
            with two:
                second.begin(manifest)
                assert (first.staging / "tmp-of-the-first").exists()
                second.finish(manifest, complete=True)
                assert first.staging.exists()
            assert one.holder.exists()
            (first.staging / "tmp-of-the-first").unlink()
            first.finish(manifest, complete=True)
        assert not one.holder.exists()


def test_a_folder_for_one_commit_is_not_shared_with_another(tmp_path: Path) -> None:
    manifest = Manifest(RepoRef("hf", "model", "a/b"), "a/b", "0" * 40, "http://hub", "origin", ())
    folder, cache = layouts_of(tmp_path)
    other_folder, other_cache = layouts_of(tmp_path, "1" * 40)
    with folder.lock(0), cache.lock(0):
        folder.begin(manifest)
        cache.begin(manifest)
        folder.claim(FILE)
        cache.claim(FILE)
        with other_cache.lock(0):
            pass  # a cache has a snapshot for each commit
        with pytest.raises(Locked, match=f"gave up waiting for gpuaria process {os.getpid()}"):
            other_folder.lock(0).acquire()
    with other_folder.lock(0):
        pass


def test_the_last_sharing_fetch_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "target.lock"
    one, two = (TargetLock(path, 5, content="the same") for _ in range(2))
    one.acquire()
    assert one.alone
    one.share()
    two.acquire()
    assert not two.alone
    assert not one.is_last()
    one.release()
    assert two.holder.exists()
    assert two.is_last()
    two.release()
    assert not two.holder.exists()


def test_without_shared_locks_one_fetch_runs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SET_LOCK", None)
    manifest = Manifest(RepoRef("hf", "model", "a/b"), "a/b", "0" * 40, "http://hub", "origin", ())
    for first, second in zip(layouts_of(tmp_path), layouts_of(tmp_path), strict=True):
        with first.lock(0):
            first.begin(manifest)
            first.claim(FILE)
            with pytest.raises(Locked):
                second.lock(0).acquire()


def test_a_file_system_without_flock_gets_a_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(fd: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuses)
    path = tmp_path / "target.lock"
    with TargetLock(path, content="the same") as lock:
        lock.share()
        with pytest.raises(Locked):
            TargetLock(path, content="the same").acquire()
    TargetLock(path).acquire()


def test_a_blob_is_locked_as_by_the_client(tmp_path: Path) -> None:
    cache = HfCache(tmp_path, RepoRef("hf", "dataset", "a/b"), "0" * 40, Receipts(None))
    file = RemoteFile(SafePath.parse("x"), 1, Digest("sha256", "1" * 64), "2" * 40)
    path = tmp_path / ".locks" / "datasets--a--b" / f"{'1' * 64}.lock"
    with cache.blob_lock(file):
        assert lock_file(path, 0) is None
        assert path.stat().st_mode & 0o777 == 0o664
    held = lock_file(path, 0)
    assert held is not None
    unlock_file(held)


def test_a_blob_lock_held_for_hours_by_the_client_does_not_block_us(tmp_path: Path) -> None:
    ref = RepoRef("hf", "model", "a/b")
    cache = HfCache(tmp_path, ref, "0" * 40, Receipts(None), blob_patience=0.1)
    data = bytes(1 << 20)
    file = RemoteFile(SafePath.parse("x"), len(data), Digest("sha256", "1" * 64), "2" * 40)
    cache.begin(Manifest(ref, "a/b", "0" * 40, "http://hub", "origin", (file,)))
    cache.staged_path(file).write_bytes(data)
    lock = tmp_path / ".locks" / "models--a--b" / f"{'1' * 64}.lock"
    lock.parent.mkdir(parents=True)
    held, done = threading.Event(), threading.Event()

    def client() -> None:
        with WeakFileLock(lock):
            held.set()
            done.wait(20)

    thread = threading.Thread(target=client)
    thread.start()
    held.wait(20)
    start = time.monotonic()
    try:
        cache.publish(file, cache.staged_path(file))
        assert 0.1 <= time.monotonic() - start < 10
    finally:
        done.set()
        thread.join()
    assert (cache.root / "x").read_bytes() == data
