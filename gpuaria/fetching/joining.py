"""Known mirrors that join a fetch because the origin is unavailable or slow (`mirrors: auto`)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from gpuaria import trust
from gpuaria.dns.resolvers import false_answer_of_system
from gpuaria.errors import NetworkError
from gpuaria.events import Warned
from gpuaria.fetching.request import World
from gpuaria.mirrors.candidates import JoinPolicy, host_of, joined_line
from gpuaria.records import Manifest, Mirror

_DNS_SECONDS = 1.0  # to find out whether the system's DNS gives a false address for the origin


@dataclass(frozen=True, slots=True)
class Joined:
    """Mirrors that join a fetch, and the reason; empty if none joins. `announced`: the warning was emitted."""

    mirrors: tuple[Mirror, ...] = ()
    because: str = ""
    announced: bool = False

    def __bool__(self) -> bool:
        return bool(self.mirrors)

    def announce(self, world: World) -> "Joined":
        """Emit one warning that names the mirrors and the reason, once."""
        if self.mirrors and not self.announced:
            world.emit(Warned(joined_line(self.mirrors, self.because)))
        return replace(self, announced=True)


class SlowOrigin:
    """Detect an origin that serves alone and delivers less than the setting `slow`, so that known mirrors join."""

    def __init__(self, world: World, manifest: Manifest, serving: Sequence[Mirror]) -> None:
        slow, limit = world.candidates.slow, world.bucket.rate
        serves_alone = list(serving) == [world.origin] and not manifest.restricted and world.candidates.possible
        self._world = world
        self._policy = JoinPolicy(host_of(world.origin.base), min(slow, limit // 2) if limit else slow)
        self._open = serves_alone and slow > 0

    def observe(self, delivered: int, needed: tuple[bool, bool], now: float) -> Joined:
        """Return the mirrors that join now, once per run; `needed`: see `Loop.needs_bytes`.

        `delivered`: bytes so far; `now`: monotonic seconds.
        """
        large, anything = needed
        if not self._open:
            return Joined()
        if not anything:
            self._policy.idle()
            return Joined()
        because = self._policy.delivered(delivered, now, large=large)
        if not because:
            return Joined()
        self._open = False
        return Joined(self._world.candidates.mirrors, because)


def mirrors_to_join(world: World, unavailable: trust.OriginUnavailable) -> Joined:
    """Return the known mirrors that join because the origin is unavailable.

    The result is empty if the origin responded or joining is forbidden.
    """
    policy = JoinPolicy(host_of(world.origin.base))
    because = unavailable.reason.message if unavailable.pending is not None else policy.failed(unavailable.reason)
    if not because or not world.candidates.mirrors:
        return Joined()
    if lie := _false_origin_address(world):
        because = policy.misled(lie)
    return Joined(world.candidates.mirrors, because)


def with_join_hint(world: World, error: NetworkError) -> NetworkError:
    """Return the error of an unavailable origin, with a hint why no known mirror joined if one is known."""
    if not JoinPolicy(host_of(world.origin.base)).failed(error) or not world.candidates.forbidden:
        return error
    again = copy.copy(error)
    again.hint = f"{error.hint} {_as_sentence(world.candidates.forbidden)}".strip()
    return again


def _as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _false_origin_address(world: World) -> str:
    base = world.origin.base
    return (
        "" if world.http.routes.proxied(base) else false_answer_of_system(urlsplit(base).hostname or "", _DNS_SECONDS)
    )
