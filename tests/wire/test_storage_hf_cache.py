"""The Hugging Face cache: the official client reads our files, and we reuse its files."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import get_cached_repo_tree, scan_cache_dir, snapshot_download, try_to_load_from_cache
from huggingface_hub._tree_cache import TreeCacheEntry, _read_tree_cache_from_disk, write_tree_cache
from huggingface_hub.errors import IncompleteSnapshotError

from gpuaria.errors import DiskError, UnsafePath, WrongBytes
from gpuaria.formats import manifest as manifests
from gpuaria.hashing import hash_bytes
from gpuaria.paths import SafePath
from gpuaria.records import Digest, LocalState, Manifest, RemoteFile, RepoKind, RepoRef
from gpuaria.storage.hf_cache import HfCache, repo_folder
from gpuaria.storage.locate import find_layout, read_manifest
from gpuaria.storage.receipts import Receipts
from standin import Hub, Repo
from tests.support.checkout import ROOT

NAME = "some-org/some-model"
FILES: dict[str, bytes] = {
    "README.md": b"# hello\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "same.json": b"{}",
    "model.safetensors": bytes(range(256)) * 200,
    "onnx/deep er/wéights 模型.bin": b"weights" * 999,
}


def manifest_of(repo: Repo, ref: RepoRef) -> Manifest:
    commit = repo.commits[repo.resolve(ref.revision) or ""]
    files = tuple(
        RemoteFile(
            SafePath.parse(entry.path),
            entry.size,
            Digest("sha256", entry.sha256) if entry.sha256 else Digest("git-sha1", entry.oid),
            entry.oid,
        )
        for entry in commit.files.values()
    )
    return Manifest(ref, repo.repo_id, commit.oid, "http://hub", "origin", files)


class World:
    """A repo of the stand-in, and an empty cache."""

    def __init__(self, folder: Path, kind: RepoKind = "model", revision: str = "main") -> None:
        self.repo = Repo.build(NAME, FILES, folder=folder / "store", kind=kind)
        self.repo.pull(1, {"extra.txt": b"extra"})
        self.repo.tag("v1.0")
        self.cache = folder / "hub"
        self.ref = RepoRef("hf", kind, NAME, revision)
        self.manifest = manifest_of(self.repo, self.ref)
        self.receipts = Receipts(folder / "receipts.sqlite")

    def layout(self, symlinks: bool | None = None) -> HfCache:
        return HfCache(self.cache, self.ref, self.manifest.commit, self.receipts, symlinks)

    def data(self, file: RemoteFile) -> bytes:
        return FILES.get(file.path, b"extra")

    def file(self, path: str) -> RemoteFile:
        return next(file for file in self.manifest.files if file.path == path)

    def fetch(self, layout: HfCache, paths: set[str] | None = None, complete: bool = True) -> None:
        layout.begin(self.manifest)
        for file in self.manifest.files:
            if paths is None or file.path in paths:
                stage(layout, file, self.data(file))
                layout.publish(file, layout.staged_path(file))
        layout.finish(self.manifest, complete)

    def offline(self, revision: str | None = None) -> Path:
        """Return the client's offline path of the complete snapshot."""
        return Path(
            snapshot_download(
                NAME,
                repo_type=self.ref.kind,
                revision=revision or self.ref.revision,
                cache_dir=self.cache,
                local_files_only=True,
            )
        )

    def fill_with_client(self, hub: Hub) -> Path:
        return Path(
            snapshot_download(
                NAME,
                repo_type=self.ref.kind,
                revision=self.ref.revision,
                cache_dir=self.cache,
                endpoint=hub.url,
                token=False,
            )
        )


