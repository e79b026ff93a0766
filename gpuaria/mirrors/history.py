"""The history of mirrors: outcomes of probes and of transfers, per network, in SQLite.

Outcomes lose weight with age: rates have a half-life of three days, failures of one hour. If the database is unusable,
this run's outcomes are kept in memory, and `problem` states why.
"""

import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gpuaria import errors
from gpuaria.errors import GpuariaError, NetworkError
from gpuaria.mirrors.measure.findings import FreshFinding, LookupFinding, MirrorFindings, read
from gpuaria.mirrors.network import network_id
from gpuaria.records import Mirror, to_json

RATE_HALF_LIFE = 3 * 86400.0  # seconds
FAILURE_HALF_LIFE = 3600.0  # seconds
TRANSFER_WEIGHT = 4.0  # one transfer counts as much as this many probes
MAX_AGE = 45 * 86400.0  # seconds
MAX_OUTCOMES = 200  # per mirror and network
MAX_ROWS = 5000
_VERSION = 1
_PRUNE_EVERY = 64  # writes
_NAME = "mirrors.sqlite3"
_PATIENCE = 5.0  # seconds for another process to finish writing
_SCHEMA = (
    "CREATE TABLE outcomes (network TEXT NOT NULL, base TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,"
    " rate REAL, rtt REAL, loss REAL, reason TEXT NOT NULL)",
    "CREATE INDEX outcomes_of ON outcomes (network, base, at)",
    "CREATE TABLE surveys (network TEXT NOT NULL, base TEXT NOT NULL, at REAL NOT NULL, subject TEXT NOT NULL,"
    " findings TEXT NOT NULL, PRIMARY KEY (network, base))",
)


@dataclass(frozen=True, slots=True)
class Experience:
    """One probe or transfer of a mirror: `rate` in bytes per second, `rtt` in seconds, `reason` of a failure."""

    kind: Literal["probe", "transfer"]
    rate: float | None = None
    rtt: float | None = None
    loss: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """The summarized history of one mirror: `rate` in bytes per second or None, `confidence` in it from 0 to 1.

    `failures`: their number, halved every hour. `last_seen`: Unix seconds of the newest outcome or None.
    `last_failure`: the reason of the newest failure.
    """

    rate: float | None = None
    confidence: float = 0.0
    failures: float = 0.0
    last_seen: float | None = None
    last_failure: str = ""


