"""Byte ranges as hard links with hand-made control files: splitting a file, and recovering an earlier run."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.aria2 import control
from gpuaria.aria2.options import DownloadLimits, download_options
from gpuaria.transfer import ranges as row_of
from gpuaria.transfer.range_files import RangeFiles, control_bytes
from gpuaria.transfer.ranges import PIECE, ByteRange, prefix, split_end, split_gap
from gpuaria.transfer.tuning import SMALLEST_RANGE as SMALLEST

SIZE = 10 * PIECE + 12_345
MB = PIECE
sizes = st.integers(1, 1 << 42)


@given(sizes, st.integers(0, 1 << 22), st.integers(0, 1 << 42))
def test_ranges_cover_the_file_without_overlap_on_piece_borders(size: int, first: int, behind: int) -> None:
    start = min(first * PIECE, (size - 1) // PIECE * PIECE)
    byte_ranges = split_gap(start, size, behind)
    assert [a for a, _ in byte_ranges] == [start, *(b for _, b in byte_ranges[:-1])]
    assert byte_ranges[-1][1] == size
    assert all(a % PIECE == 0 and a < b for a, b in byte_ranges)
    assert all(b - a >= SMALLEST for a, b in byte_ranges[:-1])
    assert len(byte_ranges) < 30


@pytest.mark.parametrize(("size", "most"), [(4 << 30, 512 << 20), (64 << 30, 4 << 30)])
def test_no_range_is_so_long_that_hashing_waits(size: int, most: int) -> None:
    assert max(b - a for a, b in split_gap(0, size)) == most


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [(0, 0, 0), (5, 5, 0), (0, 1, 1), (0, 3 * SMALLEST - 1, 1), (0, 3 * SMALLEST, 2), (0, 140 << 30, 8)],
)
def test_the_number_of_ranges(start: int, end: int, count: int) -> None:
    assert (len(split_gap(start, end)) >= 8) if count == 8 else (len(split_gap(start, end)) == count)


@pytest.mark.parametrize(("size", "count"), [(3 * SMALLEST, 1), (500 * MB, 1), (2 << 30, 5), (16 << 30, 16)])
def test_fewer_ranges_if_other_files_follow(size: int, count: int) -> None:
    assert len(split_gap(0, size, behind=size)) <= count <= len(split_gap(0, size))


def test_ranges_not_yet_started_are_merged() -> None:
    """The merged ranges cover the same bytes; started ranges are unchanged."""
    size = 5 << 30
    byte_ranges = [ByteRange(a, b) for a, b in split_gap(0, size)]
    byte_ranges[0].running = True
    before = len(byte_ranges)
    row_of.merge_untouched(byte_ranges)
    assert len(byte_ranges) < before
    assert (byte_ranges[0].start, byte_ranges[0].end) == (0, 512 * MB)
    assert byte_ranges[1].end - byte_ranges[1].start == 2 << 30
    assert [a.end for a in byte_ranges[:-1]] == [b.start for b in byte_ranges[1:]]
    assert byte_ranges[-1].end == size
    kept = [(window.start, window.end) for window in byte_ranges]
    byte_ranges[-1].on_disk = True  # left by an earlier run
    row_of.merge_untouched(byte_ranges)
    assert [(window.start, window.end) for window in byte_ranges] == kept


@pytest.mark.parametrize(("most", "length"), [(10 * MB, 10), (25 * MB, 25), (26 * MB, 50), (0, 1)])
def test_a_long_range_not_yet_started_is_split(most: int, length: int) -> None:
    byte_ranges = [ByteRange(0, 9 * MB), ByteRange(9 * MB, 59 * MB)]
    last = split_end(byte_ranges, byte_ranges[1], most)
    assert last is byte_ranges[-1]
    assert last.end - last.start == length * MB
    assert [a.end for a in byte_ranges[:-1]] == [b.start for b in byte_ranges[1:]]


@pytest.mark.parametrize("begun", ["running", "in_tail", "done", "on_disk", "completed"])
def test_a_started_range_is_not_split(begun: str) -> None:
    window = ByteRange(0, SIZE)
    setattr(window, begun, True)
    byte_ranges = [window]
    assert split_end(byte_ranges, window, MB) is window
    assert byte_ranges == [window]


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int, int]:
    """Return ranges from (size, start, end) rows."""
    size = draw(st.integers(1, 300 * PIECE))
    pieces = -(-size // PIECE)
    first = draw(st.integers(0, pieces - 1))
    last = draw(st.integers(first + 1, pieces))
    return size, first * PIECE, min(size, last * PIECE)


@given(ranges())
def test_a_control_file_reads_back(tmp_path_factory: pytest.TempPathFactory, which: tuple[int, int, int]) -> None:
    size, start, end = which
    path = tmp_path_factory.getbasetemp() / "one.aria2"
    path.write_bytes(control_bytes(size, start, end))
    known = control.read(path)
    assert known is not None
    assert (known.total, known.piece, known.missing) == (size, PIECE, ((start, end),))
    assert known.completed == size - (end - start)


class Left:
    """A staged file of SIZE bytes with a folder of ranges."""

    def __init__(self, place: Path) -> None:
        self.base, self.folder = place / "base", place / "base.windows"
        with self.base.open("wb") as file:
            file.truncate(SIZE)
        self.files = RangeFiles(self.base, self.folder, SIZE)
        self.folder.mkdir()

    def window(self, start: int, end: int) -> ByteRange:
        return ByteRange(start, end)

    def begun(self, start: int, end: int, missing: tuple[int, int] | None = None) -> ByteRange:
        """Create a range link whose control file lacks `missing`."""
        window = self.window(start, end)
        os.link(self.base, self.files.path(window))
        self.files.control_path(window).write_bytes(control_bytes(SIZE, *(missing or (start, end))))
        return window

    def complete(self, start: int, end: int) -> ByteRange:
        window = self.window(start, end)
        os.link(self.base, self.files.path(window))
        return window

    def byte_ranges(self) -> list[ByteRange]:
        """Return the recovered ranges; check that each byte is in exactly one."""
        byte_ranges = self.files.recover()
        assert [w.start for w in byte_ranges] == [0, *(w.end for w in byte_ranges[:-1])]
        assert byte_ranges[-1].end == SIZE
        assert self.base.stat().st_size == SIZE
        return byte_ranges

    def states(self) -> list[tuple[int, int, int, bool]]:
        return [(w.start // MB, w.end // MB, w.completed // MB, w.done) for w in self.byte_ranges()]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


def test_nothing_to_recover(left: Left) -> None:
    assert left.states() == [(0, 10, 0, False)]
    assert left.files.missing(left.byte_ranges()[0]) == [(0, SIZE)]


def test_a_complete_and_a_started_range(left: Left) -> None:
    left.complete(0, 4 * MB)
    left.begun(4 * MB, 8 * MB, (5 * MB, 7 * MB))
    assert left.states() == [(0, 4, 4, True), (4, 8, 2, False), (8, 10, 0, False)]
    byte_ranges = left.byte_ranges()
    assert left.files.gaps(byte_ranges) == [(5 * MB, 7 * MB), (8 * MB, SIZE)]
    assert prefix(byte_ranges) == 4 * MB
    left.files.prepare(byte_ranges[1])
    assert left.files.missing(byte_ranges[1]) == [(5 * MB, 7 * MB)]


@pytest.mark.parametrize(
    "garbage", [b"", b"\0\1garbage", control_bytes(SIZE, 0, MB)[:-5], control_bytes(SIZE + 9 * MB, 0, MB)]
)
def test_an_unreadable_control_file_means_no_bytes(left: Left, garbage: bytes) -> None:
    left.files.control_path(left.begun(0, 4 * MB)).write_bytes(garbage)
    assert left.states() == [(0, 4, 0, False), (4, 10, 0, False)]
    window = left.byte_ranges()[0]
    left.files.prepare(window)
    assert control.read(left.files.control_path(window)) is not None
    assert left.files.missing(window) == [(0, 4 * MB)]
    assert left.files.path(window).samefile(left.base)


def test_a_link_to_another_file_is_replaced(left: Left, tmp_path: Path) -> None:
    window = left.begun(0, SIZE)
    other = tmp_path / "other"
    other.write_bytes(bytes(100))
    left.files.path(window).unlink()
    os.link(other, left.files.path(window))
    (fresh,) = left.byte_ranges()
    assert not fresh.done
    left.files.prepare(fresh)
    assert left.files.path(fresh).samefile(left.base)
    assert other.read_bytes() == bytes(100)


def test_a_symlink_is_not_a_range(left: Left) -> None:
    window = left.window(0, SIZE)
    left.files.path(window).symlink_to(left.base)
    (fresh,) = left.byte_ranges()
    assert not fresh.done
    left.files.prepare(fresh)
    assert not left.files.path(fresh).is_symlink()
    assert left.files.missing(fresh) == [(0, SIZE)]


@pytest.mark.parametrize("state", ["absent", "short", "long", "empty"])
def test_another_size_or_a_missing_base_starts_again(left: Left, state: str) -> None:
    left.complete(0, 4 * MB)
    left.begun(4 * MB, SIZE)
    if state == "absent":
        left.base.unlink()
    else:
        os.truncate(left.base, {"short": SIZE - 1, "long": SIZE + 1, "empty": 0}[state])
    assert left.states() == [(0, 10, 0, False)]
    assert list(left.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda left: (left.complete(0, 8 * MB), left.begun(0, 4 * MB)), [(0, 8, 8, True), (8, 10, 0, False)]),
        (
            lambda left: (left.complete(0, 2 * MB), left.begun(0, 4 * MB, (3 * MB, 4 * MB))),
            [(0, 4, 3, False), (4, 10, 0, False)],
        ),
        (
            lambda left: (left.complete(2 * MB, 5 * MB), left.complete(4 * MB, SIZE)),
            [(0, 4, 0, False), (4, 10, 6, True)],
        ),
    ],
)
def test_overlapping_ranges_are_separated(
    left: Left, make: Callable[[Left], object], states: list[tuple[int, int, int, bool]]
) -> None:
    make(left)
    assert left.states() == states
    assert left.states() == states, "what was dropped stays dropped"


@pytest.mark.parametrize(
    "name", ["0-99", f"5-{4 * MB}", f"0-{SIZE + 1}", "3-2", f"{MB}-{MB}", "x-y", "-1-5", f"0-{MB + 1}"]
)
def test_foreign_names_are_not_ranges(left: Left, name: str) -> None:
    os.link(left.base, left.folder / name)
    assert left.states() == [(0, 10, 0, False)]


def test_a_leftover_control_file_without_a_range_is_overwritten(left: Left) -> None:
    window = left.window(0, SIZE)
    left.files.control_path(window).write_bytes(control_bytes(SIZE, 0, MB))
    (fresh,) = left.byte_ranges()
    assert fresh.completed == 0
    left.files.prepare(fresh)
    assert left.files.missing(fresh) == [(0, SIZE)]


def test_ranges_filled_by_others_are_complete_for_the_next_run(left: Left) -> None:
    left.begun(0, 4 * MB)
    left.complete(4 * MB, SIZE)
    byte_ranges = left.byte_ranges()
    for window in byte_ranges:
        left.files.mark_complete(window)
    assert left.states() == [(0, 4, 4, True), (4, 10, 6, True)]
    assert left.files.gaps(left.byte_ranges()) == []
    files = replace(left.files, hard_links=False)
    (alone,) = files.single()
    files.prepare(alone)
    files.mark_complete(alone)
    assert files.control_path(alone).exists(), "without it, nobody would know what is a hole"


@given(st.data())
def test_any_leftovers_give_ranges_that_cover_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    left = Left(tmp_path_factory.mktemp("left"))
    known: set[int] = set()
    for _ in range(data.draw(st.integers(0, 5))):
        first = data.draw(st.integers(0, 10))
        last = data.draw(st.integers(first + 1, 11))
        start, end = first * MB, min(SIZE, last * MB)
        if left.files.path(left.window(start, end)).exists():
            continue
        if data.draw(st.booleans()):
            left.complete(start, end)
            known |= set(range(first, last))
        else:
            left.begun(start, end)
    byte_ranges = left.byte_ranges()
    for window in byte_ranges:
        claimed = set(range(window.start // MB, -(-window.end // MB))) if window.done else set()
        assert claimed <= known
    shutil.rmtree(left.folder.parent)


def test_the_piece_length_equals_the_one_given_to_aria2() -> None:
    assert download_options(Path("/x"), DownloadLimits(), "")["piece-length"] == f"{row_of.PIECE >> 20}M"
