"""The contract of every storage layout: files appear complete and verified under their names, or not at all.

A new layout adds a row to LAYOUTS; the tests need no change.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuaria.api import check
from gpuaria.errors import DiskError, Locked, UnsafePath, WrongBytes
from gpuaria.hashing import hash_bytes
from gpuaria.paths import SafePath
from gpuaria.records import Digest, LocalState, Manifest, RemoteFile, RepoRef
from gpuaria.storage.hf_cache import HfCache
from gpuaria.storage.hf_folder import HfFolder
from gpuaria.storage.layout import ClaimResult, Layout
from gpuaria.storage.locate import find_layout, read_manifest
from gpuaria.storage.plain import PlainFolder
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.staging import CONTROL
from tests.support.kill import killed_at

FILES: dict[str, bytes] = {
    "config.json": b"{}",
    "same.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 200,
    "onnx/deep er/wéights 模型.bin": b"weights" * 999,
}
BIG = "model.safetensors"
Make = Callable[[Path, Manifest, Receipts], Layout]


@dataclass(frozen=True)
class Row:
    """A layout, a repo of a source that uses it, and two commits of the repo if the source has commits."""

    make: Make
    ref: RepoRef
    old: str = "b" * 40
    new: str = "c" * 40


def in_cache(folder: Path, manifest: Manifest, receipts: Receipts) -> Layout:
    """Return the Hugging Face cache with links."""
    return HfCache(folder / "hub", manifest.ref, manifest.version, receipts)


def in_cache_without_links(folder: Path, manifest: Manifest, receipts: Receipts) -> Layout:
    """Return the Hugging Face cache on a file system without links."""
    return HfCache(folder / "hub", manifest.ref, manifest.version, receipts, symlinks=False)


def in_hf_folder(folder: Path, manifest: Manifest, receipts: Receipts) -> Layout:
    """Return a folder as `hf download --local-dir` creates it."""
    return HfFolder(folder / "to", manifest.ref, manifest.version, receipts)


def in_folder(folder: Path, manifest: Manifest, receipts: Receipts) -> Layout:
    """Return a folder of plain files."""
    return PlainFolder(folder / "to", manifest.ref, manifest.version, receipts)


HF = RepoRef("hf", "model", "org/name")
LAYOUTS = {
    "cache": Row(in_cache, HF),
    "cache without links": Row(in_cache_without_links, HF),
    "hf folder": Row(in_hf_folder, HF),
    "plain folder": Row(in_folder, RepoRef("plain", "folder", "http://files.example/models/", ""), old="", new=""),
}


def a_file(path: str, data: bytes, algorithm: str = "") -> RemoteFile:
    """Return a file as a hub lists it: with a git id, or with a sha256 if it is large."""
    oid = hash_bytes(data, "git-sha1")
    algorithm = algorithm or ("sha256" if len(data) > 1000 else "git-sha1")
    return RemoteFile(SafePath.parse(path), len(data), Digest(algorithm, hash_bytes(data, algorithm)), oid)


@dataclass
class Target:
    """One layout in a separate folder; `layout` opens it as a new run does."""

    row: Row
    folder: Path
    files: Mapping[str, bytes] = field(default_factory=lambda: FILES)

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the files at the new commit."""
        return self.listing(self.files, self.row.new)

    def listing(self, files: Mapping[str, bytes], commit: str) -> Manifest:
        """Return the manifest of these files, sorted by name."""
        rows = tuple(a_file(path, data) for path, data in sorted(files.items()))
        return Manifest(self.row.ref, self.row.ref.name, commit, "http://hub", "origin", rows)

    def layout(self, manifest: Manifest | None = None) -> Layout:
        """Return the layout for a manifest, with this user's receipts."""
        return self.row.make(self.folder, manifest or self.manifest, Receipts(self.folder / "receipts.sqlite"))

    def begun(self) -> Layout:
        """Return the layout, prepared for a download."""
        layout = self.layout()
        layout.begin(self.manifest)
        return layout

    def file(self, path: str) -> RemoteFile:
        """Return the manifest's file with that path."""
        return a_file(path, self.files[path])

    def look(self, path: str) -> LocalState:
        """Return the local state of a file as a new run sees it."""
        return self.layout().inspect([self.file(path)])[SafePath(path)]


