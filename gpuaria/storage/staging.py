"""The staging folder: unfinished bytes are stored here, made durable, then renamed to their final name.

File names are derived from digests, never from repo paths: aria2 (1.36 and 1.37) follows symlinks, and takes a newline
in a name for the start of an option. Symlinks, hard links to other files and temporary files of a killed run are
removed before aria2 uses the folder.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpuaria.errors import UnsafePath, WrongBytes
from gpuaria.hashing import CHUNK, hasher, matches
from gpuaria.os_errors import explain, explained
from gpuaria.records import RemoteFile
from gpuaria.storage.safe_dir import Parts, SafeDir

CONTROL = (".aria2", ".aria2__temp")  # aria2's control file, and its temporary name while aria2 writes it
PREFIX = ".prefix"  # contiguous bytes from the start of a file, fetched by gpuaria's HTTP client
_TEMPORARY = "tmp-"
_RANGE_LINKS = ".windows"  # folder of hard links to a staged file, one per byte range that aria2 downloads
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: a planted pipe would block forever
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)


class Staging:
    """The folder `parts` below `below`, on the same file system as the published files."""

    def __init__(self, below: SafeDir, parts: Parts) -> None:
        self.path = below.path(parts)
        self._dir = below
        self._parts = parts
        self._mode: int | None = None

    def prepare(self, *, alone: bool = True) -> None:
        """Create the folder and remove unsafe entries. Raises DiskError, UnsafePath.

        `alone=False`: other fetches use the folder, so nothing is removed here; see `clear_unsafe`.
        """
        with explained(self.path), self._dir.folder(self._parts, create=True) as fd:
            if alone:
                _sweep(fd)
        self._dir.keep_open(self._parts)
        # Published files get the mode of a new file in this folder, as with huggingface_hub: the umask cannot be read
        # without changing it for all threads.
        with self._temporary() as (parts, inner):
            self._mode = stat.S_IMODE(os.fstat(inner).st_mode)
            self._dir.unlink(self._parts, parts[-1])

    def clear_unsafe(self, file: RemoteFile) -> None:
        """Remove an unsafe entry with the name of one staged file."""
        name = _name(file)
        with explained(self.path, (name,)), suppress(FileNotFoundError), self._dir.folder(self._parts) as fd:
            if not _is_safe(fd, name, os.stat(name, dir_fd=fd, follow_symlinks=False)):
                os.unlink(name, dir_fd=fd)

    def path_of(self, file: RemoteFile) -> Path:
        """Return the path of the staged file, which depends on the digest and not on the file name."""
        return self.path / _name(file)

    @staticmethod
    def name_of(file: RemoteFile) -> str:
        """Return the name of the staged file."""
        return _name(file)

    def range_links(self, file: RemoteFile) -> Path:
        """Return the folder for hard links to the staged file."""
        return self.path / (_name(file) + _RANGE_LINKS)

    def drop_range_links(self, file: RemoteFile) -> None:
        """Remove the folder of hard links, with aria2's control files in it."""
        folder = (*self._parts, _name(file) + _RANGE_LINKS)
        try:
            with self._dir.folder(folder) as fd:
                self._dir.unlink(folder, *os.listdir(fd))
            with self._dir.folder(self._parts) as fd:
                os.rmdir(folder[-1], dir_fd=fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise explain(error, self._dir.path(folder)) from error

    def stored_bytes(self) -> dict[str, int]:
        """Return the stored bytes of each staged file, holes not counted. Read-only."""
        found: dict[str, int] = {}
        try:
            with self._dir.folder(self._parts) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    seen = entry.stat(follow_symlinks=False)
                    if _is_safe(fd, entry.name, seen) and not entry.name.endswith(CONTROL):
                        found[entry.name] = _stored_bytes(fd, entry.name, seen.st_size)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise explain(error, self.path) from error
        return found

    def partial(self, file: RemoteFile, partials: dict[str, int]) -> int:
        """Return the entry of `partials` for `file`, or 0."""
        return partials.get(_name(file), 0)

    def make_durable(self, file: RemoteFile, staged: Path) -> Parts:
        """Flush verified bytes to disk before they are published. Return their name below the root.

        Raises UnsafePath for a symlink or an unexpected hard link, WrongBytes for a wrong size, DiskError.
        """
        parts = self._dir.parts(staged)
        with explained(staged), self._dir.folder(parts[:-1]) as fd:
            inner = os.open(parts[-1], _READ, dir_fd=fd)
            try:
                self._check_and_sync(
                    inner, file, staged, _second_names(fd, _name(file) + _RANGE_LINKS, os.fstat(inner).st_ino)
                )
            finally:
                os.close(inner)
        self.drop_range_links(file)  # only after the flush: the links record which ranges are complete
        return parts

    def _check_and_sync(self, fd: int, file: RemoteFile, staged: Path, windows: int = 0) -> None:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1 + windows:
            raise UnsafePath(
                f"{staged} is not a regular file with one hard link", "Remove it, and run the same command again."
            )
        if seen.st_size != file.size:
            raise WrongBytes(f"{file.path}: {seen.st_size} bytes are staged instead of {file.size}")
        if self._mode is not None and stat.S_IMODE(seen.st_mode) != self._mode:
            with suppress(PermissionError):  # created by another user of a shared cache: readable is enough
                os.fchmod(fd, self._mode)
        os.fsync(fd)

    def copy(self, file: RemoteFile, source: Path) -> Parts:
        """Make a durable copy of `source` in the staging folder and return its name.

        Shares extents if the file system supports it, else verifies the digest while copying. Raises WrongBytes,
        DiskError, and ValueError for a file without a digest.
        """
        if file.digest is None:
            raise ValueError(f"{file.path} has no digest, so no other file is known to be the same")
        with explained(source):
            old = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with self._temporary() as (parts, new):
                if not _clone_extents(old, new):
                    _copy_and_verify(old, new, file, source)
                self._check_and_sync(new, file, self._dir.path(parts))
            return parts
        finally:
            os.close(old)

    def write(self, parts: Parts, text: str, *, durable: bool = True) -> None:
        """Replace the file at `parts` with `text` atomically.

        The temporary file is in the staging folder, since the client takes every file below refs/ for a ref.
        `durable`: flush to disk before the rename, for files that must survive a power failure.
        """
        with self._temporary() as (new, fd):
            data = memoryview(text.encode())
            while data:
                data = data[os.write(fd, data) :]
            if durable:
                os.fsync(fd)
            self._dir.rename(new, parts)

    def link(self, target: str, parts: Parts) -> None:
        """Make `parts` a symlink to `target`, replacing a file or another symlink atomically."""
        with explained(self._dir.root, parts):
            with self._dir.folder(parts[:-1], create=True) as fd:
                try:
                    os.symlink(target, parts[-1], dir_fd=fd)
                    self._dir.mark_changed(parts[:-1])
                    return
                except FileExistsError:
                    if _read_link(fd, parts[-1]) == target:
                        return
            new = (*self._parts, _temporary_name())
            with self._dir.folder(self._parts, create=True) as fd:
                os.symlink(target, new[-1], dir_fd=fd)
            try:
                self._dir.rename(new, parts)
            finally:
                self._dir.unlink(self._parts, new[-1])

    def supports_symlinks(self) -> bool:
        """Return whether the file system supports symlinks, by creating one in the staging folder."""
        name = _temporary_name()
        with explained(self.path), self._dir.folder(self._parts, create=True) as fd:
            try:
                os.symlink("nothing", name, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                    return False
                raise
            os.unlink(name, dir_fd=fd)
        return True

    def discard(self, file: RemoteFile) -> None:
        """Remove the staged bytes and aria2's control files.

        Both must go: without its control file, aria2 takes a sparse file for complete.
        """
        self.drop_range_links(file)
        name = _name(file)
        self._dir.unlink(self._parts, name, *(name + ending for ending in CONTROL))

    def drop_controls(self, file: RemoteFile) -> None:
        """Remove the control files and the prefix file of a published file."""
        self._dir.unlink(self._parts, *(_name(file) + ending for ending in (*CONTROL, PREFIX)))

    def close(self, *, empty: bool) -> None:
        """Stop using the folder. With `empty`, which means that no other fetch uses it, remove it if it is empty."""
        self._dir.close()
        if not empty:
            return
        try:
            with self._dir.folder(self._parts[:-1]) as fd:
                os.rmdir(self._parts[-1], dir_fd=fd)
        except OSError:  # not empty, already removed, or not permitted: harmless
            pass

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Parts, int]]:
        """Create a temporary file and yield its name and descriptor; remove it if the block raises."""
        parts = (*self._parts, _temporary_name())
        with explained(self._dir.root, parts):
            with self._dir.folder(self._parts, create=True) as folder:
                fd = os.open(parts[-1], _NEW, 0o666, dir_fd=folder)
            try:
                yield parts, fd
            except BaseException:
                self._dir.unlink(self._parts, parts[-1])
                raise
            finally:
                os.close(fd)


