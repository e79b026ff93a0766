"""aria2's control file (`NAME.aria2`): which pieces of an unfinished download are on disk.

Layout: aria2's technical notes, "Control File (*.aria2) Format", version 1; integers in network byte order.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BLOCK = 16 * 1024  # bytes; progress inside an unfinished piece is recorded per block


@dataclass(frozen=True, slots=True)
class Control:
    """A parsed control file: file size `total`, piece length `piece` and `completed`, in bytes.

    `completed` counts finished pieces, and the finished blocks of pieces in progress.
    """

    total: int
    piece: int
    bitfield: bytes
    completed: int
    missing: tuple[tuple[int, int], ...] = ()  # byte ranges (start, end) not on disk, in order, never adjacent


def read(path: Path) -> Control | None:
    """Read a control file; None if it is absent, empty (full disk) or truncated (power loss)."""
    try:
        data = path.read_bytes()
        return _parse(data)
    except (OSError, struct.error, ValueError):
        return None


def compose(total: int, piece: int, missing: Iterable[tuple[int, int]]) -> bytes:
    """Return a control file for a file of `total` bytes with the ranges `missing`, rounded outwards to blocks.

    `piece`: the piece length in bytes.
    """
    bits = _set_bits(-(-total // piece))
    begun: dict[int, bytearray] = {}
    for start, end in missing:
        for index in range(start // piece, -(-end // piece)):
            _clear_bit(bits, index)
            first, last = index * piece, min(total, (index + 1) * piece)
            if start > first or end < last or index in begun:
                blocks = begun.setdefault(index, _set_bits(-(-(last - first) // BLOCK)))
                for block in range((max(start, first) - first) // BLOCK, -(-(min(end, last) - first) // BLOCK)):
                    _clear_bit(blocks, block)
    rows = [
        struct.pack(">III", index, min(piece, total - index * piece), len(blocks)) + blocks
        for index, blocks in begun.items()
        if any(blocks)
    ]
    head = struct.pack(">H4sIIQQI", 1, bytes(4), 0, piece, total, 0, len(bits))
    return b"".join([head, bits, struct.pack(">I", len(rows)), *rows])


def _set_bits(count: int) -> bytearray:
    """Return `count` set bits, most significant bit first, padded with zeros to whole bytes."""
    bits = bytearray(b"\xff" * (count // 8))
    if count % 8:
        bits.append(0xFF << (8 - count % 8) & 0xFF)
    return bits


def _clear_bit(bits: bytearray, index: int) -> None:
    bits[index // 8] &= ~(0x80 >> (index % 8))


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
    missing = _missing_ranges(total, piece, bitfield, _partial_pieces(data, at))
    return Control(total, piece, bitfield, total - sum(end - start for start, end in missing), missing)


def _partial_pieces(data: bytes, at: int) -> dict[int, bytes]:
    """Return the block bitfield of each piece in progress, by piece index."""
    (count,) = struct.unpack_from(">I", data, at)
    at += 4
    begun = {}
    for _ in range(count):
        index, _length, width = struct.unpack_from(">III", data, at)
        blocks = data[at + 12 : at + 12 + width]
        at += 12 + width
        if len(blocks) != width:
            raise ValueError("cut off")
        begun[index] = blocks
    return begun


def _missing_ranges(total: int, piece: int, bitfield: bytes, begun: dict[int, bytes]) -> tuple[tuple[int, int], ...]:
    gaps: list[tuple[int, int]] = []

    def add(start: int, end: int) -> None:
        if gaps and gaps[-1][1] == start:
            gaps[-1] = (gaps[-1][0], end)
        else:
            gaps.append((start, end))

    for index in range(-(-total // piece)):
        if _is_set(bitfield, index):
            continue
        start, end = index * piece, min(total, (index + 1) * piece)
        blocks = begun.get(index)
        if blocks is None:
            add(start, end)
            continue
        for block in range(-(-(end - start) // BLOCK)):
            if not _is_set(blocks, block):
                add(start + block * BLOCK, min(end, start + (block + 1) * BLOCK))
    return tuple(gaps)


def _is_set(bits: bytes, index: int) -> bool:
    return index // 8 < len(bits) and bool(bits[index // 8] & (0x80 >> (index % 8)))
