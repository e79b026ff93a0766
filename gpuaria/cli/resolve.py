"""`gpuaria resolve`."""

import sys
import threading
from collections.abc import Sequence
from typing import Any

from gpuaria.api import Session, request_for
from gpuaria.cli import words as text
from gpuaria.cli.app import settings_from
from gpuaria.cli.fetch import known_kind, patterns, split
from gpuaria.cli.render import Json, choose, named
from gpuaria.errors import NotFound, UnsafePath, UsageError
from gpuaria.fetching import World, resolve
from gpuaria.formats import aria2_input, manifest, metalink, sha256sums
from gpuaria.records import Manifest, to_json
from gpuaria.text import printable

FORMS = ("table", "json", "metalink", "aria2", "sha256sums", "manifest")


def command(
    words: Sequence[str],
    repo: str,
    kind: str,
    revision: str,
    include: Sequence[str],
    exclude: Sequence[str],
    flags: dict[str, Any],
    *,
    form: str,
    stop: threading.Event,
) -> int:
    """Print the manifest of what is chosen."""
    if form not in FORMS:
        raise UsageError(f"--format {form} is unknown", f"It is one of {', '.join(FORMS)}.")
    name, files = split(words, repo)
    settings = settings_from(flags)
    with Session(settings, emit=choose(quiet=True, as_json=False), stop=stop) as session:
        ref = session.ref(name, known_kind(kind), revision)
        request = request_for(ref, files, patterns(include), patterns(exclude), offline=settings.offline)
        chosen = request.selected(resolve(request, session.world)[0])
        if chosen.restricted and form in ("metalink", "aria2"):
            print("warning: these files need a token, which is not written into the output", file=sys.stderr)
        if form == "json":
            Json(sys.stdout).write("manifest", {**to_json(chosen), "exit_code": 0})
        else:
            sys.stdout.write(_written(form, chosen, session.world))
    return 0


def _tell_without_sha256(chosen: Manifest) -> None:
    """Files that are in git itself have a git id and no sha256. Raises NotFound if all are."""
    without = [file for file in chosen.files if file.digest is None or file.digest.algorithm != "sha256"]
    hint = "gpuaria verify checks those too; --format manifest writes what it needs."
    if len(without) == len(chosen.files):
        raise NotFound(f"no file of {chosen.ref} has a sha256, only git ids", hint)
    if without:
        print(f"warning: {len(without)} of {len(chosen.files)} files have no sha256, only a git id", file=sys.stderr)


def _refuse_misread(chosen: Manifest) -> None:
    """Raise UnsafePath where aria2c would save files of a Metalink under other names."""
    names = [printable(file.path) for file in chosen.files if metalink.misread_by_aria2(file.path)]
    if names:
        count = f"{len(names)} of {text.files(len(chosen.files))}"
        raise UnsafePath(
            f"aria2c would save {count} under other names from a Metalink: {named(names, len(names))}",
            "Use --format aria2, which says them rightly, or leave them out with --exclude '*&*'.",
        )


def _written(form: str, chosen: Manifest, world: World) -> str:
    if form == "table":
        return _table(chosen) + "\n"
    if form == "sha256sums":
        _tell_without_sha256(chosen)
        return sha256sums.dump(chosen)
    if form == "manifest":
        return manifest.dump(chosen)
    urls = {
        file.path: [(world.source.file_url(mirror, chosen, file), mirror.location) for mirror in world.mirrors]
        for file in chosen.files
    }
    if form == "metalink":
        _refuse_misread(chosen)
        return metalink.dump(chosen, urls)
    return aria2_input.dump(chosen, urls)


def _table(chosen: Manifest) -> str:
    rows: list[Sequence[str]] = [
        (text.size(file.size), str(file.digest or "no digest"), file.path) for file in chosen.files
    ]
    head = f"{chosen.ref} is {chosen.name} at {chosen.commit}, vouched for by {chosen.vouched_by}"
    return (
        f"{head}\n{text.table([('size', 'digest', 'file'), *rows])}\n{text.files(len(rows))}, {text.size(chosen.size)}"
    )
