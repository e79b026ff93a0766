"""The private temporary folder of one aria2c, and the removal of folders whose gpuaria was killed.

The folder holds the conf file with the RPC secret until aria2c has read it. When gpuaria is killed, its aria2c takes
one to two seconds to exit and keeps writing meanwhile. A new run waits for that exit: otherwise it would download
those bytes twice.
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
_SAVE_SECONDS = 3.0  # for an aria2c to save its progress and exit
_YOUNG = 60.0  # seconds; a younger folder may not have its lock yet


@dataclass(frozen=True, slots=True)
class PrivateFolder:
    """A folder of mode 0700, locked (flock) by its gpuaria process. `lock`: the file descriptor that holds the lock."""

    path: Path
    lock: int

    def record_pid(self, pid: int) -> None:
        """Record the process id of the aria2c that uses the folder."""
        with contextlib.suppress(OSError):
            (self.path / "pid").write_text(str(pid))

    def remove(self) -> None:
        """Delete the folder and its contents, and release the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def create() -> PrivateFolder:
    """Create a locked folder. Raises Aria2Error."""
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Aria2Error(
            f"cannot create a temporary folder for aria2c: {error.strerror}", "Set TMPDIR to a writable folder."
        ) from None
    with contextlib.suppress(OSError):  # without file locks, no process treats a folder as abandoned
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return PrivateFolder(path, lock)


def remove_abandoned() -> None:
    """Stop every aria2c whose gpuaria was killed, wait while it saves its progress, and delete its folder."""
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
    """Send SIGTERM to the aria2c of an abandoned folder; return True once it has exited."""
    try:
        pid = int((path / "pid").read_text())
        deadline = time.monotonic() + _SAVE_SECONDS
        if _uses_folder(pid, path):
            os.kill(pid, signal.SIGTERM)  # once: a second signal would stop it before it has saved
        while _uses_folder(pid, path) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not _uses_folder(pid, path)
    except (OSError, ValueError):
        return False


def _uses_folder(pid: int, path: Path) -> bool:
    """True if process `pid` was started with the conf file in this folder: the id may have been reused."""
    try:
        return os.fsencode(path) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
