"""The settings of one run, merged from all layers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpuaria.errors import ConfigError
from gpuaria.records import Mirror
from gpuaria.settings import sources, values
from gpuaria.settings.keys import SettingSource
from gpuaria.settings.known import KnownMirror, MirrorNames
from gpuaria.settings.secret import HiddenEnvironment, Secret
from gpuaria.settings.table import FIELDS, SettingsTable, describe
from gpuaria.settings.tokens import TokenSource, token_in_file
from gpuaria.urls import url_origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(SettingsTable):
    """All settings of one run, made by `load`. The values are the fields of SettingsTable."""

    _setting_sources: dict[str, SettingSource] = field(repr=False, compare=False)
    _mirror_names: MirrorNames = field(default_factory=MirrorNames, repr=False, compare=False)
    _per_source: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _environ: HiddenEnvironment = field(default_factory=lambda: HiddenEnvironment({}), repr=False, compare=False)
    _source_token_variables: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """Mirrors that are always used; empty with `mirrors: auto`."""
        return self._mirrors or ()

    @property
    def auto(self) -> bool:
        """True if known mirrors may be added when the endpoint fails or is slow."""
        return self._mirrors is None

    def candidates(self) -> tuple[KnownMirror, ...]:
        """Return the mirrors that may be added: `known_mirrors`, else the shipped list as overridden by the layers."""
        return self._mirror_names.candidates(self.known_mirrors) if self.auto else ()

    @property
    def cache_dir(self) -> Path:
        """Folder of the cache. Raises ConfigError if it is not set and the home folder is unknown."""
        return self._required("cache_dir", self._cache_dir)

    @property
    def state_dir(self) -> Path:
        """Folder of the state. Raises ConfigError if it is not set and the home folder is unknown."""
        return self._required("state_dir", self._state_dir)

    def setting_source(self, key: str) -> SettingSource:
        """Return the layer that set `key`. Raises KeyError for an unknown key."""
        return self._setting_sources[key]

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (key, displayed value, layer, where in the layer); a credential is displayed as "(set, hidden)"."""
        for key in describe():
            source = self.setting_source(key.name)
            yield key.name, key.kind.show(getattr(self, FIELDS[key.name])), source.layer, source.where
        kind = {key.name: key.kind for key in describe()}
        for name, value in sorted(self._per_source.items()):
            source = self.setting_source(name)
            yield name, kind[sources.base_key(name)].show(value), source.layer, source.where

    def for_source(self, about: sources.SourceDeclaration) -> "Settings":
        """Return a copy with the endpoint, token and mirrors of another source than `hf`.

        Flags apply to every source. Raises ConfigError for an invalid environment variable of the source.
        """
        if about.name == sources.DEFAULT_SOURCE:
            return self
        found: dict[str, Any] = {"endpoint": about.endpoint, "token": Secret(), "token_file": None, "mirrors": ()}
        setting_sources = dict.fromkeys(found, SettingSource("built-in"))
        for key in found:
            name = sources.full_key(about.name, key)
            if name in self._per_source:
                found[key], setting_sources[key] = self._per_source[name], self.setting_source(name)
            if self.setting_source(key).layer == "flag":
                found[key], setting_sources[key] = getattr(self, FIELDS[key]), self.setting_source(key)
        for key, variables in (("endpoint", about.endpoint_variables), ("token", about.token_variables)):
            variable = next((name for name in variables if self._environ.get(name)), "")
            if variable and setting_sources[key].layer not in ("environment", "flag"):
                found[key], setting_sources[key] = (
                    self._declared_value(key, variable),
                    SettingSource("environment", variable),
                )
        changed = {FIELDS[key]: value for key, value in found.items()}
        hidden = self._source_token_variables | frozenset(about.token_variables)
        return replace(
            self,
            **changed,
            _setting_sources={**self._setting_sources, **setting_sources},
            _source_token_variables=hidden,
        )

    def _declared_value(self, key: str, variable: str) -> Any:
        """Return the checked value of an environment variable that a source declares."""
        read = values.base_url if key == "endpoint" else values.credential
        try:
            value = read(self._environ.get(variable))
        except ValueError:
            raise ConfigError(f"{variable}: not a valid {key}", "Correct or unset it.") from None
        return Secret(value) if key == "token" else value

    @property
    def secret_variables(self) -> frozenset[str]:
        """Environment variables with credentials, which child processes must not inherit."""
        own = {name for key in describe() if key.secret for name in key.variables}
        named = {source.variable for source in self.tokens if source.variable}
        return frozenset(own | named | self._source_token_variables | sources.secret_variables(self._environ.names()))

    def token_source(self, base: str) -> TokenSource | None:
        """Return the entry of `tokens` for a base URL; None with --token or without `implicit_token`."""
        if not self.implicit_token:
            return None
        if url_origin(base) == url_origin(self.endpoint) and self.setting_source("token").layer == "flag":
            return None
        return next((source for source in self.tokens if source.url_origin == url_origin(base)), None)

    def find_token(self) -> Secret:
        """Return the hub's token, empty if there is none. May read token_file. Raises ConfigError."""
        if not self.implicit_token:
            return self.token if self.setting_source("token").layer == "flag" else Secret()
        return self.token or self._token_from_file()

    def _token_from_file(self) -> Secret:
        if self.token_file is None:
            return Secret()
        where = f"token_file {self.token_file}"
        optional = self.setting_source("token_file").layer in ("built-in", "environment")  # as huggingface_hub
        if not optional and not self.token_file.exists():
            raise ConfigError(f"{where} does not exist", "Correct the path, or write the token there.")
        return token_in_file(self.token_file, where)

    def _required(self, key: str, path: Path | None) -> Path:
        if path is None:
            names = " or ".join(next(k for k in describe() if k.name == key).variables[:1])
            raise ConfigError(f"{key} is unknown: there is no home folder", f"Set HOME, or {names}.")
        return path
