"""Checks of the folders that a fetch writes to, made with temporary files."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock

from gpuaria.doctor.finding import Notes
from gpuaria.errors import ConfigError, DiskError, NoSpace
from gpuaria.os_errors import explained
from gpuaria.settings import Settings
from gpuaria.storage import space
from gpuaria.storage.locks import lock_file, unlock_file
from gpuaria.storage.receipts import Receipts
from gpuaria.text import decimal

FULL = 16 << 20  # bytes; no model fits in less
LITTLE = 1_000_000_000  # bytes; less free space gives a warning; less free space gives a warning
_PREFIX = ".gpuaria-doctor-"


def cache(settings: Settings, notes: Notes) -> None:
    """Check that the cache is writable, its free space, and the features of its file system."""
    try:
        folder = settings.cache_dir
    except ConfigError as error:
        return notes.failed("cache", error, "export HF_HOME=/a/writable/folder")
    fix = cache_fix(settings)
    try:
        with explained(folder):
            place = space.nearest_existing(folder)
        free = space.free_bytes(place)
        with _scratch(place) as scratch:
            _locks(scratch, fix, notes)
            _links(scratch, settings, notes)
            _names(scratch, place, fix, notes)
    except DiskError as error:
        return notes.problem("cache", f"cannot write to the cache {folder}: {error.message}", fix, error.exit_code)
    text = f"{folder} is writable, {decimal(free)} free"
    if free < FULL:
        return notes.problem("cache", f"the disk of {folder} is full: {text}", fix, NoSpace.exit_code)
    return notes.warn("cache", text, fix) if free < LITTLE else notes.ok("cache", text)


def cache_fix(settings: Settings) -> str:
    """Return the command that sets another cache folder, with the variable in use."""
    where = settings.setting_source("cache_dir").where
    return f"export {'GPUARIA_CACHE_DIR' if where == 'GPUARIA_CACHE_DIR' else 'HF_HUB_CACHE'}=/another/disk/hub"


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Create a temporary folder with a small file in `place`, and remove it at the end. Raises DiskError."""
    with explained(place):
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        with explained(place):
            (made / "bytes").write_bytes(bytes(4096))
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _locks(scratch: Path, fix: str, notes: Notes) -> None:
    first = lock_file(scratch / "lock", 0)
    second = lock_file(scratch / "lock", 0)
    soft = isinstance(first, SoftFileLock)
    for lock in (first, second):
        if lock is not None:
            unlock_file(lock)
    if second is not None:
        text = "file locks have no effect on the cache's file system: run one gpuaria at a time"
        return notes.warn("locks", text, fix)
    if soft:
        return notes.warn("locks", "the cache's file system has no flock: a killed process leaves its lock files", fix)
    return notes.ok("locks", "file locks work in the cache")


def _links(scratch: Path, settings: Settings, notes: Notes) -> None:
    if settings.symlinks is False:
        return notes.ok("links", "symbolic links are turned off (setting symlinks)")
    try:
        os.symlink("bytes", scratch / "link")
    except (OSError, NotImplementedError):
        text = "the cache's file system has no symbolic links: a file shared by two revisions is stored twice"
        return notes.warn("links", text, "export GPUARIA_SYMLINKS=no")
    return notes.ok("links", "symbolic links work in the cache")


def _names(scratch: Path, place: Path, fix: str, notes: Notes) -> None:
    if space.case_sensitive(scratch):
        return notes.ok("names", "the cache's file system is case-sensitive")
    text = f"the file system at {place} is not case-sensitive: repos with names that differ only in case fail"
    return notes.warn("names", text, fix)


def state(settings: Settings, notes: Notes) -> None:
    """Check that receipts and the mirror history can be saved; a fetch works without them."""
    fix = "export GPUARIA_STATE_DIR=/a/writable/folder"
    try:
        folder = settings.state_dir
    except ConfigError as error:
        return notes.failed("state", error, fix)
    receipts = Receipts(folder / "receipts.sqlite")
    receipts.close()
    if receipts.problem:
        return notes.warn("state", receipts.problem, fix)
    return notes.ok("state", f"receipts and history are saved in {folder}")
