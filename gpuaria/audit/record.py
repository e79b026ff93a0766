"""The lines of the audit log: one JSON object per line, in ASCII, so that no file name can end a line.

A `file` line is written for each file that a run published, verified or refused, a `run` line at the end of the run.
A file's line is complete by itself, since a killed run leaves no `run` line.
"""

import json
import re
import typing
from dataclasses import MISSING, dataclass, fields

from gpuaria.records import GOOD_OUTCOMES, to_json
from gpuaria.urls import redacted

_LONGEST = 500  # most characters of a message
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


@dataclass(frozen=True, slots=True)
class MirrorShare:
    """One mirror's contribution: bytes, for a run also the number of files, and why the mirror was dropped."""

    mirror: str
    base: str
    bytes: int
    files: int = 0
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class FileLine:
    """The result for one file. Times are UTC, sizes are in bytes, digests are `algorithm:hex`, or empty without one.

    `path`: the absolute path without symbolic links; `content`: the path of the bytes in a cache, if different.
    `outcome`: as in a Verdict, or "unfinished" if the run ended first. `mirrors`: the mirrors that delivered its bytes
    in this run; `about`: their shares are estimates from the connections' traffic. `reused`: bytes on disk before.
    `same_as`: the file in the repo that it was copied from.
    """

    run: str
    at: str
    user: str
    host: str
    ref: str
    repo: str
    commit: str
    vouched_by: str
    trust: str
    path: str
    content: str
    file: str
    size: int
    digest: str
    outcome: str
    detail: str
    action: str
    mirrors: tuple[MirrorShare, ...] = ()
    about: bool = False
    reused: int = 0
    same_as: str = ""
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Return whether the run left the file in place."""
        return self.outcome in GOOD_OUTCOMES


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run: the request, the source of the checksums, the mirrors and the result.

    `at`: when it began. `asked`: file names and patterns as given; `flags`: other options. `path`: the destination.
    Fields that were unknown at the end are empty. `error`: the class of the error that ended the run.
    """

    run: str
    at: str
    seconds: float
    user: str
    host: str
    gpuaria: str
    ref: str
    asked: tuple[str, ...]
    flags: tuple[str, ...]
    repo: str
    commit: str
    vouched_by: str
    trust: str
    path: str
    endpoint: str
    mirrors: tuple[MirrorShare, ...]
    verdicts: dict[str, int]
    bytes_fetched: int
    bytes_reused: int
    exit_code: int
    error: str = ""
    message: str = ""


LogLine = FileLine | RunLine
_KINDS: dict[str, type[LogLine]] = {"file": FileLine, "run": RunLine}


def dump(line: LogLine) -> str:
    """Return the line with its newline. It contains no other control character."""
    kind = "file" if isinstance(line, FileLine) else "run"
    return json.dumps({"event": kind, **to_json(line)}, separators=(",", ":")) + "\n"


def load(text: str | bytes) -> LogLine | None:
    """Parse a line; return None if it is damaged or of an unknown kind."""
    try:
        row = json.loads(text)
        found = _read(_KINDS[row["event"]], row)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return typing.cast(LogLine, found)


def within(text: str) -> bytes:
    """Return the bytes that represent a text within a line, for a quick search."""
    return json.dumps(text)[1:-1].encode("ascii")


def clean(text: str) -> str:
    """Return a message for the log: URLs without queries and passwords, and cut to a maximum length."""
    return _ADDRESS.sub(lambda found: redacted(found[0]), text)[:_LONGEST]


def name(mirror: str) -> str:
    """Return a mirror's name without user and password: the default name is a part of its URL."""
    return clean(mirror).rpartition("@")[2]


def _read(wanted: typing.Any, value: typing.Any) -> typing.Any:
    """Convert `value` to the annotated type `wanted`; missing fields get their defaults. Raises what `load` catches."""
    kind, parts = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
    if kind is tuple:
        return tuple(_read(parts[0], item) for item in _of(list, value))
    if kind is dict:
        return {_of(str, key): _read(parts[1], item) for key, item in _of(dict, value).items()}
    if kind in (MirrorShare, FileLine, RunLine):
        hints = typing.get_type_hints(kind)
        given = {f.name for f in fields(kind) if f.name in _of(dict, value) or f.default is MISSING}
        return kind(**{key: _read(hints[key], value[key]) for key in given})
    return float(value) if kind is float and type(value) is int else _of(kind, value)


def _of(kind: typing.Any, value: typing.Any) -> typing.Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value
