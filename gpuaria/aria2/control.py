"""aria2's control file (`NAME.aria2`): which pieces of an unfinished download are on disk.

Layout: aria2's technical notes, "Control File (*.aria2) Format", version 1; integers in network byte order.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

BLOCK = 16 * 1024  # the grain of an unfinished piece


@dataclass(frozen=True, slots=True)
class Control:
    """`total` and `piece` are bytes; `completed` counts whole pieces and the finished blocks of begun ones."""

    total: int
    piece: int
    bitfield: bytes
    completed: int


def read(path: Path) -> Control | None:
    """Read a control file; None where it is absent, empty (disk was full) or cut off (power was)."""
    try:
        data = path.read_bytes()
        return _parse(data)
    except (OSError, struct.error, ValueError):
        return None


def _parse(data: bytes) -> Control:
    version, _extension, hash_length = struct.unpack_from(">H4sI", data, 0)
    at = 10 + hash_length
    piece, total, _uploaded, bits = struct.unpack_from(">IQQI", data, at)
    at += 24
    bitfield = data[at : at + bits]
    at += bits
    pieces = -(-total // piece) if piece else 0
    if version != 1 or not piece or len(bitfield) != -(-pieces // 8):
        raise ValueError("not a control file of version 1")
    completed = sum(_length(i, piece, total) for i in range(pieces) if bitfield[i // 8] & (0x80 >> (i % 8)))
    (begun,) = struct.unpack_from(">I", data, at)
    at += 4
    for _ in range(begun):
        index, length, width = struct.unpack_from(">III", data, at)
        blocks = data[at + 12 : at + 12 + width]
        at += 12 + width
        if index < pieces and len(blocks) == width:
            count = sum(byte.bit_count() for byte in blocks)
            completed += min(length, count * BLOCK)
    return Control(total, piece, bitfield, min(total, completed))


def _length(index: int, piece: int, total: int) -> int:
    return min(piece, total - index * piece)
