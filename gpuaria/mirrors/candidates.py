"""Known mirrors that are not in use yet: rules for when they join a fetch (`mirrors: auto`), and in which order."""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from urllib.parse import urlsplit

from gpuaria.errors import Blocked, GpuariaError, NotAHub, Unreachable
from gpuaria.mirrors.location import Location, distance, own_place, place_named
from gpuaria.records import Mirror
from gpuaria.settings import Settings, describe
from gpuaria.settings.known import SHIPPED, SOURCE, shipped

SILENCE = 3.0  # seconds without any response after which the origin counts as silent
SLOW_FOR = 10.0  # seconds below the setting `slow` after which the origin counts as slow


class JoinPolicy:
    """Rules for when known mirrors join because of the origin; each method returns the reason, or "". Pure.

    `host`: the origin's host, for the reason. `slow`: bytes per second, 0 if slowness is not a reason.
    """

    def __init__(self, host: str, slow: int = 0) -> None:
        self._host, self._slow = host, slow
        self._samples: deque[tuple[float, int]] = deque()  # (monotonic seconds, bytes delivered so far)

    def silent(self, seconds: float) -> str:
        """Return the reason to join if the origin has sent no response for `seconds`."""
        return f"{self._host} does not respond within {SILENCE:.0f} s" if seconds >= SILENCE else ""

    def misled(self, lie: str) -> str:
        """Return the reason to join if DNS gives a false address for the origin; `lie`: why it is false."""
        return f"DNS gives a false address for {self._host} ({lie})"

    def failed(self, error: GpuariaError) -> str:
        """Return the reason to join after a request to the origin that ended with `error`, if there is one.

        A refusal by the hub itself (404, 401, a rate limit, 5xx) is a response, and not a reason.
        """
        if not isinstance(error, Unreachable | NotAHub):
            return ""
        return f"{self._host} is blocked ({error.message})" if isinstance(error, Blocked) else error.message

    def delivered(self, total: int, now: float, *, large: bool = True) -> str:
        """Return the reason to join, if any, given `total` bytes from the origin at `now` (monotonic seconds).

        Called a few times per second; call `idle` instead while the origin has nothing to deliver. `large`: large files
        are being downloaded. Small files give no meaningful speed, so without large ones only silence counts as slow.
        """
        self._samples.append((now, total))
        while len(self._samples) > 1 and self._samples[1][0] <= now - SLOW_FOR:
            self._samples.popleft()
        began, before = self._samples[0]
        least = self._slow * (now - began) if large else 1
        if not self._slow or now - began < SLOW_FOR or total - before >= least:
            return ""
        rate = (total - before) / (now - began)
        return f"{self._host} delivers {rate / 1e6:.2f} MB/s, less than {self._slow / 1e6:g} MB/s, for {SLOW_FOR:.0f} s"

    def idle(self) -> None:
        """Restart the measurement: the origin has nothing to deliver."""
        self._samples.clear()


class Candidates:
    """Mirrors that may join a run with these settings. The shipped table is loaded on demand.

    `credential`: a token would be sent to the endpoint, so the repo may be private and its name confidential. `source`:
    known mirrors belong to one source and join no other.
    """

    def __init__(
        self, settings: Settings, *, credential: bool, source: str = SOURCE, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._settings, self._credential, self._environ = settings, credential, environ
        self._auto = settings.auto and source == SOURCE

    @property
    def slow(self) -> int:
        """The setting `slow`: bytes per second."""
        return self._settings.slow if self._auto else 0

    @property
    def possible(self) -> bool:
        """True if mirrors may join, as far as the settings tell without the table."""
        return self._auto and not self._credential

    @property
    def forbidden(self) -> str:
        """The reason why no mirror may join although the setting allows it; empty if one may."""
        if not self._auto:
            return ""
        if self._credential:
            return "gpuaria adds no mirrors while a token is set, since the repo may be private"
        return "" if self.mirrors else "gpuaria knows no mirror of this endpoint; add one with --mirror"

    @cached_property
    def mirrors(self) -> tuple[Mirror, ...]:
        """The mirrors that may join, the nearest first. Shipped mirrors replace public hubs only.

        Repo names of a private endpoint must not reach the operators of shipped mirrors.
        """
        s = self._settings
        if not self.possible:
            return ()
        public = s.endpoint in _public_hubs()
        rows = [row for row in s.candidates() if row.base != s.endpoint and (public or row.layer != SHIPPED)]
        found = [Mirror(row.name, row.base, location=row.location) for row in rows]
        return nearest_first(found, own_place(s.location, self._environ)) if len(found) > 1 else tuple(found)


def nearest_first(mirrors: Sequence[Mirror], own_location: Location) -> tuple[Mirror, ...]:
    """Return the mirrors by distance from `own_location`, stable for equal distances. Pure."""
    return tuple(sorted(mirrors, key=lambda mirror: distance(own_location, place_named(mirror.location))))


def may_join(mirrors: Sequence[Mirror]) -> str:
    """Return one line about mirrors that a fetch uses only if needed."""
    return f"used only if the hub fails or is slow (mirrors: auto): {', '.join(m.name for m in mirrors)}"


def joined_line(mirrors: Sequence[Mirror], because: str) -> str:
    """Return one line for the user: the mirrors that join, the reason, and the setting that controls it."""
    names = " and ".join(mirror.name for mirror in mirrors)
    verb = "join" if len(mirrors) > 1 else "joins"
    return f"{because}; {names} {verb} (mirrors: auto; set mirrors to none or a list to change this)"


def host_of(base: str) -> str:
    """Return the host of a mirror's base URL, with the port if the URL has one."""
    return urlsplit(base).netloc


def _public_hubs() -> set[str]:
    default = next(key.default for key in describe() if key.name == "endpoint")
    return {default, *(row.base for row in shipped().values())}
