"""Files fetched by the metadata client in one piece: all small ones, and large ones that aria2 cannot have."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gpuaria.errors import (
    AccessDenied,
    DiskError,
    FileNotInRepo,
    GpuariaError,
    Interrupted,
    NetworkError,
    NotAHub,
    NoUsableMirror,
    RateLimited,
)
from gpuaria.http.client import Http
from gpuaria.http.content_range import content_range
from gpuaria.http.messages import Answer
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.http.retry import ATTEMPTS, RETRY_STATUS
from gpuaria.os_errors import explained
from gpuaria.records import Manifest, Mirror, RemoteFile, Step, Verdict
from gpuaria.sources.protocol import Source, sends_on, shortcuts
from gpuaria.storage.layout import Layout
from gpuaria.storage.staging import PREFIX
from gpuaria.transfer.board import Board
from gpuaria.transfer.landing import Landing
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.shortcut import Shortcuts
from gpuaria.transfer.unfit import packed
from gpuaria.transfer.watch import TRICKLE, in_earnest
from gpuaria.urls import origin

PORTAL = 3  # answers of something else than a hub that may pass: a portal may close
TRICKLE_SECONDS = 20.0


@dataclass
class SmallFiles:
    """One call of `fetch` per file, from several threads."""

    source: Source
    manifest: Manifest
    mirrors: Mapping[str, Mirror]
    http: Http
    layout: Layout
    landing: Landing
    board: Board
    roster: Roster
    patience: float
    bucket: TokenBucket
    _shortcuts: Shortcuts = field(init=False)

    def __post_init__(self) -> None:
        mirrors = self.mirrors.items()
        self._shortcuts = Shortcuts(frozenset(n for n, one in mirrors if sends_on(self.source, one, self.manifest)))

    def fetch(self, step: Step) -> None:
        """Fetch, verify and publish one file, trying its mirrors in order, and again until the patience ends."""
        try:
            self._fetch(step)
        except (AccessDenied, DiskError, NotAHub) as error:
            self.landing.failed(step.file, Verdict(step.file.path, "failed", error.message), error)
            self.board.fail(error)
        except Interrupted:
            pass
        except GpuariaError as error:
            self.landing.failed(step.file, Verdict(step.file.path, "failed", error.message), error)
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            self.board.fail(GpuariaError(f"{type(error).__name__} on {step.file.path}: {error}", "Please report this."))

    def _fetch(self, step: Step) -> None:
        """Wrong bytes get one more try when each mirror had its own; a broken network gets patience."""
        moved, pause, wrong, portals = time.monotonic(), 1.0, 0, 0
        part = self._part(step.file)
        liars: set[str] = set()
        while True:
            reasons: list[str] = []
            before = wrong
            for name in self.roster.usable([name for name in step.mirrors if name not in liars] or step.mirrors):
                attempts = ATTEMPTS if len(step.mirrors) == 1 else 1
                had, began = _prefix(part, step.file), time.monotonic()
                try:
                    verdict = self._from(self.mirrors[name], step.file, attempts, moved + self.patience)
                except NetworkError as error:
                    if _moved(_prefix(part, step.file) - had, began):
                        moved, pause = time.monotonic(), 1.0
                    portals += isinstance(error, NotAHub)
                    if len(step.mirrors) == 1 and (isinstance(error, RateLimited) or portals > PORTAL):
                        raise
                    reasons.append(error.message)
                    self.board.trouble(step.file.path, error.message)
                    if len(step.mirrors) > 1 and error.retry != "never":
                        self.roster.out(name, error.message)
                    continue
                if verdict.good:
                    return
                self.board.rejected(name, f"wrong bytes for {step.file.path}")
                reasons.append(f"{name} serves {verdict.outcome.replace('wrong', 'the wrong')}")
                self.board.trouble(step.file.path, f"{name} served wrong bytes: {verdict.detail}")
                wrong += 1
                liars.add(name)
                if wrong > len(step.mirrors) and liars.issuperset(step.mirrors):
                    self.landing.failed(step.file, Verdict(step.file.path, verdict.outcome, verdict.detail))
                    return
            if wrong == before:
                if time.monotonic() - moved + pause > self.patience:
                    raise NoUsableMirror("; ".join(reasons), "Try again later.")
                self.http.pause(pause, reasons[-1] if reasons else "")
                pause = min(60.0, pause * 2)

    def _part(self, file: RemoteFile) -> Path:
        return prefix_of(self.layout.staged(file))

    def _from(self, mirror: Mirror, file: RemoteFile, attempts: int, until: float) -> Verdict:
        """One file from one mirror into staging, resumed after a break, then verified and published.

        More `attempts` than one are for when there is no other mirror to go on with. They end at `until` (monotonic
        seconds), and begin anew when something came.
        """
        part, attempt, whole = self._part(file), 0, False
        ways = shortcuts(self.source, mirror, self.manifest, file)
        while True:
            attempt, start, began = attempt + 1, _prefix(part, file), time.monotonic()
            last = attempt >= attempts or time.monotonic() > until
            try:
                with ExitStack() as held:
                    turn = held.enter_context(self._shortcuts.turn(mirror.name, ways))
                    short = turn.way
                    url = short or self.source.file_url(mirror, self.manifest, file)
                    opened = self.http.download(url, 0 if whole else start, anonymous=mirror.anonymous)
                    answer, chunks = held.enter_context(opened)
                    if answer.status in (200, 206):
                        if turn.alone or not short:
                            turn.led(short or answer.url)
                        if not short:
                            self.source.check(answer, mirror, self.manifest)
                        if answer.status == 206 and start and packed(answer) and not whole:
                            whole = True  # a part of what is packed (RFC 9110 14.2), which cannot be unpacked by itself
                            continue
                        self._write(part, file, answer, chunks, mirror.name, start)
                        break
                    if short and answer.status not in RETRY_STATUS:
                        turn.refused(short)
                        continue
                    refusal = self._judge(mirror, file, answer, last=last)
            except NetworkError as error:
                if error.retry != "later" or isinstance(error, RateLimited):
                    raise
                if attempts > 1 and _moved(_prefix(part, file) - start, began):
                    attempt, until = 0, time.monotonic() + self.patience
                elif last:
                    raise
                self.http.pause(0.3 * 2**attempt)
                continue
            if refusal:
                raise refusal
            self.http.back_off(answer, attempt)
        verdict = self.landing.staged(file, part)
        if verdict.good:
            self.board.served(mirror.name)
        else:
            part.unlink(missing_ok=True)
            self._shortcuts.mistrust(mirror.name)
        return verdict

    def _judge(self, mirror: Mirror, file: RemoteFile, answer: Answer, *, last: bool) -> GpuariaError | None:
        """None for a status that may pass; otherwise the error. Only the origin's refusal speaks for the repo."""
        if answer.status in RETRY_STATUS and not last:
            return None
        if answer.status == 416:
            self._part(file).unlink(missing_ok=True)
        if origin(answer.url) != origin(
            mirror.base
        ):  # a byte server does not speak for the hub: a fresh look-up may do
            return NetworkError(f"the byte server of {mirror.name} answers {answer.status} for {file.path}")
        refusal = self.source.refused(mirror, self.manifest, file, answer, self.http)
        if mirror.origin:
            return refusal
        lacking = isinstance(refusal, FileNotInRepo)  # which says nothing about the next file
        return NetworkError(refusal.message, refusal.hint, retry="never" if lacking else None)

    def _write(self, part: Path, file: RemoteFile, answer: Answer, chunks: object, mirror: str, begun: int) -> None:
        """Append to `part`; more bytes than declared end the file, fewer end it as a broken connection.

        What is here of an answer that begins before its end is not written again: it may come no further this time.
        """
        start = _resumed_at(answer, begun, file.size)
        _check_length(answer, file)
        with explained(part), part.open("ab" if begun else "wb") as out:
            self.board.holds(file.path, begun)
            total, since, mark = start, time.monotonic(), start
            for chunk in chunks:  # type: ignore[attr-defined]
                known = max(0, begun - total)
                total += len(chunk)
                if total > file.size:
                    break
                out.write(chunk[known:])
                self.board.arrived(file.path, mirror, len(chunk))
                if pause := self.bucket.take(len(chunk)):
                    self.http.pause(pause)
                    since += pause
                seconds = time.monotonic() - since
                if seconds > min(TRICKLE_SECONDS, self.patience / 10):
                    if total - mark < TRICKLE * seconds:
                        raise _passing(f"{mirror} sends {file.path} at less than {TRICKLE} bytes per second")
                    since, mark = since + seconds, total
        if total < file.size:
            raise _passing(f"{mirror} ended {file.path} after {total} of {file.size} bytes")
        if total > file.size:
            part.unlink(missing_ok=True)
            raise NetworkError(f"{mirror} sends more for {file.path} than the {file.size} bytes of the listing")


