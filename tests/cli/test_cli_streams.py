"""Output streams that are closed, full or unread, in a real shell."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from standin import Repo
from tests.support.repos import contents, expected
from tests.support.user import GPUARIA, Done, Serve, User

FETCH = "fetch org/small --to out"


def shell(user: User, line: str, **env: str) -> Done:
    """Run a line of bash in which `gpuaria` is the command; return gpuaria's status, even in a pipe."""
    function = f'gpuaria() {{ {shlex.join(map(str, GPUARIA))} "$@"; }}; set -o pipefail; '
    return user.command("bash", "-c", function + line, env=env)


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (f"gpuaria {FETCH} | head -0", 0, ""),
        (f"gpuaria {FETCH} --json | head -1", 0, ""),
        (f"gpuaria {FETCH} >/dev/full", 8, "standard output"),
        (f"gpuaria {FETCH} --json >/dev/full", 8, "standard output"),
        (f"gpuaria {FETCH} >&-", 0, ""),
        (f"gpuaria {FETCH} 2>&-", 0, ""),
        (f"gpuaria {FETCH} 2>/dev/full", 0, ""),
        (f"gpuaria {FETCH} <&-", 0, ""),
        (f"gpuaria {FETCH} >&- 2>&- <&-", 0, ""),
    ],
)
def test_a_fetch_continues_whatever_happens_to_its_output(
    user: User, serve: Serve, small: Repo, line: str, status: int, said: str
) -> None:
    serve(small)
    done = shell(user, line)
    assert done.status == status, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert "a bug" not in done.err + done.out
    assert contents(user.home / "out") == expected(small)


@pytest.mark.parametrize("words", ["--version", "config", "resolve org/small", "--help"])
def test_other_commands_report_broken_output(user: User, serve: Serve, small: Repo, words: str) -> None:
    serve(small)
    full = shell(user, f"gpuaria {words} > /dev/full")
    assert (full.status, "Traceback" in full.err) == (8, False), full.err
    assert "cannot write to standard output" in full.err
    assert shell(user, f"gpuaria {words} | head -0").status == 0
    assert shell(user, f"gpuaria {words} >&-").status == 0


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_names_are_printed_as_utf_8_in_any_locale(
    user: User, serve: Serve, tmp_path: Path, env: dict[str, str]
) -> None:
    serve(Repo.build("org/ü", {}, folder=tmp_path / "e"), Repo.build("org/u", {"ü.txt": b"1"}, folder=tmp_path / "u"))
    for words in ("resolve org/u", "fetch org/u --dry-run", "fetch org/u --to ä --json", "fetch org/u --to ö"):
        done = shell(user, f"gpuaria {words}", **env)
        assert done.status == 0, done.err
        assert {"ü", "ö"} & set(done.out)


def test_a_signal_before_the_command_starts_prints_no_traceback(user: User) -> None:
    for pause in (0.03, 0.06, 0.1, 0.15, 0.2):
        run = user.start("fetch", "org/none", HF_ENDPOINT="http://127.0.0.1:9")
        time.sleep(pause)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=10)
        assert "in run\n" not in err, err  # the interpreter's own start is not under our control
        assert "a bug" not in err


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_without_cursor_control_gets_lines(user: User, serve: Serve, small: Repo, term: str) -> None:
    serve(small)
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [*GPUARIA, *FETCH.split()], env=user.environ(TERM=term), cwd=user.home, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the other end was closed
        pass
    assert run.wait(20) == 0
    assert b"\x1b" not in seen
    assert b"downloading 4 of 4" in seen or b"files" in seen
