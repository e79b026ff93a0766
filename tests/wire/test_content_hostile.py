"""Scans of large hostile files take bounded CPU time and memory."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path

from gpuaria.content import pickles
from gpuaria.content.names import PickleScan
from tests.support.weights import PART, WHOLE, problem, scan, tensors, timed, torch_zip


def test_a_hundred_gigabytes_that_begin_like_a_pickle(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as out:
        out.write(b"\x80\x04\x8e" + struct.pack("<Q", 99 << 30))  # one bytes object
        out.truncate(100 << 30)
    assert timed(lambda: pickles.scan(file), 5, 20) is None  # zeros after it: the scan cannot continue
    with file.open("r+b") as out:
        out.seek((99 << 30) + 11)
        out.write(b"cos\nsystem\n)R.")
    assert timed(lambda: pickles.scan(file), 5, 20) == PickleScan(("os.system",), WHOLE)
    with file.open("r+b") as out:
        out.write(b"\x80\x04(" + b"N0" * 1_000_000)
    assert timed(lambda: pickles.scan(file), 60, 60) == PickleScan((), PART)
    for start in (b"\x80\x04V", b"\x80\x04c", b"cos\n"):
        with file.open("r+b") as out:
            out.truncate(0)
            out.write(start + b"x" * 70_000_000)  # a line without an end
        found = timed(lambda: pickles.scan(file), 20, 40)
        assert found == PickleScan((), PART)


def test_decompression_bombs() -> None:
    zeros = zlib.compressobj()
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(100)) + zeros.flush()
    assert timed(lambda: scan(bomb), 5, 20) is None
    push = zlib.compress(b"\x80\x04(" + b"N" * 5_000_000)
    assert timed(lambda: scan(push), 60, 60) == PickleScan((), PART)
    archive = torch_zip(b"\x80\x04\x8e" + struct.pack("<Q", 99 << 20) + bytes(99 << 20) + b".", compressed=True)
    assert timed(lambda: scan(archive), 10, 20) == PickleScan((), PART)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as packed:
            packed.writestr("archive/data.pkl", bytes(50 << 20))
        assert timed(partial(scan, out.getvalue()), 5, 20) == PickleScan((), PART)


def test_a_large_hostile_header_is_cheap() -> None:
    for text in (b'{"a":[' + b"[]," * 20_000_000, b'{"a":"' + b"x" * 90_000_000 + b'"}'):
        assert timed(partial(problem, tensors(text, 0)), 20, 600)
