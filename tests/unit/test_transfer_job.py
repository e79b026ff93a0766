"""What a large file under way knows of itself, and what a run still tells."""

import threading
import time
from pathlib import Path

import pytest

from gpuaria.paths import SafePath
from gpuaria.records import Address, RemoteFile, Step, Verdict
from gpuaria.transfer.board import Board
from gpuaria.transfer.job import Job
from gpuaria.transfer.windows import PIECE, Window

SIZE = 64 * PIECE


@pytest.fixture
def job() -> Job:
    return Job(Step(RemoteFile(SafePath("w.bin"), SIZE, None, ""), "download", "", "aria2"))


@pytest.mark.parametrize(("life", "least"), [(3600.0, 2390.0), (30.0, 19.0), (-5.0, 0.5)])
def test_an_address_knows_when_to_be_renewed_however_it_came(job: Job, life: float, least: float) -> None:
    now = time.time()
    job.take(Address("late", "http://a/", now + life))
    assert now + least <= job.renew_at["late"] <= now + max(1.5, life)
    assert job.used == set(job.addresses) == {"late"}


@pytest.mark.parametrize(
    ("completed", "connections", "spare"),
    [(0, 32, True), (48 * PIECE, 16, False), (48 * PIECE, 15, True), (SIZE, 0, False), (SIZE - 10, 0, False)],
)
def test_a_piece_is_spare_when_no_connection_can_hold_it(
    job: Job, completed: int, connections: int, spare: bool
) -> None:
    job.row = [Window(0, SIZE, Path("x"), SIZE, completed=completed, gid="1", connections=connections)]
    job.connections = connections
    assert job.spare is spare
    job.row.append(Window(SIZE, 2 * SIZE, Path("y"), SIZE))
    assert job.spare


def test_a_thread_that_is_late_says_nothing_behind_the_last_word() -> None:
    said: list[object] = []
    board = Board(said.append, threading.Event(), set())
    file = RemoteFile(SafePath("a"), 1, None)
    board.settle(file, Verdict(file.path, "ok"))
    board.close()
    board.settle(file, Verdict(file.path, "failed"))
    assert len(said) == 1
    assert board.verdicts[file.path].outcome == "failed"