def _name(file: RemoteFile) -> str:
    if file.digest is not None and not file.digest.weak:
        return f"{file.digest.algorithm}-{file.digest.hex}"
    # The name must differ for each version of a file, since bytes of another version must not be resumed.
    label = f"{file.path}\0{file.size}\0{file.digest}\0{file.oid}" if file.oid or file.digest else file.path
    return f"path-{hashlib.sha256(label.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _temporary_name() -> str:
    return _TEMPORARY + secrets.token_hex(12)


def _is_safe(folder: int, name: str, seen: os.stat_result) -> bool:
    """Return whether this is a regular file with hard links in the staging folder only; others could be overwritten."""
    if not stat.S_ISREG(seen.st_mode) or name.startswith(_TEMPORARY):
        return False
    return seen.st_nlink == 1 or seen.st_nlink == 1 + _second_names(folder, name + _RANGE_LINKS, seen.st_ino)


def _second_names(folder: int, windows: str, inode: int) -> int:
    try:
        fd = os.open(windows, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return 0
    try:
        with os.scandir(fd) as entries:
            return sum(entry.stat(follow_symlinks=False).st_ino == inode for entry in entries)
    finally:
        os.close(fd)


def _sweep(fd: int) -> None:
    with os.scandir(fd) as entries:
        for entry in list(entries):
            seen = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(seen.st_mode) and not _is_safe(fd, entry.name, seen):
                os.unlink(entry.name, dir_fd=fd)


def _read_link(fd: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError:
        return None


def _stored_bytes(folder: int, name: str, size: int) -> int:
    """Return the bytes of a file that are not holes. The size alone is meaningless, since aria2 writes sparse files."""
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return 0
    try:
        total = end = 0
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            total += end - start
        return total
    except OSError as error:
        return total if error.errno == errno.ENXIO else size  # ENXIO: only a hole is left
    finally:
        os.close(fd)


def _clone_extents(old: int, new: int) -> bool:
    """Clone the extents of `old` into `new`; return whether it worked (btrfs, XFS, bcachefs; not APFS)."""
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError:
        return False
    return True


def _copy_and_verify(old: int, new: int, file: RemoteFile, source: Path) -> None:
    assert file.digest is not None
    state = hasher(file.digest.algorithm, file.size)
    while data := os.read(old, CHUNK):
        state.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(new, rest) :]
    if not matches(file.digest, state.hexdigest()):
        raise WrongBytes(f"{source} does not have the digest {file.digest} of {file.path}")
