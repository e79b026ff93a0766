"""The protocol of downloaders, and the queue into which downloaders and worker threads put their events."""

import queue
from collections.abc import Sequence
from typing import Protocol

from gpuaria.records import MirrorUrl, RemoteFile
from gpuaria.transfer.events import TransferEvent
from gpuaria.transfer.ranges import ByteRange
from gpuaria.transfer.task import FileTask


class Downloader(Protocol):
    """One way to bring bytes into staging. All methods are for the loop's thread."""

    name: str

    def can_take(self, file: RemoteFile, urls: Sequence[MirrorUrl]) -> bool:
        """True if this downloader could download the file from these URLs."""

    def start(self, task: FileTask, ranges: Sequence[ByteRange], urls: Sequence[MirrorUrl]) -> None:
        """Begin with ranges of a file. Raises DiskError."""

    def poll(self, now: float) -> Sequence[TransferEvent]:
        """Return the events since the last call."""

    def stop(self, task: FileTask) -> None:
        """End a file's downloads; what came stays on disk for a later run."""


class Inbox:
    """Events on their way to the loop, from any thread. None only wakes it."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[TransferEvent | None] = queue.SimpleQueue()

    def put(self, event: TransferEvent | None) -> None:
        """Leave an event."""
        self._events.put(event)

    def wake(self) -> None:
        """Let the loop take its next turn now."""
        self._events.put(None)

    def get(self, timeout: float) -> TransferEvent | None:
        """The next event, None when the loop is woken. Raises queue.Empty after `timeout` seconds."""
        return self._events.get(timeout=max(0.0, timeout))

    @property
    def empty(self) -> bool:
        """True if no event waits."""
        return self._events.empty()
