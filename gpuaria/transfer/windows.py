"""A large file as a row of ranges that aria2 fetches one after the other, so that hashing can follow the download.

aria2 spreads its connections over the whole of a file, and the bytes from the start come together only at the end. So
it is given ranges, each as a download of its own: a second name of the staged file and a control file that says that
everything outside the range is there already. A range is two thirds of what is left, and no longer than what leaves the
hashing thread something to do soon: few ranges, and little left to hash when the last byte arrives.

On disk, in a folder of the staged file's own: `START-END` (the link) and `START-END.aria2`. A link without a control
file is a range that is complete, since aria2 removes the control file only then.
"""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpuaria.aria2 import control

PIECE = 1 << 20  # bytes; aria2's smallest
SMALLEST = 24 << 20  # bytes; what is hashed after the last byte has come
LONGEST = 512 << 20  # bytes, of a file of up to 8 GiB; a sixteenth of a larger one
UNHURRIED = 2 << 30  # bytes, on a slow way: what is hashed should still be in the page cache
_NAME = re.compile(r"(\d{1,16})-(\d{1,16})")


@dataclass
class Window:
    """One range. `path` is the name under which aria2 knows the file; `completed` counts bytes of the range."""

    start: int
    end: int
    path: Path
    size: int
    completed: int = 0
    done: bool = False
    gid: str = ""
    connections: int = 0
    asked: bool = False  # aria2 was told to begin it; it may have, though its answer was lost
    ours: bool = False  # aria2 does not get it

    @property
    def control_path(self) -> Path:
        """aria2's control file."""
        return self.path.with_name(self.path.name + ".aria2")

    @property
    def untouched(self) -> bool:
        """Whether nobody has begun with it, in this run or an earlier one."""
        begun = self.done or self.asked or self.ours or self.completed
        return not begun and not self.control_path.exists() and not self.kept_path.exists()

    @property
    def left(self) -> int:
        """Bytes that are not here, by the last reading."""
        return self.end - self.start - self.completed

    @property
    def kept_path(self) -> Path:
        """A second name of the last control file that could be read."""
        return self.path.with_name(self.path.name + ".kept")

    def keep(self) -> None:
        """Hold on to the control file as it is now: on a full disk aria2 puts an empty one in its place.

        An older one only says that less is here.
        """
        if _NAME.fullmatch(self.path.name) and self._read(self.control_path):
            with suppress(OSError):
                self.kept_path.unlink(missing_ok=True)
                os.link(self.control_path, self.kept_path)

    def missing(self) -> list[tuple[int, int]]:
        """What the control file says is not there; all of it where there is none that can be read."""
        known = self._known()
        if known is None:
            return [(self.start, self.end)]
        clipped = ((max(start, self.start), min(end, self.end)) for start, end in known.missing)
        return [(start, end) for start, end in clipped if start < end]

    def ended(self) -> bool:
        """Whether aria2 has completed the range: it removes the control file then, and only then."""
        return self.path.exists() and not self.control_path.exists()

    def open(self, base: Path) -> None:
        """Make the control file, then the link: in this order, since a link alone means complete. Raises OSError."""
        if self.path == base:
            if self._known() is None:  # or aria2 would take the holes of a file of full length for bytes
                _write(self.control_path, control_bytes(self.size, self.start, self.end))
            return
        if self._read(self.control_path) is None and self._read(self.kept_path) is not None:
            self.kept_path.replace(self.control_path)
        if self._known() is None or not _same(self.path, base):
            self.path.parent.mkdir(exist_ok=True)
            self.path.unlink(missing_ok=True)
            _write(self.control_path, control_bytes(self.size, self.start, self.end))
            os.link(base, self.path)

    def note(self, base: Path, filled: Sequence[tuple[int, int]]) -> None:
        """Write down that `filled` is here too, for a later run; aria2 must not be at work on it. Raises OSError.

        Not forced to disk, which could take long: what is wrong after a power cut is found out by its digest.
        """
        left = _without(self.missing(), filled)
        if self.path == base or not left:
            return
        self.path.parent.mkdir(exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        new.write_bytes(control.compose(self.size, PIECE, left))
        new.replace(self.control_path)
        if not _same(self.path, base):
            self.path.unlink(missing_ok=True)
            os.link(base, self.path)

    def complete(self, base: Path) -> None:
        """Every byte is there, though aria2 did not fetch them all: leave the sign that it would leave a later run.

        Raises OSError.
        """
        self.done, self.completed = True, self.end - self.start
        if _same(self.path, base) and self.path != base:
            self.control_path.unlink(missing_ok=True)

    def _known(self) -> control.Control | None:
        """Its control file, or the one that was kept."""
        return self._read(self.control_path) or self._read(self.kept_path)

    def _read(self, path: Path) -> control.Control | None:
        """A control file, if it is about a file of this size."""
        known = control.read(path)
        return known if known is not None and known.total == self.size else None


def recover(base: Path, folder: Path, size: int, behind: int = 0) -> list[Window]:
    """The row for a file of `size` bytes staged at `base`: ranges of an earlier run as they are, new ones for the rest.

    `behind`: bytes of other files that nobody has begun with. Makes `base`, or empties it if it has another size.
    Raises OSError.
    """
    if not base.exists() or base.stat().st_size != size:
        for path in folder.glob("*") if folder.is_dir() else ():
            path.unlink()
        with base.open("wb") as file:
            file.truncate(size)
    kept = [_kept(path, base, size) for path in sorted(folder.glob("*-*")) if _NAME.fullmatch(path.name)]
    row = _apart([window for window in kept if window is not None])
    for start, end in _without([(0, size)], [(window.start, window.end) for window in row]):
        row += [Window(a, b, folder / f"{a}-{b}", size) for a, b in cut(start, end, behind)]
    return sorted(row, key=lambda window: window.start)


def single(base: Path, size: int) -> list[Window]:
    """A row of one, for file systems without hard links."""
    window = Window(0, size, base, size)
    window.completed = size - sum(end - start for start, end in window.missing())
    return [window]


def cut(start: int, end: int, behind: int = 0, most: int = LONGEST) -> list[tuple[int, int]]:
    """Two thirds of what is left, or the most, again and again, on borders of pieces, until little is left.

    Where as much is to come `behind` it, hashing need not be soon: then all that is left, or the most.
    """
    cuts, most = [], max(most, (end - start) // 16)
    while (left := end - start) > most or (left >= 3 * SMALLEST and left > behind):
        border = (start + min(most, left * 2 // 3)) // PIECE * PIECE
        cuts.append((start, border))
        start = border
    return [*cuts, (start, end)] if end > start else cuts


def lengthen(row: list[Window]) -> None:
    """Cut what nobody has begun, at the row's end, into longer ranges: for a way so slow that hashing catches up.

    Each range has its price: connections are opened anew, and what is on the way in those of the last one is lost.
    """
    at = len(row)
    while at and row[at - 1].untouched:
        at -= 1
    if len(row) - at > 1:
        folder, size = row[at].path.parent, row[at].size
        row[at:] = [Window(a, b, folder / f"{a}-{b}", size) for a, b in cut(row[at].start, row[-1].end, 0, UNHURRIED)]


def split(row: list[Window], window: Window, most: int) -> Window:
    """Cut a range of the row that nobody has begun so that about `most` bytes are in its last part; returns that.

    One that is less than twice as long stays as it is.
    """
    border = (window.end - max(most, PIECE)) // PIECE * PIECE
    if not window.untouched or border - window.start < most:
        return window
    folder, at = window.path.parent, row.index(window)
    parts = [Window(a, b, folder / f"{a}-{b}", window.size) for a, b in ((window.start, border), (border, window.end))]
    row[at : at + 1] = parts
    return parts[1]


def gaps(row: Iterable[Window]) -> list[tuple[int, int]]:
    """What all ranges of aria2's that are not done miss, in order."""
    return [gap for window in row if not window.done and not window.ours for gap in window.missing()]


def prefix(row: Sequence[Window]) -> int:
    """Bytes from the start that are there without a gap, as whole ranges."""
    end = 0
    for window in row:
        if not window.done:
            break
        end = window.end
    return end


def control_bytes(size: int, start: int, end: int) -> bytes:
    """A control file that says that all but `start` to `end` of `size` bytes is there."""
    return control.compose(size, PIECE, [(start // PIECE * PIECE, min(size, -(-end // PIECE) * PIECE))])


def _kept(path: Path, base: Path, size: int) -> Window | None:
    """A range of an earlier run, if it is still a name of the same bytes."""
    start, end = map(int, path.name.split("-"))
    whole = start % PIECE == 0 and (end % PIECE == 0 or end == size)
    if not 0 <= start < end <= size or not whole or not _same(path, base):
        return None
    window = Window(start, end, path, size)
    window.done = not window.control_path.exists()
    left = 0 if window.done else sum(b - a for a, b in window.missing())
    window.completed = end - start - left
    return window


def _without(gaps: Iterable[tuple[int, int]], filled: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of the gaps; `filled` is in order."""
    left = []
    for start, end in gaps:
        for a, b in filled:
            if b > start and a < end:
                if a > start:
                    left.append((start, a))
                start = min(b, end)
        if start < end:
            left.append((start, end))
    return left


def _same(path: Path, base: Path) -> bool:
    """Whether `path` is a name of the staged bytes; a symlink is not."""
    return path.exists() and not path.is_symlink() and path.samefile(base)


def _apart(kept: Sequence[Window]) -> list[Window]:
    """Those that do not overlap, in order, the most complete first; the names of the others are taken away."""
    row: list[Window] = []
    for window in sorted(kept, key=lambda window: (-window.completed, window.start)):
        if any(window.start < other.end and other.start < window.end for other in row):
            window.path.unlink()  # before its control file: a link alone means complete
            window.control_path.unlink(missing_ok=True)
        else:
            row.append(window)
    return sorted(row, key=lambda window: window.start)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
