"""Threads that come with the work and go without it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import gpuaria
from gpuaria.events import Event, Progress
from gpuaria.transfer.workers import Workers
from standin import Repo
from tests.support.user import Serve, User, until


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


def test_an_error_of_the_listener_ends_all_requests(user: User, serve: Serve, tmp_path: Path) -> None:
    """Ctrl-C in a program of one's own: what is at work in other threads must not go on fetching."""
    hub = serve(Repo.build("org/many", {f"{n}.txt": b"%d" % n for n in range(100)}, folder=tmp_path, direct=True))
    hub.fault("/resolve", delay=0.5)

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpuaria.fetch("org/many", to=user.home / "out", environ=user.environ(), emit=emit, small_jobs=8)
    asked = hub.count()
    time.sleep(2)
    assert hub.count() <= asked + 8
