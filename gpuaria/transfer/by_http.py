"""The downloader by gpuaria's HTTP client, one request per file: small files, and those that aria2 cannot download."""

from collections.abc import Sequence
from contextlib import ExitStack
from io import RawIOBase
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
from gpuaria.http.content_range import content_range
from gpuaria.http.messages import Response
from gpuaria.http.retry import ATTEMPTS, RETRY_STATUS
from gpuaria.mirrors.pool import Delivered, Refused, ServedWrongBytes
from gpuaria.mirrors.suitability import compressed
from gpuaria.os_errors import explained
from gpuaria.records import Mirror, MirrorUrl, RemoteFile, Step, Verdict
from gpuaria.storage.staging import PREFIX
from gpuaria.transfer.downloader import Inbox
from gpuaria.transfer.events import Settled, TransferEvent
from gpuaria.transfer.ranges import ByteRange
from gpuaria.transfer.services import Services
from gpuaria.transfer.task import FileTask
from gpuaria.transfer.tuning import FIRST_PAUSE, LONGEST_PAUSE, PORTAL_RESPONSES, TRICKLE, TRICKLE_SECONDS, is_flow
from gpuaria.urls import url_origin


class ByHttp:
    """Downloads, verifies and publishes each file on one of `count` threads."""

    name = "http"

    def __init__(self, services: Services, count: int, inbox: Inbox) -> None:
        self._services, self._inbox = services, inbox
        self._workers = services.threads.pool("small", count)

    @property
    def busy(self) -> int:
        """Number of requests in flight."""
        return self._workers.busy

    def can_take(self, file: RemoteFile, urls: Sequence[MirrorUrl]) -> bool:
        """Return True: this downloader takes every file, and resolves its URLs itself."""
        return True

    def start(self, task: FileTask, ranges: Sequence[ByteRange], urls: Sequence[MirrorUrl]) -> None:
        """Queue a whole file."""
        self._workers.submit(self._fetch, task)

    def poll(self, now: float) -> Sequence[TransferEvent]:
        """Return no events: the worker threads put theirs into the inbox."""
        return ()

    def stop(self, task: FileTask) -> None:
        """Do nothing: a download ends with the file's verdict, or with the run."""

    def _fetch(self, task: FileTask) -> None:
        """Download a file from its mirrors in turn until the stall time-out. For a worker thread."""
        step = task.step
        one, good = _Fetch(self._services, task), False
        try:
            good = one.run()
        except (AccessDenied, DiskError, NotAHub) as error:
            self._services.publisher.fail(step.file, Verdict(step.file.path, "failed", error.message), error)
            raise
        except Interrupted:
            return
        except GpuariaError as error:
            self._services.publisher.fail(step.file, Verdict(step.file.path, "failed", error.message), error)
        self._inbox.put(Settled(task, good))


