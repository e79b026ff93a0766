"""How often a hub may be asked, and how fast: the quotas that its answers tell, the pauses that they ask for, a limit.

The headers: `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers, `Retry-After` of RFC 9110.
"""

import email.utils
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpuaria.urls import url_origin

_NUMBER = r"(\d{1,9})(?!\d)"  # a longer number is not meant seriously, and may overflow a float


@dataclass
class _Bucket:
    remaining: int
    reset: float  # monotonic seconds
    quota: int = 0  # 0 where the hub does not say it
    window: float = 0.0  # seconds


@dataclass
class RateBudget:
    """Requests left in each quota of each hub: the last response's number, less the requests made since."""

    clock: Callable[[], float] = time.monotonic
    _buckets: dict[tuple[str, str], _Bucket] = field(default_factory=dict)
    _names: dict[str, Callable[[str], str]] = field(default_factory=dict)  # by the origin of a hub
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def declare(self, base: str, bucket: Callable[[str], str]) -> None:
        """Count requests to the server of `base` by the quota that `bucket` names for their URL."""
        with self._lock:
            self._names[url_origin(base)] = bucket

    def _bucket(self, url: str) -> _Bucket | None:
        """The quota that a request for `url` counts against; of a server that was not declared, its only one."""
        place = url_origin(url)
        if name := self._names.get(place):
            return self._buckets.get((place, name(url)))
        own = [bucket for (where, _), bucket in self._buckets.items() if where == place]
        return own[0] if len(own) == 1 else None

    def reserve(self, url: str) -> float:
        """0 if a request may go now, which counts it; else the seconds after which to ask again."""
        with self._lock:
            bucket, now = self._bucket(url), self.clock()
            if bucket is None:
                return 0.0
            if now >= bucket.reset:
                if not bucket.quota:
                    return 0.0
                # All who were held back ask again at once: no more of them may go than the new window allows.
                bucket.remaining, bucket.reset = bucket.quota, now + bucket.window + 1
            if bucket.remaining > 0:
                bucket.remaining -= 1
                return 0.0
            return bucket.reset - now

    def update(self, url: str, headers: Mapping[str, str]) -> None:
        """Take over what an answer says of its quota: `"api";r=12;t=55`."""
        match = re.search(rf'"([\w-]+)"\s*;\s*r={_NUMBER}\s*;\s*t={_NUMBER}', headers.get("ratelimit", ""))
        if not match:
            return
        name, remaining = match[1], int(match[2])
        policy = re.search(rf'"{name}"\s*;\s*q={_NUMBER}\s*;\s*w={_NUMBER}', headers.get("ratelimit-policy", ""))
        quota, window = (int(policy[1]), float(policy[2])) if policy else (0, 0.0)
        with self._lock:
            now = self.clock()
            reset = now + int(match[3]) + 1
            known = self._buckets.get((url_origin(url), name))
            if known and now < known.reset and reset < known.reset + 1.5:
                # The same window, told in whole seconds: what is left only shrinks, and answers overtake each other.
                remaining = min(remaining, known.remaining)
            self._buckets[url_origin(url), name] = _Bucket(remaining, reset, quota, window)

    def remaining(self, url: str) -> dict[str, int]:
        """Requests left by quota name at the hub of `url`, as far as it said so."""
        with self._lock:
            return {name: b.remaining for (where, name), b in self._buckets.items() if where == url_origin(url)}


class TokenBucket:
    """A speed limit in bytes per second that several clients share, on average; 0 is unlimited. Thread-safe.

    Unused bandwidth is not saved up: after an idle hour the limit still holds for the next second.
    """

    def __init__(self, rate: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._debt = 0.0  # bytes taken ahead of the limit, as of `_at`
        self._at = clock()  # seconds of the clock

    @property
    def rate(self) -> int:
        """The limit in bytes per second, 0 for none; a new value applies to every later `take`."""
        return self._rate

    @rate.setter
    def rate(self, rate: int) -> None:
        with self._lock:
            self._pay_off()
            self._rate = rate

    def charge(self, count: int) -> float:
        """Account for `count` received bytes; return how many seconds the caller must sleep before it reads more."""
        if not self._rate:
            return 0.0
        with self._lock:
            self._pay_off()
            if not self._rate:
                return 0.0
            self._debt += count
            return self._debt / self._rate

    def _pay_off(self) -> None:
        """Subtract from the debt what the limit allowed since the last call; without a limit there is no debt."""
        now = self._clock()
        self._debt = max(0.0, self._debt - self._rate * (now - self._at)) if self._rate else 0.0
        self._at = now


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an answer asks us to wait (RFC 9110 10.2.3: seconds or a date), None if it does not."""
    limit = re.search(r";\s*r=0\s*;\s*t=(\d{1,9})", headers.get("ratelimit", ""))
    if limit:
        return float(limit[1]) + 1
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now) if text else None
    except (ValueError, OverflowError, TypeError):
        return None
