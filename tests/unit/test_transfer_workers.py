"""Threads that end when they have nothing to do."""

from __future__ import annotations

import threading
import time

from gpuaria.transfer.workers import Workers
from tests.support.user import until


def alive(name: str) -> int:
    return sum(thread.name.startswith(f"{name}-") for thread in threading.enumerate())


def test_threads_end_when_there_is_nothing_to_do() -> None:
    """A program that fetches a thousand repos would have thousands of them."""
    done: list[int] = []
    workers = Workers("idle", 4, idle=0.05)
    for each in range(3):
        for number in range(40):
            workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        until(lambda: workers.pending == 0)
        assert len(done) == 40 * (each + 1)
        assert alive("idle") <= 4
        until(lambda: alive("idle") == 0)


def test_no_task_is_lost_while_threads_end() -> None:
    done: list[int] = []
    workers = Workers("ending", 2, idle=0.001)
    for number in range(300):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        time.sleep(0.001 * (number % 3))
    until(lambda: workers.pending == 0)
    assert sorted(done) == list(range(300))
