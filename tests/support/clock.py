"""The one clock that a test sets: it stands still until the test advances it."""

import threading


class FakeClock:
    """A `gpuaria.clock.Clock` that starts at `now`; called, it returns that too, for what takes a function."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The seconds since an arbitrary moment."""
        return self.now

    def monotonic(self) -> float:
        """The seconds since an arbitrary moment."""
        return self.now

    def time(self) -> float:
        """The same number, as seconds since 1970."""
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let `seconds` pass at once, unless the event is set."""
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass; a negative number sets the clock back."""
        self.now += seconds
