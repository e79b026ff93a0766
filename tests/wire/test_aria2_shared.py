"""One real aria2c for all fetches of a process: started once, replaced after a crash, stopped at the end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuaria.aria2 import binary, daemon
from gpuaria.aria2.daemon import Daemon
from gpuaria.aria2.shared import RESTARTS, STEADY_SECONDS, SharedAria2
from gpuaria.errors import Aria2Error
from gpuaria.http.certificates import ca_file
from tests.support.clock import FakeClock
from tests.wire.test_aria2_daemon import children, eventually, running

pytestmark = pytest.mark.wire


class Starts:
    """Start this machine's aria2c and count the starts."""

    def __init__(self) -> None:
        self.daemons: list[Daemon] = []

    def __call__(self) -> Daemon:
        self.daemons.append(daemon.start(binary.find_binary(), ca_file()))
        return self.daemons[-1]


@pytest.fixture
def starts() -> Iterator[Starts]:
    before, threads = children(os.getpid()), set(threading.enumerate())
    counted = Starts()
    yield counted
    assert children(os.getpid()) == before
    assert set(threading.enumerate()) == threads


@pytest.fixture
def shared(starts: Starts) -> Iterator[SharedAria2]:
    it = SharedAria2(starts)
    yield it
    it.close()


def at_once(count: int, work: Callable[[], object]) -> list[object]:
    """Return the results of `work` on several threads that start together."""
    found: list[object] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait(20)
        found.append(work())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def die(victim: Daemon) -> None:
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: not victim.alive())


def test_aria2c_starts_once_when_first_needed(starts: Starts, shared: SharedAria2) -> None:
    assert starts.daemons == []
    shared.warm_up()
    shared.warm_up()
    found = at_once(6, shared.get)
    assert len(starts.daemons) == 1
    assert set(map(id, found)) == {id(starts.daemons[0])}
    assert starts.daemons[0].rpc.is_idle()


def test_a_crashed_aria2c_is_replaced_once(starts: Starts, shared: SharedAria2) -> None:
    first = shared.get()
    die(first)
    found = at_once(4, lambda: shared.replace(first))
    assert len(starts.daemons) == 2
    assert set(map(id, found)) == {id(starts.daemons[1])}
    assert shared.get().rpc.version()


def test_an_aria2c_that_always_crashes_is_an_error(starts: Starts, shared: SharedAria2) -> None:
    for _ in range(RESTARTS):
        dead = shared.get()
        die(dead)
        shared.replace(dead)
    dead = shared.get()
    die(dead)
    with pytest.raises(Aria2Error, match="aria2c died 4 times"):
        shared.replace(dead)
    with pytest.raises(Aria2Error, match="aria2c died"):
        shared.replace(dead)
    assert len(starts.daemons) == RESTARTS + 1


def test_occasional_crashes_are_always_recovered(starts: Starts) -> None:
    clock = FakeClock(0.0)
    shared = SharedAria2(starts, clock)
    for _ in range(RESTARTS + 2):
        dead = shared.get()
        die(dead)
        clock.advance(STEADY_SECONDS + 1)
        shared.replace(dead)
    shared.close()


def test_an_attached_aria2c_is_never_replaced(starts: Starts) -> None:
    visit = Daemon(starts().rpc, None, None)
    shared = SharedAria2(lambda: visit)
    with pytest.raises(Aria2Error, match="setting rpc"):
        shared.replace(shared.get())
    shared.close()
    assert starts.daemons[0].alive()
    starts.daemons[0].stop()


def test_close_stops_aria2c_even_during_its_start(starts: Starts) -> None:
    shared = SharedAria2(starts)
    shared.warm_up()
    shared.close()
    assert [one for one in starts.daemons if running(one.pid)] == []
    with pytest.raises(Aria2Error, match="closed"):
        shared.get()
    shared.close()


def test_close_lets_aria2c_save_its_progress(starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, ended = SharedAria2(starts), list[str]()
    own = shared.get()
    monkeypatch.setattr(own, "kill", lambda: ended.append("killed"))
    own.rpc._call("aria2.addUri", ["http://127.0.0.1:9/x"], {"dir": str(tmp_path), "pause": "true"})
    assert not own.rpc.is_idle()
    shared.close()
    assert ended == []


def test_a_start_error_is_raised_where_aria2c_is_needed() -> None:
    def fails() -> Daemon:
        raise Aria2Error("there is none")

    shared = SharedAria2(fails)
    shared.warm_up()
    with pytest.raises(Aria2Error, match="there is none"):
        shared.get()
    shared.close()
