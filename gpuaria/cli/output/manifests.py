"""Manifests in the formats of `gpuaria resolve --format`."""

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
    """Return the manifest in format `form` (not json).

    Raises NotFound if sha256sums has no sha256 to list, UnsafePath if aria2c would misread a file name in a Metalink.
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
    """Warn about files without a sha256, which git stores under a git id. Raises NotFound if no file has one."""
    without = [file for file in chosen.files if file.digest is None or file.digest.algorithm != "sha256"]
    hint = "Use --format manifest: gpuaria verify --lock checks git ids too."
    if len(without) == len(chosen.files):
        raise NotFound(f"no file in {chosen.ref} has a sha256; they have git ids only", hint)
    if without:
        print(f"warning: {len(without)} of {len(chosen.files)} files have a git id only, no sha256", file=sys.stderr)


def _refuse_misread(chosen: Manifest) -> None:
    """Raise UnsafePath if aria2c would save files of a Metalink under other names."""
    names = [printable(file.path) for file in chosen.files if metalink.misread_by_aria2(file.path)]
    if names:
        count = f"{len(names)} of {figures.files(len(chosen.files))}"
        raise UnsafePath(
            f"with a Metalink, aria2c would save {count} under other names: {named(names, len(names))}",
            "Use --format aria2, or leave these files out with --exclude '*&*'.",
        )


def _table(chosen: Manifest) -> str:
    rows: list[Sequence[str]] = [
        (figures.size(file.size), str(file.digest or "no digest"), file.path) for file in chosen.files
    ]
    at = f" at {chosen.commit}" if chosen.commit else ""
    head = f"{chosen.ref} is {chosen.name}{at}; checksums from {chosen.vouched_by}"
    sums = f"{figures.files(len(rows))}, {figures.size(chosen.size)}"
    return f"{head}\n{figures.table([('size', 'digest', 'file'), *rows])}\n{sums}"
