"""The audit log on disk: lines appended by any number of processes, rotated by size, kept for long.

    <state>/audit.log                           0600, the lines since the last rotation
            audit-<UTC time>-<process>.log.gz   older ones

Every line is one write in append mode, under a flock on the file itself. Whoever finds the file full renames it and
begins a new one; those who wait for the lock of the old one see then that the name means another file. Where a file
system has no flock lines are appended without it, and nothing is rotated.
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
KEEP = 64  # rotated ones, of 1.2 MB each: a million files, or 3,000 in each night of a year
PATIENCE = 5.0  # seconds for others to finish writing; after that none is waited for any more
_BLOCK = 256 << 10  # bytes that are read at once
_TRIES = 100  # rotations by others between two looks; more than one is rare
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class AuditLog:
    """Appends to the log in `folder`, which is made when the first line comes.

    `problem` says why a line could not be written, empty as long as all could; no method raises. Safe for several
    threads and processes.
    """

    def __init__(
        self, folder: Path, *, rotate_at: int = ROTATE_AT, keep: int = KEEP, patience: float = PATIENCE
    ) -> None:
        self.path = folder / NAME
        self.problem = ""
        self._rotate_at, self._keep = rotate_at, keep
        self._guard = threading.Lock()
        self._patience = patience
        self._file = -1
        self._written = 0

    def append(self, line: str) -> None:
        """Append one line, which brings its own end."""
        with self._guard:
            try:
                for _ in range(_TRIES):
                    if self._append(line.encode("ascii")):
                        return
                    self._let_go()
                raise OSError(errno.ESTALE, "its name means another file each time")
            except OSError as error:
                self.problem = f"the audit log cannot be written: {self.path}: {error.strerror}"
                self._let_go()

    def close(self) -> None:
        """Give the file up; what is more than the line of one run is brought to the disk before."""
        with self._guard:
            if self._written > 1:
                with suppress(OSError):
                    os.fdatasync(self._file)
            self._let_go()

    def _append(self, line: bytes) -> bool:
        """False where it has to be tried again with the file that has the name now. Raises OSError."""
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
        """Lock the file; False where that cannot be had."""
        end = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                if time.monotonic() >= end:  # its holder is stopped, perhaps: every further line would wait as long
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
        """One write. What a full disk or a crash has cut off does not spoil the line after it. Raises OSError."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(self._file, line) < len(line):
            if alone:
                os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rotate(self) -> bool:
        """Give the full file its last name, and pack it; False where that is not allowed."""
        now = time.time_ns()
        moment = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now // 10**9))}.{now // 1000 % 10**6:06d}Z"
        old = self.path.with_name(f"audit-{moment}-{os.getpid()}.log")
        try:
            os.rename(self.path, old)
        except OSError:
            self._rotate_at = 1 << 62  # a file that grows is better than none
            return False
        with suppress(OSError):  # what is left in plain form is read as well, and packed the next time
            _pack(old)
            for other in sorted(self.path.parent.glob("audit-*.log")):
                _pack_left(other)
            for path in rotated(self.path.parent)[: -self._keep]:
                path.unlink(missing_ok=True)
        return True

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def lines(folder: Path, marks: Sequence[bytes] = ()) -> Iterator[bytes]:
    """The lines of the log in `folder` that have one of `marks` in them, or all, without their ends, the oldest first.

    A file that is damaged is read as far as it goes. Raises OSError where the newest one may not be read.
    """
    with ExitStack() as held:
        newest = None
        with suppress(FileNotFoundError):  # opened first: it may be rotated while the older ones are read
            newest = held.enter_context((folder / NAME).open("rb"))
        for path in rotated(folder):
            if newest is None or not _is(path, newest.fileno()):
                yield from _marked(_packed(path), marks)
        if newest is not None:
            yield from _marked(_blocks(newest), marks)


def rotated(folder: Path) -> list[Path]:
    """The files of older lines, the oldest first; one that is just being packed counts once."""
    found = {path.name.removesuffix(".gz"): path for path in sorted(folder.glob("audit-*.log*"), reverse=True)}
    packed = {path.name.removesuffix(".gz"): path for path in folder.glob("audit-*.log.gz")}
    return [path for stem, path in sorted((found | packed).items()) if stem.endswith(".log")]


def _marked(blocks: Iterable[bytes], marks: Sequence[bytes]) -> Iterator[bytes]:
    """The lines with a mark; most blocks have none, and are not even cut into lines."""
    for block in blocks:
        if not marks or any(mark in block for mark in marks):
            for line in block.splitlines():
                if not marks or any(mark in line for mark in marks):
                    yield line


def _packed(path: Path) -> Iterator[bytes]:
    import gzip
    import zlib

    with suppress(OSError, EOFError, zlib.error), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        yield from _blocks(cast(BinaryIO, stream))


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The content in blocks of whole lines."""
    while block := stream.read(_BLOCK):
        yield block + stream.readline()


def _is(path: Path, file: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(file))
    return False


def _open(path: Path) -> int:
    """The file to append to, made in a folder of one's own. A symlink or a pipe is not followed. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def _pack_left(path: Path) -> None:
    """Pack what somebody left in plain form, unless they are at it now. Raises OSError."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if _is(path, stream.fileno()):
            _pack(path)


def _pack(path: Path) -> None:
    """Put a compressed file in the place of a plain one; killed at any moment, it leaves one of the two whole."""
    import gzip

    packed, new = path.with_name(path.name + ".gz"), path.with_name(path.name + ".new")
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as out, path.open("rb") as stream:
            with gzip.GzipFile("", "wb", 6, out, mtime=0) as pressed:
                shutil.copyfileobj(stream, pressed, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, packed)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
