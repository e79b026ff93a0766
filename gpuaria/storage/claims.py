"""Claims on bytes: if several fetches on this machine need the same bytes, only one of them downloads them.

A claim is a lock on one byte of a lock file, at an offset derived from its key (open file description locks, Linux
3.15; see fcntl(2)). It excludes other threads and other processes, ends with its process, and needs no cleanup.
"""

import errno
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from gpuaria.errors import DiskError, Locked
from gpuaria.paths import SafePath
from gpuaria.records import RemoteFile
from gpuaria.storage.layout import ClaimResult, ProgressMark
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.safe_dir import Parts, SafeDir
from gpuaria.storage.staging import PREFIX

_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_TAKEN = (errno.EAGAIN, errno.EACCES)
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for these locks)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MODE = 0o664  # a group that shares a cache can wait for each other
_SHARED = ("sha256", "git-sha1")  # digests that identify bytes across repos
_HOLDERS: Parts = ("holders",)  # next to the user's lock file: links to the files that holders stage
_STATE = "state"  # key for the shared state of a target; no staged file has this name
_STATE_SECONDS = 60.0
_SHARED_FROM = 1 << 20  # smallest size in bytes for claims and receipts across processes

Stamp = tuple[int, int, int]


class ByteLocks:
    """Exclusive locks by key in the file `parts` below `below`, which the first lock creates.

    Two objects exclude each other, also within one process; an object does not exclude itself. Thread-safe.
    """

    def __init__(self, below: SafeDir, parts: Parts) -> None:
        self._dir, self._parts = below, parts
        self._fd = -1
        self._guard = threading.Lock()

    def __del__(self) -> None:
        self.close()

    def try_lock(self, key: str) -> bool:
        """Lock `key`; False while another object has it locked. Raises OSError, DiskError."""
        with self._guard:
            return self._set(key, fcntl.F_WRLCK)

    def unlock(self, key: str) -> None:
        """Unlock `key`."""
        with self._guard, suppress(OSError):
            if self._fd >= 0:
                self._set(key, fcntl.F_UNLCK)

    def note_staged(self, key: str, staged: Path) -> None:
        """Publish the path at which the holder of `key` stages its bytes."""
        with suppress(OSError, DiskError), self._dir.folder(_HOLDERS, create=True) as folder:
            with suppress(FileNotFoundError):  # left by a holder that was killed
                os.unlink(_link_name(key), dir_fd=folder)
            os.symlink(staged, _link_name(key), dir_fd=folder)

    def noted_staged(self, key: str) -> Path | None:
        """Return the path at which the holder of `key` stages its bytes, None if unknown."""
        with suppress(OSError, DiskError), self._dir.folder(_HOLDERS) as folder:
            return Path(os.readlink(_link_name(key), dir_fd=folder))
        return None

    def forget_staged(self, key: str) -> None:
        """Remove the path noted for `key`; called by its holder."""
        with suppress(OSError, DiskError), self._dir.folder(_HOLDERS) as folder:
            os.unlink(_link_name(key), dir_fd=folder)

    def close(self) -> None:
        """Unlock all keys."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _set(self, key: str, kind: int) -> bool:
        if _SET_LOCK is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if self._fd < 0:
            self._fd = self._open()
        start = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8]) >> 2
        try:
            fcntl.fcntl(self._fd, _SET_LOCK, struct.pack(_FLOCK, kind, os.SEEK_SET, start, 1, 0))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def _open(self) -> int:
        with self._dir.folder(self._parts[:-1], create=True) as folder:
            return os.open(self._parts[-1], _FLAGS, _MODE, dir_fd=folder)


class _ThreadLocks:
    """Exclusive locks by key among the threads of this process, for small files: they avoid two system calls."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._staged: dict[str, Path] = {}
        self._guard = threading.Lock()

    def try_lock(self, key: str) -> bool:
        with self._guard:
            free = key not in self._held
            self._held.add(key)
            return free

    def unlock(self, key: str) -> None:
        with self._guard:
            self._held.discard(key)

    def note_staged(self, key: str, staged: Path) -> None:
        self._staged[key] = staged

    def noted_staged(self, key: str) -> Path | None:
        return self._staged.get(key)

    def forget_staged(self, key: str) -> None:
        self._staged.pop(key, None)


_THREAD_LOCKS = _ThreadLocks()


