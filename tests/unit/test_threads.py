"""Worker threads end when they have no work."""

from __future__ import annotations

import threading
import time

from gpuaria.errors import NoSpace
from gpuaria.threads import Threads
from tests.support.user import wait_until


def alive(name: str) -> int:
    return sum(thread.name.startswith(f"{name}-") for thread in threading.enumerate())


def test_idle_threads_end() -> None:
    """Otherwise a program that fetches a thousand repos would have thousands of threads."""
    done: list[int] = []
    workers = Threads(threading.Event()).pool("idle", 4, idle=0.05)
    for each in range(3):
        for number in range(40):
            workers.submit(done.append, number)
        wait_until(lambda: workers.pending == 0)
        assert len(done) == 40 * (each + 1)
        assert alive("idle") <= 4
        wait_until(lambda: alive("idle") == 0)


def test_no_task_is_lost_while_threads_end() -> None:
    done: list[int] = []
    workers = Threads(threading.Event()).pool("ending", 2, idle=0.001)
    for number in range(300):
        workers.submit(done.append, number)
        time.sleep(0.001 * (number % 3))
    wait_until(lambda: workers.pending == 0)
    assert sorted(done) == list(range(300))


def test_an_error_in_a_thread_ends_the_run_with_its_message() -> None:
    threads, woken = Threads(threading.Event()), threading.Event()
    threads.on_error(woken.set)
    threads.pool("first", 1).submit(_raise, NoSpace("the disk is full"))
    assert woken.wait(5)
    assert threads.stop.is_set()
    threads.start("second", _raise, ValueError("a bug"))
    threads.close()
    assert threads.error is not None
    assert threads.error.message == "the disk is full"


def test_a_bug_in_a_thread_is_reported_with_the_thread_name() -> None:
    threads = Threads(threading.Event())
    threads.start("resolve", _raise, ValueError("none"))
    wait_until(lambda: threads.error is not None)
    assert "ValueError in resolve: none" in str(threads.error)


def test_close_joins_every_thread_and_drops_pending_tasks() -> None:
    done: list[int] = []
    threads, held = Threads(threading.Event()), threading.Event()
    pool = threads.pool("closing", 2)
    for number in range(5):
        pool.submit(_wait, held, done, number)
    threading.Timer(0.1, held.set).start()
    threads.close(5)
    assert sorted(done) == [0, 1]
    assert alive("closing") == 0


def _raise(error: Exception) -> None:
    raise error


def _wait(held: threading.Event, done: list[int], number: int) -> None:
    held.wait(5)
    done.append(number)
