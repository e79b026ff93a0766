"""Free disk space, and properties of the file system."""

import errno
import os
import secrets
from pathlib import Path

from gpuaria.errors import NoSpace
from gpuaria.os_errors import explained
from gpuaria.text import decimal


def free_bytes(path: Path) -> int:
    """Return the bytes available to this user at `path` or its nearest existing parent. Raises DiskError."""
    place = nearest_existing(path)
    with explained(place):
        stats = os.statvfs(place)
    return stats.f_bavail * stats.f_frsize


def check_free(path: Path, need: int) -> None:
    """Raise NoSpace unless `need` bytes are free at `path`. Does not detect directory quotas."""
    have = free_bytes(path)
    if need > have:
        raise NoSpace(
            f"not enough disk space: {decimal(need)} needed, {decimal(have)} free at {nearest_existing(path)}",
            "Free some space, choose another target, or select fewer files with --include and --exclude.",
        )


def nearest_existing(path: Path) -> Path:
    """Return `path` or its nearest existing parent. Raises DiskError if access is denied."""
    path = Path(os.path.abspath(path))
    with explained(path):
        return next((place for place in (path, *path.parents) if place.exists()), path)


def case_sensitive(folder: Path) -> bool:
    """Return whether `folder` distinguishes `A` from `a`, and composed from decomposed letters.

    Tests with a temporary file in `folder`, which must exist. Raises DiskError if it is not writable.
    """
    stem = f"tmp-{secrets.token_hex(6)}-"
    written, seen_as = stem + "A\u00e9", (stem + "a\u00e9", stem + "Ae\u0301")
    made = folder / written
    with explained(folder):
        try:
            os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno == errno.EILSEQ:  # a file system that rejects such letters cannot confuse them
                return True
            raise
        try:
            return not any((folder / name).exists() for name in seen_as)
        finally:
            made.unlink(missing_ok=True)
