"""Read the layers of settings and merge them."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuaria.errors import ConfigError, GpuariaError, UsageError
from gpuaria.settings import files, sources, values
from gpuaria.settings.folders import Folders, NoHome
from gpuaria.settings.keys import Key, Layer, SettingSource
from gpuaria.settings.kinds import InvalidValue, RawValue, closest_word
from gpuaria.settings.known import KnownMirror, MirrorNames
from gpuaria.settings.merged import Settings
from gpuaria.settings.secret import HiddenEnvironment, Secret
from gpuaria.settings.table import FIELDS, describe

SITE = Path("/etc/gpuaria/config.yaml")
CONFIG_VARIABLE = "GPUARIA_CONFIG"  # same as --config
_KEYS = {key.name: key for key in describe()}
_MIRROR_KEYS = ("mirrors", "known_mirrors")


@dataclass(frozen=True, slots=True)
class _LayerValues:
    """The values of one layer. `file` is None for the environment and for flags."""

    layer: Layer
    entries: dict[str, RawValue]
    folders: Folders
    file: files.SettingsFile | None = None


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: Path,
    *,
    config_file: Path | None = None,
    site: Path = SITE,
) -> Settings:
    """Merge the layers: built-in < site < user < project < environment < flags.

    A flag of None is unset. `config_file` (or GPUARIA_CONFIG) replaces the user file and the project file. Raises
    ConfigError for a file or a variable, UsageError for a flag.
    """
    return _merged(flags, Folders(environ, cwd, expand_variables=True), config_file, site)[0]


def check_keywords(named: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise TypeError for a keyword argument that is neither a setting nor one of `others`, with the nearest name."""
    known = [*_KEYS, *others]
    for name in named:
        if name not in known:
            near = closest_word(name, known)
            hint = f"; did you mean {near!r}?" if near else ""
            raise TypeError(f"unknown keyword argument {name!r}{hint}")


def known_mirrors(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: Path,
    *,
    config_file: Path | None = None,
    site: Path = SITE,
) -> tuple[KnownMirror, ...]:
    """Return all mirrors that have a name: those of the layers, then the shipped ones. Raises like `load`."""
    settings, names = _merged(flags, Folders(environ, cwd, expand_variables=True), config_file, site)
    return names.listed(settings.mirrors, settings.candidates())


def user_file(environ: Mapping[str, str], cwd: Path) -> Path:
    """Return the settings file to edit: that of GPUARIA_CONFIG, else the user file. Raises ConfigError."""
    folders = Folders(environ, cwd, expand_variables=True)
    named = folders.variable(CONFIG_VARIABLE)
    path = _named_file(named, folders) if named else _user_file(folders)
    if path is None:
        raise ConfigError("the path of the user's settings file is unknown: there is no home folder", "Set HOME.")
    return path


def _merged(
    flags: Mapping[str, object], folders: Folders, config_file: Path | None, site: Path
) -> tuple[Settings, MirrorNames]:
    _check_variables(folders.environ)
    names = MirrorNames()
    found, origins = _built_in(folders)
    for given in _layers(flags, folders, config_file, site):
        for name, raw in sources.flattened(given.entries).items():
            found[name] = _parsed_value(name, names.with_bases(raw) if name in _MIRROR_KEYS else raw, given)
            origins[name] = SettingSource(given.layer, raw.where)
            if name in _MIRROR_KEYS:
                names.add_layer(found[name] or (), given.layer, raw.where)
    values_of = {FIELDS[name]: value for name, value in found.items() if name in FIELDS}
    own = {name: value for name, value in found.items() if name not in FIELDS}
    return Settings(
        **values_of,
        _setting_sources=origins,
        _mirror_names=names,
        _per_source=own,
        _environ=HiddenEnvironment(folders.environ),
    ), names


def _layers(
    flags: Mapping[str, object], folders: Folders, config_file: Path | None, site: Path
) -> Iterator[_LayerValues]:
    for layer, path in _settings_files(folders, config_file, site):
        file = files.read(path)
        if file:
            yield _LayerValues(layer, file.entries, Folders(folders.environ, path.parent), file)
        elif layer == "file":
            raise ConfigError(f"{path}: there is no such settings file", "Correct --config or GPUARIA_CONFIG.")
    yield _LayerValues("environment", _from_environment(folders), folders)
    yield _LayerValues("flag", _from_flags(flags), Folders(folders.environ, folders.base))


def _settings_files(folders: Folders, config_file: Path | None, site: Path) -> Iterator[tuple[Layer, Path]]:
    yield "site", site
    for folder in folders.config_dirs():
        yield "site", folder / "gpuaria" / "config.yaml"
    named = str(config_file or folders.variable(CONFIG_VARIABLE))
    if named:
        yield "file", _named_file(named, folders)
        return
    user = _user_file(folders)
    if user:
        yield "user", user
    yield "project", folders.base / "gpuaria.yaml"


def _named_file(text: str, folders: Folders) -> Path:
    try:
        return folders.path(text)
    except (ValueError, NoHome):
        raise ConfigError(f"{text!r} is not a path to a settings file", "Write the path in full.") from None


def _user_file(folders: Folders) -> Path | None:
    try:
        return folders.config_home() / "gpuaria" / "config.yaml"
    except NoHome:
        return None


