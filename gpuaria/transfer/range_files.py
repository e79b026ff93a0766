"""The byte ranges of a staged file on disk: hard links with aria2 control files, from which aria2 resumes.

Each staged file has a folder with `START-END` (a hard link to it) and `START-END.aria2` (a control file that marks all
bytes outside the range as present). A link without a control file is a complete range, since aria2 removes the control
file only then. Without hard links there is one range, the staged file itself.
"""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpuaria.aria2 import control
from gpuaria.transfer.ranges import PIECE, ByteRange, Gap, non_overlapping, split_gap, subtract

_NAME = re.compile(r"(\d{1,16})-(\d{1,16})")


@dataclass(frozen=True, slots=True)
class RangeFiles:
    """The file `base`, of `size` bytes, and its ranges in `folder`; `hard_links`: the file system has hard links.

    Every method may raise OSError.
    """

    base: Path
    folder: Path
    size: int
    hard_links: bool = True

    def path(self, one: ByteRange) -> Path:
        """Return the path of a range for aria2."""
        return self.folder / f"{one.start}-{one.end}" if self.hard_links else self.base

    def control_path(self, one: ByteRange) -> Path:
        """Return the path of aria2's control file."""
        path = self.path(one)
        return path.with_name(path.name + ".aria2")

    def backup_path(self, one: ByteRange) -> Path:
        """Return the path of the backup of the last readable control file."""
        path = self.path(one)
        return path.with_name(path.name + ".kept")

    def back_up_control(self, one: ByteRange) -> None:
        """Link the current control file under a second name: on a full disk aria2 replaces it with an empty one.

        An outdated backup only understates the bytes on disk.
        """
        if self.hard_links and self._read(self.control_path(one)):
            with suppress(OSError):
                self.backup_path(one).unlink(missing_ok=True)
                os.link(self.control_path(one), self.backup_path(one))

    def missing(self, one: ByteRange) -> list[Gap]:
        """Return the gaps according to the control file; the whole range if there is no readable one."""
        known = self._control_of(one)
        if known is None:
            return [(one.start, one.end)]
        clipped = ((max(start, one.start), min(end, one.end)) for start, end in known.missing)
        return [(start, end) for start, end in clipped if start < end]

    def gaps(self, byte_ranges: Iterable[ByteRange]) -> list[Gap]:
        """Return the gaps of all ranges that are neither done nor in the tail, in order."""
        return [gap for one in byte_ranges if not one.done and not one.in_tail for gap in self.missing(one)]

    def completed_by_aria2(self, one: ByteRange) -> bool:
        """Return True if aria2 has completed the range: it removes the control file then, and only then."""
        return self.hard_links and self.path(one).exists() and not self.control_path(one).exists()

    def saved_by_aria2(self, one: ByteRange) -> bool:
        """Return True if aria2 has saved at least the bytes of the last reading, or completed the range."""
        remaining = sum(end - start for start, end in self.missing(one))
        return remaining <= one.remaining or not self.control_path(one).exists()

    def prepare(self, one: ByteRange) -> None:
        """Create the control file, then the link: in this order, since a link alone means a complete range."""
        path, control_path = self.path(one), self.control_path(one)
        if not self.hard_links:
            if self._control_of(one) is None:  # without one, aria2 would take the holes of a full-length file for data
                _write(control_path, control_bytes(self.size, one.start, one.end))
            return
        if self._read(control_path) is None and self._read(self.backup_path(one)) is not None:
            self.backup_path(one).replace(control_path)
        if self._control_of(one) is None or not self._is_link(path):
            self.folder.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            _write(control_path, control_bytes(self.size, one.start, one.end))
            os.link(self.base, path)

    def record_filled(self, one: ByteRange, filled: Sequence[Gap]) -> None:
        """Record that `filled` is on disk too, for a later run; aria2 must not be downloading the range.

        Not synced to disk, which could take long: the digest detects bytes lost in a power failure.
        """
        remaining = subtract(self.missing(one), filled)
        if not self.hard_links or not remaining:
            return
        self.folder.mkdir(exist_ok=True)
        path = self.path(one)
        new = path.with_name(path.name + ".new")
        new.write_bytes(control.compose(self.size, PIECE, remaining))
        new.replace(self.control_path(one))
        if not self._is_link(path):
            path.unlink(missing_ok=True)
            os.link(self.base, path)

    def mark_complete(self, one: ByteRange) -> None:
        """Mark a range as complete, as aria2 would: the tail downloaded the rest of it."""
        if self.hard_links and self._is_link(self.path(one)):
            self.control_path(one).unlink(missing_ok=True)

    def recover(self, behind: int = 0) -> list[ByteRange]:
        """Return the ranges of the file in order: those of an earlier run as they are, new ones for the rest.

        `behind`: bytes of other files that are still to be downloaded. Creates `base`, or clears it if its size is
        wrong.
        """
        if not self.base.exists() or self.base.stat().st_size != self.size:
            for path in self.folder.glob("*") if self.folder.is_dir() else ():
                path.unlink()
            with self.base.open("wb") as file:
                file.truncate(self.size)
        names = [path for path in sorted(self.folder.glob("*-*")) if _NAME.fullmatch(path.name)]
        byte_ranges, others = non_overlapping(
            [one for path in names if (one := self._recovered_range(path)) is not None]
        )
        for one in others:
            self.path(one).unlink()  # before its control file: a link alone means a complete range
            self.control_path(one).unlink(missing_ok=True)
        for start, end in subtract([(0, self.size)], [(one.start, one.end) for one in byte_ranges]):
            byte_ranges += [ByteRange(a, b) for a, b in split_gap(start, end, behind)]
        return sorted(byte_ranges, key=lambda one: one.start)

    def single(self) -> list[ByteRange]:
        """Return one range for the whole file, for file systems without hard links."""
        one = ByteRange(0, self.size, on_disk=True)
        one.completed = self.size - sum(end - start for start, end in self.missing(one))
        return [one]

    def _recovered_range(self, path: Path) -> ByteRange | None:
        """Return a range of an earlier run; None unless its name links to the staged bytes."""
        start, end = map(int, path.name.split("-"))
        whole = start % PIECE == 0 and (end % PIECE == 0 or end == self.size)
        if not 0 <= start < end <= self.size or not whole or not self._is_link(path):
            return None
        one = ByteRange(start, end, on_disk=True)
        one.done = not self.control_path(one).exists()
        one.completed = one.size - (0 if one.done else sum(b - a for a, b in self.missing(one)))
        return one

    def _control_of(self, one: ByteRange) -> control.Control | None:
        """Return the control file of a range, or its backup."""
        return self._read(self.control_path(one)) or self._read(self.backup_path(one))

    def _read(self, path: Path) -> control.Control | None:
        """Return a control file; None unless it is for a file of this size."""
        known = control.read(path)
        return known if known is not None and known.total == self.size else None

    def _is_link(self, path: Path) -> bool:
        """Return True if `path` is a hard link to the staged bytes; a symlink is not."""
        return path.exists() and not path.is_symlink() and path.samefile(self.base)


def control_bytes(size: int, start: int, end: int) -> bytes:
    """Return a control file that marks all bytes of the file except `start` to `end` as present."""
    return control.compose(size, PIECE, [(start // PIECE * PIECE, min(size, -(-end // PIECE) * PIECE))])


def keep_prefix(files: RangeFiles, byte_ranges: Sequence[ByteRange], prefix: Path) -> None:
    """Move the contiguous bytes from the start to `prefix`, unless `prefix` already has more."""
    missing = files.gaps(byte_ranges)
    end = missing[0][0] if missing else 0
    if byte_ranges and end > (prefix.stat().st_size if prefix.exists() else 0):
        os.truncate(files.base, end)  # before the rename: with its holes the file has the full size
        files.base.rename(prefix)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
