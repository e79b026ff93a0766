"""How much room there is, and what kind of file system it is."""

import errno
import os
import secrets
from pathlib import Path

from gpuaria.errors import NoSpace
from gpuaria.os_errors import explained
from gpuaria.text import decimal


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write at `path`, or at its nearest parent that exists. Raises DiskError."""
    place = nearest_existing(path)
    with explained(place):
        stats = os.statvfs(place)
    return stats.f_bavail * stats.f_frsize


def check_free(path: Path, need: int) -> None:
    """Raise NoSpace unless `need` bytes fit at `path`. Quotas of a directory are seen only when they are hit."""
    have = free_bytes(path)
    if need > have:
        raise NoSpace(
            f"not enough disk space: {decimal(need)} needed, {decimal(have)} free at {nearest_existing(path)}",
            "Free some space, choose another target, or select fewer files with --include and --exclude.",
        )


def nearest_existing(path: Path) -> Path:
    """`path` or its nearest parent that exists. Raises DiskError where that may not be seen."""
    path = Path(os.path.abspath(path))
    with explained(path):
        return next((place for place in (path, *path.parents) if place.exists()), path)


def case_sensitive(folder: Path) -> bool:
    """Whether `folder` tells `A` from `a` and a composed from a decomposed letter: measured with a file made there.

    `folder` must exist. Raises DiskError where nothing can be made in it.
    """
    stem = f"tmp-{secrets.token_hex(6)}-"
    written, seen_as = stem + "A\u00e9", (stem + "a\u00e9", stem + "Ae\u0301")
    made = folder / written
    with explained(folder):
        try:
            os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno == errno.EILSEQ:  # a file system that refuses such letters cannot confuse them
                return True
            raise
        try:
            return not any((folder / name).exists() for name in seen_as)
        finally:
            made.unlink(missing_ok=True)