def _built_in(folders: Folders) -> tuple[dict[str, Any], dict[str, SettingSource]]:
    found: dict[str, Any] = {}
    origins: dict[str, SettingSource] = {}
    for key in describe():
        value, where = key.kind.empty, ""
        if key.default.startswith("$"):
            value, where = _derived(key, folders)
        elif key.default:
            value = key.kind.parse(_raw(key, key.default, "built-in"), folders)
        found[key.name], origins[key.name] = value, SettingSource("built-in", where)
    return found, origins


def _derived(key: Key, folders: Folders) -> tuple[Path | None, str]:
    try:
        return folders.derived(key.default)
    except NoHome:
        return None, ""
    except ValueError:
        raise ConfigError("HF_HOME: must be a path", "Correct or unset it.") from None


def _parsed_value(name: str, raw: RawValue, given: _LayerValues) -> Any:
    key = _KEYS.get(sources.base_key(name))
    if key is None:
        close = closest_word(name, list(_KEYS))
        hint = f"Did you mean {close}?" if close else "`gpuaria config` lists every key."
        raise ConfigError(f"{raw.where}: unknown key {values.quoted(name) or '(not shown)'}", hint)
    key = replace(key, name=name)
    if given.file:
        _check_place(key, raw, given, given.file)
    try:
        return key.kind.parse(raw, given.folders)
    except InvalidValue as misfit:
        raise _invalid_value(given.layer, key, misfit) from None


def _invalid_value(layer: Layer, key: Key, misfit: InvalidValue) -> GpuariaError:
    default = f": the default is {key.default}" if key.default else ""
    hint = misfit.hint or f"Correct it, or remove it{default}."
    kind = UsageError if layer == "flag" else ConfigError
    subject = "" if misfit.where == key.flag else f"{key.name} "
    return kind(f"{misfit.where}{': ' if subject else ' '}{subject}{misfit.problem}", hint)


def _check_place(key: Key, raw: RawValue, given: _LayerValues, file: files.SettingsFile) -> None:
    """Raise ConfigError for a key that this file may not contain.

    A project file may come from a foreign repository: it must not redirect a token or choose a program to run. A file
    with a credential must be private.
    """
    if key.files == "none":
        variable = key.variables[0] if key.name in _KEYS else sources.variable_name(key.name)
        hint = f"Put it into a separate file and set {key.name}_file to that path, or set {variable}."
        raise ConfigError(f"{raw.where}: {key.name} is not allowed in a settings file", hint)
    if key.files == "not project" and given.layer == "project":
        hint = f"Put it in the user file, {_user_file(given.folders) or '~/.config/gpuaria/config.yaml'}."
        raise ConfigError(f"{raw.where}: {key.name} is not allowed in a project's settings file", hint)
    if key.secret and not file.private:
        hint = f"Run: chmod 600 {shlex.quote(str(file.path))}"
        raise ConfigError(f"{raw.where}: {key.name} is in a file that other users can read", hint)


def _check_variables(environ: Mapping[str, str]) -> None:
    known = {name for key in describe() for name in key.variables} | {CONFIG_VARIABLE}
    for name in sorted(environ):
        if not name.startswith("GPUARIA_") or name.startswith("GPUARIA_TEST_"):
            continue
        if name not in known and not sources.is_variable(name) and environ[name].strip():
            raise ConfigError(f"unknown environment variable {name[:60]!r}", _variable_hint(name))


def _variable_hint(name: str) -> str:
    word = name.removeprefix("GPUARIA_").lower()
    if word in _KEYS:
        return f"Set {_KEYS[word].variables[0]} instead."
    close = closest_word(word, [*_KEYS, "config"])
    own = "HF_TOKEN" if close == "token" else f"GPUARIA_{close.upper()}"
    return f"Did you mean {own}?" if close else "Unset it; `gpuaria config` lists all settings."


def _from_environment(folders: Folders) -> dict[str, RawValue]:
    entries: dict[str, RawValue] = {}
    for key in describe():
        name = next(filter(folders.variable, key.variables + key.disabling), "")
        if name:
            text = folders.variable(name)
            entries[key.name] = _raw(key, _inverted(key, name, text) if name in key.disabling else text, name)
    for source, own, name in sources.from_environment(folders.environ):
        entries[sources.full_key(source, own)] = _raw(_KEYS[own], folders.variable(name), name)
    return entries


def _inverted(key: Key, name: str, text: str) -> str:
    """Convert the text of a disabling variable: true means "no", false means the default (which may be auto)."""
    try:
        return "no" if values.boolean(text) else key.default
    except ValueError:
        raise ConfigError(f"{name}: must be yes or no", "Correct or unset it.") from None


def _from_flags(flags: Mapping[str, object]) -> dict[str, RawValue]:
    unknown = flags.keys() - _KEYS.keys()
    if unknown:
        raise KeyError(f"flags without a key: {', '.join(sorted(unknown))}")  # a bug in the caller
    return {
        key.name: _raw(key, flags[key.name], key.flag)
        for key in describe()
        if flags.get(key.name) not in (None, [], (), {})
    }


def _raw(key: Key, value: object, where: str) -> RawValue:
    """Wrap a value from a variable or flag; the text of a list is split, usually at commas and spaces."""
    if isinstance(value, Mapping):
        return RawValue({str(name): RawValue(_text(row), where) for name, row in value.items()}, where)
    if isinstance(value, list | tuple):
        return RawValue(tuple(RawValue(_text(row), where) for row in value), where)
    text = _text(value)
    if key.kind.many:
        return RawValue(
            tuple(RawValue(part, where) for part in re.split(key.kind.between, text) if part.strip()), where
        )
    return RawValue(text, where)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.reveal() if isinstance(value, Secret) else str(value)
