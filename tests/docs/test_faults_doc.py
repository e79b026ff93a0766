"""docs/faults.md is generated from the `fault` markers of the tests, so that each row has a test.

`python -m tests.docs.test_faults_doc` writes the page again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "faults.md"
GROUPS = {
    "server": ("Server", "Faults of the servers that deliver the bytes, and of the hub's own responses."),
    "listing": ("Listing", "Faults in the file list that a hub or a mirror returns."),
    "machine": ("Machine", "Faults on the local machine."),
}
HEAD = """# Faults

What gpuaria does when something goes wrong. [Troubleshooting](troubleshooting.md) lists messages and what
to do; this page lists every tested fault.

## What to do

| you see | do |
|---|---|
| a line about a wait or a retry | nothing: gpuaria retries until `--patience` runs out |
| a dropped mirror in the report | nothing: the other mirrors deliver the file |
| a wrong checksum (status 4) | use another `--mirror`, and report the bad mirror to its owner |
| a network error (status 7) | run the command again later: it resumes; `gpuaria doctor` finds the cause |
| a full or read-only disk (status 8) | free space or choose another folder, then run the command again: it resumes |
| another process holds the lock (status 8) | wait for that process, or raise `--patience` |
| access denied, or a token helper fails (status 6) | accept the repo's terms, set `HF_TOKEN`, test the helper |
| a bad listing, or a captive portal (status 7) | open the URL in a browser; choose another endpoint |
| an interrupted run (status 130) | run the command again: it resumes |

## In every case

- A file gets its name only after its bytes are verified.
- Received bytes are kept, and the same command resumes with them.
- A failure prints one sentence, a hint, and an [exit status](exit-status.md).
- If another mirror works, gpuaria drops the faulty one and reports the reason.

"A few times" means that the fault ends within `--patience`; "always" means that it does not.
Some rows differ for small files (below 8 MB, downloaded by gpuaria itself) and large ones (downloaded by aria2c).

Each row names the tests that check it, and this page is generated from them
(`python -m tests.docs.test_faults_doc`). `make test` runs at least one test of each kind of fault. `make faults` runs
all of them, with new random data each time. A failure prints its seed; `make faults SEED=7` repeats that run.
"""
TAIL = """
## Pairs

The tests also combine two random temporary faults on two mirrors, and a temporary fault with a run that is killed or
stopped. The bytes are correct each time.

## Power cuts

After a power cut, a file system may lose data that was not synced and keep data that was written later. gpuaria
therefore writes each file in this order:

| step | reason |
|---|---|
| sync the control file of a byte range, then rename the range | a range without a control file counts as complete |
| sync each stretch after hashing it, the file after verifying it | verified bytes are on the disk, not only in memory |
| then unlink the range files and publish the file | a published name has verified bytes on the disk |
| at the end, sync each folder with a new name | many names cost one sync |
| then write the ref, sync it, rename it, and sync its folder | a ref points to names that exist |
| write the receipts last | a missing receipt costs one more hash; a wrong one would hide lost bytes |

aria2's own control files are not synced during a download: aria2 writes them each second, and a sync costs more than it
saves. After a power cut, such a file may claim too much or be damaged. The checksum detects the first case, and the
file is downloaded again. In the second case, gpuaria discards the control file and its bytes.

## Figures

Reading, checking, planning and printing a list of 100,000 files on 100 pages takes 12 s and 166 MiB of memory
(`gpuaria fetch --dry-run`; Python 3.11, two shared cores). Scenarios 9c and 9d of the [benchmarks](benchmarks.md)
measure the same.

## Not covered

- A real power cut. The tests read the order of writes from a kernel trace, and kill the process at each step.
- A file system that ignores case: the tests cannot mount one. The check is a pure function with its own tests
  (`tests/unit/test_paths.py`).
