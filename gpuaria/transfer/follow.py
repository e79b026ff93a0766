"""Readers of files that are still being downloaded."""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from gpuaria.errors import GpuariaError, NetworkError, WrongBytes
from gpuaria.os_errors import explained
from gpuaria.paths import SafePath
from gpuaria.records import RemoteFile, Verdict
from gpuaria.storage.layout import Layout


@dataclass
class _Arrival:
    """The byte ranges of one file that are on disk, in order, without overlaps."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    generation: int = 0  # how often its bytes were discarded
    published: bool = False
    error: GpuariaError | None = None

    def add(self, start: int, end: int) -> None:
        """Add a byte range that is on disk."""
        merged: list[tuple[int, int]] = []
        for one in sorted([*self.ranges, (start, end)]):
            if merged and one[0] <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], one[1]))
            else:
                merged.append(one)
        self.ranges = merged

    def complete_to(self, start: int) -> int:
        """Return the end of the range that contains `start`; `start` itself if that byte is missing."""
        return next((b for a, b in self.ranges if a <= start < b), start)


class Arrivals:
    """The byte ranges on disk of each file in flight. Thread-safe."""

    def __init__(self) -> None:
        self._arrivals: dict[SafePath, _Arrival] = {}
        self.changed = threading.Condition()
        self._closed: GpuariaError | None = None

    def record_range(self, file: RemoteFile, start: int, end: int) -> None:
        """Record that the bytes from `start` to `end` are on disk."""
        with self.changed:
            self._of(file).add(start, end)
            self.changed.notify_all()

    def record_discarded(self, file: RemoteFile) -> None:
        """Record that the staged bytes were removed."""
        with self.changed:
            arrival = self._of(file)
            arrival.ranges, arrival.generation = [], arrival.generation + 1
            self.changed.notify_all()

    def record_published(self, file: RemoteFile) -> None:
        """Record that every byte was verified and published."""
        with self.changed:
            if file.path in self._arrivals:
                arrival = self._arrivals[file.path]
                arrival.published, arrival.ranges = True, [(0, file.size)]
                self.changed.notify_all()

    def record_failed(self, file: RemoteFile, error: GpuariaError) -> None:
        """Record that the file has failed in this run."""
        with self.changed:
            if file.path in self._arrivals:
                self._arrivals[file.path].error = error
                self.changed.notify_all()

    def close(self, error: GpuariaError) -> None:
        """End the run: readers of files without a verdict get `error`."""
        with self.changed:
            self._closed = error
            self.changed.notify_all()

    def follow(self, file: RemoteFile, layout: Layout, verdict: Verdict | None) -> "Reader":
        """Return a reader of `file` in `layout`; `verdict`: the file's, None without one."""
        with self.changed:
            arrival = self._of(file)
            if verdict is not None and verdict.good:
                arrival.published, arrival.ranges = True, [(0, file.size)]
            elif verdict is not None:
                arrival.error = arrival.error or WrongBytes(f"{file.path}: {verdict.detail or verdict.outcome}")
            return Reader(self, file, layout, arrival)

    def error_of(self, arrival: _Arrival) -> GpuariaError | None:
        """Return why no more bytes will arrive; None if they may."""
        return arrival.error or (None if arrival.published else self._closed)

    def _of(self, file: RemoteFile) -> _Arrival:
        return self._arrivals.setdefault(file.path, _Arrival())


class Reader:
    """Reads one file while it is downloaded, from any offset. For one thread; close it, or use it in a `with` block."""

    def __init__(self, arrivals: Arrivals, file: RemoteFile, layout: Layout, arrival: _Arrival) -> None:
        self._arrivals, self._file, self._layout, self._arrival = arrivals, file, layout, arrival
        self._descriptor: int | None = None
        self._generation = arrival.generation
        self._delivered = False

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def verified(self) -> bool:
        """True if every byte was verified."""
        return self._arrival.published

    def arrived(self) -> list[tuple[int, int]]:
        """Return the byte ranges that are on disk now."""
        with self._arrivals.changed:
            return list(self._arrival.ranges)

    def read(self, start: int, size: int, timeout: float | None = None) -> bytes:
        """Return up to `size` bytes from `start` as soon as the first is on disk; b"" at the end of the file.

        The bytes are unverified until `verified`. Raises the file's own error if it fails, WrongBytes if bytes that
        were read turn out to be wrong, TimeoutError after `timeout` seconds.
        """
        if start >= self._file.size:
            return b""
        end = self._wait(start, timeout)
        if self._descriptor is None:
            self._descriptor = self._open()
        self._delivered = True
        with explained(Path(str(self._file.path))):
            return os.pread(self._descriptor, min(size, end - start), start)

    def wait_verified(self, timeout: float | None = None) -> None:
        """Wait until every byte was verified. Raises the same errors as `read`."""
        with self._arrivals.changed:
            if not self._arrivals.changed.wait_for(self._at_end, timeout):
                raise TimeoutError(f"{self._file.path} is still arriving")
            self._check()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """Return a descriptor of the staged or of the published file."""
        for path in (self._layout.staged_path(self._file), self._layout.content_path(self._file)):
            with explained(path), suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise NetworkError(f"{self._file.path} is not on disk")

    def _wait(self, start: int, timeout: float | None) -> int:
        with self._arrivals.changed:
            ready = self._arrivals.changed.wait_for(lambda: self._ready(start), timeout)
            if not ready:
                raise TimeoutError(f"byte {start} of {self._file.path} is still missing")
            self._check()
            return self._arrival.complete_to(start)

    def _ready(self, start: int) -> bool:
        return self._arrival.complete_to(start) > start or self._at_end()

    def _at_end(self) -> bool:
        return (
            self._arrival.published
            or self._arrivals.error_of(self._arrival) is not None
            or self._discarded_after_read()
        )

    def _discarded_after_read(self) -> bool:
        """Return True if bytes that were read have been discarded since."""
        return self._delivered and self._arrival.generation != self._generation

    def _check(self) -> None:
        if self._discarded_after_read():
            raise WrongBytes(f"{self._file.path}: bytes that were already read did not pass verification")
        if self._arrival.generation != self._generation:
            self.close()
            self._generation = self._arrival.generation
        if error := self._arrivals.error_of(self._arrival):
            raise error
