"""The file lock of a target, which fetches of one commit share, and huggingface_hub's lock of a blob."""

import errno
import fcntl
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

_MODE = 0o664  # as for huggingface_hub's locks: members of a group can share a cache
_REMIND_EVERY = 15.0  # seconds between two messages during a wait
_GRACE = 2.0  # seconds in which the first fetch of a target usually writes the shared state
_POLL = 0.05  # seconds between two attempts to lock
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def lock_file(path: Path, seconds: float) -> BaseFileLock | None:
    """Lock the file `path`, creating it if missing. Wait up to `seconds`; return None if it is still locked.

    Uses flock, which ends with its process; on a file system without flock a soft lock, like huggingface_hub. Raises
    OSError.
    """
    lock: BaseFileLock = FileLock(path, mode=_MODE, thread_local=False)
    try:
        lock.acquire(timeout=max(seconds, 0))
    except Timeout:
        return None
    except NotImplementedError:  # filelock before 4 where flock is unsupported
        return _lock_file_softly(path, seconds)
    return lock


def _lock_file_softly(path: Path, seconds: float) -> BaseFileLock | None:
    lock = SoftFileLock(path, mode=_MODE, thread_local=False)
    try:
        lock.acquire(timeout=max(seconds, 0))
    except Timeout:
        return None
    return lock


def unlock_file(lock: BaseFileLock) -> None:
    """Release a lock. Ignores errors, since the lock ends with the process."""
    try:
        lock.release()
    except OSError:
        pass


class TargetLock:
    """Advisory lock on one target: the file `path`, and a file next to it that describes the holder.

    Fetches of the same `content` share the target: the first one holds it exclusively until it calls `share`, then
    others join. Every other fetch, and one with an empty `content`, waits up to `patience` seconds; `on_wait` gets a
    message about the holder at once and then at intervals. Raises Locked after that time, DiskError if no lock can be
    created.
    """

    def __init__(
        self, path: Path, patience: float = 0.0, on_wait: Callable[[str], None] | None = None, content: str = ""
    ) -> None:
        self.path = path
        self._patience, self._on_wait, self._content = patience, on_wait, content
        self._fd = -1
        self._soft: BaseFileLock | None = None
        self._guard = threading.Lock()
        self.alone = False

    @property
    def holder(self) -> Path:
        """The file that describes the first holder."""
        return self.path.with_name(self.path.name + ".holder")

    def __enter__(self) -> "TargetLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock. Raises Locked, DiskError."""
        end = time.monotonic() + self._patience
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            taken = self._try_for(min(self._patience, _GRACE) if self._content else 0)
            while not taken:
                who = self._holder_text()
                left = end - time.monotonic()
                if left <= 0:
                    raise Locked(f"gave up waiting for {who}", "Wait for it to end, or choose another target.")
                if self._on_wait is not None:
                    self._on_wait(f"waiting for {who}")
                taken = self._try_for(min(left, _REMIND_EVERY))
        if self.alone:
            self._write_holder()

    def share(self) -> None:
        """Let fetches of the same content join, after this one has written the shared state."""
        with self._guard:
            if self.alone and self._content and self._fd >= 0:
                self.alone = False
                fcntl.flock(self._fd, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Return whether no other fetch shares the target; if so, none can join. Called by a fetch about to end."""
        with self._guard:
            self.alone = self.alone or (self._fd >= 0 and _flock(self._fd, fcntl.LOCK_EX))
            return self.alone

    def release(self) -> None:
        """Release the lock, if held. The lock file stays, since a waiting process may have it open."""
        if self.is_last():
            self.holder.unlink(missing_ok=True)
        with self._guard:
            fd, self._fd = self._fd, -1
            soft, self._soft = self._soft, None
            self.alone = False
        if fd >= 0:
            os.close(fd)
        if soft is not None:
            unlock_file(soft)

    def _try_for(self, seconds: float) -> bool:
        """Try to take the lock for some seconds; return whether it worked."""
        end = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL)
        return True

    def _try(self) -> bool:
        """Lock the target exclusively if it is free, else join the fetches that share it. Raises OSError."""
        fd = os.open(self.path, _FLAGS, _MODE)
        try:
            alone = _flock(fd, fcntl.LOCK_EX)
            if not alone and not (self._content and _flock(fd, fcntl.LOCK_SH) and self._shared_content()):
                os.close(fd)
                return False
        except OSError as error:
            os.close(fd)
            if error.errno not in _NO_FLOCK:
                raise
            self._soft = _lock_file_softly(self.path.with_name(self.path.name + ".soft"), 0)
            self.alone = self._soft is not None
            return self.alone
        with self._guard:
            self._fd, self.alone = fd, alone
        return True

    def _shared_content(self) -> bool:
        """Return whether the fetches that hold the target fetch the same content."""
        try:
            return bool(json.loads(self.holder.read_text(encoding="utf-8")).get("content") == self._content)
        except (OSError, ValueError, AttributeError):
            return False

    def _write_holder(self) -> None:
        """Write the holder's description to its own file: old versions of filelock truncate the lock file."""
        word = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "command": "gpuaria"}
        new = self.holder.with_name(f"{self.holder.name}.{secrets.token_hex(4)}")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(fd, "w", encoding="utf-8") as stream:
                json.dump({**word, "content": self._content}, stream)
            os.replace(new, self.holder)
        except OSError as error:  # for example a full disk, on which the fetch would fail anyway
            self.release()
            raise explain(error, self.holder) from error

    def _holder_text(self) -> str:
        try:
            word = json.loads(self.holder.read_text(encoding="utf-8"))
            since = time.strftime("%H:%M:%S", time.localtime(float(word["since"])))
            host = str(word["host"])
            shown = host if host.isprintable() else printable(host)
            return f"gpuaria process {int(word['pid'])} on {shown}, since {since}"
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return f"another process that has locked {self.path}"


def _flock(fd: int, kind: int) -> bool:
    """Lock a file without waiting; return whether it worked. Raises OSError if the file system has no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True
