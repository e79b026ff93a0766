"""aria2c downloads exactly the byte ranges given by links and hand-made control files."""

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpuaria.aria2 import binary, control, daemon
from gpuaria.aria2.binary import Binary
from gpuaria.aria2.options import DownloadLimits, download_options
from gpuaria.formats.metalink import for_download
from gpuaria.http.certificates import ca_file
from gpuaria.transfer.range_files import RangeFiles
from gpuaria.transfer.ranges import PIECE, ByteRange
from standin import Hub, Repo

BINARIES = list(dict.fromkeys(path for path in (binary.find_binary().path, binary.bundled()) if path))
MB = PIECE
SIZE = 10 * PIECE + 12_345


@pytest.mark.parametrize("program", BINARIES)
@pytest.mark.parametrize("size", [SIZE, 8 * PIECE, 17 * PIECE + 1])
def test_aria2_downloads_exactly_the_range(program: str, size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    repo = Repo.build("org/r", {"w.bin": data}, folder=tmp_path / "r")
    base, folder = tmp_path / "base", tmp_path / "base.windows"
    files = RangeFiles(base, folder, size)
    byte_ranges = files.recover()
    byte_ranges[0].end = 3 * MB
    rest = ByteRange(3 * MB, size)
    with Hub([repo], server="embedded") as hub:
        own = daemon.start(Binary(program, (1, 36), "setting"), ca_file())
        try:
            for window, sent in ((rest, size - 3 * MB), (byte_ranges[0], 3 * MB)):
                files.prepare(window)
                before = sum(seen.sent for seen in hub.cdn.requests)
                _fetch(own, hub, repo, files, window)
                assert files.completed_by_aria2(window)
                assert files.path(window).samefile(base)
                came = sum(seen.sent for seen in hub.cdn.requests) - before
                assert sent <= came <= sent + 4 * MB, "an answer that aria2 cuts short may be on its way"
                assert base.read_bytes()[window.start : window.end] == data[window.start : window.end]
            assert base.read_bytes() == data
        finally:
            own.kill()
            own.stop()


@pytest.mark.parametrize("program", BINARIES)
def test_aria2_resumes_from_our_control_file(program: str, tmp_path: Path) -> None:
    """Our download ended in mid-range, twice; aria2 downloads the rest."""
    size = 40 * MB + 77
    data = random.Random(8).randbytes(size)
    repo = Repo.build("org/r", {"w.bin": data}, folder=tmp_path / "r")
    base, folder = tmp_path / "base", tmp_path / "base.windows"
    files = RangeFiles(base, folder, size)
    files.recover()
    window = ByteRange(4 * MB, size)
    ours = [(4 * MB, 20 * MB + 50_000), (21 * MB + 1, 39 * MB), (40 * MB - 3, size)]
    with base.open("r+b") as file:
        for start, end in [(0, 4 * MB), *ours]:
            file.seek(start)
            file.write(data[start:end])
    files.record_filled(window, ours[:1])
    files.record_filled(window, ours)
    left = sum(end - start for start, end in files.missing(window))
    assert 0 <= left - (size - 4 * MB - sum(end - start for start, end in ours)) < 6 * control.BLOCK
    assert [found.start for found in files.recover() if not found.done] == [0, 4 * MB]
    with Hub([repo], server="embedded") as hub:
        own = daemon.start(Binary(program, (1, 36), "setting"), ca_file())
        try:
            files.prepare(window)
            _fetch(own, hub, repo, files, window)
            assert files.completed_by_aria2(window)
            assert sum(seen.sent for seen in hub.cdn.requests) <= left + 4 * MB
        finally:
            own.kill()
            own.stop()
    assert base.read_bytes() == data


@pytest.mark.parametrize("program", BINARIES)
def test_a_single_range_is_not_a_complete_file(program: str, tmp_path: Path) -> None:
    """Without hard links, aria2 would treat a sparse file of full length as complete; a control file prevents that."""
    data = random.Random(3).randbytes(SIZE)
    repo = Repo.build("org/r", {"w.bin": data}, folder=tmp_path / "r")
    base = tmp_path / "base"
    files = RangeFiles(base, tmp_path / "none", SIZE)
    files.recover()
    files = replace(files, hard_links=False)
    (window,) = files.single()
    assert (window.completed, files.missing(window)) == (0, [(0, SIZE)])
    with Hub([repo], server="embedded") as hub:
        own = daemon.start(Binary(program, (1, 36), "setting"), ca_file())
        try:
            files.prepare(window)
            _fetch(own, hub, repo, files, window)
        finally:
            own.kill()
            own.stop()
    assert base.read_bytes() == data


def _fetch(own: daemon.Daemon, hub: Hub, repo: Repo, files: RangeFiles, window: ByteRange) -> None:
    url = hub.signed_url(repo, repo.commits[repo.head].files["w.bin"])
    path = files.path(window)
    options = download_options(path.parent, DownloadLimits(), "test")
    gid = own.rpc.add_download(for_download(path.name, files.size, [url]), options)
    end = time.monotonic() + 60
    while (transfer := own.rpc.poll([gid])[0][gid]).status != "complete":
        assert transfer.status in ("active", "waiting"), transfer
        assert time.monotonic() < end
        time.sleep(0.02)
    own.rpc.forget_results([gid])
