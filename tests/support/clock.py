"""A clock that stands still until the test advances it."""

import threading


class FakeClock:
    """A `gpuaria.clock.Clock` that starts at `now`. Calling it returns the time too."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return self.now

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return self.now

    def time(self) -> float:
        """Return the same number, as seconds since 1970."""
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Advance by `seconds` at once, unless the event is set."""
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Advance the clock; a negative number sets it back."""
        self.now += seconds
