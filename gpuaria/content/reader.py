"""Readers that a hostile file cannot make large or slow: what a scan reads and unpacks comes out of a budget."""

import bz2
import lzma
import zlib
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import Any, BinaryIO

CHUNK = 1 << 16
_LARGEST = 8 << 20  # bytes that a library may ask for at once: a zip archive's directory of some 90,000 names
_COST = 256  # what a call costs at least, so that a loop of empty reads ends too
_LZMA_MEMORY = 128 << 20  # xz -9 needs 65 MiB


class Spent(Exception):
    """The budget is used up."""


class Ended(Exception):
    """The data ends in the middle of something."""


@dataclass
class Budget:
    """What a scan may still do: bytes to read or unpack, and steps of the pickle machine (some 300,000 a second)."""

    data: int = 64 << 20
    steps: int = 500_000

    def read(self, count: int) -> None:
        """Take `count` bytes. Raises Spent."""
        self.data -= count + _COST
        if self.data < 0:
            raise Spent


class Capped(RawIOBase):
    """A seekable binary stream for zipfile and tarfile. Raises Spent where they ask for too much."""

    def __init__(self, raw: BinaryIO, budget: Budget) -> None:
        self._raw, self.budget = raw, budget

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, or all."""
        wanted = _LARGEST if count is None or count < 0 else count
        if wanted > _LARGEST:
            raise Spent
        self.budget.read(0)
        data = self._raw.read(wanted)
        self.budget.read(len(data))
        if count != wanted and len(data) == _LARGEST:
            raise Spent
        return data

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """As any stream."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """As any stream."""
        return self._raw.tell()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True


class Unpacked:
    """The content of a zlib, gzip, bz2, xz or lzma stream, unpacked as far as it is read. Bad data ends it."""

    def __init__(self, raw: BinaryIO, machine: Any) -> None:
        self._raw, self._machine, self._left = raw, machine, b""

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end."""
        while not self._machine.eof:
            packed = self._left or self._raw.read(CHUNK)
            try:
                data: bytes = self._machine.decompress(packed, count)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError):
                return b""
            # Only zlib hands back what it did not take; the others keep it and want nothing more before it is used up.
            self._left = getattr(self._machine, "unconsumed_tail", b"")
            if data:
                return data
            if not packed and getattr(self._machine, "needs_input", True):
                return b""
        return b""


def unpacker(head: bytes) -> Any:
    """The machine for data that begins with `head`, or None if it is not packed in a way that is known here."""
    if head[:2] == b"\x1f\x8b" or (head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2]) % 31 == 0):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    if head[:3] == b"BZh":
        return bz2.BZ2Decompressor()
    if head[:6] == b"\xfd7zXZ\0" or head[:3] == b"\x5d\0\0":
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    return None


class ForwardReader:
    """Reads forward in chunks; what is not wanted is skipped, by a seek where `raw` is a file of known `size`."""

    def __init__(self, raw: Any, budget: Budget, size: int | None = None) -> None:
        self._raw, self.budget, self._size = raw, budget, size
        self._data, self._at = b"", 0

    def byte(self) -> int:
        """The next byte, -1 at the end."""
        if self._at >= len(self._data) and not self._more():
            return -1
        self._at += 1
        return self._data[self._at - 1]

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes, for small counts. Raises Ended."""
        end = self._at + count
        found = self._data[self._at : end]
        self._at = min(end, len(self._data))
        while len(found) < count:
            if not self._more():
                raise Ended
            part = self._data[: count - len(found)]
            self._at = len(part)
            found += part
        return found

    def line(self, keep: int) -> bytes:
        """Up to the next newline, which is left out; at most `keep` + 1 bytes of it are kept. Raises Ended."""
        found = b""
        while True:
            end = self._data.find(b"\n", self._at)
            part = self._data[self._at : end if end >= 0 else None]
            found += part[: keep + 1 - len(found)]
            if end >= 0:
                self._at = end + 1
                return found
            if not self._more():
                raise Ended

    def skip(self, count: int) -> None:
        """Go `count` bytes on. Raises Ended."""
        here = len(self._data) - self._at
        if count <= here:
            self._at += count
            return
        self._at += here
        count -= here
        if count > CHUNK and self._size is not None:
            if self._raw.tell() + count > self._size:
                raise Ended
            self._raw.seek(count, SEEK_CUR)
            count = 0
        while count > 0:
            if not self._more():
                raise Ended
            self._at = min(count, len(self._data))
            count -= self._at

    def _more(self) -> bool:
        self._data, self._at = self._raw.read(CHUNK), 0
        self.budget.read(len(self._data))
        return bool(self._data)


def size_of(stream: BinaryIO) -> int:
    """Bytes of a seekable stream, which is at its start afterwards."""
    size = stream.seek(0, SEEK_END)
    stream.seek(0)
    return size
