"""Retry policy: decide from a response or an error whether to repeat a request, and after which pause."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gpuaria.errors import Interrupted, NetworkError, RateLimited
from gpuaria.http.messages import Response
from gpuaria.http.ratelimit import retry_after

RETRY_STATUS = frozenset([408, 425, 429, 500, 502, 503, 504])  # statuses that may be temporary
ATTEMPTS = 5
ERRORS = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Maximum number of tries: `attempts` while the status is in RETRY_STATUS, `errors` for temporary errors.

    `pause`: seconds after the first error, twice that after the second.
    """

    attempts: int = ATTEMPTS
    errors: int = ERRORS
    pause: float = 0.3

    def run(self, send: Callable[[], Response], waits: "Waits") -> Response:
        """Return the first response that needs no retry, or the last one. Raises NetworkError."""
        attempt = 0
        while True:
            attempt += 1
            try:
                response = send()
            except NetworkError as error:
                if attempt >= self.errors or error.retry != "later" or isinstance(error, RateLimited):
                    raise
                waits.pause(self.pause * attempt)
                continue
            if response.status not in RETRY_STATUS or attempt >= self.attempts:
                return response
            waits.back_off(response, attempt)


DEFAULT_RETRY = RetryPolicy()
RETRY_ONCE = RetryPolicy(attempts=1, errors=2, pause=0.0)  # for measurements: a busy mirror counts as busy


@dataclass
class Waits:
    """Pauses between requests, for several threads.

    `on_wait(reason, seconds)` is called once while several threads wait for the same reason. `max_wait`: the longest
    pause that a server may ask for, in seconds.
    """

    stop: threading.Event
    max_wait: float
    on_wait: Callable[[str, float], None]
    _until: dict[str, float] = field(default_factory=dict)  # reason -> end of the wait, in monotonic seconds
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pause(self, seconds: float, why: str = "") -> None:
        """Sleep; report `why` if the pause is long enough to notice. Raises Interrupted once `stop` is set."""
        now, news = time.monotonic(), False
        if why and seconds >= 1:
            with self._lock:
                news = self._until.get(why, 0.0) <= now
                self._until[why] = max(self._until.get(why, 0.0), now + seconds)
        if news:
            self.on_wait(why, seconds)
        if self.stop.wait(seconds):
            raise Interrupted("interrupted")

    def back_off(self, response: Response, attempt: int) -> None:
        """Sleep as long as a response asks, else 1, 2, 4, 8 s. Raises RateLimited for more than `max_wait`."""
        asked = retry_after(response.headers, time.time())
        seconds = asked if asked is not None else min(8.0, 2.0 ** (attempt - 1)) * random.uniform(0.7, 1.0)
        host = urlsplit(response.url).hostname
        if seconds > self.max_wait:
            raise RateLimited(
                f"{host} returned HTTP {response.status} and asks to wait {seconds:.0f} s, "
                f"longer than the waiting limit of {self.max_wait:.0f} s",
                "Try again later, raise --patience, or log in: a token raises the hub's quota.",
            )
        self.pause(seconds, f"{host} returned HTTP {response.status}")
