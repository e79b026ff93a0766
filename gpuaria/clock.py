"""Time as an object, so that a test can set it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where a run gets its time from; all values are seconds."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""

    def time(self) -> float:
        """Seconds since 1970."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, for `seconds` at most; return whether it is set."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, for `seconds` at most; return whether it is set."""
        return event.wait(seconds)


SYSTEM: Clock = SystemClock()
