"""Exit status 130: signals at any moment of a run."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from standin import EmbeddedBytes, Hub, RateLimit, Repo
from tests.support.repos import contents, expected
from tests.support.user import GPUARIA, Serve, User, children, wait_until


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _downloading(hub: Hub, pid: int) -> bool:
    return bool(children(pid)) and sum(seen.sent for seen in hub.cdn.requests) > 3_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault(
    "stopped by Ctrl-C or SIGTERM",
    where="machine",
    does="Stops within two seconds, together with aria2c. The next run resumes.",
    sees="that the run was interrupted, and how to resume",
    status=130,
)
def test_130_interrupted_and_resumed(number: signal.Signals, user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big, limit_rate=1_000_000)
    run = user.start("fetch", "org/big", "-x", "4")
    wait_until(lambda: _downloading(hub, run.pid))
    daemons = children(run.pid)
    run.send_signal(number)
    out, err = run.communicate(timeout=2)
    assert (run.returncode, out) == (130, "")
    assert "interrupted" in err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    wait_until(lambda: not any(_alive(pid) for pid in daemons), 2)
    assert not list(user.temp.iterdir())
    hub.reset()
    assert isinstance(hub.cdn, EmbeddedBytes)
    hub.cdn.limit_rate = 0
    done = user.run("fetch", "org/big", "--json").ok()
    assert contents(Path(done.report["path"])) == expected(big)
    assert 0 < done.report["bytes_fetched"] < 7_500_000
    assert sum(seen.sent for seen in hub.cdn.requests) < 8_500_000


def test_130_while_the_hub_does_not_respond(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        run = user.start("fetch", "org/small", "--json", HF_ENDPOINT=endpoint)
        connection, _ = listener.accept()
        with connection:
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=2)
    assert run.returncode == 130
    assert "interrupted" in err
    assert '"exit_code": 130' in out.splitlines()[-1]


def test_130_in_the_background_of_a_script(user: User, serve: Serve, small: Repo) -> None:
    """A shell starts background jobs with SIGINT ignored, and `kill -INT` must still stop gpuaria."""
    serve(small, rate=RateLimit(api=0, window=100))
    run = user.spawn("sh", "-c", "trap '' INT; exec \"$@\"", "sh", *GPUARIA, "fetch", "org/small")
    assert run.stderr is not None
    assert "waiting up to" in run.stderr.readline()
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=10)
    assert run.returncode == 130
    assert "interrupted" in err


MIDST = """
import os, signal, threading
from gpuaria.cli.main import _catch_signals
from gpuaria.errors import Interrupted
stop = threading.Event()
_catch_signals(stop)
try:
    with stop._cond:  # what the first and the last moment of stop.wait() hold
        os.kill(os.getpid(), signal.SIGINT)
        stop.wait()
except Interrupted:
    print(stop.wait(30))
"""


def test_130_if_the_signal_arrives_just_before_a_wait(user: User) -> None:
    assert user.command(sys.executable, "-c", MIDST, timeout=30).ok().out == "True\n"


@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_other_ignored_signals_stay_ignored(name: str, user: User, serve: Serve, small: Repo) -> None:
    """As with nohup."""
    serve(small).fault("/revision/", status=429, headers={"Retry-After": "2"}, times=1)
    run = user.spawn("sh", "-c", f"trap '' {name}; exec \"$@\"", "sh", *GPUARIA, "fetch", "org/small")
    assert run.stderr is not None
    assert "waiting up to" in run.stderr.readline()
    run.send_signal(signal.Signals[f"SIG{name}"])
    run.communicate(timeout=30)
    assert run.returncode == 0


def test_130_during_a_quota_wait(user: User, serve: Serve, small: Repo) -> None:
    serve(small, rate=RateLimit(api=0, window=100))
    run = user.start("fetch", "org/small", "--patience", "10 min")
    assert run.stderr is not None
    assert "waiting up to" in run.stderr.readline()
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=2)
    assert run.returncode == 130
