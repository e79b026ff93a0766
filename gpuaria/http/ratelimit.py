"""Rate limits: request quotas reported by a hub, the pauses that it asks for, and a shared speed limit.

The headers: `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers, `Retry-After` of RFC 9110.
"""

import email.utils
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpuaria.urls import url_origin

_NUMBER = r"(\d{1,9})(?!\d)"  # reject longer numbers, which may overflow a float


@dataclass
class _Quota:
    remaining: int
    reset: float  # monotonic seconds
    quota: int = 0  # requests per window; 0 if the hub does not report it
    window: float = 0.0  # seconds


@dataclass
class RateBudget:
    """Requests left in each quota of each hub: the last reported number less the requests sent since."""

    clock: Callable[[], float] = time.monotonic
    _buckets: dict[tuple[str, str], _Quota] = field(default_factory=dict)
    _names: dict[str, Callable[[str], str]] = field(default_factory=dict)  # by the URL origin of a hub
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def declare(self, base: str, bucket: Callable[[str], str]) -> None:
        """Count requests to the server of `base` against the quota whose name `bucket` returns for a URL."""
        with self._lock:
            self._names[url_origin(base)] = bucket

    def _bucket(self, url: str) -> _Quota | None:
        """Return the quota that a request for `url` counts against; for an undeclared server, its only quota."""
        hub = url_origin(url)
        if name := self._names.get(hub):
            return self._buckets.get((hub, name(url)))
        quotas = [bucket for (server, _), bucket in self._buckets.items() if server == hub]
        return quotas[0] if len(quotas) == 1 else None

    def reserve(self, url: str) -> float:
        """Count a request and return 0 if the quota allows it now; otherwise return the seconds to wait."""
        with self._lock:
            bucket, now = self._bucket(url), self.clock()
            if bucket is None:
                return 0.0
            if now >= bucket.reset:
                if not bucket.quota:
                    return 0.0
                # All waiting requests return at once; allow only as many as the new window has.
                bucket.remaining, bucket.reset = bucket.quota, now + bucket.window + 1
            if bucket.remaining > 0:
                bucket.remaining -= 1
                return 0.0
            return bucket.reset - now

    def update(self, url: str, headers: Mapping[str, str]) -> None:
        """Store the quota that a response reports: `"api";r=12;t=55`."""
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
                # The same window, in whole seconds: the count only shrinks, but responses arrive out of order.
                remaining = min(remaining, known.remaining)
            self._buckets[url_origin(url), name] = _Quota(remaining, reset, quota, window)

    def remaining(self, url: str) -> dict[str, int]:
        """Return the requests left by quota name at the hub of `url`; empty if it reported none."""
        with self._lock:
            return {name: b.remaining for (server, name), b in self._buckets.items() if server == url_origin(url)}


class TokenBucket:
    """An average speed limit in bytes per second, shared by several clients; 0 is unlimited. Thread-safe.

    Unused bandwidth does not accumulate: after an idle hour the limit still holds for the next second.
    """

    def __init__(self, rate: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._debt = 0.0  # bytes taken ahead of the limit, as of `_at`
        self._at = clock()  # seconds of the clock

    @property
    def rate(self) -> int:
        """The limit in bytes per second, 0 for none; a new value applies from the next `charge`."""
        return self._rate

    @rate.setter
    def rate(self, rate: int) -> None:
        with self._lock:
            self._pay_off()
            self._rate = rate

    def charge(self, count: int) -> float:
        """Account for `count` received bytes; return the seconds that the caller must sleep before the next read."""
        if not self._rate:
            return 0.0
        with self._lock:
            self._pay_off()
            if not self._rate:
                return 0.0
            self._debt += count
            return self._debt / self._rate

    def _pay_off(self) -> None:
        """Reduce the debt by what the limit allowed since the last call; without a limit there is no debt."""
        now = self._clock()
        self._debt = max(0.0, self._debt - self._rate * (now - self._at)) if self._rate else 0.0
        self._at = now


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds to wait that a response asks for (RFC 9110 10.2.3), None if it asks for none."""
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
