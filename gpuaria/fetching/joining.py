"""A fetch whose origin is away: known mirrors join (`mirrors: auto`), and mirrors list the repo."""

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

_DNS = 1.0  # seconds for finding out whether the origin's address is false


@dataclass(frozen=True, slots=True)
class Joined:
    """Mirrors that join a fetch, and why; no mirrors where none joins. `said`: the user knows."""

    mirrors: tuple[Mirror, ...] = ()
    because: str = ""
    said: bool = False

    def __bool__(self) -> bool:
        return bool(self.mirrors)

    def say(self, world: World) -> "Joined":
        """Emit the one line about it, once."""
        if self.mirrors and not self.said:
            world.emit(Warned(joined_line(self.mirrors, self.because)))
        return replace(self, said=True)


class SlowOrigin:
    """Lets known mirrors join while the origin, which serves alone, delivers less than the setting `slow`."""

    def __init__(self, world: World, manifest: Manifest, serving: Sequence[Mirror]) -> None:
        slow, limit = world.candidates.slow, world.bucket.rate
        alone = list(serving) == [world.origin] and not manifest.restricted and world.candidates.possible
        self._world = world
        self._policy = JoinPolicy(host_of(world.origin.base), min(slow, limit // 2) if limit else slow)
        self._open = alone and slow > 0

    def observe(self, delivered: int, owed: tuple[bool, bool], now: float) -> Joined:
        """Return the mirrors that join now, once per run; `delivered`: bytes so far, `owed`: see `Loop.owed`."""
        large, anything = owed
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


def joining(world: World, away: trust.Away) -> Joined:
    """The known mirrors that join because the origin is away; none where it answered, or where they are forbidden."""
    policy = JoinPolicy(host_of(world.origin.base))
    because = away.reason.message if away.open is not None else policy.failed(away.reason)
    if not because or not world.candidates.mirrors:
        return Joined()
    if lie := _false_address(world):
        because = policy.misled(lie)
    return Joined(world.candidates.mirrors, because)


def explained(world: World, error: NetworkError) -> NetworkError:
    """The error of an origin that is away; its hint says why no known mirror joined, where one is known."""
    if not JoinPolicy(host_of(world.origin.base)).failed(error) or not world.candidates.forbidden:
        return error
    again = copy.copy(error)
    again.hint = f"{error.hint} {_sentence(world.candidates.forbidden)}".strip()
    return again


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _false_address(world: World) -> str:
    base = world.origin.base
    return "" if world.http.routes.proxied(base) else false_answer_of_system(urlsplit(base).hostname or "", _DNS)
