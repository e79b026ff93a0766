"""The entry point: commands, signals, exit statuses."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from gpuaria._version import __version__
from gpuaria.errors import GpuariaError, Interrupted


def run(argv: Sequence[str] | None = None) -> None:
    """`gpuaria ARGV`; ends the process with the status of docs/exit-status.md."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--version"], ["-V"]):
        print(f"gpuaria {__version__}")
        return
    from gpuaria.cli import app

    stop = threading.Event()
    _catch_signals(stop)
    try:
        status = app.main(words, stop)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.stdout.flush()
    sys.exit(status)


def complain(error: GpuariaError) -> None:
    """One sentence on stderr, and one that says what to do."""
    print(f"gpuaria: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def bug(error: Exception) -> int:
    """An error that nobody foresaw: one sentence, and the traceback for those who asked with -v. Returns 1."""
    if logging.getLogger("gpuaria").isEnabledFor(logging.DEBUG):
        logging.getLogger("gpuaria").debug("traceback", exc_info=error)
    print(f"gpuaria: a bug: {type(error).__name__}: {error}", file=sys.stderr)
    print("  Please report it, with what -v prints.", file=sys.stderr)
    return GpuariaError.exit_code


def _catch_signals(stop: threading.Event) -> None:
    """The first signal ends the run in order, within two seconds; one that comes after that ends it at once."""
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first == 0.0:
            first = time.monotonic()
            stop.set()
            raise Interrupted("interrupted", "Run the same command again to continue.")
        if time.monotonic() - first > 2.0:
            os._exit(Interrupted.exit_code)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(getattr(signal, name), handle)
