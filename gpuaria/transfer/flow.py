"""Which mirror the bytes come from: the kernel's counters of aria2's sockets, told apart by who is at the other end."""

import contextlib
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuaria.aria2 import sockets
from gpuaria.http.route import Routes
from gpuaria.records import Address
from gpuaria.urls import server

Endpoint = tuple[str, int]


def endpoints(routes: Routes, address: Address) -> list[Endpoint]:
    """The numeric addresses at which aria2 may reach an address; none where a proxy or our relay stands between."""
    way = routes.route(address.url)
    if way.proxy or way.addresses:
        return []
    host, port = server(address.url)
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(str(entry[4][0]).partition("%")[0], port) for entry in found]
    return []


@dataclass
class Flow:
    """`received` counts the bytes from each mirror since the start, headers and lost races included."""

    received: Counter[str] = field(default_factory=Counter)
    _owner: dict[Endpoint, str] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)

    def learn(self, mirror: str, places: list[Endpoint]) -> None:
        """`mirror` is reached at `places`. A place that two mirrors share is one pipe and stays with the first."""
        for place in places:
            self._owner.setdefault(place, mirror)

    def read(self, pid: int) -> dict[str, int]:
        """Bytes by mirror since the last reading; empty where the kernel does not tell."""
        found = sockets.read(pid) if pid else []
        came: Counter[str] = Counter()
        for one in found:
            owner = self._owner.get(one.remote)
            if owner is not None:
                came[owner] += max(0, one.received - self._last.get(one.inode, 0))
        self._last = {one.inode: one.received for one in found}
        self.received.update(came)
        return dict(came)


def shares(came: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Split `came` bytes over mirrors by weight, evenly where none is known; the parts add up to `came`."""
    if not weights:
        return {}
    total = sum(weights.values())
    ordered = sorted(weights, key=lambda name: (-weights[name], name))
    parts = {name: int(came * weights[name] / total) if total else came // len(ordered) for name in ordered}
    parts[ordered[0]] += came - sum(parts.values())
    return parts
