"""A manifest in the formats of `gpuaria resolve --format`."""

import sys
from collections.abc import Sequence

from gpuaria.cli.output import figures
from gpuaria.cli.output.lines import named
from gpuaria.errors import NotFound, UnsafePath
from gpuaria.formats import aria2_input, manifest, metalink, sha256sums
from gpuaria.records import Manifest, Mirror
from gpuaria.sources.protocol import Source, holders
from gpuaria.text import printable


def written(form: str, chosen: Manifest, source: Source, mirrors: Sequence[Mirror]) -> str:
    """Return the manifest as text in one of the formats, except json.

    Raises NotFound for sha256sums without any sha256, UnsafePath for a Metalink that aria2c would misread.
    """
    if form == "table":
        return _table(chosen) + "\n"
    if form == "sha256sums":
        _warn_without_sha256(chosen)
        return sha256sums.dump(chosen)
    if form == "manifest":
        return manifest.dump(chosen)
    urls = {
        file.path: [
            (source.file_url(mirror, chosen, file), mirror.location) for mirror in holders(source, mirrors, file)
        ]
        for file in chosen.files
    }
    if form == "metalink":
        _refuse_misread(chosen)
        return metalink.dump(chosen, urls)
    return aria2_input.dump(chosen, urls)


def _warn_without_sha256(chosen: Manifest) -> None:
    """Warn of files without a sha256: git itself stores them, under a git id. Raises NotFound if all are such files."""
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
        count = f"{len(names)} of {figures.files(len(chosen.files))}"
        raise UnsafePath(
            f"aria2c would save {count} under other names from a Metalink: {named(names, len(names))}",
            "Use --format aria2, which says them rightly, or leave them out with --exclude '*&*'.",
        )


def _table(chosen: Manifest) -> str:
    rows: list[Sequence[str]] = [
        (figures.size(file.size), str(file.digest or "no digest"), file.path) for file in chosen.files
    ]
    at = f" at {chosen.commit}" if chosen.commit else ""
    head = f"{chosen.ref} is {chosen.name}{at}, vouched for by {chosen.vouched_by}"
    sums = f"{figures.files(len(rows))}, {figures.size(chosen.size)}"
    return f"{head}\n{figures.table([('size', 'digest', 'file'), *rows])}\n{sums}"
