"""Add a mirror to a settings file, or remove one, without changing any other byte of the text.

No YAML writer is used: ruamel.yaml 0.19 drops the comments after a removed row, inserts an added row behind them, and
reformats indentation and spaces. The positions of the rows are PyYAML's marks.
"""

import codecs
import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from gpuaria.errors import ConfigError, DiskError, UsageError
from gpuaria.settings import files
from gpuaria.settings.kinds import AUTO, NO_MIRRORS
from gpuaria.settings.values import base_url

if TYPE_CHECKING:
    import yaml

_PLAIN = re.compile(r"[A-Za-z][\w./:~%+-]*[\w/]")
_WORDS = frozenset({"null", "yes", "no", "on", "off", "true", "false"})


def with_mirror(text: str, name: str, base: str, path: Path) -> str:
    """Return `text` with one more row: a base URL, a known name, or both. Raises ConfigError."""
    node, pairs = _mirrors(text, path), [("name", name), ("base", base)]
    pairs = [(key, value) for key, value in pairs if value]
    lines = [_scalar(pairs[0][1])] if len(pairs) == 1 else [f"{key}: {_scalar(value)}" for key, value in pairs]
    newline = "\r\n" if "\r\n" in text else "\n"
    if node is None:
        start = text if not text or text.endswith("\n") else text + newline
        return start + "mirrors:" + newline + _block(lines, "  ", newline)
    rows = _rows(node)
    if rows is None:  # `mirrors:` or `mirrors: ~`
        begin, end = node.start_mark.index, node.end_mark.index
        return _after_line(text[:begin] + text[end:], begin, _block(lines, "  ", newline), newline)
    if _is_flow(node):
        row = lines[0] if len(lines) == 1 else "{" + ", ".join(lines) + "}"
        at = rows[-1].end_mark.index if rows else node.start_mark.index + 1
        return text[:at] + (", " if rows else "") + row + text[at:]
    indent = " " * (_dash(text, rows[-1]) - _line_start(text, _dash(text, rows[-1])))
    return _after_line(text, _end_of_node(rows[-1]) - 1, _block(lines, indent, newline), newline)


def without_mirror(text: str, names: Collection[str], path: Path) -> str:
    """Return `text` without the row whose name or URL is in `names`; unchanged if there is none.

    Comments on the lines of the row are removed as well.
    """
    node = _mirrors(text, path)
    rows = (_rows(node) if node is not None else None) or []
    at = next((n for n, row in enumerate(rows) if _names_of_row(row) & set(names)), None)
    if node is None or at is None:
        return text
    if _is_flow(node):
        if at + 1 < len(rows):
            return text[: rows[at].start_mark.index] + text[rows[at + 1].start_mark.index :]
        start = rows[at - 1].end_mark.index if at else rows[at].start_mark.index
        return text[:start] + text[rows[at].end_mark.index :]
    return text[: _line_start(text, _dash(text, rows[at]))] + text[_line_end(text, _end_of_node(rows[at]) - 1) :]


def rewrite(path: Path, change: Callable[[str], str], check: Callable[[Path], object]) -> bool:
    """Replace the text of the file at `path` atomically, keeping its mode. Return whether the text changed.

    `check` is called with the path of the new text before it replaces the old one. A missing file is created with
    mode 0600. A symlink stays a symlink. Raises ConfigError, DiskError, and the errors of `check`.
    """
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content, mode = (target.read_bytes(), target.stat().st_mode & 0o7777) if target.exists() else (b"", 0o600)
    except (OSError, RuntimeError) as error:
        raise _not_writable(path, error) from None
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    old = files.decode(content, path)
    new = change(old)
    if new == old:
        return False
    _replace(target, mark + new.encode(), mode, path, check)
    return True


def _replace(target: Path, content: bytes, mode: int, path: Path, check: Callable[[Path], object]) -> None:
    temp = ""
    try:
        handle, temp = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".yaml")
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            check(Path(temp))
        except ConfigError as error:
            raise ConfigError(error.message.replace(temp, str(path)), error.hint.replace(temp, str(path))) from None
        os.replace(temp, target)
    except OSError as error:
        raise _not_writable(path, error) from None
    finally:
        if temp:
            with contextlib.suppress(OSError):  # already renamed
                os.unlink(temp)


def _not_writable(path: Path, error: Exception) -> DiskError:
    why = getattr(error, "strerror", None) or str(error)
    return DiskError(f"{path} cannot be written: {why}", "Correct its mode, or edit it by hand.")


def _mirrors(text: str, path: Path) -> "yaml.Node | None":
    """Return the value of `mirrors`, None if the key is missing."""
    root = files.compose(text, path)
    if root is not None and root.flow_style:
        raise ConfigError(f"{path}: gpuaria cannot edit a file with its keys in braces", "Edit it by hand.")
    return next((value for key, value in (root.value if root else []) if key.value == "mirrors"), None)


def _rows(node: "yaml.Node") -> "list[yaml.Node] | None":
    """Return the rows of a list; None for no value, `auto` or `none`. Raises UsageError for anything else."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.ScalarNode) and (
        node.tag == "tag:yaml.org,2002:null" or node.value.lower() in (AUTO, NO_MIRRORS)
    ):
        return None
    raise UsageError("mirrors is not a list in the settings file", "Correct it by hand.")


def _is_flow(node: "yaml.Node") -> bool:
    return bool(getattr(node, "flow_style", False))


def _names_of_row(row: "yaml.Node") -> set[str]:
    """Return the texts that identify a row: its own text, or its name and base; URLs in normal form."""
    import yaml

    pairs = row.value if isinstance(row, yaml.MappingNode) else [(None, row)]
    found = {str(value.value).strip() for key, value in pairs if key is None or key.value in ("name", "base")}
    return {base_url(text) if "://" in text else text for text in found}


def _dash(text: str, row: "yaml.Node") -> int:
    return text.rindex("-", 0, row.start_mark.index)


def _end_of_node(node: "yaml.Node") -> int:
    """Return the end of the node's text; the end mark of a block node includes the comments after it."""
    import yaml

    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return max(_end_of_node(last[1]), _end_of_node(last[0])) if isinstance(last, tuple) else _end_of_node(last)
    return node.end_mark.index


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Return the start of the line after the one that contains `at`."""
    found = text.find("\n", max(0, at))
    return len(text) if found < 0 else found + 1


def _after_line(text: str, at: int, block: str, newline: str) -> str:
    end = _line_end(text, at)
    missing = "" if text[:end].endswith("\n") else newline
    return text[:end] + missing + block + text[end:]


def _block(lines: list[str], indent: str, newline: str) -> str:
    return "".join(f"{indent}{'  ' if number else '- '}{line}{newline}" for number, line in enumerate(lines))


def _scalar(text: str) -> str:
    """Return a value as a YAML scalar, quoted if needed in block or flow style."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
