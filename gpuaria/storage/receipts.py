"""Receipts of verified files, so that unchanged files need not be hashed again.

A receipt records path and digest. It is valid while size, mtime, ctime, inode and device are unchanged: setting an
old mtime changes the ctime. Results of content scans are stored by digest, and do not expire. The database is only a
cache: without it, files are hashed again.
"""

import os
import sqlite3
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from gpuaria.records import Digest

_SCHEMA = 2
_BATCH = 512  # receipts per transaction, and names per query (SQLite's oldest limit of variables is 999)
_BUSY_SECONDS = 5.0
_TABLE = """
create table if not exists receipts (
    folder blob not null, name blob not null, digest text not null,
    size integer not null, mtime_ns integer not null, inode integer not null, device integer not null,
    proved_at real not null, ctime_ns integer,
    primary key (folder, name)
) without rowid
"""
_BY_DIGEST = "create index if not exists receipts_by_digest on receipts (digest)"
_RECENT = 100_000  # digests whose paths this process remembers
_CONTENTS = "create table if not exists contents (digest text primary key, said text not null) without rowid"
AnyPath = TypeVar("AnyPath", str, Path)
_Stamp = tuple[int, int, int, int, int]  # size, mtime and ctime in ns, inode, device
_Row = tuple[bytes, bytes, str, int, int, int, int, float, int]


