"""Whether a file is a pickle, by reading it as the machines that load it would, without running anything.

Looked into: pickles of every protocol, rows of them (torch.save before 1.6), zip archives (torch.save, torch.jit, npz),
tar archives (torch.save before 0.1.10, .nemo), numpy's .npy, and what joblib packs with zlib, gzip, bz2, xz or lzma.
"""

import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpuaria.content.harmless import NOTORIOUS
from gpuaria.content.names import Scanned, named
from gpuaria.content.opcodes import Found, Walk
from gpuaria.content.reader import Budget, Capped, Ended, ForwardReader, Spent, Unpacked, size_of, unpacker

_NAMED = 8  # imports that are told
_DEPTH = 3  # archives in archives
_MEMBERS = 1024  # of an archive that are opened; those that say pickle by their name come first
_HEAD = 512  # bytes
_EDGE, _DIRECTORY = 1 << 16, 64 << 20  # bytes at the start and at the end of an archive that cannot be read
_CANNOT_UNPACK = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")  # lz4, which joblib may use, and zstd
_OBJECTS = re.compile(rb"""["'][|<>=]?O\d*["']""")  # a dtype with Python objects in it (numpy.lib.format)
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, NotImplementedError),
    *(RuntimeError, ValueError, LookupError, ArithmeticError, EOFError, AttributeError, TypeError, OSError),
)
_Member = tuple[str, Callable[[], Any]]


def scan(path: Path, name: str = "") -> Scanned | None:
    """What the pickles in the file bring in; None if it is none. `name`, if it is not the one of `path`.

    Reads and unpacks two times 64 MiB at most, in a few seconds. Raises OSError where the file cannot be read.
    """
    with path.open("rb", buffering=0) as raw:
        return scan_stream(cast(BinaryIO, raw), name or path.name)


def scan_stream(raw: BinaryIO, name: str = "") -> Scanned | None:
    """As `scan`, for what a seekable stream holds."""
    look = _Look(raw)
    raw.seek(0)
    look.into(cast(BinaryIO, Capped(raw, look.budget)), name, 0)
    raw.seek(0)
    look.row(ForwardReader(raw, Budget(), size_of(raw)))  # whatever else it is: some files are two things at once
    if not look.pickled:
        return None
    worst = sorted(look.found.imports, key=lambda imported: imported.partition(".")[0] not in NOTORIOUS)
    return Scanned(tuple(worst[:_NAMED]), look.whole)


class _Look:
    """One scan: its budget, and what it has found so far."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.budget, self.found = Budget(), Found()
        self.pickled, self.whole = False, True

    def into(self, stream: BinaryIO, name: str, depth: int) -> None:
        """Look into an archive, a packed file or an array."""
        try:
            head = stream.read(_HEAD)
            if head[:4] == b"PK\x03\x04":
                self._archive(self._zip, stream, depth)
            elif head[257:262] == b"ustar":
                self._archive(self._tar, stream, depth)
            elif head[:6] == b"\x93NUMPY":
                self._array(stream)
            elif head[:4] in _CANNOT_UNPACK and named(name):
                self._unknown()
            elif (machine := unpacker(head)) is not None:
                stream.seek(0)
                self.row(ForwardReader(Unpacked(stream, machine), self.budget))
        except Spent:
            if named(name):
                self._unknown()

    def row(self, source: ForwardReader) -> None:
        """One pickle after the other. It takes a sign that the bytes are no accident: a declared protocol, a call after
        an import, or an end of the data just behind the last pickle."""
        signs, whole = False, 0
        while True:
            before = self.found.imported, self.found.called
            walk = Walk(source, self.found)
            end = walk.run()
            imported, called = self.found.imported > before[0], self.found.called > before[1]
            declared = walk.protocol >= 0
            signs = signs or (imported and called) or (declared and (end != "broken" or imported))
            whole += end == "stop"
            if end == "stop":
                continue
            self.pickled = self.pickled or signs or end == "cut" or (end == "nothing" and whole > 0)
            if end == "cut" or (end == "broken" and imported):
                self.whole = False  # where it breaks off, its loader may know how to go on: joblib's does
            return

    def _unknown(self) -> None:
        self.pickled, self.whole = True, False

    # --- containers -------------------------------------------------------------------------------------------

    def _array(self, stream: BinaryIO) -> None:
        """numpy.lib.format: magic, version, length of the header, header, and for objects a pickle."""
        stream.seek(0)
        source = ForwardReader(stream, self.budget)
        try:
            length = int.from_bytes(source.take(2 if source.take(8)[6] == 1 else 4), "little")
            header = source.take(min(length, 1 << 20))
        except Ended:
            return
        if _OBJECTS.search(header):
            self.row(source)

    def _archive(self, members: Callable[[BinaryIO], Iterator[_Member]], stream: BinaryIO, depth: int) -> None:
        """Scan the members that torch (`NAME/data.pkl`) or numpy (any that begins as an array) loads, and others."""
        stream.seek(0)
        try:
            for number, (name, opened) in enumerate(members(stream)):
                says = named(name) or name in ("pickle", "sys_info", "storages", "tensors")  # torch before 0.1.10
                if says or number < _MEMBERS:
                    self._member(name, opened, says, depth)
        except (Spent, *_BROKEN):
            self.whole = False
            self.pickled = self.pickled or self._mentions_pickles()

    def _member(self, name: str, opened: Callable[[], Any], says: bool, depth: int) -> None:
        try:
            with opened() as member:
                head = member.read(_HEAD)
                if (says or _may_be(head)) and depth < _DEPTH:
                    member.seek(0)
                    self.into(member, name, depth + 1)
                    member.seek(0)
                    self.row(ForwardReader(member, self.budget))
        except _BROKEN:
            if says:
                self._unknown()

    def _zip(self, stream: BinaryIO) -> Iterator[_Member]:
        with zipfile.ZipFile(stream) as archive:
            for member in sorted(archive.infolist(), key=lambda member: not named(member.filename)):
                yield member.filename, partial(_opened, archive, member)

    def _tar(self, stream: BinaryIO) -> Iterator[_Member]:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    yield member.name, partial(archive.extractfile, member)

    def _mentions_pickles(self) -> bool:
        """An archive that Python cannot read may still be one that torch can: its directory is at the end."""
        size = size_of(self._raw)
        for start in (0, max(_EDGE, size - _DIRECTORY)):
            self._raw.seek(start)
            last = b""
            for _ in range((_DIRECTORY if start else _EDGE) // _EDGE):
                data = self._raw.read(_EDGE)
                if b".pkl" in (last + data).lower():
                    return True
                last = data[-3:]
        return False


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Other ways of packing have no bound on what a few bytes unpack to; neither torch nor numpy uses them."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError
    return archive.open(member)


def _may_be(head: bytes) -> bool:
    """Whether a member of an archive is worth a look. The tensors of a torch archive are not."""
    return (head[:1] == b"\x80" and head[1:2] <= b"\x05") or head[:6] == b"\x93NUMPY" or head[:4] == b"PK\x03\x04"