class _Fetch:
    """One file's download; wrong bytes from every mirror are retried once, network errors until the stall time-out."""

    def __init__(self, services: Services, task: FileTask) -> None:
        self._services, self._task, self._file = services, task, task.file
        self._prefix = prefix_of(services.layout.staged_path(task.file))
        self._last_progress, self._pause = services.clock.monotonic(), FIRST_PAUSE
        self._wrong = self._portals = 0
        self._wrong_mirrors: set[Mirror] = set()
        self._reasons: list[str] = []

    @property
    def _step(self) -> Step:
        """The task's current step: mirrors may join during the download."""
        return self._task.step

    def run(self) -> bool:
        """Publish the file or record its failure; return whether it is published. Raises GpuariaError."""
        clock = self._services.clock
        while True:
            self._reasons, before, mirrors = [], self._wrong, self._step.mirrors
            for mirror in self._services.pool.usable(
                [one for one in mirrors if one not in self._wrong_mirrors] or mirrors
            ):
                verdict = self._try(mirror)
                if verdict is None:
                    continue
                if verdict.good:
                    return True
                self._record_wrong_bytes(mirror, verdict)
                if self._wrong > len(mirrors) and self._wrong_mirrors.issuperset(mirrors):
                    failed = Verdict(self._file.path, verdict.outcome, verdict.detail)
                    self._services.publisher.fail(self._file, failed)
                    return False
            if self._wrong == before:
                if clock.monotonic() - self._last_progress + self._pause > self._services.patience:
                    raise NoUsableMirror("; ".join(self._reasons), "Try again later.")
                self._services.http.pause(self._pause, self._reasons[-1] if self._reasons else "")
                self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _try(self, mirror: Mirror) -> Verdict | None:
        """Return the verdict on the bytes of one mirror; None if it could not deliver them."""
        alone, clock = len(self._step.mirrors) == 1, self._services.clock
        before, began = prefix_size(self._prefix, self._file), clock.monotonic()
        try:
            return self._download_from(mirror, ATTEMPTS if alone else 1, self._last_progress + self._services.patience)
        except NetworkError as error:
            if is_flow(prefix_size(self._prefix, self._file) - before, clock.monotonic() - began):
                self._last_progress, self._pause = clock.monotonic(), FIRST_PAUSE
            self._portals += isinstance(error, NotAHub)
            if alone and (isinstance(error, RateLimited) or self._portals > PORTAL_RESPONSES):
                raise
            self._reasons.append(error.message)
            self._services.results.note_problem(self._file.path, error.message)
            if not alone and error.retry != "never":
                self._services.pool.record(mirror, Refused(error.message))
            return None

    def _record_wrong_bytes(self, mirror: Mirror, verdict: Verdict) -> None:
        self._services.pool.record(mirror, ServedWrongBytes(f"{self._file.path} failed its checksum", small=True))
        self._reasons.append(f"{mirror.name} serves the {verdict.outcome}")
        self._services.results.note_problem(self._file.path, f"{mirror.name} served wrong bytes: {verdict.detail}")
        self._wrong += 1
        self._wrong_mirrors.add(mirror)

    def _download_from(self, mirror: Mirror, attempts: int, until: float) -> Verdict:
        """Download the file from one mirror into staging, resuming broken connections, then verify and publish it.

        `attempts` is above 1 if there is no other mirror. They end at `until` (monotonic seconds), and start over after
        progress.
        """
        attempt, whole, clock = 0, False, self._services.clock
        while True:
            attempt, start, began = attempt + 1, prefix_size(self._prefix, self._file), clock.monotonic()
            last = attempt >= attempts or clock.monotonic() > until
            try:
                refusal = self._request(mirror, 0 if whole else start, start)
                if refusal is None:
                    break
                if isinstance(refusal, _RequestWhole):
                    whole = True
                    continue
                if isinstance(refusal, _RequestUsualUrl):
                    continue
            except NetworkError as error:
                if error.retry != "later" or isinstance(error, RateLimited):
                    raise
                received = prefix_size(self._prefix, self._file) - start
                if attempts > 1 and is_flow(received, clock.monotonic() - began):
                    attempt, until = 0, clock.monotonic() + self._services.patience
                elif last:
                    raise
                self._services.http.pause(0.3 * 2**attempt)
                continue
            if final := self._error_for(mirror, refusal, last=last):
                raise final
            self._services.http.back_off(refusal, attempt)
        verdict = self._services.publisher.publish_staged(self._file, self._prefix)
        if verdict.good:
            self._services.pool.record(mirror, Delivered(files=1))
        else:
            self._prefix.unlink(missing_ok=True)
        return verdict

    def _request(self, mirror: Mirror, offset: int, start: int) -> "Response | _RequestWhole | _RequestUsualUrl | None":
        """Request the bytes from `offset` on, with `start` bytes on disk; return None when all have arrived.

        Otherwise return the unsuccessful response, or what to request instead. Raises GpuariaError.
        """
        files, pool = self._services.pool.files, self._services.pool
        with ExitStack() as held:
            attempt = held.enter_context(pool.redirects.attempt(mirror, files.redirect_targets(mirror, self._file)))
            direct = attempt.target
            url = direct or files.usual_url(mirror, self._file)
            response, chunks = held.enter_context(self._services.http.download(url, offset, anonymous=mirror.anonymous))
            if response.status in (200, 206):
                if attempt.exclusive or not direct:
                    attempt.record_final_url(direct or response.url)
                if not direct:
                    files.check_response(mirror, response)
                if response.status == 206 and offset and compressed(response):
                    # A range of a compressed response (RFC 9110 14.2) cannot be decoded on its own.
                    return _RequestWhole()
                self._write(response, chunks, mirror, start)
                return None
            if direct and response.status not in RETRY_STATUS:
                attempt.record_refusal(direct)
                return _RequestUsualUrl()
            return response

    def _error_for(self, mirror: Mirror, response: Response, *, last: bool) -> GpuariaError | None:
        """Return the error that a response means, None if it is temporary.

        Only the origin's refusal concerns the repo.
        """
        if response.status in RETRY_STATUS and not last:
            return None
        if response.status == 416:
            self._prefix.unlink(missing_ok=True)
        if url_origin(response.url) != url_origin(mirror.base):  # a byte server's response says nothing about the repo
            return NetworkError(
                f"the byte server of {mirror.name} returned HTTP {response.status} for {self._file.path}"
            )
        refusal = self._services.pool.files.error_for(mirror, self._file, response)
        if mirror.primary:
            return refusal
        lacking = isinstance(refusal, FileNotInRepo)  # other files may exist on this mirror
        return NetworkError(refusal.message, refusal.hint, retry="never" if lacking else None)

    def _write(self, response: Response, chunks: object, mirror: Mirror, on_disk: int) -> None:
        """Append the response to the prefix. Raises NetworkError if it has more or fewer bytes than declared.

        Bytes that are already on disk are skipped, not written again: this response may end before they do.
        """
        file, clock = self._file, self._services.clock
        start = resumed_at(response, on_disk, file.size)
        _check_length(response, file)
        # Unbuffered: bytes credited to a mirror are in the file even if the process ends before this thread.
        with explained(self._prefix), self._prefix.open("ab" if on_disk else "wb", buffering=0) as out:
            self._services.results.set_bytes_on_disk(file.path, on_disk)
            total, since, mark = start, clock.monotonic(), start
            for chunk in chunks:  # type: ignore[attr-defined]
                known = max(0, on_disk - total)
                total += len(chunk)
                if total > file.size:
                    break
                _append(out, memoryview(chunk)[known:])
                self._services.results.record_received(file.path, mirror, len(chunk))
                if pause := self._services.bucket.charge(len(chunk)):
                    self._services.http.pause(pause)
                    since += pause
                seconds = clock.monotonic() - since
                if seconds > min(TRICKLE_SECONDS, self._services.patience / 10):
                    if total - mark < TRICKLE * seconds:
                        raise _temporary_error(
                            f"{mirror.name} sends {file.path} at less than {TRICKLE} bytes per second"
                        )
                    since, mark = since + seconds, total
        if total < file.size:
            raise _temporary_error(
                f"{mirror.name} closed the connection after {total} of {file.size} bytes of {file.path}"
            )
        if total > file.size:
            self._prefix.unlink(missing_ok=True)
            raise NetworkError(f"{mirror.name} sent more than the {file.size} bytes of {file.path} in the listing")


