"""Concurrent threads and processes that write to one history."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from gpuaria.mirrors.history import Experience, History
from gpuaria.records import Mirror

MIRROR = Mirror("m", "https://m.example")


def test_concurrent_threads_and_processes(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom gpuaria.mirrors.history import Experience, History\n"
        "from gpuaria.records import Mirror\n"
        "h = History(Path(sys.argv[1]), 'net')\n"
        "for _ in range(50): h.record_outcome(Mirror('m', 'https://m.example'), Experience('probe', 1e6))\n"
        "print(h.problem)"
    )
    history = History(tmp_path, "net")
    command = [sys.executable, "-c", code, str(tmp_path)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    def write() -> None:
        for _ in range(50):
            history.record_outcome(MIRROR, Experience("probe", 1e6))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.communicate(timeout=60)[0].strip() for other in others] == ["", "", ""]
    assert history.problem == ""
    with sqlite3.connect(tmp_path / "mirrors.sqlite3") as db:
        assert db.execute("SELECT count(*) FROM outcomes").fetchone()[0] == 350
