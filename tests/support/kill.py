"""SIGKILL at a chosen step."""

import os
import signal
import sys
from collections.abc import Callable

# Audit events that change a file system. Writes raise no event: a kill during a write equals one before the next step.
STEPS = {"open", "os.rename", "os.symlink", "os.link", "os.mkdir", "os.remove", "os.rmdir"}


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed just before its change number `step`. Return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, args: object) -> None:
            nonlocal count
            if event in STEPS:
                count += 1
                if count > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0
