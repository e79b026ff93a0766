"""Where the token of a host is: an environment variable, a file, or a helper that is asked. Never the token itself."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpuaria.errors import ConfigError
from gpuaria.settings import values
from gpuaria.settings.folders import Folders, NoHome
from gpuaria.settings.kinds import Kind, Misfit, Raw
from gpuaria.settings.secret import Secret
from gpuaria.urls import url_origin

_FORMS = "env:NAME, file:/PATH or helper:COMMAND"
_EXPECTS = f"a mapping of hosts to where their token is, each {_FORMS}"
_NEVER = "The token itself never stands in settings."
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")  # capitals only: a token that stands here by mistake is not one
_TOKEN = re.compile(r"hf_\w{16,}")
_FILE_LIMIT = 8192  # bytes


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where the token of `origin` (scheme://host:port) is: one of `variable`, `file` and `helper` is set.

    `value` is the variable's, empty where it was not set when the settings were read. `helper` is a command's words.
    """

    url_origin: str
    variable: str = ""
    file: Path | None = None
    helper: tuple[str, ...] = field(default=(), repr=False)  # people do write a token into a command
    value: Secret = field(default_factory=Secret)

    @property
    def place(self) -> str:
        """Where the token is, for people; of a helper its program alone."""
        if self.helper:
            return f"helper:{self.helper[0]}"
        return f"file:{self.file}" if self.file else f"env:{self.variable}"

    def __str__(self) -> str:
        return f"{self.url_origin}={self.place}"

    def read(self) -> Secret:
        """The token of a variable or a file. Raises ConfigError, without the token in it, where there is none."""
        what = f"the token of {self.url_origin}"
        if self.file is not None:
            found = in_file(self.file, f"{what} in {self.file}")
            if not found:
                raise ConfigError(f"{what} in {self.file} is missing", "Write it there, or correct the setting tokens.")
            return found
        if not self.value:
            raise ConfigError(f"{what} is to be in {self.variable}, which is not set", f"Set {self.variable}.")
        return checked(self.value.reveal(), f"{self.variable}, for {self.url_origin},")


def in_file(path: Path, where: str) -> Secret:
    """The token that a file holds alone, false where there is no file or it is empty. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_LIMIT)
    except FileNotFoundError:
        return Secret()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}", "Correct the path or its mode.") from None
    text = content.decode("latin-1").strip()
    return checked(text, where) if text else Secret()


def checked(text: str, where: str) -> Secret:
    """`text` as a token. Raises ConfigError, which does not repeat it."""
    try:
        return Secret(values.credential(text))
    except ValueError:
        raise ConfigError(f"{where} does not hold one token alone", "Write the token there and nothing else.") from None


def tokens() -> Kind:
    """Tokens by host. A variable has one `HOST=SOURCE` per line, or with semicolons between them."""

    def parse(raw: Raw, folders: Folders) -> tuple[TokenSource, ...]:
        found: dict[str, TokenSource] = {}
        for host, source in _pairs(raw):
            place = _origin(host, source.where)
            if place in found:
                raise Misfit(f"names {values.shown(host) or 'a host'} twice", source.where, "Remove one of them.")
            found[place] = _source(place, source, folders)
        return tuple(found.values())

    return Kind(_EXPECTS, parse, empty=(), many=True, between=r"[;\n]+")


def _pairs(raw: Raw) -> list[tuple[str, Raw]]:
    if isinstance(raw.content, Mapping):
        return list(raw.content.items())
    rows = raw.content if isinstance(raw.content, tuple) else (raw,)
    pairs = []
    for row in rows:
        text = row.content if isinstance(row.content, str) else ""
        host, equals, source = text.partition("=")
        if not equals:
            raise Misfit(f"must be {_EXPECTS}", row.where, _NEVER)
        pairs.append((host, Raw(source, row.where)))
    return pairs


def _origin(host: str, where: str) -> str:
    """`host` and `host:port` mean https; http has to be written out."""
    word = host.strip()
    try:
        base = values.address(word if "://" in word else f"https://{word}")
        if base.count("/") == 2:
            return url_origin(base)
    except ValueError:
        pass
    shown = values.shown(word) or "one of them"
    hint = "Write hub.example, hub.example:8443 or http://hub.example, without a path."
    raise Misfit(f"must be {_EXPECTS}, and {shown} is no host", where, hint)


def _source(place: str, raw: Raw, folders: Folders) -> TokenSource:
    text = raw.content.strip() if isinstance(raw.content, str) else ""
    form, _, rest = text.partition(":")
    try:
        if form == "env" and _NAME.fullmatch(rest):
            return TokenSource(place, variable=rest, value=Secret(folders.variable(rest).strip()))
        if form == "file" and rest.startswith(("/", "~", "./", "../")):
            return TokenSource(place, file=folders.path(rest))
        if form == "helper" and rest.isprintable():
            return TokenSource(place, helper=_words(rest, folders))
    except NoHome:
        raise Misfit("begins a path with ~, and no home folder is known", raw.where, "Set HOME.") from None
    except ValueError:
        pass
    raise Misfit(f"must be {_EXPECTS}, and that of {place} is none of these", raw.where, _NEVER)


def _words(command: str, folders: Folders) -> tuple[str, ...]:
    """A command without a shell: quotes group, and nothing else is special. Raises ValueError, NoHome."""
    program, *words = shlex.split(command) or [""]
    if not program or _TOKEN.fullmatch(program):
        raise ValueError
    return (str(folders.path(program)) if "/" in program else program, *words)
