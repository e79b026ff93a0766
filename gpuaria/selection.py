"""Selection of a repo's files by names, --include and --exclude, with the semantics of `hf download`."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpuaria.errors import FileNotInRepo, NothingMatched
from gpuaria.records import Manifest
from gpuaria.text import printable


def pattern(text: str) -> str:
    """Return the fnmatch pattern of a name; `folder/` matches everything below it."""
    return f"{text}*" if text.endswith("/") else text


def selector(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Return a predicate for paths: true for `names` (file, `folder/`, or pattern) and `include`, but not `exclude`.

    Patterns are those of fnmatch, in which `*` matches slashes too, as in huggingface_hub.
    """
    wanted = [pattern(text) for text in (*names, *include)]
    unwanted = [pattern(text) for text in exclude]

    def chosen(path: str) -> bool:
        if any(fnmatch.fnmatchcase(path, text) for text in unwanted):
            return False
        return not wanted or path in names or any(fnmatch.fnmatchcase(path, text) for text in wanted)

    return chosen


def select(
    manifest: Manifest, chosen: Callable[[str], bool], names: Sequence[str], patterns: Sequence[str]
) -> Manifest:
    """Return the manifest of the chosen files only.

    A name that `patterns` contains with a trailing slash may be a folder. Raises FileNotInRepo for a plain name that is
    not in the repo, and NothingMatched if no file is left. An empty repo without names and patterns is not an error.
    """
    known = {str(file.path) for file in manifest.files}
    for name in names:
        plain = not any(c in name for c in "*?[") and not name.endswith("/")
        if plain and name not in known:
            below = any(path.startswith(f"{name}/") for path in known)
            if below and f"{name}/" in patterns:
                continue
            near = sorted(path for path in known if path.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1])
            near += [f"{name}/"] if below else []
            hint = f"Did you mean {near[0]}?" if near else f"List the files: gpuaria resolve {manifest.ref}"
            raise FileNotInRepo(f"{manifest.name} has no file {printable(name)} at {manifest.version[:12]}", hint)
    files = tuple(file for file in manifest.files if chosen(file.path))
    if not files and (names or patterns):
        asked = ", ".join(printable(text) for text in (*names, *patterns))
        raise NothingMatched(
            f"none of the {len(known)} files of {manifest.name} matches {asked}",
            f"List the files: gpuaria resolve {manifest.ref}",
        )
    return replace(manifest, files=files)
