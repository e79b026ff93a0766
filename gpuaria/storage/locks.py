"""One gpuaria per target, and the client's own lock around a blob."""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from gpuaria.errors import Locked
from gpuaria.os_errors import explain, explained
from gpuaria.text import printable

_MODE = 0o664  # as huggingface_hub makes its locks: a group that shares a cache can wait for each other
_SPEAK_EVERY = 15.0  # seconds between two words to someone who waits


def take(path: Path, seconds: float) -> BaseFileLock | None:
    """Lock the file `path` (made if it is not there), waiting up to `seconds`; None if another holds it still.

    flock, so a dead holder is no obstacle; where the file system has none, a soft lock as the client takes. Raises
    OSError.
    """
    lock: BaseFileLock = FileLock(path, mode=_MODE, thread_local=False)
    try:
        lock.acquire(timeout=max(seconds, 0))
    except Timeout:
        return None
    except NotImplementedError:  # filelock before 4 where flock is unsupported
        lock = SoftFileLock(path, mode=_MODE, thread_local=False)
        try:
            lock.acquire(timeout=max(seconds, 0))
        except Timeout:
            return None
    return lock


def let_go(lock: BaseFileLock) -> None:
    """Release; a lock that cannot be released ends with the process."""
    try:
        lock.release()
    except OSError:
        pass


class TargetLock:
    """Advisory lock on one target, held by the file `path` and explained by a file beside it.

    Waits up to `patience` seconds and tells `on_wait` who has it: at once, and again now and then. Raises Locked with
    that sentence when the patience is over, DiskError where no lock can be made.
    """

    def __init__(self, path: Path, patience: float = 0.0, on_wait: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._patience = patience
        self._on_wait = on_wait
        self._lock: BaseFileLock | None = None
        self._guard = threading.Lock()

    @property
    def holder(self) -> Path:
        """Where the holder writes who it is."""
        return self.path.with_name(self.path.name + ".holder")

    def __enter__(self) -> "TargetLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, or raise Locked or DiskError."""
        end = time.monotonic() + self._patience
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._try(0)
        while lock is None:
            who = self._who()
            left = end - time.monotonic()
            if left <= 0:
                raise Locked(f"gave up waiting for {who}", "Wait for it to end, or choose another target.")
            if self._on_wait is not None:
                self._on_wait(f"waiting for {who}")
            lock = self._try(min(left, _SPEAK_EVERY))
        with self._guard:
            self._lock = lock
        self._sign()

    def release(self) -> None:
        """Give the lock back; nothing if it is not held. The lock file stays: a waiter may have it open."""
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is not None:
            self.holder.unlink(missing_ok=True)
            let_go(lock)

    def _try(self, seconds: float) -> BaseFileLock | None:
        try:
            return take(self.path, seconds)
        except OSError as error:
            raise explain(error, self.path) from error

    def _sign(self) -> None:
        """Say who holds it. Not in the lock file: older filelocks empty it when they try."""
        word = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "command": "gpuaria"}
        new = self.holder.with_name(f"{self.holder.name}.{secrets.token_hex(4)}")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(fd, "w", encoding="utf-8") as stream:
                json.dump(word, stream)
            os.replace(new, self.holder)
        except OSError as error:  # for example a full disk: whoever cannot write this cannot work here either
            self.release()
            raise explain(error, self.holder) from error

    def _who(self) -> str:
        try:
            word = json.loads(self.holder.read_text(encoding="utf-8"))
            since = time.strftime("%H:%M:%S", time.localtime(float(word["since"])))
            host = str(word["host"])
            shown = host if host.isprintable() else printable(host)
            return f"gpuaria process {int(word['pid'])} on {shown}, since {since}"
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return f"another process that holds {self.path}"
