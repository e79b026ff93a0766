"""A large file as a sequence of byte ranges that aria2 downloads one after the other. Pure.

aria2 spreads its connections over a whole file, so the bytes from the start would be contiguous only at the end. With
one aria2 download per range, hashing can follow the download. A range is two thirds of the remaining bytes, up to a
limit that gives the hashing thread work soon: few ranges, and little left to hash at the end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpuaria.transfer.tuning import LONGEST_RANGE, SMALLEST_RANGE, UNHURRIED_RANGE

PIECE = 1 << 20  # bytes; aria2's smallest
Gap = tuple[int, int]  # (start, end) in bytes


@dataclass(eq=False)
class ByteRange:
    """One range. `completed` counts its bytes on disk; at most one of `done`, `running` and `in_tail` is set."""

    start: int
    end: int
    completed: int = 0
    done: bool = False
    running: bool = False  # aria2 downloads it
    in_tail: bool = False  # the tail downloads it
    on_disk: bool = False  # it has a control file
    connections: int = 0

    @property
    def size(self) -> int:
        """The length in bytes."""
        return self.end - self.start

    @property
    def remaining(self) -> int:
        """Bytes that are not on disk, by the last reading."""
        return self.size - self.completed

    @property
    def waiting(self) -> bool:
        """True if no downloader has it."""
        return not (self.done or self.running or self.in_tail)

    @property
    def untouched(self) -> bool:
        """True if no downloader has started it, in this run or an earlier one."""
        return self.waiting and not (self.completed or self.on_disk)

    def finish(self) -> None:
        """Record that every byte is on disk."""
        self.done, self.running, self.in_tail, self.completed = True, False, False, self.size


def split_gap(start: int, end: int, behind: int = 0, most: int = LONGEST_RANGE) -> list[Gap]:
    """Split a gap at piece boundaries: each range is two thirds of the rest, at most `most`, until little is left.

    If at least as many bytes follow `behind` it, hashing is not urgent: then each range is the whole rest, at most
    `most`.
    """
    cuts, most = [], max(most, (end - start) // 16)
    while (remaining := end - start) > most or (remaining >= 3 * SMALLEST_RANGE and remaining > behind):
        border = (start + min(most, remaining * 2 // 3)) // PIECE * PIECE
        cuts.append((start, border))
        start = border
    return [*cuts, (start, end)] if end > start else cuts


def merge_untouched(byte_ranges: list[ByteRange]) -> None:
    """Replace the untouched ranges at the end by longer ones, for a link so slow that hashing catches up.

    Each range has a cost: connections are opened again, and bytes in flight at its end are lost.
    """
    at = len(byte_ranges)
    while at and byte_ranges[at - 1].untouched:
        at -= 1
    if len(byte_ranges) - at > 1:
        byte_ranges[at:] = [
            ByteRange(a, b) for a, b in split_gap(byte_ranges[at].start, byte_ranges[-1].end, 0, UNHURRIED_RANGE)
        ]


def split_end(byte_ranges: list[ByteRange], one: ByteRange, most: int) -> ByteRange:
    """Split an untouched range so that its last part has about `most` bytes; return that part.

    A range less than twice as long stays whole.
    """
    border = (one.end - max(most, PIECE)) // PIECE * PIECE
    if not one.untouched or border - one.start < most:
        return one
    at = byte_ranges.index(one)
    byte_ranges[at : at + 1] = [ByteRange(one.start, border), ByteRange(border, one.end)]
    return byte_ranges[at + 1]


def prefix(byte_ranges: Sequence[ByteRange]) -> int:
    """Return the number of contiguous bytes from the start, counting whole ranges."""
    end = 0
    for one in byte_ranges:
        if not one.done:
            break
        end = one.end
    return end


def subtract(gaps: Iterable[Gap], filled: Sequence[Gap]) -> list[Gap]:
    """Return the gaps without the `filled` ones, which are in order."""
    remaining = []
    for start, end in gaps:
        for a, b in filled:
            if b > start and a < end:
                if a > start:
                    remaining.append((start, a))
                start = min(b, end)
        if start < end:
            remaining.append((start, end))
    return remaining


def non_overlapping(known: Sequence[ByteRange]) -> tuple[list[ByteRange], list[ByteRange]]:
    """Return (ranges without overlaps, in order, choosing the most complete first; the others)."""
    byte_ranges: list[ByteRange] = []
    others: list[ByteRange] = []
    for one in sorted(known, key=lambda one: (-one.completed, one.start)):
        overlaps = any(one.start < other.end and other.start < one.end for other in byte_ranges)
        (others if overlaps else byte_ranges).append(one)
    return sorted(byte_ranges, key=lambda one: one.start), others