- A list that ends early is detected only if the hub also names the files on the repo's page, as huggingface.co does.
"""


@dataclass
class Row:
    """One fault: its text, and the tests that check it."""

    name: str
    where: str = ""
    does: str = ""
    sees: str = ""
    status: tuple[int, ...] = ()
    tests: list[str] = field(default_factory=list)
    not_yet: list[str] = field(default_factory=list)  # reasons of expected failures


class _Collector:
    """A pytest plugin that keeps the collected tests."""

    items: Sequence[pytest.Item] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collect() -> list[Row]:
    """Return the rows by group and name. Raise ValueError for an incomplete marker, or two that disagree."""
    plugin = _Collector()
    marked = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.fault(" in file.read_text()]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        words = ["--collect-only", "-q", "-m", "fault", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={ROOT}"]
        code = pytest.main([*words, *marked], plugins=[plugin])
    if code:
        raise ValueError(said.getvalue())
    rows: dict[str, Row] = {}
    for item in plugin.items:
        for mark in item.iter_markers("fault"):
            _enter(rows, mark, item.nodeid)
            rows[mark.args[0]].not_yet += [known.kwargs["reason"] for known in item.iter_markers("xfail")]
    for row in rows.values():
        if row.where not in GROUPS or not (row.does and row.sees and row.status):
            raise ValueError(f"no marker gives where, does, sees and status of {row.name!r}")
    return sorted(rows.values(), key=lambda row: (list(GROUPS).index(row.where), row.name))


def _enter(rows: dict[str, Row], mark: pytest.Mark, test: str) -> None:
    """Add a marker to its row: one marker per name holds the text; the others give the name only."""
    (name,) = mark.args
    row = rows.setdefault(name, Row(name))
    row.tests.append(test)
    if not mark.kwargs:
        return
    status = mark.kwargs["status"]
    said = {**mark.kwargs, "status": status if isinstance(status, tuple) else (status,)}
    if row.where and said != {key: getattr(row, key) for key in said}:
        raise ValueError(f"two markers have different texts for {name!r}")
    row.where, row.does, row.sees, row.status = said["where"], said["does"], said["sees"], said["status"]


def page(rows: Sequence[Row]) -> str:
    """Return the text of docs/faults.md."""
    parts = [HEAD]
    for where, (title, text) in GROUPS.items():
        table = ["| fault | what gpuaria does | what you see | status | tests |", "|---|---|---|---|---|"]
        table += [_line(row) for row in rows if row.where == where]
        parts.append("\n".join([f"\n## {title}\n", text, "", *table, ""]))
    return "".join([*parts, TAIL])


def _line(row: Row) -> str:
    status = " or ".join(map(str, row.status))
    does = " ".join([row.does, *(f"**Not yet:** {reason}." for reason in row.not_yet)])
    cells = (row.name, does, row.sees, status, "<br>".join(_links(row.tests)))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _links(tests: Iterable[str]) -> list[str]:
    """Return `[test_x.py](../tests/test_x.py) name` for each test, parameters merged."""
    named = dict.fromkeys(re.sub(r"\[.*", "", test) for test in tests)
    return [
        f"[{file.rpartition('/')[2]}](../tests/{file}) {function.removeprefix('test_').replace('_', ' ')}"
        for file, _, function in (test.removeprefix("tests/").partition("::") for test in named)
    ]


def test_the_page_matches_the_markers() -> None:
    """Runs in another process, because pytest collects once per process."""
    command = [sys.executable, "-m", "tests.docs.test_faults_doc", "--print"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PAGE.read_text(encoding="utf-8") == done.stdout, "run python -m tests.docs.test_faults_doc"


def test_every_status_is_documented() -> None:
    documented = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs/exit-status.md").read_text(), re.MULTILINE))
    rows = re.findall(r"^\|.*\| ([\d or]+) \| \[test", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 100
    assert {status for row in rows for status in row.split(" or ")} <= documented


if __name__ == "__main__":
    text = page(collect())
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