def stage(layout: Layout, file: RemoteFile, data: bytes) -> Path:
    """Write bytes where a downloader writes them."""
    layout.staged_path(file).write_bytes(data)
    return layout.staged_path(file)


def publish(layout: Layout, file: RemoteFile, data: bytes) -> None:
    """Stage bytes and commit them."""
    layout.publish(file, stage(layout, file, data))


def fetch(layout: Layout, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Fetch into a layout with bytes from memory: adopt correct files, commit the rest."""
    layout.begin(manifest)
    seen = layout.inspect(manifest.files)
    published: dict[Digest | None, RemoteFile] = {}
    for file in manifest.files:
        data, state, first = files[file.path], seen[file.path], published.get(file.digest)
        if state.size == file.size and (state.proven or layout.content_path(file).read_bytes() == data):
            layout.adopt(file)
        elif first is not None:
            layout.adopt(file, layout.content_path(first))
        else:
            publish(layout, file, data)
        published.setdefault(file.digest, file)
    layout.finish(manifest, True)


def held(layout: Layout, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the bytes under these names, for those that exist."""
    return {path: (layout.root / path).read_bytes() for path in files if (layout.root / path).exists()}


def everything_below(folder: Path) -> dict[str, bytes | str]:
    """Return each name below a folder with its bytes or its link target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    return Target(request.param, tmp_path)


# --- looking ------------------------------------------------------------------------------------------------------


def test_inspecting_an_empty_target_writes_nothing(target: Target) -> None:
    layout = target.layout()
    before = everything_below(target.folder).keys()
    assert layout.inspect(target.manifest.files) == {file.path: LocalState() for file in target.manifest.files}
    assert layout.saved_manifest() is None
    assert everything_below(target.folder).keys() == before
    assert not layout.root.exists()


def test_after_a_fetch_the_next_run_finds_every_file_verified(target: Target) -> None:
    layout = target.layout()
    fetch(layout, target.manifest, FILES)
    assert held(layout, FILES) == FILES
    assert {path: layout.content_path(target.file(path)).read_bytes() for path in FILES} == FILES
    later = target.layout()
    assert later.inspect(target.manifest.files) == {
        file.path: LocalState(file.size, proven=True, named=True) for file in target.manifest.files
    }
    assert later.saved_manifest() == target.manifest


def test_a_file_changed_later_is_not_verified(target: Target) -> None:
    fetch(target.layout(), target.manifest, FILES)
    content = target.layout().content_path(target.file(BIG))
    content.write_bytes(FILES[BIG][:-1] + b"x")
    os.utime(content, ns=(1, content.stat().st_mtime_ns + 1))
    state = target.look(BIG)
    assert (state.size, state.proven) == (len(FILES[BIG]), False)


def test_the_target_is_found_again_by_its_folder(target: Target) -> None:
    layout = target.layout()
    fetch(layout, target.manifest, FILES)
    found = find_layout(layout.root, Receipts(None))
    assert (type(found), found.root, found.commit_id) == (type(layout), layout.root, target.manifest.version)
    assert set(read_manifest(found).files) == set(target.manifest.files)


# --- verification afterwards --------------------------------------------------------------------------------------


def test_verify_accepts_fetched_files_and_reports_damaged_ones(target: Target) -> None:
    layout = target.layout()
    fetch(layout, target.manifest, FILES)
    assert check(target.layout(), read_manifest(target.layout())).count() == {"ok": len(FILES)}
    (layout.root / "empty.txt").unlink()
    layout.content_path(target.file(BIG)).write_bytes(FILES[BIG][:-1] + b"x")
    (layout.root / "more.txt").write_text("of the user")
    found = check(target.layout(), read_manifest(target.layout()))
    outcomes = {verdict.path: verdict.outcome for verdict in found.verdicts if verdict.outcome != "ok"}
    assert outcomes == {"empty.txt": "missing", BIG: "wrong digest", "more.txt": "extra"}


def test_a_partial_manifest_is_verified_as_partial(target: Target) -> None:
    layout = target.begun()
    publish(layout, target.file(BIG), FILES[BIG])
    layout.finish(target.manifest, False)
    assert check(target.layout(), read_manifest(target.layout())).count() == {"ok": 1, "missing": len(FILES) - 1}


def test_a_file_without_a_digest_is_never_ok_but_wrong_if_its_pinned_sha256_differs(target: Target) -> None:
    data = b"nothing is known of these bytes"
    file = RemoteFile(SafePath.parse("unknown.bin"), len(data), None, "0" * 40)
    manifest = replace(target.manifest, files=(file,))
    layout = target.layout(manifest)
    layout.begin(manifest)
    publish(layout, file, data)
    layout.finish(manifest, True)
    later = target.layout(manifest)
    (kept,) = read_manifest(later).files
    assert later.with_pinned(manifest).files == (kept,)
    assert kept.pinned in (None, Digest("sha256", hash_bytes(data, "sha256")))
    assert check(later, read_manifest(later)).count() == {"unverifiable": 1}
    later.content_path(file).write_bytes(data[:-1] + b"!")
    assert check(later, read_manifest(later)).count() == {"wrong digest" if kept.pinned else "unverifiable": 1}


# --- staging ------------------------------------------------------------------------------------------------------


def test_staged_bytes_stay_on_the_same_disk_without_a_published_name(target: Target) -> None:
    layout, file = target.begun(), target.file(BIG)
    staged = stage(layout, file, FILES[BIG][:8192])
    assert staged.is_relative_to(layout.staging)
    assert staged.stat().st_dev == target.folder.stat().st_dev
    assert not (layout.root / BIG).exists()
    later = target.begun()
    assert later.staged_path(file) == staged
    assert staged.read_bytes() == FILES[BIG][:8192]
    assert target.look(BIG) == LocalState(partial=8192)


def test_holes_do_not_count_as_bytes(target: Target) -> None:
    layout, file = target.begun(), target.file(BIG)
    with layout.staged_path(file).open("wb") as stream:
        stream.truncate(file.size)
        stream.seek(8192)
        stream.write(b"x" * 4096)
    assert target.look(BIG).partial == 4096


def test_files_share_staged_bytes_only_by_digest(target: Target) -> None:
    layout = target.layout()
    places = {path: layout.staged_path(target.file(path)) for path in FILES}
    assert places["config.json"] == places["same.json"]
    assert len(set(places.values())) == len(FILES) - 1
    unknown = [RemoteFile(SafePath.parse(path), 2, None) for path in ("one", "other")]
    assert layout.staged_path(unknown[0]) != layout.staged_path(unknown[1])


def test_discard_removes_staged_bytes_and_keeps_published_files(target: Target) -> None:
    layout, file, other = target.begun(), target.file(BIG), target.file("config.json")
    publish(layout, other, FILES[other.path])
    empty = sorted(layout.staging.rglob("*"))
    staged = stage(layout, file, b"begun")
    for ending in CONTROL:
        staged.with_name(staged.name + ending).write_bytes(b"control")
    layout.range_links(file).mkdir()
    os.link(staged, layout.range_links(file) / "0-5")
    for _ in range(2):
        layout.discard_staged(file)
        assert sorted(layout.staging.rglob("*")) == empty
        assert held(layout, FILES) == {other.path: FILES[other.path]}


def test_planted_names_in_staging_are_removed_before_the_download(target: Target) -> None:
    layout, file, victim = target.begun(), target.file(BIG), target.folder / "victim"
    victim.write_text("precious")
    staged = layout.staged_path(file)
    staged.symlink_to(victim)
    os.link(victim, staged.with_name(staged.name + CONTROL[0]))
    os.mkfifo(staged.with_name("pipe"))
    assert target.look(BIG) == LocalState()
    layout = target.begun()
    assert [path for path in layout.staging.iterdir() if path.name != "manifests"] == []
    publish(layout, file, FILES[BIG])
    assert victim.read_text() == "precious"


# --- committing ---------------------------------------------------------------------------------------------------


def test_commit_moves_the_staged_bytes_and_removes_their_helper_files(target: Target) -> None:
    layout, file = target.begun(), target.file(BIG)
    empty = sorted(layout.staging.rglob("*"))
    staged = stage(layout, file, FILES[BIG])
    inode = staged.stat().st_ino
    for ending in CONTROL:
        staged.with_name(staged.name + ending).write_bytes(b"control")
    layout.range_links(file).mkdir()
    os.link(staged, layout.range_links(file) / "0-5")
    layout.publish(file, staged)
    assert layout.content_path(file).stat().st_ino == inode
    assert layout.content_path(file).stat().st_nlink == 1
    assert sorted(layout.staging.rglob("*")) == empty
    assert (layout.root / BIG).read_bytes() == FILES[BIG]


@pytest.mark.parametrize("data", [b"", FILES[BIG][:-1], FILES[BIG] + b"x"], ids=["empty", "shorter", "longer"])
def test_commit_rejects_another_size(target: Target, data: bytes) -> None:
    layout, file = target.begun(), target.file(BIG)
    with pytest.raises(WrongBytes):
        publish(layout, file, data)
    assert held(layout, FILES) == {}
    assert target.look(BIG).size is None


@pytest.mark.parametrize("kind", ["symlink", "second name", "folder"])
def test_commit_rejects_links_and_special_files(target: Target, kind: str) -> None:
    layout, file, other = target.begun(), target.file(BIG), target.folder / "other"
    other.write_bytes(FILES[BIG])
    if kind == "symlink":
        layout.staged_path(file).symlink_to(other)
    elif kind == "second name":
        os.link(other, layout.staged_path(file))
    else:
        layout.staged_path(file).mkdir()
    with pytest.raises(DiskError if kind == "folder" else UnsafePath):
        layout.publish(file, layout.staged_path(file))
    assert held(layout, FILES) == {}
    assert other.read_bytes() == FILES[BIG]


def test_an_existing_name_is_replaced_and_never_written_to(target: Target) -> None:
    layout, file, outside = target.begun(), target.file("config.json"), target.folder / "outside"
    outside.write_text("precious")
    name = layout.root / file.path
    name.parent.mkdir(parents=True, exist_ok=True)
    os.link(outside, name)
    publish(layout, file, FILES[file.path])
    assert (name.read_bytes(), outside.read_text()) == (FILES[file.path], "precious")
    layout.content_path(file).unlink()
    name.unlink(missing_ok=True)
    name.symlink_to(outside)
    publish(layout, file, FILES[file.path])
    assert (name.read_bytes(), outside.read_text()) == (FILES[file.path], "precious")


def test_a_published_file_has_the_mode_of_a_new_file(target: Target) -> None:
    layout, file = target.begun(), target.file("config.json")
    os.close(os.open(layout.staged_path(file), os.O_CREAT | os.O_WRONLY, 0o600))
    publish(layout, file, FILES[file.path])
    plain = target.folder / "plain"
    plain.touch()
    assert stat.S_IMODE(layout.content_path(file).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_many_threads_commit_at_once(target: Target) -> None:
    many = {f"d{number % 7}/f{number}": b"%d" % number for number in range(100)}
    target.files = many
    layout = target.begun()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: publish(layout, file, many[file.path]), target.manifest.files))
    layout.finish(target.manifest, True)
    assert held(layout, many) == many
    assert all(target.look(path) == LocalState(len(data), proven=True, named=True) for path, data in many.items())


# --- adopting -----------------------------------------------------------------------------------------------------


def test_adopt_verifies_and_publishes_bytes_in_place(target: Target) -> None:
    layout, file = target.begun(), target.file("config.json")
    place = layout.content_path(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(FILES[file.path])
    assert not target.look(file.path).proven
    layout.adopt(file)
    layout.finish(target.manifest, False)
    assert target.look(file.path) == LocalState(file.size, proven=True, named=True)
    assert (layout.root / file.path).read_bytes() == FILES[file.path]


@pytest.mark.parametrize("data", [b"longer than that", b"", None], ids=["longer", "empty", "absent"])
def test_adopt_rejects_another_size(target: Target, data: bytes | None) -> None:
    layout, file = target.begun(), target.file("config.json")
    place = layout.content_path(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        place.write_bytes(data)
    with pytest.raises(WrongBytes):
        layout.adopt(file)
    assert not target.look(file.path).proven


def test_adopt_gives_a_second_file_the_bytes_of_the_first(target: Target) -> None:
    layout, one, other = target.begun(), target.file("config.json"), target.file("same.json")
    publish(layout, one, FILES[one.path])
    layout.adopt(other, layout.content_path(one))
    layout.adopt(other, layout.content_path(other))
    layout.finish(target.manifest, False)
    assert held(layout, FILES) == {one.path: b"{}", other.path: b"{}"}
    assert target.look(other.path) == LocalState(2, proven=True, named=True)


def test_adopt_copies_from_another_folder_and_verifies_the_copy(target: Target) -> None:
    layout, file, elsewhere = target.begun(), target.file(BIG), target.folder / "elsewhere"
    empty = sorted(layout.staging.rglob("*"))
    elsewhere.write_bytes(FILES[BIG][:-1] + b"x")
    with pytest.raises(WrongBytes):
        layout.adopt(file, elsewhere)
    with pytest.raises(DiskError):
        layout.adopt(file, target.folder / "nowhere")
    assert held(layout, FILES) == {}
    elsewhere.write_bytes(FILES[BIG])
    layout.adopt(file, elsewhere)
    assert layout.content_path(file).read_bytes() == FILES[BIG]
    assert layout.content_path(file).stat().st_ino != elsewhere.stat().st_ino
    assert elsewhere.stat().st_nlink == 1
    assert sorted(layout.staging.rglob("*")) == empty
    assert target.look(BIG).named


# --- claims and locks ---------------------------------------------------------------------------------------------


def test_of_two_runs_one_downloads_and_the_other_finds_the_file_published(target: Target) -> None:
    one, two, file = target.begun(), target.layout(), target.file(BIG)
    assert two.inspect([file])[file.path].size is None
    assert (one.claim(file), two.claim(file)) == (ClaimResult.GRANTED, ClaimResult.HELD)
    publish(one, file, FILES[BIG])
    assert two.claim(file) is ClaimResult.HELD
    one.release_claim(file)
    assert two.claim(file) is ClaimResult.PRESENT
    assert two.inspect([file])[file.path].size == file.size
    two.adopt(file)
    assert two.inspect([file])[file.path] == LocalState(file.size, proven=True, named=True)


def test_a_failed_download_releases_its_claim(target: Target) -> None:
    one, two, file = target.begun(), target.layout(), target.file(BIG)
    assert one.claim(file) is ClaimResult.GRANTED
    stage(one, file, b"begun")
    one.release_claim(file)
    assert two.claim(file) is ClaimResult.GRANTED
    assert target.look(BIG).partial == 5


def test_one_run_at_a_time_holds_the_file_lock(target: Target) -> None:
    with target.layout().lock(0), pytest.raises(Locked, match="gpuaria process"), target.layout().lock(0):
        pass
    with target.layout().lock(0):
        pass


# --- nothing outside ----------------------------------------------------------------------------------------------


UNSAFE = ["../up.txt", "a/../../up.txt", "/etc/up.txt", "", "a//up.txt", "./up.txt", "nul\0.txt"]


@pytest.mark.parametrize("path", UNSAFE)
def test_an_unsafe_name_is_rejected_again_at_the_file_system(target: Target, path: str) -> None:
    """SafePath.parse rejects these names; the test bypasses it."""
    with pytest.raises(UnsafePath):
        SafePath.parse(path)
    data = b"escaped"
    file = RemoteFile(SafePath(path), len(data), Digest("git-sha1", hash_bytes(data, "git-sha1")))
    layout = target.begun()
    before = set(os.listdir(target.folder))
    with pytest.raises((UnsafePath, DiskError, ValueError)):
        publish(layout, file, data)
    assert set(os.listdir(target.folder)) == before
    assert not Path("/etc/up.txt").exists()
    assert not list(target.folder.rglob("up.txt"))


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_nothing_is_written_through_a_planted_folder(target: Target, where: str) -> None:
    layout, file = target.layout(), target.file("onnx/deep er/wéights 模型.bin")
    elsewhere = (layout.root if where == "inside" else target.folder) / "elsewhere"
    elsewhere.mkdir(parents=True)
    (layout.root).mkdir(parents=True, exist_ok=True)
    (layout.root / "onnx").symlink_to(elsewhere)
    with pytest.raises(UnsafePath, match="symbolic link"):  # before the download
        target.layout().inspect(target.manifest.files)
    assert target.layout().inspect([target.file("config.json")])[SafePath("config.json")] == LocalState()
    layout.begin(target.manifest)
    with pytest.raises(UnsafePath, match="symbolic link"):
        publish(layout, file, FILES[file.path])
    assert list(elsewhere.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_rejected(target: Target) -> None:
    root = target.layout().root
    root.mkdir(parents=True)
    (root / "onnx").write_text("a file of the user")
    with pytest.raises(DiskError, match="a file, but a folder is needed"):
        target.layout().inspect(target.manifest.files)
    with pytest.raises(DiskError):
        fetch(target.layout(), target.manifest, FILES)
    assert (root / "onnx").read_text() == "a file of the user"


PART = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PART, min_size=1, max_size=4))
def test_any_safe_name_ends_up_below_the_target(
    target: Target, tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    try:
        path = SafePath.parse("/".join(parts))
    except UnsafePath:
        return
    one = Target(target.row, tmp_path_factory.mktemp("root"), {path: path.encode()})
    names = {*os.listdir(one.folder), one.layout().root.relative_to(one.folder).parts[0], "receipts.sqlite", "claims"}
    fetch(one.layout(), one.manifest, {path: path.encode()})
    assert one.layout().root.joinpath(*parts).read_bytes() == path.encode()
    assert {name for name in os.listdir(one.folder) if not name.startswith("receipts.sqlite-")} <= names
    assert one.look(path) == LocalState(len(path.encode()), proven=True, named=True)


# --- killed -------------------------------------------------------------------------------------------------------


OLD = {"config.json": b"{}", "sub/model.bin": b"old weights"}
NEW = {"config.json": b"{}", "sub/model.bin": b"weights" * 1000}


@pytest.mark.fault("killed (kill -9): gpuaria, aria2c or both, at any moment")
def test_after_a_kill_at_any_step_the_old_or_the_new_file_exists(target: Target) -> None:
    """The second commit is fetched over the first one, and killed before each file system change in turn."""
    old, new = target.listing(OLD, target.row.old), target.listing(NEW, target.row.new)
    origin = Target(target.row, target.folder / "first", NEW)
    origin.folder.mkdir()
    fetch(origin.layout(old), old, OLD)
    step, killed = 0, True
    while killed:
        one = Target(target.row, target.folder / str(step), NEW)
        shutil.copytree(origin.folder, one.folder, symlinks=True)
        killed = killed_at(step, partial(run_again, one))
        before, after = one.layout(old), one.layout()
        shared = {path: {OLD[path], NEW[path]} for path in NEW}
        for path, data in held(after, NEW).items():
            assert data in (shared[path] if after.root == before.root else {NEW[path]})
        there = held(before, OLD)
        assert there.keys() == OLD.keys()
        assert all(data in (shared[path] if after.root == before.root else {OLD[path]}) for path, data in there.items())
        for path, state in after.inspect(new.files).items():
            assert not state.proven or after.content_path(one.file(path)).read_bytes() == NEW[path]
        run_again(one)
        assert check(one.layout(), read_manifest(one.layout())).count() == {"ok": len(NEW)}
        assert all(one.look(path) == LocalState(len(data), proven=True, named=True) for path, data in NEW.items())
        assert [path.name for path in one.folder.rglob("tmp-*")] == []
        step += 1
    assert step > 25


def run_again(target: Target) -> None:
    """Fetch the new commit."""
    fetch(target.layout(), target.manifest, NEW)