def stage(layout: HfCache, file: RemoteFile, data: bytes) -> Path:
    staged = layout.staged_path(file)
    staged.write_bytes(data)
    return staged


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def hub(world: World) -> Iterator[Hub]:
    with Hub([world.repo], server="embedded") as hub:
        yield hub


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1"])
def test_the_client_accepts_our_files(tmp_path: Path, kind: RepoKind, revision: str) -> None:
    world = World(tmp_path, kind, revision)
    layout = world.layout()
    world.fetch(layout)

    assert world.offline() == layout.root
    assert world.offline(world.manifest.commit) == layout.root
    for file in world.manifest.files:
        path = try_to_load_from_cache(NAME, file.path, cache_dir=world.cache, repo_type=kind, revision=revision)
        assert isinstance(path, str)
        assert Path(path).read_bytes() == world.data(file)
        assert not os.path.isabs(os.readlink(path))
    tree = get_cached_repo_tree(NAME, repo_type=kind, revision=revision, cache_dir=world.cache)
    assert {(f.path, f.size, f.blob_id) for f in tree} == {(f.path, f.size, f.oid) for f in world.manifest.files}

    scan = scan_cache_dir(world.cache)
    assert scan.warnings == []
    assert scan.incomplete_files == frozenset()
    (repo,) = scan.repos
    assert (repo.repo_id, repo.repo_type) == (NAME, kind)
    (found,) = repo.revisions
    assert (found.commit_hash, set(found.refs)) == (world.manifest.commit, {revision})
    assert len(found.files) == len(world.manifest.files)
    assert (world.cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_the_client_downloads_nothing_after_us(world: World, hub: Hub) -> None:
    world.fetch(world.layout())
    world.fill_with_client(hub)
    assert hub.cdn.requests == []
    assert [seen.target for seen in hub.requests if "/resolve/" in seen.target] == []


def test_the_layout_equals_the_clients(world: World, hub: Hub, tmp_path: Path) -> None:
    world.fetch(world.layout())
    mine = links_and_files(world.cache)
    world.cache = tmp_path / "theirs"
    world.fill_with_client(hub)
    theirs = links_and_files(world.cache)
    assert {name: what for name, what in mine.items() if "/.gpuaria/" not in name} == theirs


def links_and_files(cache: Path) -> dict[str, str]:
    """Return each name with its link or digest, without locks and the text in CACHEDIR.TAG."""
    found = {}
    for path in sorted(cache.rglob("*")):
        name = path.relative_to(cache).as_posix()
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file() and not name.startswith(".locks/") and name != "CACHEDIR.TAG":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_files_of_the_client_are_present_but_verified_only_after_hashing(world: World, hub: Hub) -> None:
    world.fill_with_client(hub)
    layout = world.layout()
    assert layout.inspect(world.manifest.files) == {
        file.path: LocalState(file.size, proven=False, named=True) for file in world.manifest.files
    }
    for file in world.manifest.files:
        assert file.digest is not None
        assert hash_bytes(layout.content_path(file).read_bytes(), file.digest.algorithm) == file.digest.hex
        layout.adopt(file)
    assert all(state.proven and state.named for state in layout.inspect(world.manifest.files).values())


def test_the_clients_tree_with_its_xet_hashes_is_kept(world: World) -> None:
    folder = world.cache / repo_folder(world.ref)
    entries = {
        file.path: TreeCacheEntry(file.size, file.oid, file.digest.hex, file.size, "0" * 64)
        if file.digest and file.lfs
        else TreeCacheEntry(file.size, file.oid)
        for file in world.manifest.files
    }
    write_tree_cache(str(folder), world.manifest.commit, entries)
    tree = folder / "trees" / f"{world.manifest.commit}.json"
    before = tree.read_text()
    assert "xet_hash" in before
    world.layout().begin(world.manifest)
    assert tree.read_text() == before
    for damage in (before.replace("README.md", "../README.md"), before.replace('"size": 8', '"size": 9'), "{", ""):
        assert damage != before
        tree.write_text(damage)
        world.layout().begin(world.manifest)
        assert "xet_hash" not in tree.read_text()
        assert set(_read_tree_cache_from_disk(str(tree)) or {}) == {file.path for file in world.manifest.files}


def test_verify_accepts_files_of_the_client(world: World, hub: Hub) -> None:
    world.fetch(world.layout())
    result = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), "cache", "verify", NAME, "--cache-dir", str(world.cache)],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_client_reports_a_partial_snapshot_as_incomplete(world: World) -> None:
    world.fetch(world.layout(), {"config.json"})
    with pytest.raises(IncompleteSnapshotError):
        world.offline()
    path = snapshot_download(NAME, cache_dir=world.cache, local_files_only=True, allow_patterns="config.json")
    assert Path(path, "config.json").read_bytes() == b"{}"


