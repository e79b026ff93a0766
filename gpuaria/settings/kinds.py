"""Types of settings: the accepted values in words, for messages and the reference, and a parser."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gpuaria.records import Mirror
from gpuaria.settings import values
from gpuaria.settings.folders import Folders, NoHome
from gpuaria.settings.secret import Secret

_ROW_KEYS = ("name", "base", "location", "notes")
_A_URL = "an http or https URL with a host and without user, query or fragment"


@dataclass(frozen=True, slots=True)
class RawValue:
    """An unparsed value of a layer. `where`: "HF_ENDPOINT", "--jobs" or "/etc/gpuaria/config.yaml:3"."""

    content: "str | tuple[RawValue, ...] | dict[str, RawValue]" = field(repr=False)
    where: str


class InvalidValue(ValueError):
    """A value that its key rejects. `problem` completes a sentence that begins with the name of the key."""

    def __init__(self, problem: str, where: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.where, self.hint = problem, where, hint


def show(value: Any) -> str:
    """Return a value as text, as a settings file would have it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(show, value)) or "(none)"
    if isinstance(value, Mirror):
        return value.base
    return "(not set)" if value is None or value == "" else str(value)


@dataclass(frozen=True, slots=True)
class SettingType:
    """The type of a setting.

    `expects` completes "must be ..."; `parse` raises InvalidValue; `empty` is the value of a key without a default.
    `many`: the value is a list, and text from a variable or a flag is split at the pattern `between`.
    """

    expects: str
    parse: Callable[[RawValue, Folders], Any]
    show: Callable[[Any], str] = show
    empty: Any = ""
    many: bool = False
    between: str = r"[,\s]+"


def closest_word(word: str, known: list[str]) -> str:
    """Return the known word most similar to `word`, or empty."""
    import difflib

    return next(iter(difflib.get_close_matches(word[:80], known, n=1)), "")


def yes_or_no(auto: bool = False) -> SettingType:
    """Yes or no, as a bool; with `auto` also "auto", as None."""

    def read(text: str) -> bool | None:
        return None if auto and text.strip().lower() == "auto" else values.boolean(text)

    return single_value("yes, no or auto" if auto else "yes or no", read, lambda v: "auto" if v is None else show(v))


def whole_number(low: int, high: int) -> SettingType:
    """A whole number from `low` to `high`."""
    return single_value(f"a whole number from {low} to {high}", partial(values.whole_number, low=low, high=high))


def size(low: int = 0, high: int = 0) -> SettingType:
    """Bytes, from `low` to `high` if `high` is given."""
    limits = f" from {values.show_size(low)} to {values.show_size(high)}" if high else ""
    read = partial(values.size, low=low, high=high) if high else values.size
    return single_value(f"a size{limits} such as 20M or 4 MiB", read, values.show_size)


