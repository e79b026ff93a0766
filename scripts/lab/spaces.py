"""Enter a network namespace, read its interface counters, and kill its processes."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_RECEIVED, _SENT = 0, 8  # columns of /proc/net/dev, in bytes


@contextmanager
def inside(space: str) -> Iterator[None]:
    """Run this thread in a namespace. New threads and processes stay there. "" means the current namespace."""
    if not space:
        yield
        return
    with open("/proc/thread-self/ns/net") as home, open(f"/var/run/netns/{space}") as away:
        _enter(away.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns needs Python 3.12
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Counter:
    """Bytes that a network device in a namespace has sent (or received), headers included."""

    def __init__(self, space: str, device: str, *, received: bool = False) -> None:
        self._name, self._column = device.encode(), _RECEIVED if received else _SENT
        with inside(space):
            self._file = open("/proc/thread-self/net/dev", "rb", buffering=0)  # noqa: SIM115 the file stays bound to that namespace

    def read(self) -> int:
        """Return the current count."""
        self._file.seek(0)
        for line in self._file.read().splitlines():
            name, _, numbers = line.partition(b":")
            if name.strip() == self._name:
                return int(numbers.split()[self._column])
        raise RuntimeError(f"there is no {self._name.decode()}")

    def close(self) -> None:
        """Close the counter's file."""
        self._file.close()


def kill_all(space: str) -> None:
    """Kill all other processes in a namespace, such as those left by a killed program."""
    pids = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    for pid in {int(word) for word in pids.stdout.split()} - {os.getpid()}:
        if Path(f"/proc/{pid}").exists():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
