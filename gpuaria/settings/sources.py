"""Settings of single sources: `sources.<name>.<key>`. Those of `hf` are today's keys without a prefix."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from gpuaria.errors import ConfigError
from gpuaria.settings.kinds import Raw, nearest
from gpuaria.settings.values import shown

USUAL = "hf"
KEYS = ("endpoint", "token", "token_file", "mirrors")
SECTION = "sources"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_VARIABLE = re.compile(r"GPUARIA_SOURCES_([A-Z][A-Z0-9_]{0,30}?)_(TOKEN_FILE|TOKEN|ENDPOINT|MIRRORS)")


class Declared(Protocol):
    """What a source says of itself that settings need; `gpuaria.sources.About` has it."""

    @property
    def name(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def endpoint_variables(self) -> tuple[str, ...]: ...
    @property
    def token_variables(self) -> tuple[str, ...]: ...


def is_variable(name: str) -> bool:
    """Whether an environment variable sets a key of a source."""
    return _VARIABLE.fullmatch(name) is not None


def secret_variables(environ: Iterable[str]) -> frozenset[str]:
    """The variables that hold a source's token."""
    return frozenset(name for name in environ if (found := _VARIABLE.fullmatch(name)) and found[2] == "TOKEN")


def from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(source, key, variable) of each variable that is set."""
    for name in sorted(environ):
        found = _VARIABLE.fullmatch(name)
        if found and environ[name].strip():
            yield found[1].lower().replace("_", "-"), found[2].lower(), name


def flattened(entries: Mapping[str, Raw]) -> dict[str, Raw]:
    """The entries of a file with `sources: {demo: {endpoint: X}}` as `sources.demo.endpoint`, `hf`'s without prefix.

    Raises ConfigError for a name or key that cannot be one, and for a key of `hf` that stands in both places.
    """
    found = {name: raw for name, raw in entries.items() if name != SECTION}
    if SECTION not in entries:
        return found
    for source, row in _mapping(entries[SECTION], "a mapping of sources to their settings").items():
        if not _NAME.fullmatch(source):
            raise ConfigError(f"{row.where}: {shown(source) or 'a name'} is no name of a source", "It is like: demo.")
        for key, raw in _mapping(row, f"a mapping with {', '.join(KEYS)}").items():
            if key not in KEYS:
                close = nearest(key, list(KEYS))
                hint = f"Did you mean {close}?" if close else f"A source has {', '.join(KEYS)}."
                raise ConfigError(f"{raw.where}: unknown key {shown(key) or '(not shown)'} of a source", hint)
            name = full(source, key)
            if name in found:
                raise ConfigError(f"{raw.where}: {key} of {USUAL} also stands at {found[name].where}", "Remove one.")
            found[name] = raw
    return found


def full(source: str, key: str) -> str:
    """The name under which a key of a source is kept."""
    return key if source == USUAL else f"{SECTION}.{source}.{key}"


def variable(name: str) -> str:
    """The environment variable that sets `sources.demo.endpoint`."""
    return f"GPUARIA_{name.upper().replace('.', '_').replace('-', '_')}"


def plain_key(name: str) -> str:
    """The key of today's table that has the kind of `name`: `endpoint` for `sources.demo.endpoint`."""
    return name.rpartition(".")[2] if name.startswith(f"{SECTION}.") else name


def _mapping(raw: Raw, expects: str) -> dict[str, Raw]:
    if not isinstance(raw.content, dict):
        raise ConfigError(f"{raw.where}: must be {expects}", "See docs/settings.md.")
    return raw.content
