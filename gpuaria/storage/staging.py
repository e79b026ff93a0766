"""Where unfinished bytes live, and how they leave: sealed, then renamed.

The names in here are ours: made from a digest, never from a repo path, since aria2 (1.36 and 1.37) follows a symlink
that stands in its way and takes a newline in a name for the start of an option. Whatever else is found here (links,
second names of other files, what a killed run was about to rename) is swept out before aria2 is let in.
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

CONTROL = (".aria2", ".aria2__temp")  # aria2's control file, and what it writes just before it is renamed to that
PREFIX = ".prefix"  # bytes from the start of a file, without a gap, that our own client fetched
_TEMPORARY = "tmp-"
_RANGE_LINKS = (
    ".windows"  # a folder beside a staged file: links to it, one for each range that aria2 is given as a file
)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # the last one: a planted pipe would block for ever
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)


class Staging:
    """The folder `parts` below `below`, on the same file system as the names that its files will get."""

    def __init__(self, below: SafeDir, parts: Parts) -> None:
        self.path = below.path(parts)
        self._dir = below
        self._parts = parts
        self._mode: int | None = None

    def prepare(self, *, alone: bool = True) -> None:
        """Make the folder and remove what must not be written through or continued. Raises DiskError, UnsafePath.

        Not `alone`: other fetches use the folder, and what they write now must not be removed; see `clear`.
        """
        with explained(self.path), self._dir.folder(self._parts, create=True) as fd:
            if alone:
                _sweep(fd)
        self._dir.keep_open(self._parts)
        # Files get the mode that a new file gets in this folder, as the client does: asking for the umask is not
        # possible without changing it for all threads.
        with self._temporary() as (parts, inner):
            self._mode = stat.S_IMODE(os.fstat(inner).st_mode)
            self._dir.unlink(self._parts, parts[-1])

    def clear_unsafe(self, file: RemoteFile) -> None:
        """Remove what stands in the place of one staged file and must not be written through."""
        name = _name(file)
        with explained(self.path, (name,)), suppress(FileNotFoundError), self._dir.folder(self._parts) as fd:
            if not _is_safe(fd, name, os.stat(name, dir_fd=fd, follow_symlinks=False)):
                os.unlink(name, dir_fd=fd)

    def path_of(self, file: RemoteFile) -> Path:
        """Where the unfinished bytes of `file` are, found again by their digest under whatever name."""
        return self.path / _name(file)

    @staticmethod
    def name_of(file: RemoteFile) -> str:
        """The name of its staged bytes."""
        return _name(file)

    def range_links(self, file: RemoteFile) -> Path:
        """The folder for second names of its unfinished bytes."""
        return self.path / (_name(file) + _RANGE_LINKS)

    def drop_range_links(self, file: RemoteFile) -> None:
        """Remove those second names, and what aria2 left beside them."""
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
        """Bytes that are stored, holes not counted, for each staged name; read-only."""
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
        """The entry of `partials` for `file`, or 0."""
        return partials.get(_name(file), 0)

    def make_durable(self, file: RemoteFile, staged: Path) -> Parts:
        """Make the verified bytes durable before they get a name. Returns their parts below the root.

        Raises UnsafePath for a link or a second name, WrongBytes for another size than was verified, DiskError.
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
        self.drop_range_links(file)  # only now: until the data is on the disk they say what is there
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
            with suppress(PermissionError):  # begun by another user of a shared cache: readable is enough
                os.fchmod(fd, self._mode)
        os.fsync(fd)

    def copy(self, file: RemoteFile, source: Path) -> Parts:
        """A sealed copy of `source` in the staging folder: shared extents where the file system has them, else hashed
        while it is copied. Raises WrongBytes, DiskError; ValueError if the file has no digest to be the same by.
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
        """Replace the file at `parts` by `text` in one step.

        The new file waits here, not beside the old one: the client takes each file below refs/ for a ref. `durable`:
        whether an empty file after a power cut would do harm.
        """
        with self._temporary() as (new, fd):
            data = memoryview(text.encode())
            while data:
                data = data[os.write(fd, data) :]
            if durable:
                os.fsync(fd)
            self._dir.rename(new, parts)

    def link(self, target: str, parts: Parts) -> None:
        """Let `parts` be a symlink to `target`, replacing a file or another link in one step."""
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
        """Whether this file system has symlinks: tried once, here."""
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
        """Remove the staged bytes and aria2's control files. Without its control file a file must not be continued:
        aria2 takes a sparse one for complete."""
        self.drop_range_links(file)
        name = _name(file)
        self._dir.unlink(self._parts, name, *(name + ending for ending in CONTROL))

    def drop_controls(self, file: RemoteFile) -> None:
        """Remove control files that were left beside bytes which have their final name now, and a shorter copy."""
        self._dir.unlink(self._parts, *(_name(file) + ending for ending in (*CONTROL, PREFIX)))

    def close(self, *, empty: bool) -> None:
        """Give the folder up; remove it where it is empty and, as `empty` says, no other fetch uses it."""
        self._dir.close()
        if not empty:
            return
        try:
            with self._dir.folder(self._parts[:-1]) as fd:
                os.rmdir(self._parts[-1], dir_fd=fd)
        except OSError:  # not empty, gone, or not ours to remove: it does no harm
            pass

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Parts, int]]:
        """A fresh file that is gone afterwards unless it was renamed or kept by leaving without an error."""
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
    # Never a name that other bytes would have too: those of another version must not be continued.
    label = f"{file.path}\0{file.size}\0{file.digest}\0{file.oid}" if file.oid or file.digest else file.path
    return f"path-{hashlib.sha256(label.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _temporary_name() -> str:
    return _TEMPORARY + secrets.token_hex(12)


def _is_safe(folder: int, name: str, seen: os.stat_result) -> bool:
    """A plain file whose every name is in here: a name elsewhere would be written through."""
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
    """Bytes of a file that are not holes. aria2 preallocates or writes sparsely, so the size says nothing."""
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
    """Whether `new` now shares the extents of `old` (on btrfs, XFS and bcachefs; APFS has another call for it)."""
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
