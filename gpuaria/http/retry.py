"""When a request is repeated, and how long gpuaria waits before that: decided from the response, or the error."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gpuaria.errors import Interrupted, NetworkError, RateLimited
from gpuaria.http.messages import Response
from gpuaria.http.ratelimit import retry_after

RETRY_STATUS = frozenset([408, 425, 429, 500, 502, 503, 504])  # responses that a later request may not get
ATTEMPTS = 5
ERRORS = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is sent at most: for responses with a status of RETRY_STATUS, and for passing errors.

    `pause`: seconds after the first error, twice that after the second.
    """

    attempts: int = ATTEMPTS
    errors: int = ERRORS
    pause: float = 0.3

    def run(self, send: Callable[[], Response], waits: "Waits") -> Response:
        """Return the first response that does not call for a repetition, or the last one. Raises NetworkError."""
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
RETRY_ONCE = RetryPolicy(attempts=1, errors=2, pause=0.0)  # for measuring: a mirror that is busy now counts as busy


@dataclass
class Waits:
    """Pauses of many threads. `on_wait(reason, seconds)` is called once for a reason that several share at a time.

    `patience`: the longest pause that a server may ask for, in seconds.
    """

    stop: threading.Event
    max_wait: float
    on_wait: Callable[[str, float], None]
    _until: dict[str, float] = field(default_factory=dict)  # reason -> monotonic seconds until which a thread waits
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pause(self, seconds: float, why: str = "") -> None:
        """Sleep; report `why` where the pause is long enough to notice. Raises Interrupted when asked to stop."""
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
        """Sleep as long as a response asks for, or 1, 2, 4, 8 s. Raises RateLimited beyond the patience."""
        asked = retry_after(response.headers, time.time())
        seconds = asked if asked is not None else min(8.0, 2.0 ** (attempt - 1)) * random.uniform(0.7, 1.0)
        host = urlsplit(response.url).hostname
        if seconds > self.max_wait:
            raise RateLimited(
                f"{host} answers {response.status} and asks to wait {seconds:.0f} s, longer than the patience of "
                f"{self.max_wait:.0f} s",
                "Try again later, raise --patience, or log in: a token raises the hub's quota.",
            )
        self.pause(seconds, f"{host} answers {response.status}")
