"""The private temporary folder of one aria2c, and what is left of those whose gpuaria was killed.

Its conf file holds the RPC secret of a daemon that ends with the process that made it, and is deleted once it was read.
That end takes aria2c one to two seconds, in which it writes on: who begins again at once waits for it, or the bytes of
those seconds would be fetched twice.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gpuaria.errors import Aria2Error

_PREFIX = "gpuaria-"
_SAVE_SECONDS = 3.0  # seconds for an aria2c to save how far it is
_YOUNG = 60.0  # seconds; a folder of that age may be one that is made right now, and not locked yet


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of mode 0700. While it is in use its maker holds a lock on it, which ends with the process."""

    path: Path
    lock: int

    def record_pid(self, pid: int) -> None:
        """Note whose folder it is."""
        with contextlib.suppress(OSError):
            (self.path / "pid").write_text(str(pid))

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def create() -> Folder:
    """Make one. Raises Aria2Error."""
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Aria2Error(
            f"aria2c needs a temporary folder, and none can be made: {error.strerror}", "Set TMPDIR to one."
        ) from None
    with contextlib.suppress(OSError):  # a file system without locks: then nobody can take it for abandoned either
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return Folder(path, lock)


def remove_abandoned() -> None:
    """End the aria2c of those who were killed, let each save its progress, and delete what they left."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.geteuid() or state.st_mode & 0o077:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _aria2_ended(Path(path)) and time.time() - state.st_mtime < _YOUNG:
            return
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _aria2_ended(path: Path) -> bool:
    """Whether the aria2c that a folder was made for is no more; it is told to end, and given time to."""
    try:
        pid = int((path / "pid").read_text())
        until = time.monotonic() + _SAVE_SECONDS
        if _uses_folder(pid, path):
            os.kill(pid, signal.SIGTERM)  # once: a second one would end it before it has saved
        while _uses_folder(pid, path) and time.monotonic() < until:
            time.sleep(0.02)
        return not _uses_folder(pid, path)
    except (OSError, ValueError):
        return False


def _uses_folder(pid: int, path: Path) -> bool:
    """Whether a process was started with the conf file of this folder: the number may be another's by now."""
    try:
        return os.fsencode(path) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
