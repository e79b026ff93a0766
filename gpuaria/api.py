"""The public Python API: functions for one repo, and `Runtime` for many."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gpuaria.events import Emit
from gpuaria.fetching.request import request_for
from gpuaria.fetching.verify import Checked, verify_all
from gpuaria.records import Manifest, RepoKind, Report, Verdict
from gpuaria.runtime import FetchFailed, Runtime
from gpuaria.settings import check_keywords, load
from gpuaria.storage.layout import Layout
from gpuaria.storage.locate import find_layout, read_manifest
from gpuaria.storage.untracked import untracked_files

__all__ = ["Checked", "FetchFailed", "Runtime", "check", "fetch", "resolve", "verify"]


def fetch(  # noqa: PLR0913 - the flags of the command as keyword arguments
    repo: str = "",
    *,
    lock: str | Path | None = None,
    files: str | Sequence[str] = (),
    kind: RepoKind | None = None,
    revision: str = "",
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    to: str | Path | None = None,
    force: bool = False,
    emit: Emit = lambda event: None,
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> Report:
    """Fetch a repo and return the report; `settings` are those of `gpuaria config` by name (`connections=8`).

    The URL of a folder or file selects only that. With a `lock` file, `repo` may be empty and no listing is requested.
    Raises subclasses of GpuariaError; FetchFailed, which has the report, if some files failed.
    """
    with _runtime(settings, emit, environ, fetch) as runtime:
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
    """Return the files of a repo, or of the part that a URL selects, at one commit, with sizes and digests.

    Raises subclasses of GpuariaError.
    """
    with _runtime(settings, lambda event: None, environ, resolve) as runtime:
        return runtime.resolve(request_for(runtime.ref(repo, kind, revision)))


def _runtime(
    named: Mapping[str, object], emit: Emit, environ: Mapping[str, str] | None, called: Callable[..., object]
) -> Runtime:
    """Return a runtime with settings by name over those of the environment and the files.

    Raises TypeError for a name that is neither a setting nor a parameter of the function that was `called`.
    """
    check_keywords(named, inspect.signature(called).parameters)
    settings = load(named, os.environ if environ is None else environ, Path.cwd())
    return Runtime(settings, emit=emit)


def verify(path: str | Path, *, each: Callable[[Verdict], None] = lambda verdict: None) -> Checked:
    """Check a folder, a snapshot or a cached repo against its saved manifest, without network.

    Raises DiskError if there is no saved manifest.
    """
    with _runtime({"offline": True}, lambda event: None, None, verify) as runtime:
        layout = find_layout(Path(path).expanduser(), runtime.receipts)
        return check(layout, read_manifest(layout), each)


def check(
    layout: Layout,
    manifest: Manifest,
    each: Callable[[Verdict], None] = lambda verdict: None,
    chosen: Callable[[str], bool] = lambda path: True,
) -> Checked:
    """Check every chosen file of `manifest` on disk, and report files that it does not list.

    The receipt of a file with wrong bytes is deleted, so that the next fetch does not rely on it.
    """
    known = {str(file.path) for file in manifest.files}
    files = [file for file in manifest.files if chosen(file.path)]
    extra = filter(chosen, untracked_files(layout.root, known))
    found = verify_all(files, lambda file: file.path.under(layout.root), extra, each)
    wrong = {verdict.path for verdict in found.verdicts if verdict.outcome in ("wrong size", "wrong digest")}
    for file in files:
        if file.path in wrong:
            layout.revoke_receipt(file)
    return found
