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
from gpuaria.cli.output.errors import print_error
from gpuaria.errors import DiskError, Interrupted


def run(argv: Sequence[str] | None = None) -> None:
    """Run `gpuaria ARGV` and end the process with a status of docs/exit-status.md."""
    words = list(sys.argv[1:] if argv is None else argv)
    hide_arguments(secrets_in(words))
    streams.install()
    if words in (["--version"], ["-V"]):
        print(f"gpuaria {__version__}")
        _leave(_ended(0))
    stop = threading.Event()
    _catch_signals(stop)
    try:
        from gpuaria.cli import dispatch  # typer is slow to import: --version and signals must not wait for it

        status = dispatch.main(words, stop)
    except Interrupted as error:  # a signal arrived before the command began
        print_error(error)
        status = error.exit_code
    _leave(_ended(status))


def _leave(status: int) -> NoReturn:
    """End the process without the interpreter's clean-up, which takes 0.07 s; all files are closed already."""
    sys.stderr.flush()
    if sys.getprofile() or sys.gettrace():  # profilers and coverage report at the interpreter's exit
        sys.exit(status)
    os._exit(status)


def _ended(status: int) -> int:
    """Return the exit status: 8 instead of 0 if the result could not be written to stdout."""
    reason = streams.write_failure()
    if reason and status == 0:
        error = DiskError(f"cannot write to standard output: {reason}", "Downloaded files are in place.")
        print_error(error)
        return error.exit_code
    return status


def secrets_in(words: Sequence[str]) -> list[str]:
    """Return the values of --token and --rpc-secret."""
    found = [after for word, after in pairwise(words) if word in _SECRET]
    return [*found, *(word.partition("=")[2] for word in words if word.partition("=")[0] in _SECRET and "=" in word)]


_SECRET = ("--token", "--rpc-secret")


def hide_arguments(secrets: Sequence[str]) -> None:
    """Overwrite these arguments of this process, so that `ps` and /proc/PID/cmdline do not show them (Linux only).

    proc_pid_stat(5): fields 48 and 49 are the memory addresses of the command line.
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
            for at in _offsets(text, secret):
                ctypes.memset(start + at, ord("*"), len(secret))
    except (OSError, ValueError, ImportError):
        return


def _offsets(text: bytes, secret: bytes) -> Iterator[int]:
    """Yield the offsets of `secret` in a command line, as a whole argument or as the value after an option's =."""
    at = 0
    for word in text.split(b"\0"):
        if word == secret or (word.startswith(b"--") and word.partition(b"=")[2] == secret):
            yield at + len(word) - len(secret)
        at += len(word) + 1


def _catch_signals(stop: threading.Event) -> None:
    """Shut down cleanly at the first signal; a signal more than two seconds later ends the process at once."""
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first == 0.0:
            first = time.monotonic()
            _thread.start_new_thread(stop.set, ())  # this thread may hold the lock of `stop`
            raise Interrupted("interrupted", "Run the same command again to continue.")
        if time.monotonic() - first > 2.0:
            os._exit(Interrupted.exit_code)

    signal.signal(signal.SIGINT, handle)  # shells ignore SIGINT for `command &`, but `kill -INT` must work
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # keep what nohup has set
            signal.signal(getattr(signal, name), handle)
