"""`gpuaria verify`."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuaria.api import Session, check, request_for
from gpuaria.cli.app import settings_from
from gpuaria.cli.fetch import known_kind
from gpuaria.cli.render import Json, pickles
from gpuaria.errors import DiskError, NotFound, SomeFilesFailed, WrongBytes
from gpuaria.fetching.verify import Checked
from gpuaria.records import Manifest, Verdict, to_json
from gpuaria.storage.layout import Layout
from gpuaria.storage.locate import find_layout, read_lock, read_manifest
from gpuaria.storage.plain import Folder
from gpuaria.text import printable


def command(
    target: str,
    kind: str,
    revision: str,
    lock: str | None,
    flags: dict[str, Any],
    *,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """List what is not as the manifest says; status 4 for wrong bytes, 3 for missing files."""
    with Session(settings_from({**flags, "offline": True}), stop=threading.Event()) as session:
        given = read_lock(Path(lock).expanduser()) if lock else None
        layout, part = _layout(target, kind, revision, session, given)
        expected = given or read_manifest(layout)
        request = request_for(replace(expected.ref, path=part))
        request.selected(expected)  # raises where the address is of nothing in there
        found = check(layout, expected, _ignore if quiet or as_json else _told, request.chosen())
    if not quiet and not as_json:
        for verdict in found.verdicts:
            if verdict.outcome == "extra":  # known only after all others, which were told one by one
                _told(verdict)
    counts = found.count()
    status = _status(counts, strict)
    if as_json:
        told = {"path": str(layout.root), "verdicts": counts, "problems": _problems(found)}
        files = {"pickles": len(found.pickles), "pickle_files": to_json(found.pickles)}
        Json(sys.stdout).write("report", {**told, **files, "exit_code": status})
    else:
        summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{layout.root}: {summary or 'no files'} (against {expected.vouched_by}, {expected.trust})")
        for line in pickles(len(found.pickles), found.pickles):
            print(line)
    return status


def _layout(target: str, kind: str, revision: str, session: Session, given: Manifest | None) -> tuple[Layout, str]:
    """A folder that is there, which with a manifest may be anybody's, or else a repo in the cache.

    And the part of it that a pasted address is of, as RepoRef has it.
    """
    path = Path(target).expanduser()
    if path.exists():
        try:
            return find_layout(path, session.receipts), ""
        except DiskError:
            if given is None or not path.is_dir():
                raise
            return Folder(path, given.ref, given.commit, session.receipts), ""
    if target.startswith(("/", ".", "~")):
        raise NotFound(f"there is no folder {target}", "Name a folder that was fetched, or a repo in the cache.")
    ref = session.ref(target, known_kind(kind), revision)
    try:
        return session.layout(ref, session.world.local_commit(ref)), ref.path
    except NotFound as error:
        raise NotFound(error.message, f"Fetch it first: gpuaria fetch {ref}") from None


def _told(verdict: Verdict) -> None:
    if verdict.outcome != "ok":
        print(f"{verdict.outcome}: {printable(verdict.path)}{f': {verdict.detail}' if verdict.detail else ''}")
    elif sys.stderr.isatty():
        print(f"ok: {verdict.path}", file=sys.stderr)


def _ignore(verdict: Verdict) -> None:
    """Say nothing."""


def _problems(found: Checked) -> Any:
    return to_json([verdict for verdict in found.verdicts if verdict.outcome != "ok"])


def _status(counts: dict[str, int], strict: bool) -> int:
    if counts.get("wrong size") or counts.get("wrong digest"):
        return WrongBytes.exit_code
    bad = ("missing", "failed", "unverifiable") if strict else ("missing", "failed")
    return SomeFilesFailed.exit_code if any(counts.get(outcome) for outcome in bad) else 0