def test_the_ref_moves_only_to_a_complete_snapshot(world: World) -> None:
    world.fetch(world.layout())
    before = world.manifest.commit
    world.repo.update({"config.json": b"{1}"})
    world.manifest = manifest_of(world.repo, world.ref)
    world.fetch(world.layout(), {"README.md"}, complete=False)
    assert world.offline().name == before
    ref = world.cache / repo_folder(world.ref) / "refs" / "main"
    assert ref.read_text() == before
    world.layout().finish(world.manifest, True)
    assert ref.read_text() == world.manifest.commit


def test_a_commit_has_no_ref(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ref = RepoRef("hf", "model", NAME, world.manifest.commit)
    world.manifest = manifest_of(world.repo, world.ref)
    world.fetch(world.layout())
    assert not (world.cache / repo_folder(world.ref) / "refs").exists()
    assert world.offline() == world.layout().root


def test_a_revision_cannot_escape_from_refs(world: World) -> None:
    world.fetch(world.layout())
    bad = Manifest(RepoRef("hf", "model", NAME, "../../../../gotcha"), NAME, world.manifest.commit, "h", "origin", ())
    with pytest.raises(UnsafePath):
        world.layout().finish(bad, True)


def test_without_links_the_snapshot_holds_the_bytes(world: World) -> None:
    layout = world.layout(symlinks=False)
    world.fetch(layout)
    assert world.offline() == layout.root
    assert not any(path.is_symlink() for path in layout.root.rglob("*"))
    assert all(state.proven and state.named for state in layout.inspect(world.manifest.files).values())
    # a run that may use links accepts the real files as they are
    later = world.layout(symlinks=True)
    assert later.inspect(world.manifest.files) == layout.inspect(world.manifest.files)
    later.adopt(world.file("config.json"))
    assert later.content_path(world.file("config.json")).parent == layout.root


def test_a_blob_is_moved_into_the_snapshot_once_links_are_disabled(world: World) -> None:
    world.fetch(world.layout())
    file = world.file("model.safetensors")
    entry = file.path.under(world.layout().root)
    entry.unlink()
    layout = world.layout(symlinks=False)
    layout.adopt(file)
    assert not entry.is_symlink()
    assert entry.read_bytes() == FILES[file.path]


@pytest.mark.parametrize("target", ["../../blobs/nothing", "/etc/passwd", "config.json"])
def test_a_wrong_or_dangling_link_is_replaced(world: World, target: str) -> None:
    world.fetch(world.layout())
    file = world.file("model.safetensors")
    entry = file.path.under(world.layout().root)
    entry.unlink()
    entry.symlink_to(target)
    layout = world.layout()
    assert layout.inspect([file])[file.path] == LocalState(file.size, proven=True, named=False)
    layout.adopt(file)
    assert entry.read_bytes() == FILES[file.path]
    assert layout.inspect([file])[file.path].named


def test_an_absolute_link_to_the_right_blob_is_accepted(world: World) -> None:
    world.fetch(world.layout())
    file = world.file("model.safetensors")
    entry = file.path.under(world.layout().root)
    entry.unlink()
    entry.symlink_to(world.layout().content_path(file))
    assert world.layout().inspect([file])[file.path].named


def test_a_blob_in_the_clients_shared_store_is_read_and_replaced_as_a_link(world: World) -> None:
    world.fetch(world.layout())
    file = world.file("model.safetensors")
    layout = world.layout()
    blob, stored = layout.content_path(file), world.cache / "blobs" / "ab" / "abcd"
    stored.parent.mkdir(parents=True)
    os.rename(blob, stored)
    blob.symlink_to(os.path.relpath(stored, blob.parent))
    assert layout.inspect([file])[file.path].size == file.size
    layout.adopt(file)
    assert layout.inspect([file])[file.path] == LocalState(file.size, proven=True, named=True)
    stored.write_bytes(b"changed")
    assert not layout.inspect([file])[file.path].proven
    layout.begin(world.manifest)
    layout.publish(file, stage(layout, file, FILES[file.path]))
    assert not blob.is_symlink()
    assert stored.read_bytes() == b"changed"


def test_a_blob_of_another_repo_is_copied_and_verified(world: World, tmp_path: Path) -> None:
    file, layout = world.file("model.safetensors"), world.layout()
    layout.begin(world.manifest)
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(FILES[file.path])
    bad.write_bytes(FILES[file.path][:-1] + b"x")
    with pytest.raises(WrongBytes):
        layout.adopt(file, bad)
    assert layout.inspect([file])[file.path] == LocalState()
    layout.adopt(file, good)
    assert layout.inspect([file])[file.path] == LocalState(file.size, proven=True, named=True)
    assert good.stat().st_nlink == 1
    assert [p for p in layout.staging.iterdir() if p.name != "manifests"] == []


def test_parallel_commits(tmp_path: Path) -> None:
    world = World(tmp_path)
    many = {f"d{n % 7}/f{n}": b"%d" % n for n in range(300)}
    world.repo.commit(many)
    world.manifest = manifest_of(world.repo, world.ref)
    layout = world.layout()
    layout.begin(world.manifest)

    def work(file: RemoteFile) -> None:
        layout.publish(file, stage(layout, file, many[file.path]))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, world.manifest.files))
    layout.finish(world.manifest, True)
    assert {path: (layout.root / path).read_bytes() for path in many} == many
    assert all(
        state == LocalState(len(many[p]), True, True) for p, state in layout.inspect(world.manifest.files).items()
    )
    assert world.offline() == layout.root


