"""The results of a run so far: verdicts, errors, and where the bytes of each file came from."""

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from gpuaria.audit.byte_sources import ByteSources
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.events import Event, FileDone, Mismatch
from gpuaria.mirrors.pool import Delivered, MirrorPool
from gpuaria.mirrors.traffic import shares
from gpuaria.records import Mirror, MirrorUse, RemoteFile, Signature, Verdict
from gpuaria.storage.layout import Layout
from gpuaria.transfer.follow import Arrivals, Reader


class ResultsListener(Protocol):
    """Receives the events of a run, from any thread."""

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        """Handle a file's verdict; called before its event is emitted."""

    def emit(self, event: Event) -> None:
        """Handle an event for the user."""


class Results:
    """The results of one run. Thread-safe. `wanted`: paths to download; `done_bytes`: size of the good ones."""

    def __init__(self, pool: MirrorPool, wanted: Iterable[str], listener: ResultsListener) -> None:
        self.wanted = set(wanted)
        self.verdicts: dict[str, Verdict] = {}
        self.causes: dict[str, GpuariaError] = {}
        self.fetched = 0  # bytes
        self.done_bytes = 0
        self.signature: Signature | None = None
        self.arrivals = Arrivals()
        self.pool, self._listener = pool, listener
        self._sources: dict[str, ByteSources] = {}
        self._lock, self._emitting = threading.Lock(), threading.Lock()
        self._closed = False

    @property
    def mirrors(self) -> Sequence[Mirror]:
        """The mirrors of the run, including those that joined."""
        return self.pool.mirrors

    def record_received(self, path: str, mirror: Mirror, count: int) -> None:
        """Count bytes of the file `path` that came from `mirror`."""
        self.pool.record(mirror, Delivered(count))
        with self._lock:
            self._sources.setdefault(path, ByteSources()).add_bytes(mirror.name, count)
            self.fetched += count

    def credit(self, path: str, mirror: Mirror | None, count: int, serving: Sequence[Mirror]) -> None:
        """Count bytes of the file `path` for `mirror`.

        Without a `mirror` they are shared in proportion to the mirrors' earlier bytes of the file, or evenly among
        `serving`.
        """
        if mirror is not None:
            self.record_received(path, mirror, count)
            return
        given = self.byte_sources(path).by_mirror
        weights = {self.pool.by_name(name): float(came) for name, came in given.items()}
        for one, share in shares(max(0, count), weights or dict.fromkeys(serving, 1.0)).items():
            self.record_received(path, one, share)

    def set_bytes_on_disk(self, path: str, count: int) -> None:
        """Record that `count` bytes of the file `path` are on disk, including those of earlier runs."""
        with self._lock:
            self._sources.setdefault(path, ByteSources()).set_size_on_disk(count)

    def note_problem(self, path: str, problem: str) -> None:
        """Note a problem with the file `path`, which may still succeed."""
        with self._lock:
            self._sources.setdefault(path, ByteSources()).add_problem(problem)

    def byte_sources(self, path: str) -> ByteSources:
        """Return where the bytes of the file `path` came from so far."""
        with self._lock:
            return self._sources.get(path, ByteSources()).copy()

    def follow(self, file: RemoteFile, layout: Layout) -> Reader:
        """Return a reader of a file of this run that waits for missing bytes. For any thread."""
        with self._lock:
            verdict = self.verdicts.get(file.path)
        return self.arrivals.follow(file, layout, verdict)

    def verdicts_so_far(self) -> tuple[Verdict, ...]:
        """Return the verdicts so far."""
        with self._lock:
            return tuple(self.verdicts.values())

    def unfinished(self) -> list[str]:
        """Return the paths of files without a verdict of which bytes have arrived."""
        with self._lock:
            return [path for path, sources in self._sources.items() if sources.by_mirror and path not in self.verdicts]

    def mirror_uses(self) -> tuple[MirrorUse, ...]:
        """Return the use of each mirror, the one with the most bytes first."""
        return self.pool.mirror_uses()

    def record_verdict(self, file: RemoteFile, verdict: Verdict, cause: GpuariaError | None = None) -> None:
        """Record the verdict on a file and emit its event."""
        with self._lock:
            self.verdicts[file.path] = verdict
            self.done_bytes += file.size if file.path in self.wanted and verdict.good else 0
            if cause is not None:
                self.causes[file.path] = cause
        self._listener.settled(file, verdict)
        self.emit(FileDone(file.path, file.size, verdict.outcome, file.path in self.wanted, verdict.detail))

    def report_mismatch(self, file: RemoteFile, detail: str) -> None:
        """Report that a local file differs from `file` and is downloaded again."""
        with self._lock:
            self.wanted.add(file.path)
        self.note_problem(file.path, "the local file did not match its checksum")
        self.emit(Mismatch(file.path, file.size, detail))

    def emit(self, event: Event) -> None:
        """Pass an event to the listener, one at a time, until `close`."""
        with self._emitting:
            if not self._closed:
                self._listener.emit(event)

    def close(self, error: GpuariaError | None = None) -> None:
        """Stop emitting events; late results of background threads are only recorded.

        Readers of files without a verdict get the `error` that ended the run.
        """
        self.arrivals.close(error or Interrupted("the run has ended"))
        with self._emitting:
            self._closed = True
