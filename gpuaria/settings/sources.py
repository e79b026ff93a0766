"""Settings of sources other than `hf`: `sources.<name>.<key>`. The keys of `hf` have no prefix."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from gpuaria.errors import ConfigError
from gpuaria.settings.kinds import RawValue, closest_word
from gpuaria.settings.values import quoted

DEFAULT_SOURCE = "hf"
KEYS = ("endpoint", "token", "token_file", "mirrors")
SECTION = "sources"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_VARIABLE = re.compile(r"GPUARIA_SOURCES_([A-Z][A-Z0-9_]{0,30}?)_(TOKEN_FILE|TOKEN|ENDPOINT|MIRRORS)")


class SourceDeclaration(Protocol):
    """The properties of a source that settings need; `gpuaria.sources.About` implements them."""

    @property
    def name(self) -> str:
        """The scheme of the source, and its name in settings."""

    @property
    def endpoint(self) -> str:
        """The default base URL, empty if each reference names its own."""

    @property
    def endpoint_variables(self) -> tuple[str, ...]:
        """Environment variables for the endpoint; the first that is set counts."""

    @property
    def token_variables(self) -> tuple[str, ...]:
        """Environment variables for the token; the first that is set counts."""


def is_variable(name: str) -> bool:
    """Return whether an environment variable sets a key of a source."""
    return _VARIABLE.fullmatch(name) is not None


def secret_variables(environ: Iterable[str]) -> frozenset[str]:
    """Return the variables that contain the token of a source."""
    return frozenset(name for name in environ if (found := _VARIABLE.fullmatch(name)) and found[2] == "TOKEN")


def from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield (source, key, variable) for each variable that is set."""
    for name in sorted(environ):
        found = _VARIABLE.fullmatch(name)
        if found and environ[name].strip():
            yield found[1].lower().replace("_", "-"), found[2].lower(), name


def flattened(entries: Mapping[str, RawValue]) -> dict[str, RawValue]:
    """Return the entries with `sources: {demo: {endpoint: X}}` as `sources.demo.endpoint`; those of `hf` get no prefix.

    Raises ConfigError for an invalid name or key, and for a key of `hf` that is set both with and without `sources`.
    """
    found = {name: raw for name, raw in entries.items() if name != SECTION}
    if SECTION not in entries:
        return found
    for source, row in _mapping(entries[SECTION], "a mapping of sources to their settings").items():
        if not _NAME.fullmatch(source):
            raise ConfigError(
                f"{row.where}: {quoted(source) or 'a name'} is not the name of a source", "For example: demo"
            )
        for key, raw in _mapping(row, f"a mapping with {', '.join(KEYS)}").items():
            if key not in KEYS:
                close = closest_word(key, list(KEYS))
                hint = f"Did you mean {close}?" if close else f"A source has {', '.join(KEYS)}."
                raise ConfigError(f"{raw.where}: unknown key {quoted(key) or '(not shown)'} of a source", hint)
            name = full_key(source, key)
            if name in found:
                raise ConfigError(
                    f"{raw.where}: {key} of {DEFAULT_SOURCE} is also set at {found[name].where}", "Remove one."
                )
            found[name] = raw
    return found


def full_key(source: str, key: str) -> str:
    """Return the full name of a key of a source, such as `sources.demo.endpoint`."""
    return key if source == DEFAULT_SOURCE else f"{SECTION}.{source}.{key}"


def variable_name(name: str) -> str:
    """Return the environment variable that sets a key such as `sources.demo.endpoint`."""
    return f"GPUARIA_{name.upper().replace('.', '_').replace('-', '_')}"


def base_key(name: str) -> str:
    """Return the key without its source: `endpoint` for `sources.demo.endpoint`."""
    return name.rpartition(".")[2] if name.startswith(f"{SECTION}.") else name


def _mapping(raw: RawValue, expects: str) -> dict[str, RawValue]:
    if not isinstance(raw.content, dict):
        raise ConfigError(f"{raw.where}: must be {expects}", "See docs/settings.md.")
    return raw.content