def test_two_names_of_one_content(world: World) -> None:
    layout = world.layout()
    layout.begin(world.manifest)
    one, other = world.file("config.json"), world.file("same.json")
    assert layout.staged_path(one) == layout.staged_path(other)
    layout.publish(one, stage(layout, one, b"{}"))
    assert layout.inspect([other])[other.path] == LocalState(2, proven=True, named=False)
    layout.adopt(other)
    assert (layout.root / "same.json").read_bytes() == b"{}"


def test_staged_bytes_are_counted_without_holes_and_can_be_discarded(world: World) -> None:
    layout, file = world.layout(), world.file("model.safetensors")
    layout.begin(world.manifest)
    with layout.staged_path(file).open("wb") as stream:
        stream.truncate(file.size)
        stream.seek(4096 * 2)
        stream.write(b"x" * 4096)
    for ending in (".aria2", ".aria2__temp"):
        layout.staged_path(file).with_name(layout.staged_path(file).name + ending).write_bytes(b"control")
    assert layout.inspect([file])[file.path] == LocalState(partial=4096)
    layout.discard_staged(file)
    assert [p for p in layout.staging.iterdir() if p.name != "manifests"] == []
    layout.discard_staged(file)


def test_commit_rejects_another_size(world: World) -> None:
    layout, file = world.layout(), world.file("model.safetensors")
    layout.begin(world.manifest)
    with pytest.raises(WrongBytes):
        layout.publish(file, stage(layout, file, b"short"))
    assert layout.inspect([file])[file.path].size is None


def test_planted_names_in_staging_are_removed_before_any_write(world: World, tmp_path: Path) -> None:
    layout, file = world.layout(), world.file("model.safetensors")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    layout.begin(world.manifest)
    staged = layout.staged_path(file)
    staged.symlink_to(victim)
    os.link(victim, staged.with_name(staged.name + ".aria2__temp"))
    os.mkfifo(staged.with_name("pipe"))
    assert layout.inspect([file])[file.path].partial == 0
    layout.begin(world.manifest)
    assert [p.name for p in layout.staging.iterdir()] == ["manifests"]
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_commit_rejects_a_staged_link(world: World, tmp_path: Path, make: object) -> None:
    layout, file = world.layout(), world.file("model.safetensors")
    layout.begin(world.manifest)
    other = tmp_path / "other"
    other.write_bytes(FILES[file.path])
    (os.symlink if make is os.symlink else os.link)(other, layout.staged_path(file))
    with pytest.raises(UnsafePath):
        layout.publish(file, layout.staged_path(file))


