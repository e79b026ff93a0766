"""The private temporary folder of one aria2c, and what is left of those whose gpuaria was killed.

Its conf file holds the RPC secret of a daemon that ends with the process that made it, and is deleted once it was read.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gpuaria.errors import Aria2Error

_PREFIX = "gpuaria-"
_YOUNG = 60.0  # seconds; a folder of that age may be one that is made right now, and not locked yet


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of mode 0700. While it is in use its maker holds a lock on it, which ends with the process."""

    path: Path
    lock: int

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def folder() -> Folder:
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


def sweep() -> None:
    """Delete the folders of ours that nobody uses any more: their makers were killed."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):
                    _sweep(entry.path)


def _sweep(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.geteuid() or state.st_mode & 0o077 or time.time() - state.st_mtime < _YOUNG:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
