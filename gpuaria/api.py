"""The public Python API: functions for one repo, and `Runtime` for many."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gpuaria.events import Emit
from gpuaria.fetching.request import request_for
from gpuaria.fetching.verify import Checked, verify_all
from gpuaria.records import Manifest, RepoKind, Report, Verdict
from gpuaria.runtime import FetchFailed, Runtime
from gpuaria.settings import load
from gpuaria.storage.layout import Layout
from gpuaria.storage.locate import find_layout, read_manifest
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.untracked import untracked_files

__all__ = ["Checked", "FetchFailed", "Runtime", "check", "fetch", "resolve", "verify"]


def fetch(  # noqa: PLR0913 - the flags of the command as keyword arguments
    repo: str = "",
    *,
    lock: str | Path | None = None,
    files: Sequence[str] = (),
    kind: RepoKind | None = None,
    revision: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    to: str | Path | None = None,
    force: bool = False,
    emit: Emit = lambda event: None,
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> Report:
    """Fetch a repo and give the report; `settings` are those of `gpuaria config` by name (`connections=8`).

    Of a pasted address of a folder or a file, only that. With a `lock` file the repo need not be named, and nobody is
    asked what it holds.
    Raises GpuariaError's children; FetchFailed, which has the report, when some files failed.
    """
    with _runtime(settings, emit, environ) as runtime:
        locked = runtime.lock(Path(lock), repo, kind, revision) if lock is not None else None
        ref = locked.ref if locked else runtime.ref(repo, kind, revision)
        request = request_for(ref, files, include, exclude)
        return runtime.fetch(replace(request, force=force, lock=locked), to, emit)


def resolve(
    repo: str,
    *,
    kind: RepoKind | None = None,
    revision: str = "",
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> Manifest:
    """The files of a repo, or of a pasted address's part of it, at one commit, with sizes and digests.

    Raises GpuariaError's children.
    """
    with _runtime(settings, lambda event: None, environ) as runtime:
        return runtime.resolve(request_for(runtime.ref(repo, kind, revision)))


def _runtime(named: Mapping[str, object], emit: Emit, environ: Mapping[str, str] | None) -> Runtime:
    """A runtime with settings by name over those of the environment and the files."""
    settings = load(named, os.environ if environ is None else environ, Path.cwd())
    return Runtime(settings, emit=emit)


def verify(path: str | Path, *, each: Callable[[Verdict], None] = lambda verdict: None) -> Checked:
    """Check a folder, a snapshot or a cached repo against its saved manifest, without any network.

    Raises DiskError where there is nothing to compare with.
    """
    receipts = Receipts(None)
    layout = find_layout(Path(path).expanduser(), receipts)
    return check(layout, read_manifest(layout), each)


def check(
    layout: Layout,
    manifest: Manifest,
    each: Callable[[Verdict], None] = lambda verdict: None,
    chosen: Callable[[str], bool] = lambda path: True,
) -> Checked:
    """Check what is in place for every chosen file of `manifest`, and name files that it does not know."""
    known = {str(file.path) for file in manifest.files}
    files = [file for file in manifest.files if chosen(file.path)]
    extra = filter(chosen, untracked_files(layout.root, known))
    return verify_all(files, lambda file: file.path.under(layout.root), extra, each)
