"""The control file of a killed aria2c matches the bytes on disk."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from gpuaria.aria2 import binary, control
from gpuaria.aria2.control import BLOCK, Control
from standin import Hub, Repo

MIB = 1 << 20
BINARIES = list(dict.fromkeys(path for path in (binary.find_binary().path, binary.bundled()) if path))


@pytest.mark.wire
@pytest.mark.parametrize("cache", ["0", "64M"])
@pytest.mark.parametrize("program", BINARIES)
def test_the_control_file_of_a_killed_aria2c_matches_the_disk(program: str, cache: str, tmp_path: Path) -> None:
    """The server sends 1.3 MB on each of four connections and then stalls, so that the bytes on disk stop changing."""
    data = os.urandom(12 * MIB + 12_345)
    repo = Repo.build("org/thing", {"w.bin": data}, folder=tmp_path / "store")
    target = tmp_path / "out"
    with Hub([repo], server="embedded") as hub:
        hub.cdn.fault("w.bin", "stall", after=1_300_000)
        url = hub.signed_url(repo, repo.commits[repo.head].files["w.bin"])
        options = ["--no-conf", "--quiet", "--auto-save-interval=1", "--split=4", "--max-connection-per-server=4"]
        options += ["--min-split-size=1M", "--piece-length=1M", "--file-allocation=none", f"--disk-cache={cache}"]
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        command = [program, *options, f"--dir={target}", "--out=w", url]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            found = at_rest(target / "w.aria2")
        finally:
            process.kill()
            process.wait()
    assert found is not None
    assert found == control.read(target / "w.aria2")
    assert (found.total, found.piece) == (len(data), MIB)
    disk = (target / "w").read_bytes()
    for index in range(-(-len(data) // MIB)):
        if found.bitfield[index // 8] & (0x80 >> index % 8):
            assert disk[index * MIB : (index + 1) * MIB] == data[index * MIB : (index + 1) * MIB]
    right = sum(
        len(data[at : at + BLOCK])
        for at in range(0, len(data), BLOCK)
        if disk[at : at + BLOCK] == data[at : at + BLOCK]
    )
    assert found.completed > 4 * MIB
    assert 0 <= right - found.completed <= 4 * BLOCK


def at_rest(path: Path) -> Control | None:
    """Return the control file once it has been unchanged for longer than two saves."""
    deadline, since, last = time.monotonic() + 60, time.monotonic(), None
    while time.monotonic() < deadline:
        found = control.read(path)
        if found != last:
            since, last = time.monotonic(), found
        if last and last.completed > 4 * MIB and time.monotonic() - since > 2.2:
            break
        time.sleep(0.05)
    return last
