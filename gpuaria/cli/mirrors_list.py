"""`gpuaria mirrors add`, `remove` and `list`: edit or print the list of mirrors in the user's settings file."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuaria.cli.output import figures
from gpuaria.cli.output.json_lines import print_json
from gpuaria.errors import ConfigError, UsageError
from gpuaria.records import Mirror, to_json
from gpuaria.settings import KnownMirror, Settings, editing, known_mirrors, load, user_file
from gpuaria.settings.values import base_url, label, quoted

EDITS = ("add", "remove", "list")


def edit(what: str, words: Sequence[str], flags: Mapping[str, Any], as_json: bool) -> int:
    """Add, remove or list mirrors, print the result, and return the exit status. Raises UsageError or ConfigError."""
    if what == "list":
        return _list(words, flags, as_json=as_json)
    path, cwd = user_file(os.environ, Path.cwd()), Path.cwd()
    line, fields = (_add if what == "add" else _remove)(words, path, cwd)
    return _print(line, {**fields, "path": str(path)}, as_json=as_json)


def _add(words: Sequence[str], path: Path, cwd: Path) -> tuple[str, dict[str, str]]:
    """Add a mirror to the file `path`; return the line to print and the JSON fields."""
    name, base = _parse_add(words)
    if any(base == row.base or (name and name == row.name) for row in _listed_in(path, cwd)):
        raise UsageError(
            f"{name or base} is already in {path}", "To change it, remove it first: gpuaria mirrors remove NAME."
        )
    written = "" if len(words) == 1 and name else base
    editing.rewrite(
        path,
        lambda old: editing.with_mirror(old, name, written, path),
        lambda temp: _check(temp, cwd, base, present=True),
    )
    return f"added {name or base} to {path}", {"added": base}


def _remove(words: Sequence[str], path: Path, cwd: Path) -> tuple[str, dict[str, str]]:
    """Remove a mirror from the file `path`; return the line to print and the JSON fields."""
    if len(words) != 1:
        raise UsageError("remove takes the name or URL of one mirror", "Run: gpuaria mirrors remove NAME")
    name = words[0]
    gone = next((row for row in _listed_in(path, cwd) if name.rstrip("/") in (row.name, row.base)), None)
    changed = gone is not None and editing.rewrite(
        path,
        lambda old: editing.without_mirror(old, {gone.name, gone.base}, path),
        lambda temp: _check(temp, cwd, gone.base, present=False),
    )
    if not changed:
        raise UsageError(f"{path} has no mirror {quoted(name) or 'with that name'}", _where_else(name, cwd))
    return f"removed {name} from {path}", {"removed": name}


def _parse_add(words: Sequence[str]) -> tuple[str, str]:
    """Return the name (may be empty) and the base URL of the mirror to add. Raises UsageError."""
    if len(words) == 1 and "://" not in words[0]:
        row = next((row for row in known_mirrors({}, os.environ, Path.cwd()) if row.name == words[0]), None)
        if row is None:
            unknown = f"gpuaria does not know a mirror named {quoted(words[0]) or 'that'}"
            raise UsageError(unknown, "Add it with its URL: gpuaria mirrors add NAME URL. Known: gpuaria mirrors list.")
        return row.name, row.base
    if len(words) not in (1, 2):
        raise UsageError("add takes a mirror's name, its URL, or both", "Run: gpuaria mirrors add NAME URL")
    try:
        base = base_url(words[-1])
    except ValueError:
        raise UsageError(
            f"{quoted(words[-1]) or 'that'} is not a mirror URL",
            "Use an https:// or http:// URL without user, query and fragment.",
        ) from None
    try:
        return label(words[0]) if len(words) == 2 else "", base
    except ValueError:
        raise UsageError("a mirror's name must be one short line", "Run: gpuaria mirrors add NAME URL") from None


def _from_file(path: Path, cwd: Path) -> Settings:
    """Return the settings from this file, ignoring GPUARIA_MIRRORS."""
    environ = {name: value for name, value in os.environ.items() if name != "GPUARIA_MIRRORS"}
    return load({}, environ, cwd, config_file=path)


def _listed_in(path: Path, cwd: Path) -> tuple[Mirror, ...]:
    """Return the mirrors that this file lists."""
    if not path.exists():
        return ()
    settings = _from_file(path, cwd)
    return settings.mirrors if settings.setting_source("mirrors").layer == "file" else ()


def _check(temp: Path, cwd: Path, base: str, *, present: bool) -> None:
    """Raise ConfigError if the edited file lists the mirror although it should not, or the reverse."""
    if (base in {row.base for row in _listed_in(temp, cwd)}) != present:
        raise ConfigError(f"{temp}: gpuaria cannot edit the list of mirrors in this form", "Edit the file by hand.")


def _where_else(name: str, cwd: Path) -> str:
    """Return a hint that names the source of this mirror, if it is not the user's file."""
    row = next((row for row in known_mirrors({}, os.environ, cwd) if name in (row.name, row.base)), None)
    if row is None:
        return "Run gpuaria mirrors list to see all mirrors."
    if row.used:
        return f"It is set in {load({}, os.environ, cwd).setting_source('mirrors').where}."
    return f"It is known ({row.layer}) but not used."


def _print(line: str, fields: dict[str, str], *, as_json: bool) -> int:
    """Print the change, with a note if another settings source overrides it; return the exit status."""
    if as_json:
        print_json("report", {**fields, "exit_code": 0})
    else:
        print(line)
    source = load({}, os.environ, Path.cwd()).setting_source("mirrors")
    if source.layer in ("project", "environment"):
        print(f"note: {source.where} overrides the mirrors in this file", file=sys.stderr)
    return 0


def _list(words: Sequence[str], flags: Mapping[str, Any], *, as_json: bool) -> int:
    """Print all known mirrors."""
    if words:
        raise UsageError("list takes no argument", "Run: gpuaria mirrors list")
    rows = known_mirrors(flags, os.environ, Path.cwd())
    if as_json:
        print_json("report", {"mirrors": to_json(rows), "exit_code": 0})
        return 0
    head = ("name", "base", "location", "from", "used", "checked")
    print(figures.table([head, *(_list_row(row) for row in rows)]))
    return 0


def _list_row(row: KnownMirror) -> Sequence[str]:
    source = f"{row.layer} ({row.where})" if row.where else row.layer
    return (row.name, row.base, row.location or "-", source, _use(row), row.checked or "-")


def _use(row: KnownMirror) -> str:
    """Return `yes`, `no`, or `auto` for a mirror that `mirrors: auto` may add."""
    return "yes" if row.used else "auto" if row.joins else "no"
