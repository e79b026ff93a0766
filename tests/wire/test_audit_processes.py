"""Concurrent processes that append to one audit log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpuaria.audit.log import lines, rotated
from gpuaria.audit.record import dump
from tests.support.audit_lines import FILE, logged_sizes

WRITER = """
import sys
from pathlib import Path
from gpuaria.audit.log import AuditLog
from gpuaria.audit.record import dump, load
line = load(sys.argv[2])
import dataclasses
log = AuditLog(Path(sys.argv[1]), rotate_at=int(sys.argv[4]), keep=10_000)
for number in range(100):
    log.append(dump(dataclasses.replace(line, size=int(sys.argv[3]) + number, detail="x" * (number * 37 % 9000))))
log.close()
assert not log.problem, log.problem
"""


@pytest.mark.parametrize(("writers", "rotate_at"), [(2, 16 << 20), (8, 16 << 20), (8, 50_000)])
def test_concurrent_processes_lose_no_line(tmp_path: Path, writers: int, rotate_at: int) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path), dump(FILE)]
    started = [subprocess.Popen([*words, str(n * 100), str(rotate_at)]) for n in range(writers)]
    assert [one.wait(60) for one in started] == [0] * writers
    assert sorted(logged_sizes(tmp_path)) == list(range(100 * writers))
    assert len(list(lines(tmp_path))) == 100 * writers
    assert bool(rotated(tmp_path)) == (rotate_at < 1 << 20)