class History:
    """The history of one network. Safe to share between threads; its file is safe to share between processes.

    Without a `folder` everything is kept in memory. `clock` returns Unix seconds.
    """

    def __init__(self, folder: Path | None, network: str, clock: Callable[[], float] = time.time) -> None:
        self._network, self._clock = network, clock
        self._lock, self._writes = threading.Lock(), 0
        self.problem = ""
        self._db = self._open(folder)

    @classmethod
    def for_this_network(cls, folder: Path) -> "History":
        """Open the history in `folder` for the network that this machine is in now."""
        return cls(folder, network_id())

    def _open(self, folder: Path | None) -> sqlite3.Connection:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                return self._prepared(str(folder / _NAME))
            except (OSError, sqlite3.Error) as error:
                self.problem = f"the history of mirrors in {folder} cannot be used: {error}"
        return self._prepared(":memory:")

    def _prepared(self, path: str) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = NORMAL")
            if self._version(db) == 0:
                db.execute("BEGIN IMMEDIATE")  # one process creates the tables, the others wait
                if self._version(db) == 0:
                    for statement in _SCHEMA:
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {_VERSION}")
                db.execute("COMMIT")
            self._prune(db)
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _version(db: sqlite3.Connection) -> int:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it has version {version}, not {_VERSION}: a newer gpuaria wrote it")
        return version

    def record_outcome(self, mirror: Mirror, outcome: Experience) -> None:
        """Record one outcome with the current time."""
        row = (self._network, mirror.base, self._clock(), *_columns(outcome))
        self._write("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def record_survey(self, mirror: Mirror, findings: MirrorFindings, subject: str) -> None:
        """Record a survey for `recent_findings`, and as an outcome.

        `subject`: the commit and file that were requested.
        """
        at, text = self._clock(), json.dumps(to_json(findings))
        row = (self._network, mirror.base, at, subject, text)
        self._write("INSERT OR REPLACE INTO surveys VALUES (?, ?, ?, ?, ?)", row)
        outcome = outcome_of(findings)
        if outcome is not None:
            self.record_outcome(mirror, outcome)

    def recent_findings(self, mirror: Mirror, max_age: float, subject: str) -> MirrorFindings | None:
        """Return the findings of the last survey if it is at most `max_age` seconds old, else None.

        For another `subject`, freshness is left out, and a survey that failed because of its own file counts as None.
        """
        rows = self._rows(
            "SELECT at, subject, findings FROM surveys WHERE network = ? AND base = ?", (self._network, mirror.base)
        )
        now = self._clock()
        if not rows or not 0 <= now - rows[0][0] <= max_age:
            return None
        try:
            found = read(MirrorFindings, json.loads(rows[0][2]))
        except ValueError:  # written by another version
            return None
        if rows[0][1] == subject:
            return replace(found, mirror=mirror.name)
        if found.failed[0] in ("lookup", "fresh", "bytes") or found.fresh.verdict in ("stale", "different"):
            return None
        other = "not measured for this file"
        lookup, fresh = LookupFinding("not measured", problem=other), FreshFinding("unknown", problem=other)
        return replace(found, mirror=mirror.name, lookup=lookup, fresh=fresh)

    def past_of(self, mirror: Mirror) -> Past:
        """Return the past of a mirror; rates are averaged as logarithms, so that a single burst counts little."""
        rows = self._rows(
            "SELECT at, kind, rate, reason FROM outcomes WHERE network = ? AND base = ? ORDER BY at DESC LIMIT ?",
            (self._network, mirror.base, MAX_OUTCOMES),
        )
        now, weight, total, failures = self._clock(), 0.0, 0.0, 0.0
        for at, kind, rate, reason in rows:
            age = max(0.0, now - at)
            if reason:
                failures += 0.5 ** (age / FAILURE_HALF_LIFE)
            if rate is not None and rate > 0:
                share = 0.5 ** (age / RATE_HALF_LIFE) * (TRANSFER_WEIGHT if kind == "transfer" else 1.0)
                weight, total = weight + share, total + share * math.log(rate)
        return Past(
            math.exp(total / weight) if weight > 1e-9 else None,
            weight / (weight + TRANSFER_WEIGHT),
            failures,
            rows[0][0] if rows else None,
            next((row[3] for row in rows if row[3]), ""),
        )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                self.problem = f"the history of mirrors cannot be read: {error}"
                return []

    def _write(self, sql: str, values: tuple[object, ...]) -> None:
        with self._lock:
            try:
                self._db.execute(sql, values)
                self._writes += 1
                if self._writes % _PRUNE_EVERY == 0:
                    self._prune(self._db)
            except sqlite3.Error as error:
                self.problem = f"the history of mirrors cannot be written: {error}"

    def _prune(self, db: sqlite3.Connection) -> None:
        oldest = self._clock() - MAX_AGE
        for table, most in (("outcomes", MAX_ROWS), ("surveys", MAX_OUTCOMES)):
            count, first = db.execute(f"SELECT count(*), min(at) FROM {table}").fetchone()
            if count <= most and (first is None or first >= oldest):
                continue  # avoid a needless write lock
            newest = f"SELECT rowid FROM {table} ORDER BY at DESC, rowid DESC LIMIT ?"
            db.execute(f"DELETE FROM {table} WHERE at < ? OR rowid NOT IN ({newest})", (oldest, most))


def _columns(outcome: Experience) -> tuple[object, ...]:
    rate = outcome.rate if outcome.rate is not None and math.isfinite(outcome.rate) else None
    return outcome.kind, rate, outcome.rtt, outcome.loss, outcome.reason


def outcome_of(findings: MirrorFindings) -> Experience | None:
    """Return a survey's findings as one outcome; None if they show nothing about the connection to the mirror.

    A missing, refused or stale file is not a property of that connection.
    """
    stage, problem = findings.failed
    if stage == "lookup" and not issubclass(getattr(errors, findings.lookup.error, GpuariaError), NetworkError):
        return None
    if stage in ("dns", "tcp", "tls", "lookup", "bytes"):
        return Experience("probe", reason=f"{stage}: {problem}")
    rates = findings.bytes.rates
    if findings.bytes.state != "measured" or not rates:
        return None
    pings = [f for f in findings.icmp if f.state == "measured"]
    loss = min((f.loss for f in pings if f.loss is not None), default=None)
    return Experience("probe", max(r.tail for r in rates), findings.bytes.connect, loss)
