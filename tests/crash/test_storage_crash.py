"""SIGKILL at each step that changes a file system, then a second run: no wrong byte is published, and all files are."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from gpuaria.hashing import hash_bytes
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef
from gpuaria.storage.hf_cache import HfCache
from gpuaria.storage.hf_folder import HfFolder as Folder
from gpuaria.storage.layout import Layout
from gpuaria.storage.receipts import Receipts
from tests.support.kill import killed_at

COMMIT, OLD = "c" * 40, b"what was there before"
FILES = {"config.json": b"{}", "sub/model.bin": b"weights" * 1000}


def make_manifest() -> Manifest:
    files = [
        RemoteFile(SafePath.parse(path), len(data), Digest("git-sha1", oid), oid)
        for path, data in FILES.items()
        for oid in (hash_bytes(data, "git-sha1"),)
    ]
    return Manifest(RepoRef("hf", "model", "a/b"), "a/b", COMMIT, "http://hub", "origin", tuple(files))


MANIFEST = make_manifest()


def cache(folder: Path) -> Layout:
    return HfCache(folder / "hub", MANIFEST.ref, COMMIT, Receipts(folder / "receipts.sqlite"))


def plain(folder: Path) -> Layout:
    (folder / "to").mkdir(exist_ok=True)
    if not (folder / "to" / "config.json").exists():
        (folder / "to" / "config.json").write_bytes(OLD)
    return Folder(folder / "to", MANIFEST.ref, COMMIT, Receipts(folder / "receipts.sqlite"))


def run(layout: Layout) -> None:
    """Fetch with bytes from memory."""
    layout.begin(MANIFEST)
    seen = layout.inspect(MANIFEST.files)
    for file in MANIFEST.files:
        state = seen[file.path]
        if state.size == file.size and (state.proven or layout.content_path(file).read_bytes() == FILES[file.path]):
            layout.adopt(file)
        else:
            layout.staged_path(file).write_bytes(FILES[file.path])
            layout.publish(file, layout.staged_path(file))
    layout.finish(MANIFEST, True)


@pytest.mark.parametrize("make", [cache, plain])
@pytest.mark.fault("killed (kill -9): gpuaria, aria2c or both, at any moment")
def test_killed_at_any_step(tmp_path: Path, make: Callable[[Path], Layout]) -> None:
    step, killed = 0, True
    while killed:
        folder = tmp_path / str(step)
        folder.mkdir()
        make(folder)
        killed = killed_at(step, partial(lambda place: run(make(place)), folder))
        layout = make(folder)
        for path, data in FILES.items():
            name = layout.root / path
            assert not name.exists() or name.read_bytes() in (data, OLD)
        for file, state in layout.inspect(MANIFEST.files).items():
            assert not state.proven or state.size == len(FILES[file])
        run(layout)
        assert {path: (layout.root / path).read_bytes() for path in FILES} == FILES
        assert [p.name for p in layout.root.parent.rglob("tmp-*")] == []
        assert all(state.proven and state.named for state in make(folder).inspect(MANIFEST.files).values())
        if make is cache:
            assert scan_cache_dir(folder / "hub").warnings == []
            assert snapshot_download("a/b", cache_dir=folder / "hub", local_files_only=True) == str(layout.root)
        step += 1
    assert step > 40