class Claims:
    """The claims of one fetch. Thread-safe.

    A claim locks the name of the staged file in this target, and digest and size in all targets of this user; the
    lock file for the latter is next to the receipts. `staging`: the folder of the staged files.
    """

    def __init__(self, target: ByteLocks, receipts: Receipts, staging: Path) -> None:
        self._target, self._receipts, self._staging = target, receipts, staging
        self._user = ByteLocks(SafeDir(receipts.path.parent), ("claims",)) if receipts.path else None
        self._held: dict[str, RemoteFile] = {}
        self._seen: dict[str, Stamp] = {}
        self._elsewhere: dict[SafePath, Path] = {}
        self._tried: set[str] = set()
        self._guard = threading.Lock()

    def note_existing(self, places: Mapping[str, os.stat_result]) -> None:
        """Note the files found when this fetch began; `claim` returns PRESENT only for newer ones."""
        self._seen.update((place, _stamp(there)) for place, there in places.items())

    def claim(self, file: RemoteFile, staged: str, place: str) -> ClaimResult:
        """Claim the bytes of `file`; `staged` is the name of the staged file, `place` the path when published."""
        with self._guard:
            if (holder := self._held.get(staged)) is not None:
                return ClaimResult.GRANTED if holder.path == file.path else ClaimResult.HELD
            if not self._lock(file, staged):
                return ClaimResult.HELD
            if self._published(file, place) or self._is_elsewhere(file, place):
                self._unlock(file, staged)
                return ClaimResult.PRESENT
            self._held[staged] = file
            return ClaimResult.GRANTED

    def progress_mark(self, file: RemoteFile, staged: str) -> ProgressMark:
        """Return a value that changes when the holder of a HELD claim stores bytes, in any target."""
        key = self._global_key(file)
        noted = self._global_locks(file).noted_staged(key) if key else None
        places = (self._staging / staged, *((noted,) if noted else ()))
        return tuple(
            (str(path), _stamp_of(path)) for place in places for path in (place, place.with_name(place.name + PREFIX))
        )

    def elsewhere(self, file: RemoteFile) -> Path | None:
        """Return the path of the verified bytes of a PRESENT file in another target; None after they are adopted."""
        return self._elsewhere.get(file.path)

    def adopted(self, file: RemoteFile) -> None:
        """Note that this target has the bytes of a file now."""
        self._elsewhere.pop(file.path, None)

    def release(self, file: RemoteFile, staged: str) -> None:
        """Release the claim on the bytes of `file`, unless this fetch claimed them for another file."""
        if file.size >= _SHARED_FROM:
            self._receipts.flush()
        with self._guard:
            if (holder := self._held.get(staged)) is not None and holder.path == file.path:
                del self._held[staged]
                self._unlock(file, staged)

    def supported(self) -> bool:
        """Return whether the target's file system supports these locks. Otherwise fetches must use it one at a time."""
        try:
            if self._target.try_lock(_STATE):
                self._target.unlock(_STATE)
        except OSError:
            return False
        return True

    @contextmanager
    def exclusive_state(self, *, shared: bool) -> Iterator[None]:
        """Exclude other fetches of a `shared` target while this one writes the shared state.

        Raises Locked after _STATE_SECONDS.
        """
        end = time.monotonic() + _STATE_SECONDS
        while shared and not _try_lock(self._target, _STATE):
            if time.monotonic() > end:
                raise Locked(
                    "another gpuaria process is stopped while it writes here",
                    "End that process, or choose another target.",
                )
            time.sleep(0.01)
        try:
            yield
        finally:
            if shared:
                self._target.unlock(_STATE)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Release all claims."""
        with self._guard:
            for staged, file in self._held.items():
                self._unlock(file, staged)
            self._held.clear()
            self._target.close()
            if self._user is not None:
                self._user.close()

    def _is_elsewhere(self, file: RemoteFile, place: str) -> bool:
        """Return whether another fetch has published these bytes in another target since this process started."""
        if file.digest is None or not self._global_key(file):
            return False
        found = self._receipts.recent(file.digest, by_others=file.size >= _SHARED_FROM)
        paths = [path for path in found if path not in self._tried and os.path.realpath(place) != path]
        if not paths:
            return False
        self._tried.add(paths[0])
        self._elsewhere[file.path] = Path(paths[0])
        return True

    def _lock(self, file: RemoteFile, staged: str) -> bool:
        locks, key = self._global_locks(file), self._global_key(file)
        if key and not _try_lock(locks, key):
            return False
        if _try_lock(self._target, staged):
            if key:
                locks.note_staged(key, self._staging / staged)
            return True
        if key:
            locks.unlock(key)
        return False

    def _unlock(self, file: RemoteFile, staged: str) -> None:
        self._target.unlock(staged)
        if key := self._global_key(file):
            self._global_locks(file).forget_staged(key)
            self._global_locks(file).unlock(key)

    def _global_key(self, file: RemoteFile) -> str:
        """Return a key of digest and size; empty if the file has no digest that identifies it across repos."""
        if file.digest is None or file.digest.algorithm not in _SHARED:
            return ""
        return f"{file.digest}/{file.size} {self._receipts.path}"

    def _global_locks(self, file: RemoteFile) -> "ByteLocks | _ThreadLocks":
        """Return the locks that apply to all targets."""
        return _THREAD_LOCKS if self._user is None or file.size < _SHARED_FROM else self._user

    def _published(self, file: RemoteFile, place: str) -> bool:
        """Return whether a file of the right size has appeared at `place` since the last check."""
        try:
            there = os.stat(place)
        except OSError:
            return False
        if there.st_size != file.size or self._seen.get(place) == _stamp(there):
            return False
        self._seen[place] = _stamp(there)
        return True


def _try_lock(locks: ByteLocks | _ThreadLocks, key: str) -> bool:
    """Lock a key. Return True if the file system does not support such locks: the target's file lock must suffice."""
    try:
        return locks.try_lock(key)
    except (OSError, DiskError):
        return True


def _link_name(key: str) -> str:
    """Return the name of the link to the staged file of a claim holder."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp_of(path: Path) -> Stamp | None:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(there: os.stat_result) -> Stamp:
    return there.st_ino, there.st_size, there.st_mtime_ns