class Receipts:
    """Receipts in the SQLite file `path`, or in memory if None. Safe for several threads and processes.

    `problem`: the reason why the file is unusable, empty if it works. No method raises.
    """

    def __init__(self, path: Path | None) -> None:
        self.problem = ""
        self.path = path
        self._guard = threading.Lock()
        self._pending: list[_Row] = []
        self._said: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._opened = time.time()
        self._recent: dict[str, str] = {}  # the last path that this process recorded for a digest
        self._database: sqlite3.Connection | None = None
        with self._errors_noted():
            self._database = _open(path)

    def verified(self, wanted: Mapping[AnyPath, Digest]) -> set[AnyPath]:
        """Return the paths of `wanted` (absolute paths) that have a valid receipt for the given digest."""
        asked: dict[str, dict[bytes, AnyPath]] = defaultdict(dict)
        for place in wanted:
            folder, name = self._identity(place)
            asked[folder][os.fsencode(name)] = place
        found: set[AnyPath] = set()
        self.flush()
        with self._errors_noted():
            for real, names in asked.items():
                for key, digest, seen in self._rows(os.fsencode(real), list(names)):
                    place = names[key]
                    if digest == str(wanted[place]) and _unchanged(seen, _stamp(place)):
                        found.add(place)
        return found

    def record(self, path: Path | str, digest: Digest) -> None:
        """Record that the bytes at `path` were just verified. Written in batches; see `flush`."""
        stamp = _stamp(path)
        if stamp is None:
            return
        folder, name = self._identity(path)
        size, mtime, ctime, inode, device = stamp
        row = (*_key(folder, name), str(digest), size, mtime, inode, device, time.time(), ctime)
        with self._guard:
            self._recent.pop(str(digest), None)
            self._recent[str(digest)] = os.path.join(folder, name)
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
            self._pending.append(row)
            full = len(self._pending) >= _BATCH
        if full:
            self.flush()

    def revoke(self, path: Path | str) -> None:
        """Delete the receipts of `path` and of the file that it points to, after a failed hash."""
        keys = {_key(*self._identity(place)) for place in (path, os.path.realpath(path))}
        with self._errors_noted(), self._guard:
            self._pending = [row for row in self._pending if row[:2] not in keys]
            if self._database is not None:
                with self._database:
                    self._database.executemany("delete from receipts where folder = ? and name = ?", sorted(keys))

    def recent(self, digest: Digest, *, by_others: bool) -> list[str]:
        """Return the paths of unchanged files verified to have a digest since this object was created.

        `by_others`: include files verified by other processes.
        """
        with self._guard:
            path = self._recent.get(str(digest))
        paths = [path] if path else []
        rows: list[tuple[bytes, bytes]] = []
        if by_others:
            query = "select folder, name from receipts where digest = ? and proved_at >= ? limit 8"
            with self._errors_noted(), self._guard:
                asked = (str(digest), self._opened)
                rows = self._database.execute(query, asked).fetchall() if self._database else []
        paths += [os.path.join(os.fsdecode(folder), os.fsdecode(name)) for folder, name in rows]
        here = {path for path in dict.fromkeys(paths) if _stamp(path)}
        return sorted(self.verified(dict.fromkeys(here, digest))) if here else []

    def content_notes(self, digests: Iterable[Digest]) -> dict[str, str]:
        """Return the texts stored by `note_content`, by digest as text; unknown digests are left out."""
        found: dict[str, str] = {}
        self.flush()
        with self._errors_noted():
            names = [str(digest) for digest in digests]
            for start in range(0, len(names), _BATCH):
                chunk = names[start : start + _BATCH]
                query = f"select digest, said from contents where digest in ({','.join('?' * len(chunk))})"
                with self._guard:
                    found.update(self._database.execute(query, chunk).fetchall() if self._database else [])
        return found

    def note_content(self, digest: Digest, text: str) -> None:
        """Store a text about the content with this digest. Written in batches; see `flush`."""
        with self._guard:
            self._said[str(digest)] = text
            full = len(self._said) >= _BATCH
        if full:
            self.flush()

    def flush(self) -> None:
        """Write all pending rows to the database."""
        with self._errors_noted(), self._guard:
            rows, self._pending = self._pending, []
            said, self._said = self._said, {}
            if (rows or said) and self._database is not None:
                with self._database:
                    self._database.executemany("insert or replace into receipts values (?,?,?,?,?,?,?,?,?)", rows)
                    self._database.executemany("insert or replace into contents values (?,?)", list(said.items()))

    def close(self) -> None:
        """Write all pending rows and close the database."""
        self.flush()
        with self._errors_noted(), self._guard:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    def _rows(self, folder: bytes, names: Sequence[bytes]) -> Iterator[tuple[bytes, str, tuple[int | None, ...]]]:
        for start in range(0, len(names), _BATCH):
            chunk = names[start : start + _BATCH]
            query = (
                "select name, digest, size, mtime_ns, ctime_ns, inode, device from receipts"
                f" where folder = ? and name in ({','.join('?' * len(chunk))})"
            )
            with self._guard:
                rows = self._database.execute(query, (folder, *chunk)).fetchall() if self._database else []
            for name, digest, *seen in rows:
                yield name, digest, tuple(seen)

    def _identity(self, path: Path | str) -> tuple[str, str]:
        """Return the real folder and the name. A symlink keeps its name; its stamp is that of the file it points to."""
        folder, _, name = os.fspath(path).rpartition(os.sep)
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = os.path.realpath(folder)
        return real, name

    @contextmanager
    def _errors_noted(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.problem = f"gpuaria cannot save which files it verified and will hash them again: {self.path}: {error}"
            with self._guard:  # no second attempt: a locked database would delay each call
                database, self._database = self._database, None
            if database is not None:
                database.close()


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")  # a power failure may lose the last receipts, not the database
        version = database.execute("pragma user_version").fetchone()[0]
        if version not in (0, 1, _SCHEMA):
            raise sqlite3.DatabaseError(f"it has format {version}, but this gpuaria supports {_SCHEMA}")
        database.execute(_TABLE)
        if version == 1:
            _add_ctime(database)
        database.execute(_BY_DIGEST)
        database.execute(_CONTENTS)
        database.execute(f"pragma user_version = {_SCHEMA}")
    except BaseException:
        database.close()
        raise
    return database


def _add_ctime(database: sqlite3.Connection) -> None:
    """Convert format 1, whose receipts have no ctime and stay valid. Other processes may do so, too."""
    with suppress(sqlite3.OperationalError):
        database.execute("alter table receipts add column ctime_ns integer")


def _key(folder: str, name: str) -> tuple[bytes, bytes]:
    return os.fsencode(folder), os.fsencode(name)


def _unchanged(noted: Sequence[int | None], seen: _Stamp | None) -> bool:
    """Return whether a file has the stamp of its receipt. A receipt of format 1 has no ctime."""
    return seen is not None and all(old in (None, new) for old, new in zip(noted, seen, strict=True))


def _stamp(path: Path | str) -> _Stamp | None:
    """Return the stamp of the file at `path`, following symlinks; None if there is none."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(seen.st_mode):
        return None
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, _signed(seen.st_ino), _signed(seen.st_dev)


def _signed(number: int) -> int:
    """Convert an unsigned 64-bit number to the signed form that SQLite stores."""
    return number - (1 << 64) if number >= 1 << 63 else number
