"""File access below one folder that never follows a symlink.

Each folder between the root and a name is opened with O_NOFOLLOW, and all calls are relative to its descriptor. A
folder replaced by a symlink, even during the access, cannot redirect a write outside the root. The root itself is
chosen by the user and may be a symlink. Needs the *at() calls of POSIX.
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
    """The folder `root` and everything below it. Names are tuples of path components, outermost folder first."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._changed: set[Parts] = set()
        self._guard = threading.Lock()
        self._held: tuple[Parts, int] | None = None

    def __del__(self) -> None:
        self.close()

    def keep_open(self, parts: Parts) -> None:
        """Keep one folder open, creating it if missing, because opening it for each small file is slow."""
        self.close()
        with self.folder(parts, create=True) as fd:
            self._held = (parts, os.dup(fd))

    def close(self) -> None:
        """Close the folder of `keep_open`; no other thread may use it."""
        if self._held is not None:
            os.close(self._held[1])
            self._held = None

    def path(self, parts: Sequence[str]) -> Path:
        """Return the path of `parts` below the root, without file system access."""
        return self.root.joinpath(*parts)

    def parts(self, path: Path) -> Parts:
        """Return the components of an absolute `path`. Raises UnsafePath if it is not below the root."""
        if not path.is_relative_to(self.root):
            raise UnsafePath(f"{path} is not inside {self.root}")
        return path.relative_to(self.root).parts

    @contextmanager
    def folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Open the folder and yield its descriptor; `create` makes missing folders.

        Raises UnsafePath for a component that is a symlink, FileNotFoundError for a missing one.
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
        """Return the start of the walk to `parts`: the number of components done, and a descriptor of that folder."""
        if self._held is not None and parts[: len(self._held[0])] == self._held[0]:
            held, fd = self._held
            with suppress(OSError):  # if it was removed, the walk from the root creates it again
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
        """Return the error for a component that does not open. Linux reports ENOTDIR for symlinks and files."""
        path = self.path(so_far)
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and is_link(fd, part):
            return UnsafePath(
                f"{path} is a symbolic link, and gpuaria does not write through links",
                f"Remove the link, or use the folder it points to as the target: {_link_target(fd, part)}",
            )
        return explain(error, path)

    def check_no_symlinks(self, folders: Iterable[Parts]) -> None:
        """Raise UnsafePath if an existing component of one of `folders` is a symlink."""
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
        """Rename `old` to `new`, replacing an existing file; creates the folders of `new`."""
        with (
            explained(self.root, new),
            self.folder(old[:-1]) as source,
            self.folder(new[:-1], create=True) as target,
        ):
            os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)
        self.mark_changed(new[:-1])

    def unlink(self, folder: Parts, *names: str) -> None:
        """Remove files or links from one folder; missing names are ignored."""
        try:
            with explained(self.root, (*folder, *names[:1]), missing=True), self.folder(folder) as fd:
                for name in names:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass

    def read_text(self, parts: Parts) -> str | None:
        """Return the text of a small file, None if it is missing or not UTF-8."""

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
        """Mark `folder` for the next `sync`, because one of its entries changed."""
        with self._guard:
            self._changed.add(tuple(folder))

    def sync(self) -> None:
        """Make all renames durable: one fsync for each changed folder."""
        with self._guard:
            folders, self._changed = self._changed, set()
        for parts in sorted(folders):
            try:
                with explained(self.root, parts, missing=True), self.folder(parts) as fd:
                    _fsync_folder(fd)
            except FileNotFoundError:
                continue


def is_link(fd: int, name: str) -> bool:
    """Return whether `name` in the folder `fd` is a symlink."""
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
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # some network file systems, which update names synchronously
            raise
