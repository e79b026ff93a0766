"""Finds a file's history in the audit log, and checks whether the file has changed. Offline.

The search is by path first, with symbolic links resolved, then by digest, since the file may be moved or copied.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gpuaria.audit.log import NAME, lines
from gpuaria.audit.record import FileLine, LogLine, RunLine, load, within
from gpuaria.errors import DiskError, NotFound
from gpuaria.hashing import CHUNK, hasher
from gpuaria.os_errors import explained
from gpuaria.paths import SafePath
from gpuaria.records import Digest, RemoteFile
from gpuaria.text import printable
from gpuaria.verification import verify_file

_ALGORITHMS = ("sha256", "git-sha1")  # those that hubs use


@dataclass(frozen=True, slots=True)
class Trace:
    """The history of one file. `entry` is the last one that left the file in place, or else the last one.

    `state`: the file on disk compared with the digest of `entry`; "not compared" without a digest. `found_by`:
    "digest" if the log has these bytes under other paths only. `run`: the run of `entry`, None if it was killed.
    `source`: the entry of the download, if `entry` found the bytes on disk. `others`: other entries for this path,
    newest first. `now`: an entry with the bytes that the file has now, if it has changed.
    """

    path: str
    found_by: Literal["path", "digest"]
    state: Literal["same", "changed", "gone", "not compared"]
    detail: str
    entry: FileLine
    run: RunLine | None = None
    source: FileLine | None = None
    others: tuple[FileLine, ...] = ()
    now: FileLine | None = None


def trace(path: Path, folder: Path) -> Trace:
    """Return the history of the file `path` from the log in `folder`. Raises NotFound or DiskError."""
    place = Path(os.path.abspath(path))
    with explained(place):
        entries = _by_name(folder, place)
        found = _by_path(place, entries) if entries else _by_digest(folder, place)
    return _completed(found, folder)


def runs(path: Path, folder: Path) -> tuple[RunLine, ...]:
    """Return the runs into the folder `path`, or a repo's folder in a cache, newest first. Raises as `trace` does."""
    names = {os.path.abspath(path), os.path.realpath(path)}
    below = tuple(f"{name}/snapshots/" for name in names)
    rows = _entries(folder, map(within, names), lambda line: line.path in names or line.path.startswith(below))
    found = [line for line in rows if isinstance(line, RunLine)]
    if not found:
        raise NotFound(
            f"the audit log has no run with the destination {printable(str(path))}",
            "Give a file in it, or the folder that was used with --to.",
        )
    return tuple(reversed(found))


def _by_name(folder: Path, place: Path) -> list[FileLine]:
    """Return the entries for the path, or else for the content it links to, oldest first."""
    named = {str(place), os.path.join(os.path.realpath(place.parent), place.name)}
    real = os.path.realpath(place)
    names = {*named, real}
    rows = _entries(folder, map(within, names), lambda line: line.path in names or _content(line) == real)
    found = [line for line in rows if isinstance(line, FileLine)]
    return [line for line in found if line.path in named] or found


def _by_digest(folder: Path, place: Path) -> Trace:
    """Find a file with an unknown path by its bytes."""
    shown = printable(str(place))
    if not place.is_file():
        what = "it is a folder" if place.is_dir() else "there is no such file"
        raise NotFound(f"the audit log does not know {shown}, and {what}", "Give a file that gpuaria downloaded.")
    found = _with_bytes(folder, place)
    if not found:
        raise NotFound(
            f"the audit log has neither the path nor the bytes of {shown}",
            f"gpuaria did not download it, or did so before the log in {folder} existed.",
        )
    fetched = [line for line in found if line.mirrors] or found
    return Trace(str(place), "digest", "same", "", fetched[-1])


def _by_path(place: Path, entries: list[FileLine]) -> Trace:
    """Compare a file with the last entry that left it in place."""
    good = [line for line in entries if line.good]
    entry = (good or entries)[-1]
    others = tuple(line for line in reversed(entries) if line is not entry)
    state, detail = _compared(place, entry)
    return Trace(str(place), "path", state, detail, entry, others=others)


def _compared(place: Path, entry: FileLine) -> tuple[Literal["same", "changed", "gone", "not compared"], str]:
    if not place.is_file():
        return "gone", ""
    algorithm, _, hexdigest = entry.digest.partition(":")
    digest = Digest(algorithm, hexdigest) if hexdigest else None
    try:
        verdict = verify_file(place, RemoteFile(SafePath(entry.file), entry.size, digest))
    except ValueError:  # an algorithm of another version
        return "not compared", f"unknown digest {algorithm}"
    if verdict.outcome in ("wrong size", "wrong digest"):
        return "changed", verdict.detail
    if verdict.outcome == "failed":
        raise DiskError(f"{printable(str(place))} {verdict.detail}", "Ask its owner for read permission.")
    return ("not compared" if verdict.outcome == "unverifiable" else "same"), verdict.detail


def _completed(found: Trace, folder: Path) -> Trace:
    """Return the trace with its run, and with the entries for the same bytes."""
    entry = found.entry
    marks = [b'"event":"run","run":"%b"' % within(entry.run), *([within(entry.digest)] if entry.digest else [])]
    rows = list(_entries(folder, marks, lambda line: True))
    run = next((line for line in rows if isinstance(line, RunLine) and line.run == entry.run), None)
    same = [line for line in rows if isinstance(line, FileLine) and line.digest == entry.digest and line.mirrors]
    source = None
    if not entry.mirrors and entry.good and entry.digest and entry.size:
        same = [line for line in same if line.good and line.at <= entry.at] or same
        source = same[-1] if same else None
    now = None
    if found.state == "changed":
        other = _with_bytes(folder, Path(found.path))
        now = other[-1] if other else None
    return replace(found, run=run, source=source, now=now)


def _with_bytes(folder: Path, place: Path) -> list[FileLine]:
    """Return entries that left a file with the same bytes in place; none for an empty file."""
    if not place.stat().st_size:
        return []
    digests = _digests(place)
    rows = _entries(folder, map(within, digests), lambda line: True)
    return [line for line in rows if isinstance(line, FileLine) and line.good and line.digest in digests]


def _digests(place: Path) -> set[str]:
    with explained(place), place.open("rb", buffering=0) as stream:
        states = {name: hasher(name, os.fstat(stream.fileno()).st_size) for name in _ALGORITHMS}
        while chunk := stream.read(CHUNK):
            for state in states.values():
                state.update(chunk)
    return {f"{name}:{state.hexdigest()}" for name, state in states.items()}


def _entries(folder: Path, marks: Iterable[bytes], wanted: Callable[[LogLine], bool]) -> Iterator[LogLine]:
    """Return the wanted entries that contain one of `marks`, by time; damaged lines are skipped. Raises DiskError."""
    with explained(folder / NAME):
        once = dict.fromkeys(lines(folder, list(marks)))  # a log rotated meanwhile may be read twice
    found = [line for line in map(load, once) if line is not None and wanted(line)]
    return iter(sorted(found, key=lambda line: line.at))


def _content(line: LogLine) -> str:
    return line.content if isinstance(line, FileLine) else ""
