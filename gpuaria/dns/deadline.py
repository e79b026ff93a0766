"""A deadline shared by several threads, and threads that never delay the exit of the process.

concurrent.futures does not fit: the interpreter joins its threads at exit, and a query to the system's resolver may
hang for half a minute.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
GRACE = 0.2  # seconds after the deadline for a thread to return partial results


class Deadline:
    """A point in time, `seconds` from now. All times are in seconds of `clock`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Return the seconds until the deadline, never negative."""
        return max(0.0, self._end - self.clock())

    @property
    def expired(self) -> bool:
        """True once the deadline has passed."""
        return self.remaining() <= 0

    def within(self, seconds: float) -> "Deadline":
        """Return the earlier of this deadline and `seconds` from now."""
        return Deadline(min(seconds, self.remaining()), self.clock)


class BackgroundCall(Generic[T]):
    """A callable that runs on its own daemon thread."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; return True once the callable has returned or raised."""
        return self._done.wait(seconds)

    def result(self, deadline: Deadline, grace: float = GRACE) -> T | None:
        """Return the callable's result, None if it still runs `grace` seconds after the deadline.

        Raises the callable's exception.
        """
        self._done.wait(deadline.remaining() + grace)
        if self._error is not None and self._done.is_set():
            raise self._error
        return self._result[0] if self._done.is_set() else None


def run_all(callables: Sequence[Callable[[], T]], deadline: Deadline, grace: float = GRACE) -> list[T | None]:
    """Run all callables in parallel; return their results in order, None for each that is late."""
    jobs = [BackgroundCall(work) for work in callables]
    return [job.result(deadline, grace) for job in jobs]
