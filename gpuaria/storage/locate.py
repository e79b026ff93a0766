"""Find the target at a path: a folder made by --to or --local-dir, a snapshot, or a repo in a cache."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpuaria.errors import ConfigError, DiskError, GpuariaError, UnsafePath
from gpuaria.formats import manifest as manifests
from gpuaria.os_errors import explained
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, RepoRef
from gpuaria.storage import plain
from gpuaria.storage.hf_cache import HfCache
from gpuaria.storage.hf_folder import HIDDEN, SAVED, TREES, HfFolder
from gpuaria.storage.layout import Layout
from gpuaria.storage.manifests import read_saved
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.safe_dir import SafeDir

_REPO = re.compile(r"(model|dataset|space)s--(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SOURCE = "hf"
_WRITE_ONE = "Use a file written by gpuaria resolve --format manifest."


def find_layout(path: Path, receipts: Receipts) -> Layout:
    """Return the target at `path`. Raises DiskError if it is not one, UnsafePath for an unsafe saved name.

    huggingface_hub does not record the repo's name in a plain folder; `ref.name` is then the name of the folder.
    """
    path = Path(os.path.abspath(path))
    with explained(path):
        if not path.is_dir():
            raise DiskError(f"{path} is not a folder", "Give the folder that contains the file.")
        repo = path.parent.parent if path.parent.name == "snapshots" else path
        if (found := _REPO.fullmatch(repo.name)) and (repo / "snapshots").is_dir():
            commit = path.name if repo != path else _only_commit(repo)
            ref = RepoRef(_SOURCE, found[1], found[2].replace("--", "/"))
            return _in_cache(repo, ref, commit, receipts)
        return _folder_at(path, receipts)


def read_manifest(layout: Layout) -> Manifest:
    """Return the manifest to verify the target against. Raises DiskError if none was saved."""
    manifest = layout.saved_manifest()
    if manifest is None:
        raise DiskError(
            f"there is no saved manifest for {layout.root}",
            "Verify it against a lock file with --lock, or download it again: correct files are kept.",
        )
    return manifest


def read_lock(path: Path) -> Manifest:
    """Return the manifest in a lock file. Raises ConfigError."""
    try:
        return manifests.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"the lock {path} cannot be read: {why}", _WRITE_ONE) from None
    except GpuariaError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint or _WRITE_ONE) from None


def _in_cache(repo: Path, ref: RepoRef, commit: str, receipts: Receipts) -> HfCache:
    refs = {file.relative_to(repo / "refs").as_posix(): file for file in sorted((repo / "refs").rglob("*"))}
    names = [name for name, file in refs.items() if noted_commit(file) == commit]
    revision = "main" if "main" in names else names[0] if names else commit
    return HfCache(repo.parent, RepoRef(ref.source, ref.kind, ref.name, revision), commit, receipts)


def noted_commit(ref: Path) -> str:
    """Return the commit in a file below refs/, empty if it is missing or invalid."""
    try:
        text = ref.read_text(encoding="ascii").strip() if ref.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _COMMIT.fullmatch(text) else ""


def _only_commit(repo: Path) -> str:
    """Return the commit of `main`, else the only snapshot, like the client's _resolve_commit_hash_from_cache."""
    if main := noted_commit(repo / "refs" / "main"):
        return main
    snapshots = repo / "snapshots"
    commits = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir()) if snapshots.is_dir() else []
    if len(commits) == 1:
        return commits[0]
    few = ", ".join(commit[:12] for commit in commits[:3])
    raise DiskError(
        f"{repo} has {len(commits)} snapshots{f' ({few})' if few else ''} but no main",
        f"Give one of the folders in {snapshots}.",
    )


def folder_layout(path: Path, ref: RepoRef, version: str, receipts: Receipts) -> plain.PlainFolder:
    """Return the folder layout at `path` for the source of `ref`."""
    return (HfFolder if ref.source == _SOURCE else plain.PlainFolder)(path, ref, version, receipts)


def folder_name(ref: RepoRef) -> str:
    """Return the default folder name for a repo or URL: the last part of its name, without suffix for a list file."""
    path = unquote(urlsplit(ref.name).path) if "://" in ref.name else ref.name
    last = path.rstrip("/").rpartition("/")[2]
    if ref.kind in ("list", "metalink"):
        last = last.partition(".")[0] or last
    try:
        return SafePath.parse(last) if "/" not in last else "download"
    except UnsafePath:
        return "download"


def _folder_at(path: Path, receipts: Receipts) -> plain.PlainFolder:
    for layout, saved in ((plain.PlainFolder, plain.SAVED), (HfFolder, SAVED)):
        manifest = read_saved(SafeDir(path), saved)
        if manifest is not None:
            return layout(path, manifest.ref, manifest.version, receipts)
    trees = sorted(path.joinpath(*TREES).glob("*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    if not trees:
        raise DiskError(
            f"{path} was not downloaded by gpuaria or hf download: it has no {'/'.join(HIDDEN)} with the expected "
            "files",
            "Give a folder used with --to, a snapshot in a Hugging Face cache, or the repo's folder there.",
        )
    ref = RepoRef(_SOURCE, "model", path.name or "folder", trees[-1].stem)
    return HfFolder(path, ref, trees[-1].stem, receipts)
