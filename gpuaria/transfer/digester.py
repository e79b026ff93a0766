"""Hashing that follows a download, so that the digest is ready soon after the last byte."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from gpuaria.hashing import CHUNK, hasher
from gpuaria.records import RemoteFile


class Digester:
    """Hashes `path` from its start as far as requested. All methods are thread-safe."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self._path = path
        self._size = file.size
        self._state = hasher(file.digest.algorithm, file.size) if file.digest else None
        self._at = self._wanted = 0
        self._queued = False
        self._working, self._asking = threading.Lock(), threading.Lock()

    def request(self, end: int) -> bool:
        """Request hashing up to `end`; return whether the caller has to schedule `work`."""
        with self._asking:
            self._wanted = max(self._wanted, end)
            needed, self._queued = not self._queued, True
        return needed

    def work(self) -> None:
        """Hash as far as requested. Read errors are ignored here: verification reports them."""
        with suppress(OSError):
            while True:
                with self._asking:
                    end = self._wanted
                    if self._at >= end:
                        break
                self.hash_up_to(end)
                if self._at < end:
                    break
        with self._asking:
            self._queued = False

    def hash_up_to(self, end: int) -> None:
        """Hash up to byte `end`, with all bytes before it on disk, and flush the file. Raises OSError."""
        if self._state is None:
            return
        with self._working, self._path.open("rb", buffering=0) as stream:
            stream.seek(self._at)
            buffer = memoryview(bytearray(CHUNK))
            while self._at < end and (count := stream.readinto(buffer[: end - self._at])):
                self._state.update(buffer[:count])
                self._at += count
            os.fdatasync(stream.fileno())

    def finish(self) -> str:
        """Return the digest of the whole file in hex; empty if it has none or cannot be read to its end."""
        try:
            self.hash_up_to(self._size)
        except OSError:
            return ""
        with self._working:
            return self._state.hexdigest() if self._state is not None and self._at == self._size else ""
