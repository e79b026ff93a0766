"""A large file as a row of ranges that aria2 fetches one after the other, so that hashing can follow the download.

aria2 spreads its connections over the whole of a file, and the bytes from the start come together only at the end. So
it is given ranges, each as a download of its own: a second name of the staged file and a control file that says that
everything outside the range is there already. The first range is two thirds of the file, the next two thirds of the
rest, and so on: few ranges, and little left to hash when the last byte arrives.

On disk, in a folder of the staged file's own: `START-END` (the link) and `START-END.aria2`. A link without a control
file is a range that is complete, since aria2 removes the control file only then.
"""

import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuaria.aria2 import control

PIECE = 1 << 20  # bytes; aria2's smallest
SMALLEST = 64 << 20  # bytes of a range
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

    @property
    def control_path(self) -> Path:
        """aria2's control file."""
        return self.path.with_name(self.path.name + ".aria2")

    def missing(self) -> list[tuple[int, int]]:
        """What the control file says is not there; all of it where there is none that can be read."""
        known = control.read(self.control_path)
        if known is None or known.total != self.size:
            return [(self.start, self.end)]
        return [gap for gap in known.missing if self.start <= gap[0] and gap[1] <= self.end]

    def open(self, base: Path) -> None:
        """Make the control file, then the link: in this order, since a link alone means complete. Raises OSError."""
        if self.path == base:
            return
        if control.read(self.control_path) is None or not self.path.exists():
            self.path.parent.mkdir(exist_ok=True)
            self.path.unlink(missing_ok=True)
            _write(self.control_path, control_bytes(self.size, self.start, self.end))
            os.link(base, self.path)


def recover(base: Path, folder: Path, size: int) -> list[Window]:
    """The row for a file of `size` bytes staged at `base`: ranges of an earlier run as they are, new ones for the rest.

    Makes `base`, or empties it if it has another size. Raises OSError.
    """
    if not base.exists() or base.stat().st_size != size:
        for path in folder.glob("*") if folder.is_dir() else ():
            path.unlink()
        with base.open("wb") as file:
            file.truncate(size)
    kept = [_kept(path, base, size) for path in sorted(folder.glob("*-*")) if _NAME.fullmatch(path.name)]
    row = sorted((window for window in kept if window is not None), key=lambda window: window.start)
    for start, end in _uncovered(row, size):
        row += [Window(a, b, folder / f"{a}-{b}", size) for a, b in cut(start, end)]
    return sorted(row, key=lambda window: window.start)


def single(base: Path, size: int) -> list[Window]:
    """A row of one, for file systems without hard links."""
    window = Window(0, size, base, size)
    known = control.read(window.control_path)
    window.completed = known.completed if known is not None and known.total == size else 0
    return [window]


def cut(start: int, end: int) -> list[tuple[int, int]]:
    """Two thirds of what is left, again and again, on borders of pieces, until little is left."""
    cuts = []
    while end - start >= 3 * SMALLEST:
        border = (start + (end - start) * 2 // 3) // PIECE * PIECE
        cuts.append((start, border))
        start = border
    return [*cuts, (start, end)] if end > start else cuts


def gaps(row: Iterable[Window]) -> list[tuple[int, int]]:
    """What all ranges that are not done miss, in order."""
    return [gap for window in row if not window.done for gap in window.missing()]


def prefix(row: Sequence[Window]) -> int:
    """Bytes from the start that are there without a gap, as whole ranges."""
    end = 0
    for window in row:
        if not window.done:
            break
        end = window.end
    return end


def control_bytes(size: int, start: int, end: int) -> bytes:
    """A control file (version 1) that says that all but `start` to `end` of `size` bytes is there."""
    pieces = -(-size // PIECE)
    bits = bytearray(b"\xff" * (pieces // 8))
    if pieces % 8:
        bits.append(0xFF << (8 - pieces % 8) & 0xFF)
    for index in range(start // PIECE, -(-end // PIECE)):
        bits[index // 8] &= ~(0x80 >> (index % 8))
    head = struct.pack(">H4sIIQQI", 1, bytes(4), 0, PIECE, size, 0, len(bits))
    return head + bytes(bits) + struct.pack(">I", 0)


def _kept(path: Path, base: Path, size: int) -> Window | None:
    """A range of an earlier run, if it is still a name of the same bytes."""
    start, end = map(int, path.name.split("-"))
    if not 0 <= start < end <= size or start % PIECE or not path.exists() or not path.samefile(base):
        return None
    window = Window(start, end, path, size)
    window.done = not window.control_path.exists()
    left = 0 if window.done else sum(b - a for a, b in window.missing())
    window.completed = end - start - left
    return window


def _uncovered(row: Sequence[Window], size: int) -> list[tuple[int, int]]:
    """Ranges between the kept ones."""
    free, at = [], 0
    for window in row:
        if window.start > at:
            free.append((at, window.start))
        at = max(at, window.end)
    return [*free, (at, size)] if at < size else free


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
