"""One budget of time for work on many threads, and threads that never keep a process from ending.

concurrent.futures is not used: its threads are joined when the interpreter exits, and a look-up through the system's
resolver may hang for half a minute.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
GRACE = 0.2  # seconds that work with the same deadline gets to hand its partial results over


class Deadline:
    """A moment by which work has to be over. `seconds` from now; all times are seconds of `clock`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self._end - self.clock())

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return self.remaining() <= 0

    def within(self, seconds: float) -> "Deadline":
        """The earlier one of this deadline and `seconds` from now."""
        return Deadline(min(seconds, self.remaining()), self.clock)


class Job(Generic[T]):
    """A callable at work on a daemon thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most `seconds`."""
        return self._done.wait(seconds)

    def result(self, deadline: Deadline, grace: float = GRACE) -> T | None:
        """What the callable returned, None if it is not done `grace` seconds after the deadline.

        Raises what it raised.
        """
        self._done.wait(deadline.remaining() + grace)
        if self._error is not None and self._done.is_set():
            raise self._error
        return self._result[0] if self._done.is_set() else None


def run_all(callables: Sequence[Callable[[], T]], deadline: Deadline, grace: float = GRACE) -> list[T | None]:
    """Run all of them at once; their results in order, None for each that is not done in time."""
    jobs = [Job(work) for work in callables]
    return [job.result(deadline, grace) for job in jobs]
