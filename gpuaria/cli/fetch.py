"""`gpuaria fetch`."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from gpuaria.api import Session, request_for
from gpuaria.cli import words as text
from gpuaria.cli.app import settings_from
from gpuaria.cli.render import Json, choose
from gpuaria.errors import UsageError
from gpuaria.fetching import fetch
from gpuaria.records import DownloadPlan, Kind, Report, to_json


def command(
    words: Sequence[str],
    repo: str,
    kind: str,
    revision: str,
    include: Sequence[str],
    exclude: Sequence[str],
    flags: dict[str, Any],
    *,
    lock: str | None,
    to: str | None,
    force: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    stop: threading.Event,
) -> int:
    """Fetch and print the path; the exit status is the report's."""
    name, files = (repo, list(words)) if lock is not None else split(words, repo)
    if to is not None and flags["cache_dir"] is not None:
        raise UsageError("--to and --cache-dir are two different places", "Leave one of them out.")
    if to == "":
        raise UsageError("--to is empty", "Name a folder, or leave it out for the Hugging Face cache.")
    settings = settings_from(flags)
    sink = choose(quiet=quiet or dry_run, as_json=as_json)
    try:
        with Session(settings, to=Path(to).expanduser() if to else None, emit=sink, stop=stop) as session:
            locked = session.lock(Path(lock), name, known_kind(kind), revision) if lock is not None else None
            ref = locked.ref if locked else session.ref(name, known_kind(kind), revision)
            request = request_for(
                ref,
                files,
                patterns(include),
                patterns(exclude),
                force=force,
                dry_run=dry_run,
                offline=settings.offline,
                lock=locked,
            )
            report, plan = fetch(request, session.world, session.limits(force=force))
    finally:
        sink.close()
    if dry_run and as_json:
        Json(sys.stdout).write("plan", plan_fields(plan, report))
    elif dry_run:
        print(show(plan))
    elif not as_json and report.exit_code == 0:
        print(report.path)
    return report.exit_code


def split(words: Sequence[str], repo: str) -> tuple[str, list[str]]:
    """The repo and the files: with --repo every word is a file, otherwise the first one is the repo."""
    if repo:
        return repo, list(words)
    if not words:
        raise UsageError("no repo is named", "gpuaria fetch gpt2-medium, or --repo gpt2-medium.")
    return words[0], list(words[1:])


def patterns(given: Sequence[str]) -> list[str]:
    """`"*.json *.bin"` as two patterns; words with spaces stay one where a part of them could be part of a name."""
    found: list[str] = []
    for words in given:
        parts = words.split()
        several = len(parts) > 1 and all(part.endswith("/") or set(part) & set("*?[") for part in parts)
        found += parts if several else [words]
    return found


def known_kind(kind: str) -> Kind | None:
    """--type's value, also in the plural. Raises UsageError."""
    singular = kind.removesuffix("s")
    if not kind:
        return None
    if singular not in ("model", "dataset", "space"):
        raise UsageError(f"--type {kind} is unknown", "It is model, dataset or space.")
    return cast(Kind, singular)


def plan_fields(plan: DownloadPlan, report: Report) -> dict[str, Any]:
    """The plan as the one JSON object of a dry run. `mirrors`: who would serve the bytes, empty where none are due."""
    mirrors = dict.fromkeys(name for step in plan.steps for name in step.mirrors)
    return {
        "ref": report.ref,
        "commit": report.commit,
        "path": report.path,
        "vouched_by": report.vouched_by,
        "trust": report.trust,
        "mirrors": list(mirrors),
        **to_json(plan),
        "exit_code": report.exit_code,
    }


def show(plan: DownloadPlan) -> str:
    """The plan for people: no times, no random names, the same for the same state."""
    rows = [("action", "size", "file", "by", "from", "reason")]
    for step in plan.steps:
        by = f"{step.carrier} x{step.connections}" if step.fetches else ""
        rows.append((step.action, text.size(step.file.size), step.file.path, by, ", ".join(step.mirrors), step.reason))
    return f"{text.table(rows)}\nto fetch {text.size(plan.fetch_bytes)}, already here {text.size(plan.reuse_bytes)}"