def prefix_of(staged: Path) -> Path:
    """Where the bytes are that were fetched in order, of a file that has its unfinished ones at `staged`."""
    return staged.with_name(staged.name + PREFIX)


def _moved(size: int, began: float) -> bool:
    """Whether `size` bytes since `began` are worth more patience."""
    return in_earnest(size, time.monotonic() - began)


def _passing(text: str) -> NetworkError:
    return NetworkError(text, retry="later")


def _prefix(part: Path, file: RemoteFile) -> int:
    """Bytes of an earlier try that a range can continue; a full-length prefix is fetched again."""
    try:
        size = part.lstat().st_size
    except FileNotFoundError:
        return 0
    return size if size < file.size else 0


def _resumed_at(answer: Answer, begun: int, size: int) -> int:
    """Where the body starts (RFC 9110 14.4): 0 for a 200, which is the whole file. Raises NetworkError.

    A part that begins behind what is here (`begun` bytes), or is one of another size, is none of ours.
    """
    if answer.status == 200:
        return 0
    part = content_range(answer.headers)
    if part is None or part.start is None:
        raise NetworkError("a partial answer without a usable Content-Range")
    if part.start > begun or part.size not in (None, size):
        said = answer.headers["content-range"].strip()
        raise NetworkError(f"a partial answer of another part ({said}), where byte {begun} of {size} is next")
    return part.start


def _check_length(answer: Answer, file: RemoteFile) -> None:
    """Refuse a body that says that it is of another length, before it spoils what is here. Raises NetworkError."""
    length = answer.headers.get("content-length", "")
    coded = answer.headers.get("content-encoding", "identity") != "identity"
    if answer.status == 200 and not coded and length.isdecimal() and length != str(file.size):
        raise NetworkError(f"an answer of {length[:18]} bytes for {file.path}, which has {file.size}")
