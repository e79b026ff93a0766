"""`gpuaria verify`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.cli.arguments import known_kind
from gpuaria.errors import DiskError, NotFound, SomeFilesFailed, WrongBytes
from gpuaria.text import printable

if TYPE_CHECKING:
    from gpuaria.records import Manifest, Verdict
    from gpuaria.runtime import Runtime
    from gpuaria.storage.layout import Layout


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="PATH|REPO", help="A folder, or a repo in the Hugging Face cache.")],
    kind: options.KindOption = "",
    revision: options.RevisionOption = "",
    lock: Annotated[str | None, typer.Option("--lock", help="Compare with this lock file.", metavar="FILE")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail also for files without a digest.")] = False,
    cache_dir: options.CacheDirOption = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    as_json: options.JsonOption = False,
) -> int:
    """Check local files against their manifest, offline."""
    from gpuaria.api import check
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.cli.output.lines import pickles
    from gpuaria.fetching import request_for
    from gpuaria.records import to_json
    from gpuaria.runtime import Runtime
    from gpuaria.storage.locate import read_lock, read_manifest

    silent = quiet or as_json
    with Runtime(options.settings_from(cache_dir=cache_dir, offline=True)) as runtime:
        locked = read_lock(Path(lock).expanduser()) if lock else None
        layout, subpath = _layout(runtime, target, kind, revision, locked)
        expected = locked or read_manifest(layout)
        request = request_for(replace(expected.ref, path=subpath))
        request.selected(expected)  # raises NotFound if the URL's path selects nothing
        found = check(layout, expected, _ignore if silent else _print_verdict, request.chosen())
    if not silent:
        for verdict in found.verdicts:
            if verdict.outcome == "extra":  # listed after all other files, which are printed as they are checked
                _print_verdict(verdict)
    counts = found.count()
    status = _status(counts, strict)
    if as_json:
        problems = to_json([verdict for verdict in found.verdicts if verdict.outcome != "ok"])
        files = {"pickles": len(found.pickles), "pickle_files": to_json(found.pickles)}
        weak = to_json([verdict for verdict in found.verdicts if verdict.outcome == "ok" and verdict.detail])
        files |= {"weak": weak} if weak else {}
        fields = {"path": str(layout.root), "verdicts": counts, "problems": problems, **files}
        print_json("report", {**fields, "exit_code": status})
    else:
        summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{layout.root}: {summary or 'no files'}; checksums from {expected.vouched_by} ({expected.trust})")
        weak = [verdict for verdict in found.verdicts if verdict.outcome == "ok" and verdict.detail]
        if weak:
            print(f"{len(weak)} of them: {weak[0].detail.rpartition('; ')[2]}")
        for line in pickles(len(found.pickles), found.pickles):
            print(line)
    return status


def _layout(
    runtime: "Runtime", target: str, kind: str, revision: str, locked: "Manifest | None"
) -> "tuple[Layout, str]":
    """Return the layout of a folder or of a repo in the cache, and the path inside it that a pasted URL selects.

    With a lock file, any existing folder is accepted.
    """
    from gpuaria.storage.locate import find_layout, folder_layout

    path = Path(target).expanduser()
    if path.exists():
        try:
            return find_layout(path, runtime.receipts), ""
        except DiskError:
            if locked is None or not path.is_dir():
                raise
            return folder_layout(path, locked.ref, locked.version, runtime.receipts), ""
    if target.startswith(("/", ".", "~")):
        raise NotFound(
            f"there is no folder {target}", "Give a folder that gpuaria downloaded to, or a repo in the cache."
        )
    ref = runtime.ref(target, known_kind(kind), revision)
    try:
        place = runtime.target(None, ref)
        return place.layout(ref, place.resolved_commit(ref)), ref.path
    except NotFound as error:
        raise NotFound(error.message, f"Download it first: gpuaria fetch {ref}") from None


def _print_verdict(verdict: "Verdict") -> None:
    """Print a problem on stdout; print an ok file on stderr, if that is a terminal."""
    if verdict.outcome != "ok":
        print(f"{verdict.outcome}: {printable(verdict.path)}{f': {verdict.detail}' if verdict.detail else ''}")
    elif sys.stderr.isatty():
        print(f"ok: {verdict.path}", file=sys.stderr)


def _ignore(verdict: "Verdict") -> None:
    """Print nothing, for --quiet and --json."""


def _status(counts: dict[str, int], strict: bool) -> int:
    """Return 4 for wrong bytes, 3 for missing files (with `strict` also for unverifiable ones), else 0."""
    if counts.get("wrong size") or counts.get("wrong digest"):
        return WrongBytes.exit_code
    bad = ("missing", "failed", "unverifiable") if strict else ("missing", "failed")
    return SomeFilesFailed.exit_code if any(counts.get(outcome) for outcome in bad) else 0
