"""The downloader of file tails, which also saves their progress for a later run."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from gpuaria.records import Mirror, MirrorUrl, RemoteFile
from gpuaria.transfer.downloader import Inbox
from gpuaria.transfer.events import Downloaded, TailProgressed, TransferEvent
from gpuaria.transfer.ranges import ByteRange, Gap
from gpuaria.transfer.results import Results
from gpuaria.transfer.services import Services
from gpuaria.transfer.tail import Tail
from gpuaria.transfer.task import FileTask


class Tails:
    """The tails of a run, for the loop's thread. A tail ends by itself, or with `stop`."""

    name = "tail"

    def __init__(self, services: Services, inbox: Inbox) -> None:
        self._services, self._inbox = services, inbox
        self._tails: dict[FileTask, Tail] = {}
        self.connections = 16  # to each mirror, of the next tail

    @property
    def active(self) -> bool:
        """True if there is a tail."""
        return bool(self._tails)

    def can_take(self, file: RemoteFile, urls: Sequence[MirrorUrl]) -> bool:
        """Return True if there is a URL to download from."""
        return bool(urls)

    def start(self, task: FileTask, ranges: Sequence[ByteRange], urls: Sequence[MirrorUrl]) -> None:
        """Download ranges that aria2 does not get, while it downloads the others."""
        files = self._services.range_files(task)
        self._tail(task, urls).start([gap for one in ranges for gap in files.missing(one)])

    def fill(self, task: FileTask, gaps: Sequence[Gap], urls: Sequence[MirrorUrl]) -> None:
        """Download all missing bytes of a file that aria2 has released."""
        self._tail(task, urls).fill(gaps)

    def poll(self, now: float) -> list[TransferEvent]:
        """Return the progress of each tail, and the ends of tails."""
        found: list[TransferEvent] = []
        for task, tail in self._tails.items():
            found.append(
                TailProgressed(task, tail.bytes_written, tail.unclaimed_bytes, tail.active, tail.complete_to())
            )
            if (complete := tail.outcome()) is not None:
                found.append(Downloaded(task, complete))
        return found

    def stop(self, task: FileTask, *, alone: bool = False) -> None:
        """End the connections and save their progress. `alone`: aria2 has released the file."""
        if tail := self._tails.pop(task, None):
            tail.cancel()
            self._save_filled(task, tail, alone=alone)

    def save(self, task: FileTask, *, alone: bool) -> None:
        """Save a tail's progress, so that a killed run loses no more than aria2 would."""
        if tail := self._tails.get(task):
            with suppress(OSError):  # disk full: the bytes are downloaded again
                tail.save()
            self._save_filled(task, tail, alone=alone)

    def set_bytes_on_disk(self, task: FileTask, count: int) -> None:
        """Record that `count` bytes of the file are on disk besides those of its tail."""
        holds = _BytesOnDisk(self._services.results, str(task.file.path), count)
        if tail := self._tails.get(task):
            tail.report_bytes(holds)
        else:
            holds(0)

    def _tail(self, task: FileTask, urls: Sequence[MirrorUrl]) -> Tail:
        if task not in self._tails:
            s = self._services
            self._tails[task] = Tail(
                path=s.layout.staged_path(task.file),
                size=task.file.size,
                urls={url.mirror: url for url in urls},
                http=s.http,
                threads=s.threads,
                listener=_TailCredit(s.results, str(task.file.path), self._inbox),
                connections=self.connections,
                bucket=s.bucket,
                clock=s.clock,
            )
        return self._tails[task]

    def _save_filled(self, task: FileTask, tail: Tail, *, alone: bool) -> None:
        files, filled = self._services.range_files(task), tail.written_ranges()
        for one in task.ranges:
            if not one.done and (alone or one.in_tail):
                with suppress(OSError):
                    files.record_filled(one, filled)


@dataclass(frozen=True, slots=True)
class _TailCredit:
    """Credits the bytes of one file's tail to mirrors, and wakes the loop at its end."""

    results: Results
    path: str
    inbox: Inbox

    def arrived(self, mirror: Mirror, count: int) -> None:
        self.results.record_received(self.path, mirror, count)

    def ended(self) -> None:
        self.inbox.wake()


@dataclass(frozen=True, slots=True)
class _BytesOnDisk:
    results: Results
    path: str
    count: int

    def __call__(self, more: int) -> None:
        self.results.set_bytes_on_disk(self.path, self.count + more)
