"""Readers with a budget, so that a hostile file cannot make a scan slow or large."""

import bz2
import lzma
import zlib
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import Any, BinaryIO

CHUNK = 1 << 16
_LARGEST = 8 << 20  # bytes of a single read: the directory of a zip archive with about 90,000 names
_COST = 256  # minimum cost of a call, so that a loop of empty reads ends
_LZMA_MEMORY = 128 << 20  # xz -9 needs 65 MiB


class BudgetExceeded(Exception):
    """The budget is used up."""


class UnexpectedEnd(Exception):
    """The data ends unexpectedly."""


@dataclass
class Budget:
    """The remaining budget of a scan: bytes to read or decompress, and pickle opcodes (about 300,000 per second)."""

    data: int = 64 << 20
    steps: int = 500_000

    def read(self, count: int) -> None:
        """Charge `count` bytes. Raises BudgetExceeded."""
        self.data -= count + _COST
        if self.data < 0:
            raise BudgetExceeded


class BudgetedStream(RawIOBase):
    """A seekable binary stream for zipfile and tarfile that charges a budget. Raises BudgetExceeded."""

    def __init__(self, raw: BinaryIO, budget: Budget) -> None:
        self._raw, self.budget = raw, budget

    def read(self, count: int = -1) -> bytes:
        """Read at most `count` bytes, or all if negative."""
        wanted = _LARGEST if count is None or count < 0 else count
        if wanted > _LARGEST:
            raise BudgetExceeded
        self.budget.read(0)
        data = self._raw.read(wanted)
        self.budget.read(len(data))
        if count != wanted and len(data) == _LARGEST:
            raise BudgetExceeded
        return data

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Set the stream position and return it."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the stream position."""
        return self._raw.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True


class DecompressedStream:
    """The content of a zlib, gzip, bz2, xz or lzma stream, decompressed on demand. Invalid data ends the stream."""

    def __init__(self, raw: BinaryIO, machine: Any) -> None:
        self._raw, self._machine, self._left = raw, machine, b""

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes; empty at the end."""
        while not self._machine.eof:
            packed = self._left or self._raw.read(CHUNK)
            try:
                data: bytes = self._machine.decompress(packed, count)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError):
                return b""
            # Only zlib returns unconsumed input; the others buffer it and need no more input until it is used up.
            self._left = getattr(self._machine, "unconsumed_tail", b"")
            if data:
                return data
            if not packed and getattr(self._machine, "needs_input", True):
                return b""
        return b""


def decompressor_for(head: bytes) -> Any:
    """Return a decompressor for data that begins with `head`, None if the data is in no supported format."""
    if head[:2] == b"\x1f\x8b" or (head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2]) % 31 == 0):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    if head[:3] == b"BZh":
        return bz2.BZ2Decompressor()
    if head[:6] == b"\xfd7zXZ\0" or head[:3] == b"\x5d\0\0":
        return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    return None


class ForwardReader:
    """Sequential reader in chunks. It skips data by a seek if `raw` is a file of known `size`."""

    def __init__(self, raw: Any, budget: Budget, size: int | None = None) -> None:
        self._raw, self.budget, self._size = raw, budget, size
        self._data, self._at = b"", 0

    def byte(self) -> int:
        """Read one byte; -1 at the end."""
        if self._at >= len(self._data) and not self._more():
            return -1
        self._at += 1
        return self._data[self._at - 1]

    def take(self, count: int) -> bytes:
        """Read exactly `count` bytes; for small counts. Raises UnexpectedEnd."""
        end = self._at + count
        found = self._data[self._at : end]
        self._at = min(end, len(self._data))
        while len(found) < count:
            if not self._more():
                raise UnexpectedEnd
            part = self._data[: count - len(found)]
            self._at = len(part)
            found += part
        return found

    def line(self, keep: int) -> bytes:
        """Read to the next newline and return at most `keep` + 1 bytes, without the newline. Raises UnexpectedEnd."""
        found = b""
        while True:
            end = self._data.find(b"\n", self._at)
            part = self._data[self._at : end if end >= 0 else None]
            found += part[: keep + 1 - len(found)]
            if end >= 0:
                self._at = end + 1
                return found
            if not self._more():
                raise UnexpectedEnd

    def skip(self, count: int) -> None:
        """Skip `count` bytes. Raises UnexpectedEnd."""
        here = len(self._data) - self._at
        if count <= here:
            self._at += count
            return
        self._at += here
        count -= here
        if count > CHUNK and self._size is not None:
            if self._raw.tell() + count > self._size:
                raise UnexpectedEnd
            self._raw.seek(count, SEEK_CUR)
            count = 0
        while count > 0:
            if not self._more():
                raise UnexpectedEnd
            self._at = min(count, len(self._data))
            count -= self._at

    def _more(self) -> bool:
        self._data, self._at = self._raw.read(CHUNK), 0
        self.budget.read(len(self._data))
        return bool(self._data)


def size_of(stream: BinaryIO) -> int:
    """Return the size of a seekable stream in bytes, and rewind it."""
    size = stream.seek(0, SEEK_END)
    stream.seek(0)
    return size