@pytest.mark.parametrize("planted", ["", "blobs", "snapshots", "refs", "trees", ".gpuaria", "snapshots/COMMIT/onnx"])
def test_nothing_is_written_through_a_planted_folder(world: World, tmp_path: Path, planted: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = world.cache / repo_folder(world.ref) / planted.replace("COMMIT", world.manifest.commit)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(UnsafePath, match="symbolic link"):
        world.fetch(world.layout())
    assert list(outside.iterdir()) == []


def test_planted_locks_are_harmless(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    world.cache.mkdir()
    (world.cache / ".locks").symlink_to(outside)
    with pytest.raises(UnsafePath):
        world.layout().lock(0)
    with pytest.raises(UnsafePath), world.layout().blob_lock(world.file("config.json")):
        pass
    assert list(outside.iterdir()) == []


def test_a_saved_manifest_is_found_from_the_snapshot_and_from_the_repo(world: World) -> None:
    world.fetch(world.layout(), {"config.json"})
    expected = sorted(world.manifest.files, key=lambda file: file.path)
    for path in (world.layout().root, world.cache / repo_folder(world.ref)):
        layout = find_layout(path, world.receipts)
        assert (layout.root, layout.ref, layout.commit_id) == (world.layout().root, world.ref, world.manifest.commit)
        manifest = read_manifest(layout)
        assert (manifest.vouched_by, list(manifest.files)) == (world.manifest.vouched_by, expected)


def test_the_clients_tree_is_used_without_a_saved_manifest(world: World, hub: Hub) -> None:
    root = world.fill_with_client(hub)
    manifest = read_manifest(find_layout(root, world.receipts))
    assert (manifest.vouched_by, manifest.trust) == ("huggingface_hub's tree cache", "first seen")
    assert set(manifest.files) == set(world.manifest.files)
    (world.cache / repo_folder(world.ref) / "trees" / f"{manifest.commit}.json").write_text("{")
    with pytest.raises(DiskError, match="there is no saved manifest"):
        read_manifest(find_layout(root, world.receipts))


CRASH = """
import os, signal, sys
from pathlib import Path
from gpuaria.storage.hf_cache import HfCache
from gpuaria.storage.receipts import Receipts
from gpuaria.formats import manifest as manifests

manifest = manifests.load(Path(sys.argv[2]).read_text())
layout = HfCache(Path(sys.argv[1]), manifest.ref, manifest.commit, Receipts(None))
layout.begin(manifest)
file = next(file for file in manifest.files if file.path == "model.safetensors")
layout.staged_path(file).write_bytes(bytes(range(256)) * 200)
# die at the moment when the link would be made
sys.addaudithook(lambda event, args: event == "os.symlink" and os.kill(os.getpid(), signal.SIGKILL))
layout.publish(file, layout.staged_path(file))
"""


def test_a_kill_between_rename_and_link_is_repaired(world: World, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifests.dump(world.manifest))
    command = [sys.executable, "-c", textwrap.dedent(CRASH), str(world.cache), str(tmp_path / "manifest.json")]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
    layout, file = world.layout(), world.file("model.safetensors")
    assert layout.inspect([file])[file.path] == LocalState(file.size, proven=False, named=False)
    layout.begin(world.manifest)
    layout.adopt(file)
    assert (layout.root / file.path).read_bytes() == FILES[file.path]
    assert [p.name for p in layout.staging.iterdir()] == ["manifests"]


def test_the_client_version_that_these_tests_assume() -> None:
    assert huggingface_hub.__version__.startswith("2."), "look at _tree_cache.py and file_download.py again"
