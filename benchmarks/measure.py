"""Measurement of one program: time, CPU, memory, and the bytes that the hosts sent meanwhile."""

import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records import Samples, arrived
from lab import Counter

_TICK = os.sysconf("SC_CLK_TCK")
_EVERY = 0.1  # seconds between two readings of a program's memory


@dataclass(frozen=True)
class Usage:
    """Seconds of wall clock and CPU, bytes of memory. `status` is negative for a signal; `late`: it was stopped.

    `rss`: the peak of the program itself, 0 if it ended before the first reading.
    """

    seconds: float
    status: int
    own_cpu: float
    tree_cpu: float
    rss: int
    late: bool = False


class Process:
    """A running program in its own session, with its output in a file."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], folder: Path, output: Path) -> None:
        with output.open("wb") as out:
            self.began = time.monotonic()
            self._process = subprocess.Popen(
                words,
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def kill(self) -> None:
        """Send SIGKILL to this process, not to its children."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> Usage:
        """Wait for the end and return the usage; stop the program after `seconds` or on an interrupt."""
        descriptor, until, rss = os.pidfd_open(self.pid), time.monotonic() + seconds, 0
        try:
            left, ready = seconds, False
            while not ready and left >= 0:
                ready = bool(select.select([descriptor], [], [], min(left, _EVERY))[0])
                rss, left = max(rss, self._memory()), until - time.monotonic()
            took = time.monotonic() - self.began
            if not ready:
                self._end(descriptor)
        except BaseException:
            self._end(descriptor)
            self._process.wait()
            raise
        finally:
            os.close(descriptor)
        # The process is not reaped yet, so its own time is still separate from that of its children.
        numbers = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system, children_user, children_system = (int(word) / _TICK for word in numbers[11:15])
        _, status = os.waitpid(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        own = user + system
        tree = own + children_user + children_system
        return Usage(took, self._process.returncode, own, tree, rss, late=not ready)

    def _memory(self) -> int:
        """Return the peak memory so far. Linux's ru_maxrss would include this process, which started the program."""
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def _end(self, descriptor: int) -> None:
        """Send SIGTERM, then SIGKILL. On SIGTERM gpuaria stops its aria2c, which runs in its own session."""
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return
            if select.select([descriptor], [], [], patience)[0]:
                return


class Watch:
    """Reads counters in the background until the `with` block ends."""

    def __init__(self, counters: Mapping[str, Counter], every: float = 0.1) -> None:
        self.samples: Samples = []
        self._counters, self._every = counters, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Watch":
        self.began = time.monotonic()
        self._start = {name: counter.read() for name, counter in self._counters.items()}
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def arrived(self) -> int:
        """Return the bytes that reached the client up to the last reading."""
        return arrived(self.samples[-1][1]) if self.samples else 0

    def _read(self) -> None:
        while True:
            over = self._over.wait(self._every)
            sent = {name: counter.read() - self._start[name] for name, counter in self._counters.items()}
            self.samples.append((round(time.monotonic() - self.began, 4), sent))
            if over:
                return
