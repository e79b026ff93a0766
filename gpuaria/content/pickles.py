"""Detect pickles in a file, by interpreting them without running any of their code.

Supported: pickles of every protocol, sequences of them (torch.save before 1.6), zip archives (torch.save, torch.jit,
npz), tar archives (torch.save before 0.1.10, .nemo), numpy's .npy, and joblib files compressed with zlib, gzip, bz2,
xz or lzma.
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

from gpuaria.content.harmless import DANGEROUS_MODULES
from gpuaria.content.names import PickleScan, has_pickle_name
from gpuaria.content.opcodes import PickleFindings, PickleMachine
from gpuaria.content.reader import (
    Budget,
    BudgetedStream,
    BudgetExceeded,
    DecompressedStream,
    ForwardReader,
    UnexpectedEnd,
    decompressor_for,
    size_of,
)

_REPORTED_IMPORTS = 8  # imports in a report
_MAX_DEPTH = 3  # of nested archives
_MAX_MEMBERS = 1024  # of an archive that are scanned; members with a pickle name come first
_HEAD = 512  # bytes
_EDGE, _DIRECTORY = 1 << 16, 64 << 20  # bytes scanned at the start and end of an unreadable archive
_UNSUPPORTED_COMPRESSION = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")  # lz4, which joblib may use, and zstd
_OBJECTS = re.compile(rb"""["'][|<>=]?O\d*["']""")  # a dtype with Python objects (numpy.lib.format)
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, NotImplementedError),
    *(RuntimeError, ValueError, LookupError, ArithmeticError, EOFError, AttributeError, TypeError, OSError),
)
_Member = tuple[str, Callable[[], Any]]


def scan(path: Path, name: str = "") -> PickleScan | None:
    """Return the imports of the pickles in a file, None if it has none. `name`: the file name, if not that of `path`.

    Reads and decompresses at most 2 x 64 MiB, which takes a few seconds. Raises OSError if the file is unreadable.
    """
    with path.open("rb", buffering=0) as raw:
        return scan_stream(cast(BinaryIO, raw), name or path.name)


def scan_stream(raw: BinaryIO, name: str = "") -> PickleScan | None:
    """Scan the content of a seekable stream, like `scan`."""
    running = _Scan(raw)
    raw.seek(0)
    running.scan_container(cast(BinaryIO, BudgetedStream(raw, running.budget)), name, 0)
    raw.seek(0)
    running.scan_pickles(ForwardReader(raw, Budget(), size_of(raw)))  # always: a file may be valid in two formats
    if not running.pickled:
        return None
    worst = sorted(running.found.imports, key=lambda imported: imported.partition(".")[0] not in DANGEROUS_MODULES)
    return PickleScan(tuple(worst[:_REPORTED_IMPORTS]), running.whole)


class _Scan:
    """One scan: its budget and its findings so far."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.budget, self.found = Budget(), PickleFindings()
        self.pickled, self.whole = False, True

    def scan_container(self, stream: BinaryIO, name: str, depth: int) -> None:
        """Scan an archive, a compressed file or a numpy array."""
        try:
            head = stream.read(_HEAD)
            if head[:4] == b"PK\x03\x04":
                self._archive(self._zip, stream, depth)
            elif head[257:262] == b"ustar":
                self._archive(self._tar, stream, depth)
            elif head[:6] == b"\x93NUMPY":
                self._array(stream)
            elif head[:4] in _UNSUPPORTED_COMPRESSION and has_pickle_name(name):
                self._mark_unreadable()
            elif (machine := decompressor_for(head)) is not None:
                stream.seek(0)
                self.scan_pickles(ForwardReader(DecompressedStream(stream, machine), self.budget))
        except BudgetExceeded:
            if has_pickle_name(name):
                self._mark_unreadable()

    def scan_pickles(self, source: ForwardReader) -> None:
        """Scan a sequence of pickles.

        Random bytes can look like a pickle, so one of these must be present: a declared protocol, a call after an
        import, or data that ends exactly after the last pickle.
        """
        signs, whole = False, 0
        while True:
            before = self.found.imported, self.found.called
            walk = PickleMachine(source, self.found)
            end = walk.run()
            imported, called = self.found.imported > before[0], self.found.called > before[1]
            declared = walk.protocol >= 0
            signs = signs or (imported and called) or (declared and (end != "broken" or imported))
            whole += end == "stop"
            if end == "stop":
                continue
            self.pickled = self.pickled or signs or end == "cut" or (end == "nothing" and whole > 0)
            if end == "cut" or (end == "broken" and imported):
                self.whole = False  # the loader may continue from here, as joblib's does
            return

    def _mark_unreadable(self) -> None:
        self.pickled, self.whole = True, False

    # --- containers -------------------------------------------------------------------------------------------

    def _array(self, stream: BinaryIO) -> None:
        """Scan a .npy file (numpy.lib.format): magic, version, header length, header; objects follow as a pickle."""
        stream.seek(0)
        source = ForwardReader(stream, self.budget)
        try:
            length = int.from_bytes(source.take(2 if source.take(8)[6] == 1 else 4), "little")
            header = source.take(min(length, 1 << 20))
        except UnexpectedEnd:
            return
        if _OBJECTS.search(header):
            self.scan_pickles(source)

    def _archive(self, members: Callable[[BinaryIO], Iterator[_Member]], stream: BinaryIO, depth: int) -> None:
        """Scan the members that torch (`NAME/data.pkl`) or numpy (any that begins as an array) loads, and others."""
        stream.seek(0)
        try:
            for number, (name, opened) in enumerate(members(stream)):
                says = has_pickle_name(name) or name in (
                    "pickle",
                    "sys_info",
                    "storages",
                    "tensors",
                )  # torch before 0.1.10
                if says or number < _MAX_MEMBERS:
                    self._member(name, opened, says, depth)
        except (BudgetExceeded, *_BROKEN):
            self.whole = False
            self.pickled = self.pickled or self._mentions_pickles()

    def _member(self, name: str, opened: Callable[[], Any], says: bool, depth: int) -> None:
        try:
            with opened() as member:
                head = member.read(_HEAD)
                if (says or _looks_like_pickle(head)) and depth < _MAX_DEPTH:
                    member.seek(0)
                    self.scan_container(member, name, depth + 1)
                    member.seek(0)
                    self.scan_pickles(ForwardReader(member, self.budget))
        except _BROKEN:
            if says:
                self._mark_unreadable()

    def _zip(self, stream: BinaryIO) -> Iterator[_Member]:
        with zipfile.ZipFile(stream) as archive:
            for member in sorted(archive.infolist(), key=lambda member: not has_pickle_name(member.filename)):
                yield member.filename, partial(_open_member, archive, member)

    def _tar(self, stream: BinaryIO) -> Iterator[_Member]:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    yield member.name, partial(archive.extractfile, member)

    def _mentions_pickles(self) -> bool:
        """Return whether an archive contains ".pkl" near its start or end: torch may read one that Python cannot."""
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


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Open a stored or deflated member; other methods have no bound on their ratio, and torch and numpy use none."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError
    return archive.open(member)


def _looks_like_pickle(head: bytes) -> bool:
    """Return whether an archive member starts like a pickle, array or zip; the tensors of a torch archive do not."""
    return (head[:1] == b"\x80" and head[1:2] <= b"\x05") or head[:6] == b"\x93NUMPY" or head[:4] == b"PK\x03\x04"
