"""Names below one folder, reached without following a link.

Every folder between the root and a name is opened by its own descriptor with O_NOFOLLOW, and the work is done relative
to that descriptor: a folder that was swapped for a symlink, before or meanwhile, cannot lead a write out of the root.
The root itself is the user's choice and may be a link. Needs the *at() calls of POSIX.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gpuaria.errors import UnsafePath
from gpuaria.os_errors import explain, explained, unmade
from gpuaria.text import printable

Parts = tuple[str, ...]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SafeDir:
    """The folder `root` and what is below it. A name is given as its parts, first folder first."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._changed: set[Parts] = set()
        self._guard = threading.Lock()
        self._held: tuple[Parts, int] | None = None

    def __del__(self) -> None:
        self.close()

    def keep_open(self, parts: Parts) -> None:
        """Keep one folder open, made if it is not there: walks to it are a good part of what a small file costs."""
        self.close()
        with self.folder(parts, create=True) as fd:
            self._held = (parts, os.dup(fd))

    def close(self) -> None:
        """Let it go; no other thread may be at work in it."""
        if self._held is not None:
            os.close(self._held[1])
            self._held = None

    def path(self, parts: Sequence[str]) -> Path:
        """`parts` below the root; does not look at the disk."""
        return self.root.joinpath(*parts)

    def parts(self, path: Path) -> Parts:
        """The parts of an absolute `path`. Raises UnsafePath when it is not below the root."""
        if not path.is_relative_to(self.root):
            raise UnsafePath(f"{path} is not inside {self.root}")
        return path.relative_to(self.root).parts

    @contextmanager
    def folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder, made with its parents if `create`.

        Raises UnsafePath naming a component that is a symlink, FileNotFoundError for one that is not there.
        """
        known, fd = self._start(tuple(parts), create)
        try:
            for depth in range(known, len(parts)):
                inner = self._step(fd, parts[: depth + 1], parts[depth], create)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def _start(self, parts: Parts, create: bool) -> tuple[int, int]:
        """From where to walk to `parts`: how many of them are behind, and a descriptor of that folder."""
        if self._held is not None and parts[: len(self._held[0])] == self._held[0]:
            held, fd = self._held
            with suppress(OSError):  # or it is gone, and whoever comes by the root makes it anew
                if os.path.samestat(os.lstat(self.path(held)), os.fstat(fd)):
                    return len(held), os.dup(fd)
        return 0, self._open_root(create)

    def _open_root(self, create: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with explained(self.root, missing=True):
            try:
                return os.open(self.root, flags)
            except FileNotFoundError:
                if not create:
                    raise
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unmade(error, self.root) from error
            return os.open(self.root, flags)

    def _step(self, fd: int, so_far: Sequence[str], part: str, create: bool) -> int:
        if part in ("", ".", "..") or "/" in part or "\0" in part:
            raise UnsafePath(f"unsafe component {printable(part)} in a path below {self.root}")
        try:
            return os.open(part, _FOLDER, dir_fd=fd)
        except OSError as error:
            if error.errno == errno.ENOENT and create:
                return self._make(fd, so_far, part)
            if error.errno == errno.ENOENT:
                raise
            raise self._refusal(fd, so_far, part, error) from error

    def _make(self, fd: int, so_far: Sequence[str], part: str) -> int:
        try:
            try:
                os.mkdir(part, dir_fd=fd)
            except FileExistsError:  # another thread or process was faster
                pass
            self.mark_changed(so_far[:-1])
            return os.open(part, _FOLDER, dir_fd=fd)
        except OSError as error:
            raise self._refusal(fd, so_far, part, error) from error

    def _refusal(self, fd: int, so_far: Sequence[str], part: str, error: OSError) -> Exception:
        """Linux answers ENOTDIR for a symlink as for a file: look which it is."""
        path = self.path(so_far)
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and is_link(fd, part):
            return UnsafePath(
                f"{path} is a symbolic link, and gpuaria does not write through links",
                f"Remove the link, or use the folder it points to as the target: {_link_target(fd, part)}",
            )
        return explain(error, path)

    def check_no_symlinks(self, folders: Iterable[Parts]) -> None:
        """Raise UnsafePath if one of `folders`, as far as they exist, goes through a symlink."""
        known: set[Parts] = set()
        for folder in folders:
            if folder in known:
                continue
            known.update(folder[: depth + 1] for depth in range(len(folder)))
            try:
                with self.folder(folder):
                    pass
            except FileNotFoundError:
                continue

    def rename(self, old: Parts, new: Parts) -> None:
        """Give the bytes at `old` the name `new`, replacing what has it; makes the folders of `new`."""
        with (
            explained(self.root, new),
            self.folder(old[:-1]) as source,
            self.folder(new[:-1], create=True) as target,
        ):
            os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)
        self.mark_changed(new[:-1])

    def unlink(self, folder: Parts, *names: str) -> None:
        """Remove files or links of one folder by their names; those that are not there are no error."""
        try:
            with explained(self.root, (*folder, *names[:1]), missing=True), self.folder(folder) as fd:
                for name in names:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass

    def read_text(self, parts: Parts) -> str | None:
        """The text of a small file of ours or the client's, or None if it is not there or is not text."""

        def opener(name: str, flags: int) -> int:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)  # a planted pipe would block

        try:
            with (
                explained(self.root, parts, missing=True),
                self.folder(parts[:-1]) as fd,
                open(parts[-1], encoding="utf-8", opener=opener) as stream,
            ):
                return stream.read()
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def mark_changed(self, folder: Sequence[str]) -> None:
        """Remember that an entry of `folder` changed, for the next `sync`."""
        with self._guard:
            self._changed.add(tuple(folder))

    def sync(self) -> None:
        """Make the names given so far survive a power cut: one fsync for each folder that changed."""
        with self._guard:
            folders, self._changed = self._changed, set()
        for parts in sorted(folders):
            try:
                with explained(self.root, parts, missing=True), self.folder(parts) as fd:
                    _fsync_folder(fd)
            except FileNotFoundError:
                continue


def is_link(fd: int, name: str) -> bool:
    """Whether `name` in the folder `fd` is a symlink."""
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=fd).st_mode)
    except OSError:
        return False


def _link_target(fd: int, name: str) -> str:
    try:
        return printable(os.readlink(name, dir_fd=fd))
    except OSError:
        return "(unknown)"


def _fsync_folder(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems: their names are synchronous
            raise