class _RequestWhole:
    """Request the whole file instead: a range of a compressed response cannot be decoded."""


class _RequestUsualUrl:
    """Request the usual URL instead: the cached redirect failed."""


def prefix_of(staged: Path) -> Path:
    """Return the path of the contiguous bytes of a file staged at `staged`."""
    return staged.with_name(staged.name + PREFIX)


def prefix_size(prefix: Path, file: RemoteFile) -> int:
    """Return the bytes that a range request can continue from; a full-length prefix is downloaded again."""
    try:
        size = prefix.lstat().st_size
    except FileNotFoundError:
        return 0
    return size if size < file.size else 0


def resumed_at(response: Response, on_disk: int, size: int) -> int:
    """Return the offset of the body (RFC 9110 14.4): 0 for status 200, which is the whole file. Raises NetworkError.

    A range that starts after the `on_disk` bytes on disk, or that declares another size, cannot be used.
    """
    if response.status == 200:
        return 0
    declared = content_range(response.headers)
    if declared is None or declared.start is None:
        raise NetworkError("a partial response without a valid Content-Range")
    if declared.start > on_disk or declared.size not in (None, size):
        shown = response.headers["content-range"].strip()
        raise NetworkError(
            f"a partial response for another range ({shown}) than requested: byte {on_disk} of {size} is next"
        )
    return declared.start


def _append(out: RawIOBase, rest: memoryview) -> None:
    """Write all of `rest`: a write may be partial when the disk is nearly full. Raises OSError."""
    while rest:
        rest = rest[out.write(rest) or 0 :]


def _temporary_error(text: str) -> NetworkError:
    return NetworkError(text, retry="later")


def _check_length(response: Response, file: RemoteFile) -> None:
    """Raise NetworkError if a body declares another length, before it overwrites bytes on disk."""
    length = response.headers.get("content-length", "")
    coded = response.headers.get("content-encoding", "identity") != "identity"
    if response.status == 200 and not coded and length.isdecimal() and length != str(file.size):
        raise NetworkError(f"a response of {length[:18]} bytes for {file.path}, which has {file.size} bytes")
