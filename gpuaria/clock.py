"""Time as an object, so that tests can control it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """The time source of a run; all values are in seconds."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes back."""

    def time(self) -> float:
        """Return the seconds since 1970."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, for `seconds` at most; return whether it is set."""


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes back."""
        return time.monotonic()

    def time(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, for `seconds` at most; return whether it is set."""
        return event.wait(seconds)


SYSTEM: Clock = SystemClock()
