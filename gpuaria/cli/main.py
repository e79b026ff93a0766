"""The entry point: commands, signals, exit statuses."""

import _thread
import logging
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
from gpuaria.errors import DiskError, GpuariaError, Interrupted
from gpuaria.text import harmless


def run(argv: Sequence[str] | None = None) -> None:
    """`gpuaria ARGV`; ends the process with the status of docs/exit-status.md."""
    words = list(sys.argv[1:] if argv is None else argv)
    hide(secrets_in(words))
    streams.install()
    if words in (["--version"], ["-V"]):
        print(f"gpuaria {__version__}")
        _leave(_ended(0))
    stop = threading.Event()
    _catch_signals(stop)
    try:
        from gpuaria.cli import app

        status = app.main(words, stop)
    except Interrupted as error:  # before the command had begun
        complain(error)
        status = error.exit_code
    _leave(_ended(status))


def _leave(status: int) -> NoReturn:
    """End without taking every object and module apart, which takes 0.07 s: what has to be closed is closed by now."""
    sys.stderr.flush()
    if sys.getprofile() or sys.gettrace():  # which tell what they saw at the interpreter's end
        sys.exit(status)
    os._exit(status)


def _ended(status: int) -> int:
    """The exit status: one that could not write its result has not done well."""
    reason = streams.unwritten()
    if reason and status == 0:
        error = DiskError(f"cannot write to standard output: {reason}", "What was fetched is in place.")
        complain(error)
        return error.exit_code
    return status


def secrets_in(words: Sequence[str]) -> list[str]:
    """The values of --token and --rpc-secret."""
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
    """Where `secret` is a whole word of a command line, or all that follows the = of one."""
    at = 0
    for word in text.split(b"\0"):
        if word == secret or (word.startswith(b"--") and word.partition(b"=")[2] == secret):
            yield at + len(word) - len(secret)
        at += len(word) + 1


def complain(error: GpuariaError) -> None:
    """One sentence on stderr, and one that says what to do."""
    print(f"gpuaria: {harmless(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  {harmless(error.hint)}", file=sys.stderr)


def bug(error: Exception) -> int:
    """An error that nobody foresaw: one sentence, and the traceback for those who asked with -v. Returns 1."""
    if logging.getLogger("gpuaria").isEnabledFor(logging.DEBUG):
        logging.getLogger("gpuaria").debug("traceback", exc_info=error)
    print(f"gpuaria: a bug: {type(error).__name__}: {harmless(str(error))}", file=sys.stderr)
    print("  Please report it, with what -v prints.", file=sys.stderr)
    return GpuariaError.exit_code


def _catch_signals(stop: threading.Event) -> None:
    """The first signal ends the run in order, within two seconds; one that comes after that ends it at once."""
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first == 0.0:
            first = time.monotonic()
            _thread.start_new_thread(stop.set, ())  # here it could wait for a lock of `stop` that this thread holds
            raise Interrupted("interrupted", "Run the same command again to continue.")
        if time.monotonic() - first > 2.0:
            os._exit(Interrupted.exit_code)

    signal.signal(signal.SIGINT, handle)  # a script has it ignored in what it runs by `&`, and `kill -INT` is meant
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(getattr(signal, name), handle)
