"""The byte ranges of a staged file on disk: second names of it with control files, which aria2 resumes from.

In a folder of the staged file's own: `START-END` (a hard link) and `START-END.aria2`, a control file that says that
everything outside the range is there already. A link without a control file is a range that is complete, since aria2
removes the control file only then. Without hard links there is one range, the staged file itself.
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
    """The file `base`, of `size` bytes, and its ranges in `folder`; `linked`: whether the file system has hard links.

    Every method may raise OSError.
    """

    base: Path
    folder: Path
    size: int
    linked: bool = True

    def path(self, one: ByteRange) -> Path:
        """The name under which aria2 knows a range."""
        return self.folder / f"{one.start}-{one.end}" if self.linked else self.base

    def control_path(self, one: ByteRange) -> Path:
        """aria2's control file."""
        path = self.path(one)
        return path.with_name(path.name + ".aria2")

    def backup_path(self, one: ByteRange) -> Path:
        """A second name of the last control file that could be read."""
        path = self.path(one)
        return path.with_name(path.name + ".kept")

    def back_up_control(self, one: ByteRange) -> None:
        """Link the present control file under a second name: on a full disk aria2 replaces it by an empty one.

        An older one only says that fewer bytes are on disk.
        """
        if self.linked and self._read(self.control_path(one)):
            with suppress(OSError):
                self.backup_path(one).unlink(missing_ok=True)
                os.link(self.control_path(one), self.backup_path(one))

    def missing(self, one: ByteRange) -> list[Gap]:
        """Return the gaps by the control file; the whole range if no control file can be read."""
        known = self._control_of(one)
        if known is None:
            return [(one.start, one.end)]
        clipped = ((max(start, one.start), min(end, one.end)) for start, end in known.missing)
        return [(start, end) for start, end in clipped if start < end]

    def gaps(self, byte_ranges: Iterable[ByteRange]) -> list[Gap]:
        """Return the gaps of all ranges that are neither done nor in the tail, in order."""
        return [gap for one in byte_ranges if not one.done and not one.in_tail for gap in self.missing(one)]

    def completed_by_aria2(self, one: ByteRange) -> bool:
        """True if aria2 has completed the range: it removes the control file then, and only then."""
        return self.linked and self.path(one).exists() and not self.control_path(one).exists()

    def saved_by_aria2(self, one: ByteRange) -> bool:
        """True if aria2 has written down at least the bytes of the last reading, or completed the range."""
        left = sum(end - start for start, end in self.missing(one))
        return left <= one.remaining or not self.control_path(one).exists()

    def prepare(self, one: ByteRange) -> None:
        """Make the control file, then the link: in this order, since a link alone means complete."""
        path, control_path = self.path(one), self.control_path(one)
        if not self.linked:
            if self._control_of(one) is None:  # or aria2 would take the holes of a file of full length for bytes
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
        """Write down that `filled` is on disk too, for a later run; aria2 must not be downloading the range.

        Not forced to disk, which could take long: what is wrong after a power cut is found out by its digest.
        """
        left = subtract(self.missing(one), filled)
        if not self.linked or not left:
            return
        self.folder.mkdir(exist_ok=True)
        path = self.path(one)
        new = path.with_name(path.name + ".new")
        new.write_bytes(control.compose(self.size, PIECE, left))
        new.replace(self.control_path(one))
        if not self._is_link(path):
            path.unlink(missing_ok=True)
            os.link(self.base, path)

    def mark_complete(self, one: ByteRange) -> None:
        """Leave the sign of a complete range that aria2 would leave: the tail downloaded the rest of it."""
        if self.linked and self._is_link(self.path(one)):
            self.control_path(one).unlink(missing_ok=True)

    def recover(self, behind: int = 0) -> list[ByteRange]:
        """Return the ranges of the file in order: those of an earlier run as they are, new ones for the rest.

        `behind`: bytes of other files that are still to come. Makes `base`, or empties it if it has another size.
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
            self.path(one).unlink()  # before its control file: a link alone means complete
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
        """Return a range of an earlier run, None unless its name still links to the same bytes."""
        start, end = map(int, path.name.split("-"))
        whole = start % PIECE == 0 and (end % PIECE == 0 or end == self.size)
        if not 0 <= start < end <= self.size or not whole or not self._is_link(path):
            return None
        one = ByteRange(start, end, on_disk=True)
        one.done = not self.control_path(one).exists()
        one.completed = one.size - (0 if one.done else sum(b - a for a, b in self.missing(one)))
        return one

    def _control_of(self, one: ByteRange) -> control.Control | None:
        """Return the control file of a range, or the saved copy of it."""
        return self._read(self.control_path(one)) or self._read(self.backup_path(one))

    def _read(self, path: Path) -> control.Control | None:
        """Return a control file, None unless it is about a file of this size."""
        known = control.read(path)
        return known if known is not None and known.total == self.size else None

    def _is_link(self, path: Path) -> bool:
        """True if `path` is a name of the staged bytes; a symlink is not."""
        return path.exists() and not path.is_symlink() and path.samefile(self.base)


def control_bytes(size: int, start: int, end: int) -> bytes:
    """Return a control file that says that all but `start` to `end` of `size` bytes is on disk."""
    return control.compose(size, PIECE, [(start // PIECE * PIECE, min(size, -(-end // PIECE) * PIECE))])


def keep_prefix(files: RangeFiles, byte_ranges: Sequence[ByteRange], prefix: Path) -> None:
    """Let `prefix` have the bytes from the start to the first gap, unless it has more already."""
    missing = files.gaps(byte_ranges)
    end = missing[0][0] if missing else 0
    if byte_ranges and end > (prefix.stat().st_size if prefix.exists() else 0):
        os.truncate(files.base, end)  # first: with its holes it would be of the right size
        files.base.rename(prefix)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
