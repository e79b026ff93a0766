"""Mirrors by name: the shipped list, and the mirrors that settings files define."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from gpuaria.records import Mirror
from gpuaria.settings.kinds import AUTO, NO_MIRRORS, RawValue

SHIPPED = "shipped"
SOURCE = "hf"


@dataclass(frozen=True, slots=True)
class KnownMirror:
    """A mirror with a name. `layer`: "shipped" or a layer of settings; `where`: the line, variable or flag.

    `checked`: the day (YYYY-MM-DD) of the last successful check, "never", or empty if unknown. `used`: the current
    settings list this mirror. `joins`: `mirrors: auto` may use it.
    """

    name: str
    base: str
    location: str = ""
    notes: str = ""
    checked: str = ""
    layer: str = SHIPPED
    where: str = ""
    used: bool = False
    joins: bool = False


def shipped_table() -> dict[str, Any]:
    """Return the parsed content of data/mirrors.yaml, by source."""
    import yaml  # slow to import, and most runs name no mirror

    text = (resources.files("gpuaria") / "data" / "mirrors.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # scalars stay text, dates too
    return found


@cache
def shipped(source: str = SOURCE) -> dict[str, KnownMirror]:
    """Return the shipped mirrors of a source, by name."""
    return {row["name"]: KnownMirror(**row) for row in shipped_table()[source]["mirrors"]}


class MirrorNames:
    """The mirror of each name, while the layers are merged from lowest to highest priority."""

    def __init__(self) -> None:
        self._rows: dict[str, KnownMirror] = {}

    def add_layer(self, mirrors: Iterable[Mirror], layer: str, where: str) -> None:
        """Add the mirrors of a layer; each replaces a mirror with the same name from the layers below.

        A project file cannot redefine a known name: it may come from a repository that the user merely checked out.
        """
        for row in mirrors:
            known = self.find(row.name)
            same = known is not None and (known.base, known.location) == (row.base, row.location)
            if same or (known is not None and layer == "project"):
                continue
            self._rows[row.name] = KnownMirror(row.name, row.base, row.location, layer=layer, where=where)

    def find(self, name: str) -> KnownMirror | None:
        """Return the mirror with that name, or None."""
        return self._rows.get(name) or shipped().get(name)

    def with_bases(self, raw: RawValue) -> RawValue:
        """Return the rows with the base URL added to each row that only gives a known name."""
        if not isinstance(raw.content, tuple):
            return raw
        return RawValue(tuple(self._row(row) for row in raw.content), raw.where)

    def _row(self, row: RawValue) -> RawValue:
        entries = {"name": row} if isinstance(row.content, str) else row.content
        if not isinstance(entries, dict) or "base" in entries or "name" not in entries:
            return row
        name = entries["name"].content
        if not isinstance(name, str) or "://" in name or name.strip().lower() in (AUTO, NO_MIRRORS):
            return row
        known = self.find(name.strip())
        if known is None:
            return row
        given = {"base": known.base} | ({"location": known.location} if known.location else {})
        return RawValue({**{key: RawValue(text, row.where) for key, text in given.items()}, **entries}, row.where)

    def candidates(self, named: Iterable[Mirror]) -> tuple[KnownMirror, ...]:
        """Return the mirrors in `named`, or the shipped ones if empty, each as the layers define it."""
        names = [mirror.name for mirror in named] or list(shipped())
        return tuple(row for row in map(self.find, names) if row is not None)

    def listed(self, used: Iterable[Mirror], joining: Iterable[KnownMirror] = ()) -> tuple[KnownMirror, ...]:
        """Return all mirrors: those of the layers, then the shipped ones that no layer replaced."""
        bases, may = {mirror.base for mirror in used}, {row.base for row in joining}
        rows = {**self._rows, **{name: row for name, row in shipped().items() if name not in self._rows}}
        return tuple(replace(row, used=row.base in bases, joins=row.base in may) for row in rows.values())
