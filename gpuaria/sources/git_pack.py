"""Read the objects of a git pack (gitformat-pack(5)) from an untrusted server.

dulwich's pack reader limits neither numbers nor object sizes, so it is used only to apply deltas of checked size.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from gpuaria.errors import BadListing
from gpuaria.hashing import git_id

MAX_OBJECTS = 1 << 18
MAX_BYTES = 256 << 20  # of all objects and deltas of a pack
_KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_BY_OFFSET, _BY_ID = 6, 7
_CHUNK = 4096  # bytes per call; zlib copies the input after the end of an object


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry at offset `at`: an object of `kind`, or if `kind` is empty, a delta to `base` (an offset or an id)."""

    at: int
    kind: str
    base: int | str
    data: bytes


def unpack(pack: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the objects as (kind, data), in no particular order. Deltas without a base in the pack are omitted.

    Raises BadListing for a malformed pack, or one larger than `MAX_OBJECTS` or `MAX_BYTES`.
    """
    from dulwich.errors import ApplyDeltaError

    try:
        yield from _objects(pack)
    except (ApplyDeltaError, IndexError, zlib.error, _InvalidPack) as error:
        why = str(error) if isinstance(error, _InvalidPack) else "it is broken"
        raise BadListing(f"a pack from git cannot be read: {why}") from None


class _InvalidPack(Exception):
    """The pack is malformed or too large."""


class _ByteBudget:
    """The number of bytes that may still be unpacked."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def reserve(self, size: int) -> None:
        """Count `size` bytes before they are unpacked. Raises _InvalidPack if the budget is exhausted."""
        self._left -= size
        if self._left < 0:
            raise _InvalidPack(f"it holds more than {MAX_BYTES:,} bytes")


def _objects(pack: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield whole objects, and apply the deltas to each object after it."""
    budget = _ByteBudget()
    ready: list[_Entry] = []
    waiting: dict[int | str, list[_Entry]] = {}
    for entry in _entries(pack, budget):
        if entry.kind:
            ready.append(entry)
        else:
            waiting.setdefault(entry.base, []).append(entry)
    while ready:
        base = ready.pop()
        yield base.kind, base.data
        for key in (base.at, git_id(base.kind, base.data)) if waiting else ():
            for delta in waiting.pop(key, ()):
                ready.append(_Entry(delta.at, base.kind, "", _apply_delta(base.data, delta.data, budget)))


def _apply_delta(base: bytes, delta: bytes, budget: _ByteBudget) -> bytes:
    from dulwich.pack import apply_delta

    _, at = _varint(delta, 0, 7)
    size, _ = _varint(delta, at, 7)
    budget.reserve(size)
    return b"".join(apply_delta(base, delta))


def _entries(pack: bytes, budget: _ByteBudget) -> Iterator[_Entry]:
    count = int.from_bytes(pack[8:12])
    if pack[:4] != b"PACK" or pack[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
        raise _InvalidPack("its version is neither 2 nor 3")
    if hashlib.sha1(pack[:-20], usedforsecurity=False).digest() != pack[-20:]:
        raise _InvalidPack("its checksum is wrong")
    if count > MAX_OBJECTS:
        raise _InvalidPack(f"it holds more than {MAX_OBJECTS:,} objects")
    at = 12
    for _ in range(count):
        start, number = at, pack[at] >> 4 & 7
        size, at = _varint(pack, at, 4)
        budget.reserve(size)
        base: int | str = ""
        if number == _BY_OFFSET:
            back, at = _delta_offset(pack, at)
            base = start - back
        elif number == _BY_ID:
            base, at = pack[at : at + 20].hex(), at + 20
        elif number not in _KINDS:
            raise _InvalidPack("it has an object of an unknown type")
        data, at = _inflate(pack, at, size)
        yield _Entry(start, _KINDS.get(number, ""), base, data)
    if at != len(pack) - 20:
        raise _InvalidPack("it has data after its last object")


def _varint(data: bytes, at: int, bits: int) -> tuple[int, int]:
    """Return a variable-length size and the offset after it: `bits` low bits in the first byte, then 7 per byte."""
    value, shift = data[at] & (1 << bits) - 1, bits
    while data[at] & 0x80:
        at += 1
        value |= (data[at] & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise _InvalidPack("it has a number with too many bytes")
    return value, at + 1


def _delta_offset(pack: bytes, at: int) -> tuple[int, int]:
    """Return the distance to the base of an OFS_DELTA, highest bits first, and the offset after it."""
    value = pack[at] & 0x7F
    while pack[at] & 0x80:
        at += 1
        value = value + 1 << 7 | pack[at] & 0x7F
        if value > len(pack):
            raise _InvalidPack("it has a delta that refers to data before its start")
    return value, at + 1


def _inflate(pack: bytes, at: int, size: int) -> tuple[bytes, int]:
    """Return the `size` bytes of a zlib stream, and the offset after the stream."""
    stream, data = zlib.decompressobj(), bytearray()
    while not stream.eof:
        given = pack[at : at + _CHUNK]
        if not given or len(data) > size:
            raise _InvalidPack("it has an object whose size differs from the declared one")
        data += stream.decompress(given, size + 1 - len(data))
        at += len(given) - len(stream.unconsumed_tail) - len(stream.unused_data)
    if len(data) != size:
        raise _InvalidPack("it has an object whose size differs from the declared one")
    return bytes(data), at
