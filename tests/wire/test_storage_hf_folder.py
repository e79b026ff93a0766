"""The folder of `hf download --local-dir`: the client downloads nothing more, and no file outside is written."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub._local_folder import read_download_metadata
from huggingface_hub.errors import IncompleteSnapshotError
from huggingface_hub.utils._verification import collect_local_files
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuaria.errors import DiskError, UnsafePath, WrongBytes
from gpuaria.hashing import hash_bytes
from gpuaria.paths import SafePath
from gpuaria.records import Digest, LocalState, Manifest, RemoteFile, RepoRef
from gpuaria.storage.hf_folder import HfFolder as Folder
from gpuaria.storage.locate import find_layout, read_manifest
from gpuaria.storage.receipts import Receipts
from standin import Hub, Repo

NAME = "some-org/some-model"
REF = RepoRef("hf", "model", NAME)
FILES: dict[str, bytes] = {
    "README.md": b"# hello\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "same.json": b"{}",
    "model.safetensors": bytes(range(256)) * 200,
    "onnx/deep er/wéights 模型.bin": b"weights" * 999,
}


class World:
    """A repo of the stand-in, and a folder that does not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.repo = Repo.build(NAME, FILES, folder=folder / "store")
        self.target = folder / "my models" / "it"
        self.cache = folder / "hub"
        self.receipts = Receipts(folder / "receipts.sqlite")
        self.update()

    def update(self) -> None:
        commit = self.repo.commits[self.repo.head]
        self.manifest = Manifest(
            REF,
            NAME,
            commit.oid,
            "http://hub",
            "origin",
            tuple(
                RemoteFile(
                    SafePath.parse(entry.path),
                    entry.size,
                    Digest("sha256", entry.sha256) if entry.sha256 else Digest("git-sha1", entry.oid),
                    entry.oid,
                )
                for entry in commit.files.values()
            ),
        )

    def layout(self) -> Folder:
        return Folder(self.target, REF, self.manifest.commit, self.receipts)

    def file(self, path: str) -> RemoteFile:
        return next(file for file in self.manifest.files if file.path == path)

    def fetch(self, paths: set[str] | None = None) -> Folder:
        layout = self.layout()
        layout.begin(self.manifest)
        for file in self.manifest.files:
            if paths is None or file.path in paths:
                layout.staged_path(file).write_bytes(FILES[file.path])
                layout.publish(file, layout.staged_path(file))
        layout.finish(self.manifest, paths is None)
        return layout

    def client(self, hub: Hub) -> None:
        snapshot_download(NAME, cache_dir=self.cache, local_dir=self.target, endpoint=hub.url, token=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def hub(world: World) -> Iterator[Hub]:
    with Hub([world.repo], server="embedded") as hub:
        yield hub


def test_the_client_downloads_nothing_after_us(world: World, hub: Hub) -> None:
    layout = world.fetch()
    before = {path: path.stat().st_mtime_ns for path in world.target.rglob("*") if path.is_file()}
    world.client(hub)
    assert [seen.target for seen in hub.requests if "/resolve/" in seen.target or "/tree/" in seen.target] == []
    assert hub.cdn.requests == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for file in world.manifest.files:
        known = read_download_metadata(world.target, file.path)
        assert known is not None
        assert (known.commit_hash, known.etag) == (world.manifest.commit, file.digest and file.digest.hex)
        assert layout.content_path(file).read_bytes() == FILES[file.path]
    assert set(collect_local_files(world.target)) == set(FILES)
    assert not layout.staging.exists()
    assert (world.target / ".cache/huggingface/.gitignore").read_text() == "*"
    tree = get_cached_repo_tree(NAME, revision=world.manifest.commit, local_dir=world.target, cache_dir=world.cache)
    assert {file.path for file in tree} == set(FILES)


def test_the_client_reports_a_partial_folder_as_incomplete(world: World) -> None:
    world.fetch({"config.json"})
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download(NAME, revision=world.manifest.commit, local_dir=world.target, local_files_only=True)


def test_files_of_the_client_are_published_but_verified_only_after_hashing(world: World, hub: Hub) -> None:
    world.client(hub)
    layout = world.layout()
    for file in world.manifest.files:
        assert layout.inspect([file])[file.path] == LocalState(file.size, proven=False, named=True)
        assert file.digest is not None
        assert hash_bytes(layout.content_path(file).read_bytes(), file.digest.algorithm) == file.digest.hex
        layout.adopt(file)
    assert all(state.proven and state.named for state in layout.inspect(world.manifest.files).values())


def test_an_unchanged_file_of_the_next_commit_only_needs_new_metadata(world: World, hub: Hub) -> None:
    world.fetch()
    world.repo.update({"config.json": b'{"new": 1}'})
    world.update()
    layout = world.layout()
    seen = layout.inspect(world.manifest.files)
    kept = [file for file in world.manifest.files if seen[file.path].proven]
    assert {file.path for file in kept} == set(FILES) - {"config.json"}
    assert not any(state.named for state in seen.values())
    layout.begin(world.manifest)
    for file in kept:
        layout.adopt(file)
    new = world.file("config.json")
    layout.staged_path(new).write_bytes(b'{"new": 1}')
    layout.publish(new, layout.staged_path(new))
    layout.finish(world.manifest, True)
    world.client(hub)
    assert [seen.target for seen in hub.requests if "/resolve/" in seen.target] == []


def test_a_user_file_is_replaced_whole_and_never_written_to(world: World) -> None:
    world.target.mkdir(parents=True)
    mine, backup = world.target / "config.json", world.target / "backup"
    mine.write_text("my own words")
    os.link(mine, backup)
    layout, file = world.layout(), world.file("config.json")
    assert layout.inspect([file])[file.path] == LocalState(12, proven=False, named=False)
    layout.begin(world.manifest)
    assert mine.read_text() == "my own words"
    layout.staged_path(file).write_bytes(b"{}")
    layout.publish(file, layout.staged_path(file))
    assert (mine.read_text(), backup.read_text()) == ("{}", "my own words")


def test_adopt_requires_the_declared_size(world: World) -> None:
    world.target.mkdir(parents=True)
    (world.target / "config.json").write_text("my own words")
    layout = world.layout()
    layout.begin(world.manifest)
    for path in ("config.json", "README.md"):
        with pytest.raises(WrongBytes):
            layout.adopt(world.file(path))


def test_a_user_link_is_replaced_and_its_target_is_not(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    world.target.mkdir(parents=True)
    (world.target / "config.json").symlink_to(outside)
    world.fetch()
    assert outside.read_text() == "precious"
    assert (world.target / "config.json").read_text() == "{}"


PLANTED = ["onnx", "onnx/deep er", ".cache", ".cache/huggingface", ".cache/huggingface/gpuaria"]
PLANTED += [".cache/huggingface/download", ".cache/huggingface/download/onnx", ".cache/huggingface/trees"]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_nothing_is_written_through_a_planted_folder(world: World, tmp_path: Path, planted: str, where: str) -> None:
    outside = (world.target if where == "inside" else tmp_path) / "elsewhere"
    outside.mkdir(parents=True)
    link = world.target / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(UnsafePath, match="symbolic link") as caught:
        world.fetch()
    assert str(link) in caught.value.message
    assert list(outside.iterdir()) == []
    if planted.startswith("onnx"):  # detected before the download
        with pytest.raises(UnsafePath):
            world.layout().inspect(world.manifest.files)
        assert world.layout().inspect([world.file("config.json")])[SafePath("config.json")].size == 2


def test_the_target_itself_may_be_a_link(world: World, tmp_path: Path) -> None:
    real = tmp_path / "big disk"
    real.mkdir()
    world.target.parent.mkdir()
    world.target.symlink_to(real)
    world.fetch()
    assert (real / "onnx/deep er/wéights 模型.bin").read_bytes() == FILES["onnx/deep er/wéights 模型.bin"]


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(world: World) -> None:
    world.target.mkdir(parents=True)
    (world.target / "onnx").write_text("a file")
    with pytest.raises(DiskError, match="a file, but a folder is needed"):
        world.layout().inspect(world.manifest.files)
    (world.target / "onnx").unlink()
    (world.target / "config.json" / "sub").mkdir(parents=True)
    assert world.layout().inspect(world.manifest.files)[SafePath("config.json")].size is None
    with pytest.raises(DiskError, match="is a folder, but a file is needed"):
        world.fetch()


def test_files_get_the_mode_of_a_new_file(world: World) -> None:
    layout, file = world.layout(), world.file("config.json")
    layout.begin(world.manifest)
    os.close(os.open(layout.staged_path(file), os.O_CREAT | os.O_WRONLY, 0o600))
    layout.staged_path(file).write_bytes(b"{}")
    layout.publish(file, layout.staged_path(file))
    plain = world.target / "plain"
    plain.touch()
    assert stat.S_IMODE(layout.content_path(file).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_local_clock_behind_the_file_server(world: World, hub: Hub) -> None:
    layout = world.layout()
    layout.begin(world.manifest)
    for file in world.manifest.files:
        layout.staged_path(file).write_bytes(FILES[file.path])
        os.utime(layout.staged_path(file), (4e9, 4e9))
        layout.publish(file, layout.staged_path(file))
    layout.finish(world.manifest, True)
    world.client(hub)
    assert [seen.target for seen in hub.requests if "/resolve/" in seen.target] == []


def test_a_copy_of_another_file(world: World, tmp_path: Path) -> None:
    layout, file, other = world.layout(), world.file("same.json"), world.file("config.json")
    layout.begin(world.manifest)
    layout.staged_path(other).write_bytes(b"{}")
    layout.publish(other, layout.staged_path(other))
    layout.adopt(file, layout.content_path(other))
    layout.adopt(file, layout.content_path(file))
    assert layout.content_path(file).stat().st_ino != layout.content_path(other).stat().st_ino
    assert layout.inspect([file])[file.path] == LocalState(2, proven=True, named=True)
    with pytest.raises(DiskError, match="does not exist"):
        layout.adopt(world.file("README.md"), tmp_path / "nowhere")


def test_parallel_commits(world: World) -> None:
    many = {f"d{n % 7}/f{n}": b"%d" % n for n in range(300)}
    world.repo.commit(many)
    world.update()
    layout = world.layout()
    layout.begin(world.manifest)

    def work(file: RemoteFile) -> None:
        layout.staged_path(file).write_bytes(many[file.path])
        layout.publish(file, layout.staged_path(file))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, world.manifest.files))
    layout.finish(world.manifest, True)
    assert all(
        state == LocalState(len(many[p]), True, True) for p, state in layout.inspect(world.manifest.files).items()
    )
    assert set(collect_local_files(world.target)) == set(many)


def test_the_longest_names(world: World) -> None:
    path = "d" * 255 + "/" + "n" * 255
    data = b"long"
    file = RemoteFile(SafePath.parse(path), 4, Digest("sha256", hash_bytes(data, "sha256")), "")
    layout = world.layout()
    layout.begin(world.manifest)
    layout.staged_path(file).write_bytes(data)
    layout.publish(file, layout.staged_path(file))  # its metadata would have a name of 264 bytes
    assert layout.content_path(file).read_bytes() == data
    assert layout.inspect([file])[file.path] == LocalState(4, proven=True, named=False)


def test_the_saved_manifest_and_the_clients_tree(world: World, hub: Hub, tmp_path: Path) -> None:
    world.fetch({"config.json"})
    layout = find_layout(world.target, world.receipts)
    assert (layout.ref, layout.commit_id, layout.root) == (REF, world.manifest.commit, world.target)
    assert set(read_manifest(layout).files) == set(world.manifest.files)
    (world.target / ".cache/huggingface/gpuaria-manifest.json").write_text("{broken")
    layout = find_layout(world.target, world.receipts)
    manifest = read_manifest(layout)
    assert (manifest.vouched_by, manifest.trust, manifest.name) == ("huggingface_hub's tree cache", "first seen", "it")
    assert set(manifest.files) == set(world.manifest.files)
    with pytest.raises(DiskError, match="not downloaded by gpuaria or hf download"):
        find_layout(tmp_path, world.receipts)
    with pytest.raises(DiskError, match="is not a folder"):
        find_layout(tmp_path / "nowhere", world.receipts)


PART = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(st.lists(PART, min_size=1, max_size=4))
def test_any_safe_name_ends_up_below_the_folder(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    try:
        path = SafePath.parse("/".join(parts))
    except UnsafePath:
        return
    root = tmp_path_factory.mktemp("root")
    data = path.encode()
    file = RemoteFile(path, len(data), Digest("sha256", hash_bytes(data, "sha256")), "")
    manifest = Manifest(REF, NAME, "0" * 40, "http://hub", "origin", (file,))
    layout = Folder(root / "target", REF, "0" * 40, Receipts(None))
    layout.begin(manifest)
    layout.staged_path(file).write_bytes(data)
    layout.publish(file, layout.staged_path(file))
    layout.finish(manifest, True)
    assert (root / "target").joinpath(*parts).read_bytes() == data
    assert os.listdir(root) == ["target"]
    assert layout.inspect([file])[path] == LocalState(len(data), proven=True, named=True)
