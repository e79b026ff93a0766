"""The audit log on disk: appended by any number of processes, rotated by size.

    <state>/audit.log                           mode mode 0600, the lines since the last rotation
            audit-<UTC time>-<process>.log.gz   older lines

Each line is one write in append mode, under a flock on the file itself. A process that finds the file full renames it
and creates a new one; processes that wait for the lock of the old file then see that the name refers to another file.
On a file system without flock, lines are appended without it, and the log is not rotated.
"""

import errno
import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, cast

NAME = "audit.log"
ROTATE_AT = 16 << 20  # bytes; some 16,000 files
KEEP = 64  # rotated logs of 1.2 MB each: a million files, or 3,000 in each night of a year
LOCK_SECONDS = 5.0  # longest wait for another writer; after one time-out there is no further wait
_BLOCK = 256 << 10  # bytes per read
_TRIES = 100  # rotations by other processes during one append; more than one is rare
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class AuditLog:
    """Appends to the log in `folder`, which the first line creates.

    `problem` is the last error, empty if all lines were written; no method raises. Safe for threads and processes.
    """

    def __init__(
        self, folder: Path, *, rotate_at: int = ROTATE_AT, keep: int = KEEP, patience: float = LOCK_SECONDS
    ) -> None:
        self.path = folder / NAME
        self.problem = ""
        self._rotate_at, self._keep = rotate_at, keep
        self._guard = threading.Lock()
        self._patience = patience
        self._file = -1
        self._written = 0

    def append(self, line: str) -> None:
        """Append one line that ends with a newline."""
        with self._guard:
            try:
                for _ in range(_TRIES):
                    if self._append(line.encode("ascii")):
                        return
                    self._close_file()
                raise OSError(errno.ESTALE, "its name refers to another file each time")
            except OSError as error:
                self.problem = f"the audit log cannot be written: {self.path}: {error.strerror}"
                self._close_file()

    def close(self) -> None:
        """Close the file; sync it first if more than one line was written."""
        with self._guard:
            if self._written > 1:
                with suppress(OSError):
                    os.fdatasync(self._file)
            self._close_file()

    def _append(self, line: bytes) -> bool:
        """Append one line; return False if the log was rotated and the caller must try again. Raises OSError."""
        if self._file < 0:
            self._file = _open(self.path)
        with ExitStack() as held:
            locked = self._lock(held)
            if not self._current():
                return False
            if locked and os.fstat(self._file).st_size >= self._rotate_at and self._rotate():
                return False
            self._write(line, alone=locked)
        self._written += 1
        return True

    def _lock(self, held: ExitStack) -> bool:
        """Lock the file; return False without a lock."""
        end = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                if time.monotonic() >= end:  # the holder may be stopped: do not wait again for each line
                    self._patience = 0.0
                    return False
                time.sleep(0.0005)
            else:
                held.callback(fcntl.flock, self._file, fcntl.LOCK_UN)
                return True

    def _current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _write(self, line: bytes, *, alone: bool) -> None:
        """Write one line, on a new line even after a line that a full disk or a crash cut off. Raises OSError."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(self._file, line) < len(line):
            if alone:
                os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rotate(self) -> bool:
        """Rename the full file and compress it; return False if renaming is not permitted."""
        now = time.time_ns()
        moment = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now // 10**9))}.{now // 1000 % 10**6:06d}Z"
        old = self.path.with_name(f"audit-{moment}-{os.getpid()}.log")
        try:
            os.rename(self.path, old)
        except OSError:
            self._rotate_at = 1 << 62  # keep appending to this file
            return False
        with suppress(OSError):  # an uncompressed file is readable too, and compressed the next time
            _compress(old)
            for other in sorted(self.path.parent.glob("audit-*.log")):
                _compress_leftover(other)
            for path in rotated(self.path.parent)[: -self._keep]:
                path.unlink(missing_ok=True)
        return True

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def lines(folder: Path, marks: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Yield the lines in `folder` that contain one of `marks` (all without marks), oldest first, without newlines.

    A damaged file is read up to the damage. Raises OSError if the newest file cannot be read.
    """
    with ExitStack() as held:
        newest = None
        with suppress(FileNotFoundError):  # open it first: it may be rotated while older files are read
            newest = held.enter_context((folder / NAME).open("rb"))
        for path in rotated(folder):
            if newest is None or not _is_same_file(path, newest.fileno()):
                yield from _marked(_content(path), marks)
        if newest is not None:
            yield from _marked(_blocks(newest), marks)


def rotated(folder: Path) -> list[Path]:
    """Return the rotated files, oldest first. A file that is being compressed counts once."""
    found = {path.name.removesuffix(".gz"): path for path in sorted(folder.glob("audit-*.log*"), reverse=True)}
    compressed = {path.name.removesuffix(".gz"): path for path in folder.glob("audit-*.log.gz")}
    return [path for stem, path in sorted((found | compressed).items()) if stem.endswith(".log")]


def _marked(blocks: Iterable[bytes], marks: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the lines that contain a mark. Most blocks contain none and are not split into lines."""
    for block in blocks:
        if not marks or any(mark in block for mark in marks):
            for line in block.splitlines():
                if not marks or any(mark in line for mark in marks):
                    yield line


def _content(path: Path) -> Iterator[bytes]:
    import gzip
    import zlib

    with suppress(OSError, EOFError, zlib.error), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        yield from _blocks(cast(BinaryIO, stream))


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the content in blocks of whole lines."""
    while block := stream.read(_BLOCK):
        yield block + stream.readline()


def _is_same_file(path: Path, file: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(file))
    return False


def _open(path: Path) -> int:
    """Open the log for appending, creating its folder (0700) if needed. Raises OSError for a symlink or a pipe."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def _compress_leftover(path: Path) -> None:
    """Compress a file that another process left uncompressed, unless it is locked. Raises OSError."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if _is_same_file(path, stream.fileno()):
            _compress(path)


def _compress(path: Path) -> None:
    """Replace a file by a compressed one. If killed, one of the two is complete."""
    import gzip

    target, new = path.with_name(path.name + ".gz"), path.with_name(path.name + ".new")
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as out, path.open("rb") as stream:
            with gzip.GzipFile("", "wb", 6, out, mtime=0) as gz:
                shutil.copyfileobj(stream, gz, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
