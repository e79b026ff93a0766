"""aria2's control files: read, write, reject."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.aria2 import control
from gpuaria.aria2.control import BLOCK, Control

MIB = 1 << 20


def packed(
    total: int,
    piece: int,
    bitfield: bytes,
    begun: list[tuple[int, int, bytes]] | None = None,
    *,
    info_hash: bytes = b"",
    version: int = 1,
) -> bytes:
    """A control file built after the description in aria2's manual."""
    data = struct.pack(">H4sI", version, bytes(4), len(info_hash)) + info_hash
    data += struct.pack(">IQQI", piece, total, 0, len(bitfield)) + bitfield
    data += struct.pack(">I", len(begun or []))
    for index, length, blocks in begun or []:
        data += struct.pack(">III", index, length, len(blocks)) + blocks
    return data


def read(tmp_path: Path, data: bytes) -> Control | None:
    path = tmp_path / "x.aria2"
    path.write_bytes(data)
    return control.read(path)


@pytest.mark.parametrize(
    ("data", "completed"),
    [
        (packed(10 * MIB, MIB, b"\0\0"), 0),
        (packed(10 * MIB, MIB, b"\x80\0"), MIB),
        (packed(10 * MIB, MIB, b"\xff\xc0"), 10 * MIB),
        (packed(9 * MIB + 5, MIB, b"\0\x40"), 5),
        (packed(10 * MIB, MIB, b"\x80\0", [(1, MIB, b"\xf0" + bytes(7))]), MIB + 4 * BLOCK),
        (packed(10 * MIB, MIB, b"\0\0", [(1, MIB, b"\x80" + bytes(7)), (3, MIB, b"\x01" + bytes(7))]), 2 * BLOCK),
        (packed(9 * MIB + 5, MIB, b"\0\0", [(9, 5, b"\x80")]), 5),
        (packed(MIB, MIB, b"\x80", info_hash=bytes(20)), MIB),
    ],
)
def test_completed_pieces_are_read(data: bytes, completed: int, tmp_path: Path) -> None:
    found = read(tmp_path, data)
    assert found is not None
    assert found.completed == completed
    assert found.piece == MIB


WHOLE = packed(10 * MIB, MIB, b"\xa0\0", [(1, MIB, b"\xf0" + bytes(7)), (4, MIB, b"\xff" + bytes(7))])


def test_absent_empty_and_truncated_files_return_none(tmp_path: Path) -> None:
    assert control.read(tmp_path / "none.aria2") is None
    assert control.read(tmp_path) is None
    assert read(tmp_path, WHOLE) is not None
    for length in range(len(WHOLE)):
        assert read(tmp_path, WHOLE[:length]) is None, length


@pytest.mark.parametrize(
    "data",
    [
        bytes(100),
        b"\xff" * 100,
        b"<html>" * 30,
        packed(MIB, MIB, b"\x80", version=0),
        packed(MIB, MIB, b"\x80", version=2),
        packed(MIB, 0, b"\x80"),
        packed(10 * MIB, MIB, b"\x80"),
        packed(MIB, MIB, b"\x80\0"),
        packed(1 << 62, 1, b"\x80"),
    ],
)
def test_garbage_returns_none(data: bytes, tmp_path: Path) -> None:
    assert read(tmp_path, data) is None


FIELDS = st.integers(0, 40) | st.integers(0, 2**32 - 1)
NEARLY = st.builds(
    lambda total, piece, bits, begun, cut: packed(total, piece, bits, begun)[: cut or None],
    FIELDS | st.integers(0, 2**64 - 1),
    FIELDS,
    st.binary(max_size=8),
    st.lists(st.tuples(FIELDS, FIELDS, st.binary(max_size=8)), max_size=3),
    st.just(0) | st.integers(1, 60),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control")


@given(data=st.binary(max_size=200) | NEARLY | st.binary(max_size=80).map(lambda tail: WHOLE[:40] + tail))
def test_any_bytes_are_a_valid_control_file_or_none(place: Path, data: bytes) -> None:
    found = read(place, data)
    assert found is None or 0 <= found.completed <= found.total


@st.composite
def wholes_and_gaps(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """Draw a size and ordered, disjoint gaps on block borders (the last end excepted)."""
    size = draw(st.integers(1, 40 * MIB))
    blocks = -(-size // BLOCK)
    borders = sorted(draw(st.sets(st.integers(0, blocks), max_size=12)))
    pairs = zip(borders[::2], borders[1::2], strict=False)
    return size, [(start * BLOCK, min(size, end * BLOCK)) for start, end in pairs]


@given(wholes_and_gaps())
def test_a_written_control_file_reads_back(
    tmp_path_factory: pytest.TempPathFactory, what: tuple[int, list[tuple[int, int]]]
) -> None:
    size, gaps = what
    path = tmp_path_factory.getbasetemp() / "composed.aria2"
    path.write_bytes(control.compose(size, MIB, gaps))
    known = control.read(path)
    assert known is not None
    assert (known.total, known.piece, list(known.missing)) == (size, MIB, gaps)
    assert known.completed == size - sum(end - start for start, end in gaps)


def test_a_partial_block_counts_as_missing(tmp_path: Path) -> None:
    known = read(tmp_path, control.compose(4 * MIB, MIB, [(5, 6), (BLOCK, BLOCK + 1), (3 * MIB - 1, 3 * MIB + 1)]))
    assert known is not None
    assert known.missing == ((0, 2 * BLOCK), (3 * MIB - BLOCK, 3 * MIB + BLOCK))
