"""docs/faults.md is made from the `fault` markers of the tests, so that it says nothing that no test proves.

`python -m tests.unit.test_faults_doc` writes it anew.
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
    "server": ("Server", "What the servers that carry the bytes do wrong. The hub's own answers are among them."),
    "listing": ("Listing", "What a hub or a mirror says that a repo holds."),
    "machine": ("Machine", "What happens on this side."),
}
HEAD = """# Faults

What gpuaria does when something goes wrong, and what you see of it. Each row is proven by the tests that it names; this
page is made from them (`python -m tests.unit.test_faults_doc`). `make test` runs a part of them, each kind of fault at
least once, `make faults` all of them, with other draws each time: a failure says its seed, and `make faults SEED=7`
draws the same again.

Whatever happens, these hold: a file has its name only after its bytes were verified; what had arrived is kept, and
the same command goes on with it; a failure is one sentence, a hint, and an [exit status](exit-status.md). A mirror that
does any of this beside a good one is left out, with the reason in the report. "A few times" means that the fault passes
within `--patience`; "always" that it does not.

Some rows differ for small files (below 8 MB, fetched by gpuaria itself) and large ones (fetched by aria2c).
"""
TAIL = """
## Pairs

Two faults at once, on two mirrors, drawn from those that pass, and one of them with a run that is killed or stopped
meanwhile: right bytes each time.

## Power cuts

A file system may lose what was not synced and keep what was written later. Of each file, in this order:

| step | why there |
|---|---|
| a range's control file is synced, then the range gets its name | a range without a control file counts as complete |
| each stretch is synced as it is hashed, the whole file when it is proven | what is proven is not in memory only |
| only then the names of its ranges go, and the file gets its name | a name stands for proven bytes on the disk |
| at the end, each folder that got a name is synced | many names cost one sync |
| then the ref is written, synced, named, and its folder synced | a ref points to names that are there |
| the receipts come last | without one a file is hashed again; one too many would vouch for what was lost |

aria2c's own notes on a download under way are not synced: it writes them each second, and a sync would cost more
than it saves. After a power cut they may say more than is there, or be torn: the digest finds the first and the file is
fetched once more, the second is thrown away with what it told of.

## Figures

A list of 100,000 files on 100 pages takes 12 s and 166 MiB of memory to read, check, plan and print (`gpuaria fetch
--dry-run`; Python 3.11, two cores that others used too). 9c and 9d of the [benchmarks](benchmarks.md) are the same.

## Not covered

- A power cut itself: the order of writes is read from the kernel's own trace, and the process is killed at each step.
- A file system that does not tell upper from lower case: none can be mounted in the tests. The check is a pure function
  with tests of its own (`tests/unit/test_paths.py`).
- A list that ends early is noticed only where the hub names the repo's files on its page too, as huggingface.co does.
"""


@dataclass
class Row:
    """One fault: what is said of it, and the tests that prove it."""

    name: str
    where: str = ""
    does: str = ""
    sees: str = ""
    status: tuple[int, ...] = ()
    tests: list[str] = field(default_factory=list)
    not_yet: list[str] = field(default_factory=list)  # what is known to be wrong


class _Collector:
    """A pytest plugin that keeps what was collected."""

    items: Sequence[pytest.Item] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collect() -> list[Row]:
    """The rows by group and name. Raises ValueError for a marker that says too little, or two that disagree."""
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
            raise ValueError(f"no marker says where, does, sees and status of {row.name!r}")
    return sorted(rows.values(), key=lambda row: (list(GROUPS).index(row.where), row.name))


def _enter(rows: dict[str, Row], mark: pytest.Mark, test: str) -> None:
    """The text stands in one marker of each name, or is the same in each; the others give the name alone."""
    (name,) = mark.args
    row = rows.setdefault(name, Row(name))
    row.tests.append(test)
    if not mark.kwargs:
        return
    status = mark.kwargs["status"]
    said = {**mark.kwargs, "status": status if isinstance(status, tuple) else (status,)}
    if row.where and said != {key: getattr(row, key) for key in said}:
        raise ValueError(f"two markers say different things of {name!r}")
    row.where, row.does, row.sees, row.status = said["where"], said["does"], said["sees"], said["status"]


def page(rows: Sequence[Row]) -> str:
    """docs/faults.md."""
    parts = [HEAD]
    for where, (title, text) in GROUPS.items():
        table = ["| fault | gpuaria | you see | status | proof |", "|---|---|---|---|---|"]
        table += [_line(row) for row in rows if row.where == where]
        parts.append("\n".join([f"\n## {title}\n", text, "", *table, ""]))
    return "".join([*parts, TAIL])


def _line(row: Row) -> str:
    status = " or ".join(map(str, row.status))
    does = " ".join([row.does, *(f"**Not so yet:** {reason}." for reason in row.not_yet)])
    cells = (row.name, does, row.sees, status, "<br>".join(_proofs(row.tests)))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _proofs(tests: Iterable[str]) -> list[str]:
    """`[test_x.py](../tests/test_x.py) name`, each once: a row of a parametrized test is that test."""
    named = dict.fromkeys(re.sub(r"\[.*", "", test) for test in tests)
    return [
        f"[{file.rpartition('/')[2]}](../tests/{file}) {function.removeprefix('test_').replace('_', ' ')}"
        for file, _, function in (test.removeprefix("tests/").partition("::") for test in named)
    ]


def test_the_page_is_what_the_markers_say() -> None:
    """In a process of its own: pytest collects once in each."""
    command = [sys.executable, "-m", "tests.unit.test_faults_doc", "--print"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PAGE.read_text(encoding="utf-8") == done.stdout, "run python -m tests.unit.test_faults_doc"


def test_every_status_is_one_of_the_documented() -> None:
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
