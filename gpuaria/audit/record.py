"""The lines of the audit log: JSON objects, one a line, in ASCII, so that no name from outside can end a line.

Two kinds: a file that a run published, proved or refused, and the run itself at its end. A file's line says all that
there is to say of that file, since a run that is killed leaves no line of its own.
"""

import json
import re
import typing
from dataclasses import MISSING, dataclass, fields

from gpuaria.records import GOOD_OUTCOMES, to_json
from gpuaria.urls import redacted

_LONGEST = 500  # characters of a sentence
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


@dataclass(frozen=True, slots=True)
class MirrorShare:
    """What one mirror gave, in bytes; to a run also in files, and why it was not used (any more)."""

    mirror: str
    base: str
    bytes: int
    files: int = 0
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class FileLine:
    """What became of one file. Times are UTC, sizes bytes, digests as `algorithm:hex`, "" where there is none.

    `path`: the absolute name, all folders real ones; `content`: where a cache keeps the bytes, if that is elsewhere.
    `outcome`: as in a Verdict, or "unfinished": the run ended before. `mirrors`: who gave bytes of it in this run;
    `about`: told apart by what came over the connections, and so not to the byte. `reused`: bytes that were here
    before. `same_as`: the file of the repo that it was copied from.
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
        """Whether the file was in place then."""
        return self.outcome in GOOD_OUTCOMES


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run at its end: who asked for what, who vouched, who served, how it went.

    `at`: its begin. `asked`: file names and patterns, as given; `flags`: what else was asked for. `path`: the
    destination. What was not known when it ended is empty. `error`: the class that ended it, `message` its sentence.
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
    """One line, with its end. No line has a control character in it, whatever the names are."""
    kind = "file" if isinstance(line, FileLine) else "run"
    return json.dumps({"event": kind, **to_json(line)}, separators=(",", ":")) + "\n"


def load(text: str | bytes) -> LogLine | None:
    """What a line says; None for one that is damaged, or of a kind that is not known."""
    try:
        row = json.loads(text)
        found = _read(_KINDS[row["event"]], row)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return typing.cast(LogLine, found)


def within(text: str) -> bytes:
    """How a text looks inside a line: a quick way to tell lines that cannot have it."""
    return json.dumps(text)[1:-1].encode("ascii")


def clean(text: str) -> str:
    """A sentence for the log: addresses without queries and passwords, and of bounded length."""
    return _ADDRESS.sub(lambda found: redacted(found[0]), text)[:_LONGEST]


def name(mirror: str) -> str:
    """A mirror's name without what stands before an @: the name of an endpoint is a part of its address."""
    return clean(mirror).rpartition("@")[2]


def _read(wanted: typing.Any, value: typing.Any) -> typing.Any:
    """`value` as the annotated type `wanted`; fields that are missing take their defaults. Raises as `load` expects."""
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
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
