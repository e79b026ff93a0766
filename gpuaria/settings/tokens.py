"""The location of a host's token: an environment variable, a file, or a helper command. Never the token itself."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpuaria.errors import ConfigError
from gpuaria.settings import values
from gpuaria.settings.folders import Folders, NoHome
from gpuaria.settings.kinds import InvalidValue, RawValue, SettingType
from gpuaria.settings.secret import Secret
from gpuaria.urls import url_origin

_FORMS = "env:NAME, file:/PATH or helper:COMMAND"
_EXPECTS = f"a mapping of hosts to where their token is, each {_FORMS}"
_NEVER = "A token must not be in a settings file."
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")  # capitals only, so that a token written here by mistake is rejected
_TOKEN = re.compile(r"hf_\w{16,}")
_FILE_LIMIT = 8192  # bytes


@dataclass(frozen=True, slots=True)
class TokenSource:
    """The location of the token for `url_origin` (scheme://host:port): one of `variable`, `file` and `helper`.

    `value`: the content of the variable when the settings were read, empty if it was unset. `helper`: a command and
    its arguments.
    """

    url_origin: str
    variable: str = ""
    file: Path | None = None
    helper: tuple[str, ...] = field(default=(), repr=False)  # may contain a token
    value: Secret = field(default_factory=Secret)

    @property
    def place(self) -> str:
        """The location as text, without the arguments of a helper."""
        if self.helper:
            return f"helper:{self.helper[0]}"
        return f"file:{self.file}" if self.file else f"env:{self.variable}"

    def __str__(self) -> str:
        return f"{self.url_origin}={self.place}"

    def read(self) -> Secret:
        """Return the token from the variable or file. Raises ConfigError, without the token, if it is missing."""
        what = f"the token of {self.url_origin}"
        if self.file is not None:
            found = token_in_file(self.file, f"{what} in {self.file}")
            if not found:
                raise ConfigError(f"{what} in {self.file} is missing", "Write it there, or correct the setting tokens.")
            return found
        if not self.value:
            raise ConfigError(f"{what} should be in {self.variable}, which is not set", f"Set {self.variable}.")
        return checked_token(self.value.reveal(), f"{self.variable}, for {self.url_origin},")


def token_in_file(path: Path, where: str) -> Secret:
    """Return the token in a file, empty if the file is missing or empty. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_LIMIT)
    except FileNotFoundError:
        return Secret()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}", "Correct the path or its mode.") from None
    text = content.decode("latin-1").strip()
    return checked_token(text, where) if text else Secret()


def checked_token(text: str, where: str) -> Secret:
    """Return `text` as a token. Raises ConfigError, never containing the text."""
    try:
        return Secret(values.credential(text))
    except ValueError:
        raise ConfigError(f"{where} does not hold one token alone", "Write the token there and nothing else.") from None


def tokens() -> SettingType:
    """Token locations by host. A variable contains `HOST=SOURCE` entries, separated by newlines or semicolons."""

    def parse(raw: RawValue, folders: Folders) -> tuple[TokenSource, ...]:
        found: dict[str, TokenSource] = {}
        for host, source in _pairs(raw):
            place = _url_origin_of(host, source.where)
            if place in found:
                raise InvalidValue(
                    f"names {values.quoted(host) or 'a host'} twice", source.where, "Remove one of them."
                )
            found[place] = _source(place, source, folders)
        return tuple(found.values())

    return SettingType(_EXPECTS, parse, empty=(), many=True, between=r"[;\n]+")


def _pairs(raw: RawValue) -> list[tuple[str, RawValue]]:
    if isinstance(raw.content, Mapping):
        return list(raw.content.items())
    rows = raw.content if isinstance(raw.content, tuple) else (raw,)
    pairs = []
    for row in rows:
        text = row.content if isinstance(row.content, str) else ""
        host, equals, source = text.partition("=")
        if not equals:
            raise InvalidValue(f"must be {_EXPECTS}", row.where, _NEVER)
        pairs.append((host, RawValue(source, row.where)))
    return pairs


def _url_origin_of(host: str, where: str) -> str:
    """Return the URL origin of a host; `host` and `host:port` imply https."""
    word = host.strip()
    try:
        base = values.base_url(word if "://" in word else f"https://{word}")
        if base.count("/") == 2:
            return url_origin(base)
    except ValueError:
        pass
    shown = values.quoted(word) or "one of them"
    hint = "Write hub.example, hub.example:8443 or http://hub.example, without a path."
    raise InvalidValue(f"must be {_EXPECTS}, and {shown} is not a host", where, hint)


def _source(place: str, raw: RawValue, folders: Folders) -> TokenSource:
    text = raw.content.strip() if isinstance(raw.content, str) else ""
    form, _, rest = text.partition(":")
    try:
        if form == "env" and _NAME.fullmatch(rest):
            return TokenSource(place, variable=rest, value=Secret(folders.variable(rest).strip()))
        if form == "file" and rest.startswith(("/", "~", "./", "../")):
            return TokenSource(place, file=folders.path(rest))
        if form == "helper" and rest.isprintable():
            return TokenSource(place, helper=_command_words(rest, folders))
    except NoHome:
        raise InvalidValue(
            "has a path that begins with ~, but the home folder is unknown", raw.where, "Set HOME."
        ) from None
    except ValueError:
        pass
    raise InvalidValue(f"must be {_EXPECTS}, but that of {place} is none of these", raw.where, _NEVER)


def _command_words(command: str, folders: Folders) -> tuple[str, ...]:
    """Split a command into arguments; only quotes are special, no shell runs. Raises ValueError, NoHome."""
    program, *words = shlex.split(command) or [""]
    if not program or _TOKEN.fullmatch(program):
        raise ValueError
    return (str(folders.path(program)) if "/" in program else program, *words)
