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
from gpuaria.settings.values import address, label, shown

EDITS = ("add", "remove", "list")


def edit(what: str, words: Sequence[str], flags: Mapping[str, Any], as_json: bool) -> int:
    """Do one of EDITS, print the result, and return the exit status. Raises UsageError, and ConfigError for a file."""
    if what == "list":
        return _list(words, flags, as_json=as_json)
    path, cwd = user_file(os.environ, Path.cwd()), Path.cwd()
    line, fields = (_add if what == "add" else _remove)(words, path, cwd)
    return _print(line, {**fields, "path": str(path)}, as_json=as_json)


def _add(words: Sequence[str], path: Path, cwd: Path) -> tuple[str, dict[str, str]]:
    """Add a mirror to the file `path`; return a line and a field that say so."""
    name, base = _asked(words)
    if any(base == row.base or (name and name == row.name) for row in _own(path, cwd)):
        raise UsageError(f"{name or base} is in {path} already", "gpuaria mirrors remove it first to change it.")
    written = "" if len(words) == 1 and name else base
    editing.rewrite(
        path,
        lambda old: editing.added(old, name, written, path),
        lambda temp: _check(temp, cwd, base, present=True),
    )
    return f"added {name or base} to {path}", {"added": base}


def _remove(words: Sequence[str], path: Path, cwd: Path) -> tuple[str, dict[str, str]]:
    """Remove a mirror from the file `path`; return a line and a field that say so."""
    if len(words) != 1:
        raise UsageError("remove takes the name or the address of one mirror", "gpuaria mirrors remove NAME")
    name = words[0]
    gone = next((row for row in _own(path, cwd) if name.rstrip("/") in (row.name, row.base)), None)
    changed = gone is not None and editing.rewrite(
        path,
        lambda old: editing.removed(old, {gone.name, gone.base}, path),
        lambda temp: _check(temp, cwd, gone.base, present=False),
    )
    if not changed:
        raise UsageError(f"{path} has no mirror {shown(name) or 'of that name'}", _elsewhere(name, cwd))
    return f"removed {name} from {path}", {"removed": name}


def _asked(words: Sequence[str]) -> tuple[str, str]:
    """Return the name, which may be empty, and the base URL that `add` means. Raises UsageError."""
    if len(words) == 1 and "://" not in words[0]:
        row = next((row for row in known_mirrors({}, os.environ, Path.cwd()) if row.name == words[0]), None)
        if row is None:
            known = f"{shown(words[0]) or 'that'} is no mirror that gpuaria knows"
            raise UsageError(known, "gpuaria mirrors add NAME URL; `gpuaria mirrors list` shows the known names.")
        return row.name, row.base
    if len(words) not in (1, 2):
        raise UsageError("add takes a mirror's name, its address, or both", "gpuaria mirrors add NAME URL")
    try:
        base = address(words[-1])
    except ValueError:
        raise UsageError(
            f"{shown(words[-1]) or 'that'} is not the address of a mirror",
            "It begins with https:// or http://, and has no user, query or fragment.",
        ) from None
    try:
        return label(words[0]) if len(words) == 2 else "", base
    except ValueError:
        raise UsageError("a mirror's name is one short line", "gpuaria mirrors add NAME URL") from None


def _from_file(path: Path, cwd: Path) -> Settings:
    """Return the settings with this file; GPUARIA_MIRRORS is ignored."""
    environ = {name: value for name, value in os.environ.items() if name != "GPUARIA_MIRRORS"}
    return load({}, environ, cwd, config_file=path)


def _own(path: Path, cwd: Path) -> tuple[Mirror, ...]:
    """Return the mirrors that the file itself names."""
    if not path.exists():
        return ()
    settings = _from_file(path, cwd)
    return settings.mirrors if settings.setting_source("mirrors").layer == "file" else ()


def _check(temp: Path, cwd: Path, base: str, *, present: bool) -> None:
    """Raise ConfigError if the edited file does not list (or still lists) the mirror."""
    if (base in {row.base for row in _own(temp, cwd)}) != present:
        raise ConfigError(
            f"{temp}: its list of mirrors is written in a way that is not edited here", "Edit it by hand."
        )


def _elsewhere(name: str, cwd: Path) -> str:
    """Return a hint: the place that names this mirror, if it is not the user's file."""
    row = next((row for row in known_mirrors({}, os.environ, cwd) if name in (row.name, row.base)), None)
    if row is None:
        return "`gpuaria mirrors list` shows what there is."
    if row.used:
        origin = load({}, os.environ, cwd).setting_source("mirrors")
        return f"It is used because {origin.where} says so."
    return f"It is known ({row.layer}), and not used."


def _print(line: str, fields: dict[str, str], *, as_json: bool) -> int:
    """Print what was changed, and warn if another layer of settings hides the change; return the exit status."""
    if as_json:
        print_json("report", {**fields, "exit_code": 0})
    else:
        print(line)
    origin = load({}, os.environ, Path.cwd()).setting_source("mirrors")
    if origin.layer in ("project", "environment"):
        print(f"note: {origin.where} names the mirrors that are used here, instead of this file", file=sys.stderr)
    return 0


def _list(words: Sequence[str], flags: Mapping[str, Any], *, as_json: bool) -> int:
    """Print every mirror that a name stands for."""
    if words:
        raise UsageError("list takes no further word", "gpuaria mirrors list")
    rows = known_mirrors(flags, os.environ, Path.cwd())
    if as_json:
        print_json("report", {"mirrors": to_json(rows), "exit_code": 0})
        return 0
    head = ("name", "base", "location", "from", "used", "checked")
    print(figures.table([head, *(_shown(row) for row in rows)]))
    return 0


def _shown(row: KnownMirror) -> Sequence[str]:
    source = f"{row.layer} ({row.where})" if row.where else row.layer
    return (row.name, row.base, row.location or "-", source, _use(row), row.checked or "-")


def _use(row: KnownMirror) -> str:
    """Whether it is used: always, or only where `mirrors: auto` needs it."""
    return "yes" if row.used else "auto" if row.joins else "no"
