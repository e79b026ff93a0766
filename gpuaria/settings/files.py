"""Read one YAML settings file into entries with line numbers.

Scalars stay text, so that `timeout: 30`, `timeout: "30"` and GPUARIA_TIMEOUT=30 are parsed by the same code.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuaria.errors import ConfigError
from gpuaria.settings.kinds import RawValue
from gpuaria.settings.values import quoted

if TYPE_CHECKING:
    import yaml  # imported late: most runs have no settings file, and yaml is slow to import

MAX_BYTES = 2**20
_MAX_DEPTH = 8  # settings need three; yaml.compose recurses
_MAX_EVENTS = 10_000  # PyYAML needs a minute to parse 1 MiB of "1,1,1,"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The entries of a file by key, without those that have no value. `private`: only the owner can read it."""

    path: Path
    entries: dict[str, RawValue]
    private: bool


def read(path: Path) -> SettingsFile | None:
    """Return the file at `path`, or None if it does not exist. Raises ConfigError with path and line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{path}: the settings file cannot be read: {why}", "Correct its mode or move it.") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB", "Check that this is a settings file.")
    return SettingsFile(path, parse(content, path), mode & 0o077 == 0)


def parse(content: bytes, path: Path) -> dict[str, RawValue]:
    """Return the entries by key, in file order. Raises ConfigError with `path` and line."""
    node = compose(decode(content, path), path)
    return {} if node is None else _entries(node, path)


def compose(text: str, path: Path) -> "yaml.MappingNode | None":
    """Return the YAML nodes of the text, with their positions; None for an empty document. Raises ConfigError."""
    import yaml

    node = _compose(text, path)
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_at(path, node)}: not a mapping of keys to values", "Write one `key: value` per line.")
    return node


def decode(content: bytes, path: Path) -> str:
    """Return the text of the file, without a byte order mark. Raises ConfigError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text", "Save the file as UTF-8.") from None


def _compose(text: str, path: Path) -> "yaml.Node | None":
    import yaml

    try:
        _refuse_extras(yaml.parse(text, Loader=yaml.SafeLoader), path)
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, text, path) from None
    except (ValueError, OverflowError):  # an escape beyond Unicode: PyYAML passes it to chr()
        raise ConfigError(f"{path}: not valid YAML: an escape names no character", "Write the character.") from None
    return node


def _refuse_extras(events: Iterable[Any], path: Path) -> None:
    """Raise ConfigError for YAML features that settings do not need and that can be abused, before building nodes."""
    depth = 0
    for count, event in enumerate(events):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        where = f"{path}:{event.start_mark.line + 1}"
        if count > _MAX_EVENTS:
            raise ConfigError(f"{where}: too many values", "Check that it is a settings file.")
        if depth > _MAX_DEPTH:
            raise ConfigError(
                f"{where}: nested too deeply", "Settings are keys, lists and mirrors, without deeper nesting."
            )
        if getattr(event, "anchor", None) is not None:  # also set on an alias
            raise ConfigError(f"{where}: anchors and aliases are not understood", "Write the value out.")
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"{where}: tags are not understood", "Write the value without its tag.")


def _not_yaml(error: "yaml.YAMLError", text: str, path: Path) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
    problem = getattr(error, "problem", None) or "a character that YAML does not allow"
    hint = "Indent with spaces: YAML does not allow tabs there." if r"'\t'" in problem else "Correct this line."
    return ConfigError(f"{path}:{line}: not valid YAML: {problem}", hint)


def _entries(node: "yaml.MappingNode", path: Path) -> dict[str, RawValue]:
    import yaml

    entries: dict[str, RawValue] = {}
    seen: dict[str, str] = {}
    for key, value in node.value:
        where = _at(path, key)
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be a word", "Write one `key: value` per line.")
        if key.value in seen:
            first = seen[key.value].rpartition(":")[2]
            raise ConfigError(
                f"{where}: {quoted(key.value) or 'a key'} is set here and in line {first}", "Remove one of them."
            )
        seen[key.value] = where
        if value.tag != _NULL:
            entries[key.value] = RawValue(_content(value, path), where)
    return entries


def _content(node: "yaml.Node", path: Path) -> str | tuple[RawValue, ...] | dict[str, RawValue]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        return _entries(node, path)
    if isinstance(node, yaml.SequenceNode):
        return tuple(RawValue(_content(row, path), _at(path, row)) for row in node.value)
    return str(node.value)


def _at(path: Path, node: "yaml.Node") -> str:
    return f"{path}:{node.start_mark.line + 1}"
