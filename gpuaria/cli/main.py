"""The entry point: hides secrets, installs streams and signal handlers, ends the process with an exit status."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import FrameType
from typing import NoReturn

from gpuaria._version import __version__
from gpuaria.cli import streams
from gpuaria.cli.output.errors import complain
from gpuaria.errors import DiskError, Interrupted


def run(argv: Sequence[str] | None = None) -> None:
    """Run `gpuaria ARGV` and end the process with a status of docs/exit-status.md."""
    words = list(sys.argv[1:] if argv is None else argv)
    hide(secrets_in(words))
    streams.install()
    if words in (["--version"], ["-V"]):
        print(f"gpuaria {__version__}")
        _leave(_ended(0))
    stop = threading.Event()
    _catch_signals(stop)
    try:
        from gpuaria.cli import dispatch  # typer takes a while to import: --version and a signal do not wait for it

        status = dispatch.main(words, stop)
    except Interrupted as error:  # before the command had begun
        complain(error)
        status = error.exit_code
    _leave(_ended(status))


def _leave(status: int) -> NoReturn:
    """End the process without the interpreter's clean-up, which takes 0.07 s; every file is closed by now."""
    sys.stderr.flush()
    if sys.getprofile() or sys.gettrace():  # profilers and coverage report at the interpreter's end
        sys.exit(status)
    os._exit(status)


def _ended(status: int) -> int:
    """Return the exit status; a run that could not write its result to stdout has failed."""
    reason = streams.unwritten()
    if reason and status == 0:
        error = DiskError(f"cannot write to standard output: {reason}", "What was fetched is in place.")
        complain(error)
        return error.exit_code
    return status


def secrets_in(words: Sequence[str]) -> list[str]:
    """Return the values of --token and --rpc-secret."""
    found = [after for word, after in pairwise(words) if word in _SECRET]
    return [*found, *(word.partition("=")[2] for word in words if word.partition("=")[0] in _SECRET and "=" in word)]


_SECRET = ("--token", "--rpc-secret")


def hide(secrets: Sequence[str]) -> None:
    """Overwrite these words of our own command line where `ps` and /proc/PID/cmdline read them (Linux; else nothing).

    proc_pid_stat(5): fields 48 and 49 are the addresses where the kernel reads it.
    """
    wanted = {os.fsencode(secret) for secret in secrets if secret}
    if not wanted or not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/stat", "rb") as stat:
            start, end = map(int, stat.read().rpartition(b")")[2].split()[45:47])
        with open("/proc/self/cmdline", "rb") as line:
            text = line.read()
        if not start or end - start != len(text):
            return
        import ctypes

        for secret in wanted:
            for at in _places(text, secret):
                ctypes.memset(start + at, ord("*"), len(secret))
    except (OSError, ValueError, ImportError):
        return


def _places(text: bytes, secret: bytes) -> Iterator[int]:
    """Yield the offsets at which `secret` is a whole word of a command line, or all that follows the = of one."""
    at = 0
    for word in text.split(b"\0"):
        if word == secret or (word.startswith(b"--") and word.partition(b"=")[2] == secret):
            yield at + len(word) - len(secret)
        at += len(word) + 1


def _catch_signals(stop: threading.Event) -> None:
    """Let the first signal shut the run down cleanly within two seconds, and a signal after that end it at once."""
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first == 0.0:
            first = time.monotonic()
            _thread.start_new_thread(stop.set, ())  # this thread may hold the lock of `stop`
            raise Interrupted("interrupted", "Run the same command again to continue.")
        if time.monotonic() - first > 2.0:
            os._exit(Interrupted.exit_code)

    signal.signal(signal.SIGINT, handle)  # a script ignores it for `command &`, but `kill -INT` is meant
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(getattr(signal, name), handle)
