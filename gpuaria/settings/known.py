"""Mirrors by name: those of the shipped table, and those that settings files give a name."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from gpuaria.records import Mirror
from gpuaria.settings.kinds import AUTO, NO_MIRRORS, Raw

SHIPPED = "shipped"
SOURCE = "hf"


@dataclass(frozen=True, slots=True)
class KnownMirror:
    """A mirror that has a name here. `layer` is "shipped" or a layer of settings, `where` the place in it.

    `checked`: the day (YYYY-MM-DD) on which it was last seen to work, "never", or empty where the layer does not
    say. `used`: whether the settings in force have it; `joins`: whether `mirrors: auto` may use it.
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


def table() -> dict[str, Any]:
    """The shipped table as it is written, by source."""
    import yaml  # most runs name no mirror

    text = (resources.files("gpuaria") / "data" / "mirrors.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # scalars stay text, dates too
    return found


@cache
def shipped(source: str = SOURCE) -> dict[str, KnownMirror]:
    """The shipped mirrors of a source, by name."""
    return {row["name"]: KnownMirror(**row) for row in table()[source]["mirrors"]}


class Names:
    """What a name stands for while the layers are laid over each other, the least important first."""

    def __init__(self) -> None:
        self._rows: dict[str, KnownMirror] = {}

    def learn(self, mirrors: Iterable[Mirror], layer: str, where: str) -> None:
        """Take over the rows of a layer, each for the ones below it that have its name.

        A folder that was checked out does not change what a name means that its user may know.
        """
        for row in mirrors:
            known = self.find(row.name)
            same = known is not None and (known.base, known.location) == (row.base, row.location)
            if same or (known is not None and layer == "project"):
                continue
            self._rows[row.name] = KnownMirror(row.name, row.base, row.location, layer=layer, where=where)

    def find(self, name: str) -> KnownMirror | None:
        """The mirror of that name."""
        return self._rows.get(name) or shipped().get(name)

    def expanded(self, raw: Raw) -> Raw:
        """The same rows with a base where they had a known name alone."""
        if not isinstance(raw.content, tuple):
            return raw
        return Raw(tuple(self._row(row) for row in raw.content), raw.where)

    def _row(self, row: Raw) -> Raw:
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
        return Raw({**{key: Raw(text, row.where) for key, text in given.items()}, **entries}, row.where)

    def candidates(self, named: Iterable[Mirror]) -> tuple[KnownMirror, ...]:
        """The mirrors `named`, else the shipped ones, each as the layers have it."""
        names = [mirror.name for mirror in named] or list(shipped())
        return tuple(row for row in map(self.find, names) if row is not None)

    def all(self, used: Iterable[Mirror], joining: Iterable[KnownMirror] = ()) -> tuple[KnownMirror, ...]:
        """Every name: those of the layers, then the shipped ones that none of them replaced."""
        bases, may = {mirror.base for mirror in used}, {row.base for row in joining}
        rows = {**self._rows, **{name: row for name, row in shipped().items() if name not in self._rows}}
        return tuple(replace(row, used=row.base in bases, joins=row.base in may) for row in rows.values())
