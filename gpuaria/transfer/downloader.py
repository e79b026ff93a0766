"""The protocol of downloaders, and the queue for events of downloaders and worker threads."""

import queue
from collections.abc import Sequence
from typing import Protocol

from gpuaria.records import MirrorUrl, RemoteFile
from gpuaria.transfer.events import TransferEvent
from gpuaria.transfer.ranges import ByteRange
from gpuaria.transfer.task import FileTask


class Downloader(Protocol):
    """A method of downloading bytes into staging. All methods are for the loop's thread."""

    name: str

    def can_take(self, file: RemoteFile, urls: Sequence[MirrorUrl]) -> bool:
        """Return True if this downloader can download the file from these URLs."""

    def start(self, task: FileTask, ranges: Sequence[ByteRange], urls: Sequence[MirrorUrl]) -> None:
        """Start ranges of a file. Raises DiskError."""

    def poll(self, now: float) -> Sequence[TransferEvent]:
        """Return the events since the last call."""

    def stop(self, task: FileTask) -> None:
        """End a file's downloads; received bytes stay on disk for a later run."""


class Inbox:
    """Queue of events for the loop, from any thread. None only wakes the loop."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[TransferEvent | None] = queue.SimpleQueue()

    def put(self, event: TransferEvent | None) -> None:
        """Queue an event."""
        self._events.put(event)

    def wake(self) -> None:
        """Let the loop take its next turn now."""
        self._events.put(None)

    def get(self, timeout: float) -> TransferEvent | None:
        """Return the next event, None if the loop was woken. Raises queue.Empty after `timeout` seconds."""
        return self._events.get(timeout=max(0.0, timeout))

    @property
    def empty(self) -> bool:
        """True if no event is queued."""
        return self._events.empty()