def choice(*words: str) -> SettingType:
    """One of a few words."""

    def read(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError
        return word

    return single_value(f"{', '.join(words[:-1])} or {words[-1]}", read)


def path() -> SettingType:
    """A path, made absolute: `~` is expanded, and a relative path starts at the folder of its layer."""
    expects = "a path"

    def parse(raw: RawValue, folders: Folders) -> Any:
        try:
            return _read(raw, expects, folders.path)
        except NoHome:
            raise InvalidValue("begins with ~, but the home folder is unknown", raw.where, "Set HOME.") from None

    return SettingType(expects, parse, empty=None)


def secret() -> SettingType:
    """A credential, which messages never contain."""
    expects = "one line of printable ASCII without spaces"

    def parse(raw: RawValue, folders: Folders) -> Any:
        return Secret(_read(raw, expects, values.credential, hidden=True))

    return SettingType(expects, parse, show=str, empty=Secret())


def resolvers() -> SettingType:
    """DNS servers; the system's resolver always comes first."""
    expects = "IP[:PORT], tls://IP[:PORT], https://host/dns-query or system"

    def parse(raw: RawValue, folders: Folders) -> Any:
        rows = [_read(row, f"a list of DNS servers, each {expects}", values.resolver) for row in _rows(raw)]
        return tuple(dict.fromkeys(["system", *rows]))

    return SettingType(f"a list of DNS servers, each {expects}", parse, empty=("system",), many=True)


def hosts() -> SettingType:
    """Host names or IP addresses, without scheme and port."""
    expects = "a list of host names or IP addresses, without scheme and port"

    def parse(raw: RawValue, folders: Folders) -> Any:
        return tuple(dict.fromkeys(_read(row, expects, values.host) for row in _rows(raw)))

    return SettingType(expects, parse, empty=(), many=True)


AUTO, NO_MIRRORS = "auto", "none"


def mirrors() -> SettingType:
    """Mirrors, or one of two words: "auto" (as None) or "none" (as an empty tuple)."""
    rows = mirror_rows()
    expects = f"{AUTO}, {NO_MIRRORS} or {rows.expects}"

    def parse(raw: RawValue, folders: Folders) -> Any:
        words = [word for word in map(_special_word, _given_rows(raw)) if word]
        if words and len(_given_rows(raw)) > 1:
            raise InvalidValue(
                f"has {words[0]!r} together with other rows", raw.where, "Use that word alone, or a list alone."
            )
        if words:
            return None if words[0] == AUTO else ()
        return rows.parse(raw, folders)

    def shown(value: Any) -> str:
        return AUTO if value is None else show(value) if value else NO_MIRRORS

    return SettingType(expects, parse, shown, empty=None, many=True)


def mirror_rows() -> SettingType:
    """Mirrors, each a URL or a mapping. Names and URLs must be unique."""

    def parse(raw: RawValue, folders: Folders) -> Any:
        named: dict[str, Mirror] = {}
        for row in _rows(raw):
            mirror = _mirror(row)
            if named.setdefault(mirror.name, mirror).base != mirror.base:
                raise InvalidValue(f"has two rows named {mirror.name!r}", row.where, "Give one of them another name.")
        if len({mirror.base for mirror in named.values()}) < len(named):  # one server must not count twice in a quorum
            raise InvalidValue("has one URL under two names", raw.where, "Remove one of the two rows.")
        return tuple(named.values())

    return SettingType(f"a list of URLs, or of mappings with {', '.join(_ROW_KEYS)}", parse, empty=(), many=True)


def _given_rows(raw: RawValue) -> tuple[RawValue, ...]:
    return raw.content if isinstance(raw.content, tuple) else (raw,)


def _special_word(row: RawValue) -> str:
    """Return AUTO or NO_MIRRORS if the row is that word, else empty."""
    text = row.content.strip().lower() if isinstance(row.content, str) else ""
    return text if text in (AUTO, NO_MIRRORS) else ""


def single_value(expects: str, read: Callable[[str], Any], show: Callable[[Any], str] = show) -> SettingType:
    """A single value. `read` converts the text, or raises ValueError."""
    return SettingType(expects, lambda raw, folders: _read(raw, expects, read), show)


def base_url() -> SettingType:
    """The base URL of a hub or mirror."""
    return single_value(_A_URL, values.base_url)


def rpc_url() -> SettingType:
    """The RPC URL of a running aria2c."""
    return single_value("a URL such as http://127.0.0.1:6800/jsonrpc", values.rpc_url)


def program() -> SettingType:
    """A program's name or path."""
    return single_value("the name or path of a program", values.program)


def duration() -> SettingType:
    """Seconds from 0 to a year."""
    return single_value('a time such as 90, "10 min" or 1h30m', values.seconds, values.show_seconds)


def label() -> SettingType:
    """A name or location, as free text."""
    return single_value("one short line", values.label)


def timeout() -> SettingType:
    """Seconds above 0, at most 600."""
    return single_value("a time above 0 and at most 10 min", values.timeout, values.show_seconds)


def _read(raw: RawValue, expects: str, read: Callable[[str], Any], hidden: bool = False) -> Any:
    content = raw.content
    if not isinstance(content, str):
        raise InvalidValue(f"must be {expects}, not a {'list' if isinstance(content, tuple) else 'mapping'}", raw.where)
    try:
        return read(content)
    except ValueError:
        not_this = "" if hidden else values.quoted(content)
        raise InvalidValue(f"must be {expects}" + (f", not {not_this}" if not_this else ""), raw.where) from None


def _rows(raw: RawValue) -> tuple[RawValue, ...]:
    if not isinstance(raw.content, tuple):
        raise InvalidValue(
            f"must be a list, not a {'mapping' if isinstance(raw.content, dict) else 'single value'}", raw.where
        )
    return raw.content


def _mirror(row: RawValue) -> Mirror:
    if not isinstance(row.content, dict):
        base = _read(row, f"a list, each row a name of `gpuaria mirrors list` or {_A_URL}", values.base_url)
        return Mirror(name=_host_and_path(base), base=base)
    for word, entry in row.content.items():
        if word not in _ROW_KEYS:
            close = closest_word(word, list(_ROW_KEYS))
            hint = f"Did you mean {close}?" if close else f"A row has {', '.join(_ROW_KEYS)}."
            raise InvalidValue(f"has a row with the unknown key {values.quoted(word)}", entry.where, hint)
    texts = {word: _label(word, entry) for word, entry in row.content.items() if word in ("name", "location")}
    if "base" not in row.content:
        raise InvalidValue("has a row without a base", row.where, "Add the mirror's URL as base.")
    base = _read(row.content["base"], f"rows whose base is {_A_URL}", values.base_url)
    return Mirror(texts.get("name", _host_and_path(base)), base, location=texts.get("location", ""))


def _label(word: str, entry: RawValue) -> str:
    return str(_read(entry, f"rows whose {word} is one short line", values.label))


def _host_and_path(base: str) -> str:
    return base.partition("://")[2]
