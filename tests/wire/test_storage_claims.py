"""Claims: of several fetches of the same bytes, only one downloads them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuaria.hashing import hash_bytes
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef
from gpuaria.storage.hf_cache import HfCache
from gpuaria.storage.hf_folder import HfFolder as Folder
from gpuaria.storage.layout import ClaimResult, Layout
from gpuaria.storage.receipts import Receipts
from tests.support.checkout import ROOT

DATA = b"weights" * 1000
LARGE = bytes(2_000_000)
REF = RepoRef("hf", "model", "a/b")
Make = Callable[..., Layout]

HOLD = """
import sys
from pathlib import Path
from tests.wire.test_storage_claims import MAKERS, a_file
layout = MAKERS[sys.argv[1]](Path(sys.argv[2]))
print(layout.claim(a_file()).name, flush=True)
sys.stdin.read()
"""


def a_file(path: str = "sub/model.bin", data: bytes = DATA, *, digest: bool = True) -> RemoteFile:
    oid = hash_bytes(data, "git-sha1")
    return RemoteFile(SafePath.parse(path), len(data), Digest("git-sha1", oid) if digest else None, oid)


def cache(place: Path, name: str = "a/b") -> Layout:
    ref = RepoRef("hf", "model", name)
    return HfCache(place / "hub", ref, "c" * 40, Receipts(place / "state" / "receipts.sqlite"))


def plain(place: Path, name: str = "to") -> Layout:
    return Folder(place / name, REF, "c" * 40, Receipts(place / "state" / "receipts.sqlite"))


MAKERS: dict[str, Make] = {"cache": cache, "plain": plain}
each_layout = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def begin(layout: Layout, *files: RemoteFile) -> None:
    layout.begin(Manifest(REF, "a/b", "c" * 40, "http://hub", "origin", files or (a_file(),)))


def publish(layout: Layout, file: RemoteFile, data: bytes = DATA) -> None:
    layout.staged_path(file).write_bytes(data)
    layout.publish(file, layout.staged_path(file))


@contextmanager
def another_process(kind: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a claim on the file until it is killed."""
    command = [sys.executable, "-c", HOLD, kind, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "GRANTED\n"
            yield process
        finally:
            process.kill()


@each_layout
def test_only_one_of_two_fetches_gets_the_claim(tmp_path: Path, make: Make) -> None:
    one, two, file = make(tmp_path), make(tmp_path), a_file()
    assert one.claim(file) is ClaimResult.GRANTED
    assert one.claim(file) is ClaimResult.GRANTED
    assert two.claim(file) is ClaimResult.HELD
    assert two.claim(a_file("other", b"other")) is ClaimResult.GRANTED
    two.release_claim(file)
    assert two.claim(file) is ClaimResult.HELD
    one.release_claim(file)
    assert two.claim(file) is ClaimResult.GRANTED
    assert one.claim(file) is ClaimResult.HELD


@each_layout
def test_a_file_published_meanwhile(tmp_path: Path, make: Make) -> None:
    one, two, file = make(tmp_path), make(tmp_path), a_file()
    assert two.inspect([file])[file.path].size is None
    assert one.claim(file) is ClaimResult.GRANTED
    begin(one)
    publish(one, file)
    assert two.claim(file) is ClaimResult.HELD
    one.release_claim(file)
    assert two.claim(file) is ClaimResult.PRESENT
    # If the file turns out to be wrong, the second fetch asks again and gets the claim.
    assert two.claim(file) is ClaimResult.GRANTED


@each_layout
def test_an_older_file_does_not_count_as_published_meanwhile(tmp_path: Path, make: Make) -> None:
    one, two, file = make(tmp_path), make(tmp_path), a_file()
    begin(one)
    publish(one, file)
    assert two.inspect([file])[file.path].size == file.size
    assert two.claim(file) is ClaimResult.GRANTED


@each_layout
def test_two_names_of_the_same_bytes_are_downloaded_once(tmp_path: Path, make: Make) -> None:
    layout, one, two = make(tmp_path), a_file("one"), a_file("two")
    assert layout.claim(one) is ClaimResult.GRANTED
    assert layout.claim(two) is ClaimResult.HELD
    layout.release_claim(two)
    assert layout.claim(two) is ClaimResult.HELD
    layout.release_claim(one)
    assert layout.claim(two) is ClaimResult.GRANTED


@each_layout
def test_the_end_of_a_fetch_releases_its_claims(tmp_path: Path, make: Make) -> None:
    one, two, file = make(tmp_path), make(tmp_path), a_file()
    begin(one)
    assert one.claim(file) is ClaimResult.GRANTED
    one.finish(Manifest(REF, "a/b", "c" * 40, "http://hub", "origin", (file,)), complete=False)
    assert two.claim(file) is ClaimResult.GRANTED


@pytest.mark.parametrize("kind", MAKERS)
def test_a_killed_process_releases_its_claim(tmp_path: Path, kind: str) -> None:
    layout, file = MAKERS[kind](tmp_path), a_file()
    with another_process(kind, tmp_path) as process:
        assert layout.claim(file) is ClaimResult.HELD
        process.kill()
        process.wait()
        assert layout.claim(file) is ClaimResult.GRANTED


@pytest.mark.parametrize("data", [DATA, LARGE])
def test_the_same_bytes_in_another_target(tmp_path: Path, data: bytes) -> None:
    file = a_file(data=data)
    holder = cache(tmp_path)
    others = [cache(tmp_path, "other/repo"), plain(tmp_path), plain(tmp_path, "elsewhere")]
    assert holder.claim(file) is ClaimResult.GRANTED
    assert [other.claim(file) for other in others] == [ClaimResult.HELD] * 3
    with another_process("plain", tmp_path / "a user of another home"):
        holder.release_claim(file)
    assert others[0].claim(file) is ClaimResult.GRANTED


def test_a_file_without_a_digest_is_identical_only_within_its_target(tmp_path: Path) -> None:
    file = a_file(digest=False)
    one, two, other = plain(tmp_path), plain(tmp_path), plain(tmp_path, "elsewhere")
    assert [one.claim(file), two.claim(file), other.claim(file)] == [
        ClaimResult.GRANTED,
        ClaimResult.HELD,
        ClaimResult.GRANTED,
    ]


@pytest.mark.parametrize("data", [DATA, LARGE])
@pytest.mark.parametrize("there", ["other repo", "folder"])
@each_layout
def test_bytes_published_in_another_target_are_copied(tmp_path: Path, make: Make, there: str, data: bytes) -> None:
    receipts = Receipts(tmp_path / "state" / "receipts.sqlite")
    one = _with(receipts, cache(tmp_path, "other/repo") if there == "other repo" else plain(tmp_path, "elsewhere"))
    two, file = _with(receipts, make(tmp_path)), a_file(data=data)
    begin(one, file)
    begin(two, file)
    assert one.claim(file) is ClaimResult.GRANTED
    publish(one, file, data)
    assert two.claim(file) is ClaimResult.HELD
    one.release_claim(file)
    assert two.claim(file) is ClaimResult.PRESENT
    assert two.has_receipt(file)
    assert two.content_path(file).read_bytes() == data
    two.adopt(file)
    assert (two.root / file.path).read_bytes() == data
    assert two.content_path(file).resolve().is_relative_to(tmp_path.resolve())
    assert not two.content_path(file).samefile(one.content_path(file))
    assert two.has_receipt(file)


def _with(receipts: Receipts, layout: Layout) -> Layout:
    """Return a layout of the same process, whose fetches share the receipts."""
    if isinstance(layout, HfCache):
        return HfCache(layout._dir.root, layout.ref, layout.commit_id, receipts)
    assert isinstance(layout, Folder)
    return Folder(layout.root, layout.ref, layout.commit_id, receipts)


def test_bytes_published_by_another_process_are_copied(tmp_path: Path) -> None:
    file, one, two = a_file(data=LARGE), cache(tmp_path), plain(tmp_path)
    begin(one, file)
    begin(two, file)
    assert one.claim(file) is ClaimResult.GRANTED
    publish(one, file, LARGE)
    one.release_claim(file)
    assert two.claim(file) is ClaimResult.PRESENT
    two.adopt(file)
    assert (two.root / file.path).read_bytes() == LARGE


def test_a_copy_that_changed_is_not_used(tmp_path: Path) -> None:
    receipts = Receipts(tmp_path / "state" / "receipts.sqlite")
    one, two, file = _with(receipts, plain(tmp_path, "elsewhere")), _with(receipts, plain(tmp_path)), a_file()
    begin(one)
    begin(two)
    publish(one, file)
    one.content_path(file).write_bytes(DATA[::-1])
    assert two.claim(file) is ClaimResult.GRANTED


def test_bytes_of_earlier_runs_are_not_searched(tmp_path: Path) -> None:
    """A fetch into a new folder downloads what an earlier run stored elsewhere."""
    one, file = plain(tmp_path, "elsewhere"), a_file()
    begin(one)
    publish(one, file)
    one.finish(Manifest(REF, "a/b", "c" * 40, "http://hub", "origin", (file,)), complete=True)
    time.sleep(0.01)
    assert plain(tmp_path).claim(file) is ClaimResult.GRANTED


@each_layout
def test_eight_threads_get_one_claim(tmp_path: Path, make: Make) -> None:
    layouts, found, file = [make(tmp_path) for _ in range(8)], [], a_file()
    start = threading.Barrier(8)

    def ask(layout: Layout) -> None:
        start.wait(20)
        found.append(layout.claim(file))

    threads = [threading.Thread(target=ask, args=(layout,)) for layout in layouts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claim.name for claim in found) == ["GRANTED"] + ["HELD"] * 7


@each_layout
def test_a_planted_link_is_not_followed(tmp_path: Path, make: Make) -> None:
    layout = make(tmp_path)
    assert layout.claim(a_file()) is ClaimResult.GRANTED
    layout.release_claim(a_file())
    (lock,) = list(tmp_path.rglob("gpuaria.claims"))
    lock.unlink()
    lock.symlink_to(tmp_path / "planted")
    assert make(tmp_path).claim(a_file()) is ClaimResult.GRANTED
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("data", [DATA, LARGE])
@each_layout
def test_a_waiting_fetch_sees_that_the_holder_stores_bytes(tmp_path: Path, make: Make, data: bytes) -> None:
    file = a_file(data=data)
    holder, same, elsewhere = make(tmp_path), make(tmp_path), make(tmp_path, "other/repo")
    begin(holder, file)
    assert holder.claim(file) is ClaimResult.GRANTED
    for waiting in (same, elsewhere):
        assert waiting.claim(file) is ClaimResult.HELD
        before = waiting.progress_mark(file)
        assert waiting.progress_mark(file) == before
        with holder.staged_path(file).open("ab") as staged:
            staged.write(b"more")
        assert waiting.progress_mark(file) != before
    holder.release_claim(file)
    assert not list((tmp_path / "state").glob("holders/*"))
