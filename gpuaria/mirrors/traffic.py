"""Bytes received from each mirror, and detection of mirrors that hold up a download.

The kernel's counters of aria2's sockets are assigned to mirrors by remote address.
"""

import contextlib
import socket
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuaria.aria2 import sockets
from gpuaria.http.route import Routes
from gpuaria.records import Mirror, MirrorUrl
from gpuaria.urls import host_and_port

SPAN = 1.5  # seconds over which the current speed is measured
GRACE = 4.0  # seconds for a mirror to reach its speed
SILENT = 0.02  # share of its usual speed below which a mirror has stalled
WEAK = 0.12  # share of its usual speed below which a mirror holds pieces back
HEALTHY = 0.4  # share of their usual speed that the other mirrors must reach, else the local link is at fault
POOR = 0.002  # share of the others' speed below which a mirror holds a piece longer than they need for the file
UNCONNECTED = 3.0  # seconds without a connection after which aria2 has dropped a mirror
AVERAGING = 6.0  # seconds over which the usual speed is averaged

SocketAddress = tuple[str, int]


def socket_addresses(routes: Routes, url: MirrorUrl) -> list[SocketAddress]:
    """Return the numeric addresses at which aria2 may reach a URL; empty behind a proxy or gpuaria's relay."""
    route = routes.route(url.url)
    if route.proxy or route.addresses:
        return []
    host, port = host_and_port(url.url)
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(str(entry[4][0]).partition("%")[0], port) for entry in found]
    return []


@dataclass
class Traffic:
    """Bytes received from each mirror since the start, including headers and bytes of cancelled connections."""

    received: Counter[Mirror] = field(default_factory=Counter)
    _owner: dict[SocketAddress, Mirror] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)

    def register_endpoints(self, mirror: Mirror, addresses: list[SocketAddress]) -> None:
        """Assign socket addresses to `mirror`. An address that two mirrors share stays with the first."""
        for address in addresses:
            self._owner.setdefault(address, mirror)

    def read(self, pid: int) -> dict[Mirror, int]:
        """Return the bytes by mirror since the last reading; empty if the kernel has no counters."""
        found = sockets.connections(pid) if pid else []
        received_now: Counter[Mirror] = Counter()
        for one in found:
            owner = self._owner.get(one.remote)
            if owner is not None:
                received_now[owner] += max(0, one.received - self._last.get(one.inode, 0))
        self._last = {one.inode: one.received for one in found}
        self.received.update(received_now)
        return dict(received_now)


def shares(count: int, weights: Mapping[Mirror, float]) -> dict[Mirror, int]:
    """Split `count` bytes over mirrors by weight, evenly if all weights are 0. The parts add up to `count`."""
    if not weights:
        return {}
    total = sum(weights.values())
    ordered = sorted(weights, key=lambda mirror: (-weights[mirror], mirror.name))
    parts = {one: int(count * weights[one] / total) if total else count // len(ordered) for one in ordered}
    parts[ordered[0]] += count - sum(parts.values())
    return parts


@dataclass
class _Speed:
    since: float
    readings: deque[tuple[float, int]] = field(default_factory=deque)
    usual: float = 0.0
    most_connections: int = 0
    current: float = 0.0
    weak_since: float | None = None
    unconnected_since: float | None = None


@dataclass
class StallDetector:
    """Detects mirrors that should be dropped. Times are monotonic seconds, speeds bytes per second."""

    _speeds: dict[Mirror, _Speed] = field(default_factory=dict)

    def find_stalled(
        self, now: float, received: Mapping[Mirror, int], connections: Mapping[Mirror, int]
    ) -> dict[Mirror, str]:
        """Return the mirrors to drop, with reasons, from the bytes that each has sent so far.

        A mirror is dropped only while the others do well, so the last one never is: aria2's own time-outs handle that
        case.
        """
        for mirror, count in received.items():
            self._update(now, mirror, count, connections.get(mirror, 0))
        bad = {mirror: reason for mirror in received if (reason := self._reason(now, mirror))}
        good = {mirror: speed for mirror, speed in self._speeds.items() if mirror in received and mirror not in bad}
        usual = sum(speed.usual for speed in good.values())
        for mirror, speed in good.items():
            if speed.most_connections and now - speed.since >= GRACE and speed.usual < POOR * usual:
                bad[mirror] = (
                    f"too slow: {speed.usual / 1000:.0f} kB/s while the other mirrors deliver {usual / 1e6:.1f} MB/s"
                )
        return bad if usual and sum(speed.current for speed in good.values()) >= HEALTHY * usual else {}

    def forget(self, mirror: Mirror) -> None:
        """Discard the readings of a mirror that was dropped or has recovered."""
        self._speeds.pop(mirror, None)

    def _update(self, now: float, mirror: Mirror, count: int, connections: int) -> None:
        speed = self._speeds.setdefault(mirror, _Speed(now))
        speed.readings.append((now, count))
        while len(speed.readings) > 2 and now - speed.readings[1][0] >= SPAN:
            speed.readings.popleft()
        then, before = speed.readings[0]
        passed = now - then
        speed.current = max(0.0, (count - before) / passed) if passed > 0 else 0.0
        speed.most_connections = max(speed.most_connections, connections)
        speed.unconnected_since = None if connections else speed.unconnected_since or now
        expected = speed.usual * connections / speed.most_connections if speed.most_connections else 0.0
        weak = expected > 0 and speed.current < WEAK * expected and now - speed.since >= GRACE
        speed.weak_since = (speed.weak_since or now) if weak else None
        if not weak and len(speed.readings) > 2:
            step = now - speed.readings[-2][0]
            weight = min(1.0, step / AVERAGING) if now - speed.since > GRACE else 1.0
            speed.usual += weight * (speed.current - speed.usual)

    def _reason(self, now: float, mirror: Mirror) -> str:
        speed = self._speeds[mirror]
        if now - speed.since < GRACE:
            return ""
        if speed.unconnected_since is not None:
            return "aria2 stopped using it" if now - speed.unconnected_since >= UNCONNECTED else ""
        if speed.usual <= 0:
            return "it delivered no data"
        if speed.weak_since is None:
            return ""
        if speed.current < SILENT * speed.usual:
            return "it stopped sending"
        fell = 100 * speed.current / speed.usual
        return f"its speed fell to {fell:.0f} %" if now - speed.weak_since >= 1.0 else ""
