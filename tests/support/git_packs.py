"""Git packs built by hand."""

from __future__ import annotations

import hashlib
import zlib

from dulwich.pack import create_delta


def number(value: int, first: int, bits: int) -> bytes:
    """Encode a size as git does: `bits` bits in the first byte, combined with `first`, then 7 bits per byte."""
    out = [first | value & (1 << bits) - 1]
    value >>= bits
    while value:
        out[-1] |= 0x80
        out.append(value & 0x7F)
        value >>= 7
    return bytes(out)


def entry(kind: int, data: bytes, base: bytes = b"", size: int | None = None, packed: bytes | None = None) -> bytes:
    head = number(len(data) if size is None else size, kind << 4, 4)
    return head + base + (zlib.compress(data) if packed is None else packed)


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha1(body).digest()


def packed(*entries: bytes, count: int | None = None) -> bytes:
    return sealed(b"PACK\0\0\0\2" + (len(entries) if count is None else count).to_bytes(4) + b"".join(entries))


def back(distance: int) -> bytes:
    out = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        out.append(0x80 | distance & 0x7F)
    return bytes(reversed(out))


def delta(base: bytes, target: bytes) -> bytes:
    return b"".join(create_delta(base, target))
