"""The order of a run's writes in the kernel's trace, which decides what a power cut can lose.

A file system may lose what was not synced and keep what was written later. So only synced bytes get a name, only synced
names get a ref, and receipts are written last.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from standin import Repo
from tests.support.user import GPUARIA, Serve, User

CALLS = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,write,pwrite64,writev,pwritev"
NEVER = sys.maxsize
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@dataclass
class Call:
    """One system call; `begun` and `over` are lines of the trace, `paths` its arguments."""

    name: str
    paths: list[str]
    begun: int
    over: int


def calls(trace: str) -> list[Call]:
    """Parse the output of `strace -f -y`; join calls that were interrupted by others."""
    found: list[Call] = []
    running: dict[str, Call] = {}
    for number, line in enumerate(trace.splitlines()):
        process, _, rest = line.partition(" ")
        if re.match(r" *<\.\.\. \w+ resumed>", rest):
            if process in running:
                running.pop(process).over = number
        elif match := re.match(r" *(\w+)\((.*)", rest):
            unfinished = "<unfinished" in rest
            found.append(Call(match[1], _paths(match[1], match[2]), number, NEVER if unfinished else number))
            if unfinished:
                running[process] = found[-1]
    return found


def _paths(name: str, words: str) -> list[str]:
    if name.startswith(("rename", "unlink")):
        parts = re.findall(r'(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"', words)
        return [os.path.join(*part) for part in parts] or re.findall(r'"([^"]*)"', words)
    return re.findall(r"^\d+<([^>]*)>", words)


def traced(user: User, *words: str) -> list[Call]:
    trace = user.temp / "trace"
    done = user.command("strace", "-f", "-y", "-s0", "-o", trace, "-e", f"trace={CALLS}", *GPUARIA, *words)
    if "ptrace" in done.err.lower():
        pytest.skip(f"strace cannot trace here: {done.err[-200:]}")
    done.ok()
    return calls(trace.read_text(errors="replace"))


def staged(path: str) -> str:
    """Return the staged file of a path: aria2c writes to hard links of it."""
    return re.sub(r"\.windows/\d+-\d+$", "", path)


def before(seen: list[Call], end: int, name: str) -> Iterator[Call]:
    return (call for call in seen if name in call.name and call.begun < end)


def synced(seen: list[Call], path: str, end: int) -> bool:
    """Return whether everything written to `path` before `end` was synced before it."""
    writes = [call.over for call in before(seen, end, "write") if call.paths and staged(call.paths[0]) == path]
    syncs = [call for call in before(seen, end, "sync") if call.paths == [path] and call.over < end]
    assert writes, f"nothing was written to {path}"
    return any(call.begun > max(writes) for call in syncs)


@pytest.mark.parametrize("how", ["folder", "cache"])
@pytest.mark.fault(
    "power cut: at any moment",
    where="machine",
    does="Syncs bytes before file names, file names before the ref, receipts last (see below).",
    sees="nothing",
    status=0,
)
def test_the_order_of_synced_writes(user: User, serve: Serve, big: Repo, how: str) -> None:
    serve(big, limit_rate=400_000)
    seen = traced(user, "fetch", "org/big", *(("--to", "out") if how == "folder" else ()))
    renames = [call for call in seen if call.name.startswith("rename") and len(call.paths) == 2]
    files = [call for call in renames if re.search(r"sha256-\w+$|git-sha1-\w+$|\.prefix$", call.paths[0])]
    assert len(files) == 3, renames
    folders = set()
    for call in files:
        assert synced(seen, call.paths[0], call.begun), call
        folders.add(os.path.dirname(call.paths[1]))
    last = max(call.over for call in files)
    ends = {
        folder: [c for c in seen if "sync" in c.name and c.paths == [folder] and c.begun > last] for folder in folders
    }
    assert all(ends.values()), ends
    named = min(min(call.over for call in each) for each in ends.values())
    (large,) = (call for call in files if "sha256" in call.paths[0])
    began = min(call.over for call in before(seen, NEVER, "write") if staged(call.paths[0]) == large.paths[0])
    safe = min(call.over for call in before(seen, large.begun, "sync") if call.paths == [large.paths[0]])
    ranges = [call for call in seen if call.name.startswith("unlink") and re.search(r"/\d+-\d+$", call.paths[0])]
    assert [call for call in ranges if call.begun > safe], "the names of ranges say what is there"
    assert not [call for call in ranges if began < call.begun < safe]
    receipts = [call.begun for call in seen if "write" in call.name and "receipts" in "".join(call.paths)]
    assert receipts
    assert max(receipts) > named
    if how == "cache":
        (ref,) = (call for call in renames if call.paths[1].endswith("refs/main"))
        assert synced(seen, ref.paths[0], ref.begun)
        assert ref.begun > named
        refs = os.path.dirname(ref.paths[1])
        assert [call for call in seen if "sync" in call.name and call.paths == [refs] and call.begun > ref.over]


def test_the_trace_is_parsed(tmp_path: Path) -> None:
    trace = (
        '1 write(3</a/b>, ""..., 5) = 5\n'
        "1 fsync(3</a/b> <unfinished ...>\n"
        '2 renameat(4</a>, "b", 5</c>, "d") = 0\n'
        "1 <... fsync resumed>) = 0\n"
        '2 rename("/x/y", "/x/z") = 0\n'
    )
    write, sync, first, second = calls(trace)
    assert (write.paths, sync.paths) == (["/a/b"], ["/a/b"])
    assert (first.paths, second.paths) == (["/a/b", "/c/d"], ["/x/y", "/x/z"])
    assert sync.over == 3
    assert not synced([write, sync, first, second], "/a/b", first.begun)
    assert synced([write, sync, first, second], "/a/b", second.begun)
