"""Messages for errors of the operating system, as one sentence with the path."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpuaria.errors import DiskError, NoSpace, NotWritable, UnsafePath

_MESSAGES: dict[int, tuple[type[DiskError], str, str]] = {
    errno.ENOSPC: (NoSpace, "no space left on the disk of {path}", "Free some space and run the same command again."),
    errno.EDQUOT: (NoSpace, "your disk quota is used up at {path}", "Free some space and run the same command again."),
    errno.EROFS: (NotWritable, "{path} is on a read-only file system", "Choose another target folder."),
    errno.EACCES: (NotWritable, "no permission for {path}", "Choose a folder that you may write to."),
    errno.EPERM: (NotWritable, "the system does not allow changes to {path}", "Choose another target folder."),
    errno.ENAMETOOLONG: (DiskError, "the name is too long for this file system: {path}", "Choose a shorter target."),
    errno.ENOTDIR: (DiskError, "a component of {path} is a file, but a folder is needed", "Move that file away."),
    errno.EISDIR: (DiskError, "{path} is a folder, but a file is needed", "Move that folder away."),
    errno.ENOTEMPTY: (DiskError, "{path} is a folder, but a file is needed", "Move that folder away."),
    errno.ENOENT: (DiskError, "{path} does not exist", ""),
    errno.EXDEV: (
        DiskError,
        "{path} is on another file system than its target folder",
        "Use the inner folder as the target.",
    ),
    errno.ELOOP: (
        UnsafePath,
        "{path} is a symbolic link, and gpuaria does not write through links",
        "Remove the link.",
    ),
}


@contextmanager
def explained(path: Path | str, parts: Sequence[str] = (), *, missing: bool = False) -> Iterator[None]:
    """Convert an OSError about `path`, or `parts` below it, to DiskError, NoSpace or UnsafePath; other errors pass.

    `missing`: let FileNotFoundError pass too, for a caller that expects it.
    """
    try:
        yield
    except OSError as error:
        if missing and isinstance(error, FileNotFoundError):
            raise
        raise explain(error, Path(path).joinpath(*parts)) from error


def unmade(error: OSError, folder: Path) -> DiskError:
    """Return the DiskError for a folder of the user's choice that cannot be made.

    Missing parents are made too, so ENOENT comes from file systems such as /proc.
    """
    known = explain(error, folder)
    why = "this file system does not allow new folders" if error.errno == errno.ENOENT else known.message
    return type(known)(f"cannot create the folder {folder}: {why}", known.hint or "Choose another target folder.")


def explain(error: OSError, path: Path | str) -> DiskError:
    """Return the DiskError for `error`, with `path` in the message."""
    known = _MESSAGES.get(error.errno or 0)
    if known is None:
        return DiskError(f"{path}: {error.strerror or type(error).__name__}")
    kind, text, hint = known
    return kind(text.format(path=path), hint)
