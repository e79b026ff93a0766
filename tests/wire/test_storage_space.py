"""Free disk space, file system features, and the messages for system errors."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from gpuaria.errors import DiskError, NoSpace, NotWritable, UnsafePath
from gpuaria.os_errors import explain, explained
from gpuaria.storage.safe_dir import SafeDir
from gpuaria.storage.space import case_sensitive, check_free, free_bytes
from gpuaria.text import decimal


def test_free_space_is_read_from_the_nearest_parent(tmp_path: Path) -> None:
    have = shutil.disk_usage(tmp_path).free
    assert abs(free_bytes(tmp_path / "not" / "yet") - have) < 1 << 30


def test_missing_space_is_reported_with_both_sizes_and_the_folder(tmp_path: Path) -> None:
    check_free(tmp_path / "x", 1)
    with pytest.raises(NoSpace, match=rf"1000\.0 PB needed, .* free at {tmp_path}"):
        check_free(tmp_path / "x" / "y", 10**18)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (140_200_000_000, "140.2 GB")],
)
def test_decimal_units(size: int, text: str) -> None:
    assert decimal(size) == text


def test_the_file_system_is_probed_without_leftovers(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert case_sensitive(tmp_path) is not (tmp_path / "A").exists()
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(DiskError, match="does not exist"):
        case_sensitive(tmp_path / "missing")


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (errno.ENOSPC, NoSpace, "no space left"),
        (errno.EDQUOT, NoSpace, "quota"),
        (errno.EROFS, NotWritable, "read-only"),
        (errno.EACCES, NotWritable, "no permission"),
        (errno.ENAMETOOLONG, DiskError, "too long"),
        (errno.ENOTDIR, DiskError, "a file, but a folder"),
        (errno.ELOOP, UnsafePath, "symbolic link"),
        (errno.EIO, DiskError, "Input/output error"),
    ],
)
def test_a_system_error_is_one_message(number: int, kind: type[DiskError], word: str) -> None:
    with pytest.raises(kind, match=word) as caught, explained(Path("/some/place")):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert "/some/place" in caught.value.message


def test_an_error_without_a_number() -> None:
    assert explain(OSError("odd"), "/x").message == "/x: OSError"


def test_a_full_disk_is_reported() -> None:
    with pytest.raises(NoSpace), explained("/dev/full"):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a\0b"])
def test_no_part_of_a_name_can_escape(tmp_path: Path, part: str) -> None:
    with pytest.raises(UnsafePath), SafeDir(tmp_path / "root").folder((part,), create=True):
        pass
    with pytest.raises(UnsafePath):
        SafeDir(tmp_path / "root").parts(tmp_path / "other")


def test_a_folder_replaced_by_a_link_after_it_was_opened(tmp_path: Path) -> None:
    below, outside = SafeDir(tmp_path / "root"), tmp_path / "outside"
    outside.mkdir()
    with below.folder(("a",), create=True) as fd:
        os.rename(tmp_path / "root" / "a", tmp_path / "moved")
        (tmp_path / "root" / "a").symlink_to(outside)
        os.mkdir("made", dir_fd=fd)
    assert os.listdir(outside) == []
    assert os.listdir(tmp_path / "moved") == ["made"]
    with pytest.raises(UnsafePath, match="symbolic link"), below.folder(("a",)):
        pass


@pytest.mark.parametrize("how", ["removed", "moved", "a link", "a parent is a link"])
def test_an_open_folder_that_was_deleted(tmp_path: Path, how: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    below = SafeDir(root)
    below.keep_open(("a", "b"))
    below.close()
    below.keep_open(("a", "b"))
    if how == "removed":
        (root / "a" / "b").rmdir()
    elif how == "a parent is a link":
        (root / "a").rename(outside / "a")
        (outside / "b").mkdir()
        (root / "a").symlink_to(outside)
    else:
        (root / "a" / "b").rename(outside / "b")
        if how == "a link":
            (root / "a" / "b").symlink_to(outside / "b")
    if "link" in how:
        with pytest.raises(UnsafePath, match="symbolic link"), below.folder(("a", "b", "c"), create=True):
            pass
    else:
        with below.folder(("a", "b", "c"), create=True) as fd:
            os.mkdir("made", dir_fd=fd)
        assert (root / "a" / "b" / "c" / "made").is_dir()
    assert not list(outside.rglob("c"))


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    def held() -> int:
        return sum(os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path)) for fd in opened())

    def opened() -> list[str]:
        return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]

    below = SafeDir(tmp_path)
    below.keep_open(("a",))
    with below.folder(("a",)), below.folder(("a", "b"), create=True):
        assert held() == 3
    assert held() == 1
    del below
    assert held() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user for a moment")
def test_a_parent_without_search_permission_is_one_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chmod(tmp_path, 0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(DiskError, match=r"permission|allowed|denied|may not"):
            free_bytes(closed / "inner" / "deeper")
    finally:
        os.seteuid(0)
