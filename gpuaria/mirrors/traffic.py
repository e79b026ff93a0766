"""The bytes that come from each mirror, and the mirrors that hold a download up.

The kernel's counters of aria2's sockets are assigned to mirrors by the remote address.
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

SPAN = 1.5  # seconds over which the present speed is taken
GRACE = 4.0  # seconds in which a mirror may get up to speed
SILENT = 0.02  # of its usual speed: it has stalled
WEAK = 0.12  # of its usual speed: it holds pieces back
HEALTHY = 0.4  # of their usual speed is what the others must have: else the trouble is on our side
POOR = 0.002  # of what the others send: it holds pieces for longer than they would need for the whole
UNUSED = 3.0  # seconds without any connection after which aria2 has dropped it
MEMORY = 6.0  # seconds over which the usual speed is averaged

Endpoint = tuple[str, int]


def endpoints(routes: Routes, url: MirrorUrl) -> list[Endpoint]:
    """The numeric addresses at which aria2 may reach a URL; none behind a proxy or gpuaria's relay."""
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
    """`received` counts the bytes from each mirror since the start, headers and lost races included."""

    received: Counter[Mirror] = field(default_factory=Counter)
    _owner: dict[Endpoint, Mirror] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)

    def learn(self, mirror: Mirror, places: list[Endpoint]) -> None:
        """Record that `mirror` is reached at `places`. A place that two mirrors share stays with the first."""
        for place in places:
            self._owner.setdefault(place, mirror)

    def read(self, pid: int) -> dict[Mirror, int]:
        """Return the bytes by mirror since the last reading; empty where the kernel has no counters."""
        found = sockets.connections(pid) if pid else []
        came: Counter[Mirror] = Counter()
        for one in found:
            owner = self._owner.get(one.remote)
            if owner is not None:
                came[owner] += max(0, one.received - self._last.get(one.inode, 0))
        self._last = {one.inode: one.received for one in found}
        self.received.update(came)
        return dict(came)


def shares(came: int, weights: Mapping[Mirror, float]) -> dict[Mirror, int]:
    """Split `came` bytes over mirrors by weight, evenly where none is known; the parts add up to `came`."""
    if not weights:
        return {}
    total = sum(weights.values())
    ordered = sorted(weights, key=lambda mirror: (-weights[mirror], mirror.name))
    parts = {one: int(came * weights[one] / total) if total else came // len(ordered) for one in ordered}
    parts[ordered[0]] += came - sum(parts.values())
    return parts


@dataclass
class _Seen:
    since: float
    readings: deque[tuple[float, int]] = field(default_factory=deque)
    usual: float = 0.0
    most: int = 0
    present: float = 0.0
    weak_since: float | None = None
    without: float | None = None


@dataclass
class Judge:
    """Tells which mirrors should be dropped. Times are monotonic seconds, speeds bytes per second."""

    seen: dict[Mirror, _Seen] = field(default_factory=dict)

    def judge(self, now: float, received: Mapping[Mirror, int], connections: Mapping[Mirror, int]) -> dict[Mirror, str]:
        """Return the mirrors that should be dropped, with the reason, by the bytes that each has sent so far.

        A mirror is blamed only while the others do well, so the last one never is: aria2's own time-outs deal with it.
        """
        for mirror, count in received.items():
            self._read(now, mirror, count, connections.get(mirror, 0))
        bad = {mirror: reason for mirror in received if (reason := self._reason(now, mirror))}
        good = {mirror: seen for mirror, seen in self.seen.items() if mirror in received and mirror not in bad}
        usual = sum(seen.usual for seen in good.values())
        for mirror, seen in good.items():
            if seen.most and now - seen.since >= GRACE and seen.usual < POOR * usual:
                bad[mirror] = f"it sends {seen.usual / 1000:.0f} kB/s beside {usual / 1e6:.1f} MB/s"
        return bad if usual and sum(seen.present for seen in good.values()) >= HEALTHY * usual else {}

    def forget(self, mirror: Mirror) -> None:
        """Forget the readings of a mirror that was dropped or that came back."""
        self.seen.pop(mirror, None)

    def _read(self, now: float, mirror: Mirror, count: int, connections: int) -> None:
        seen = self.seen.setdefault(mirror, _Seen(now))
        seen.readings.append((now, count))
        while len(seen.readings) > 2 and now - seen.readings[1][0] >= SPAN:
            seen.readings.popleft()
        then, before = seen.readings[0]
        passed = now - then
        seen.present = max(0.0, (count - before) / passed) if passed > 0 else 0.0
        seen.most = max(seen.most, connections)
        seen.without = None if connections else seen.without or now
        expected = seen.usual * connections / seen.most if seen.most else 0.0
        weak = expected > 0 and seen.present < WEAK * expected and now - seen.since >= GRACE
        seen.weak_since = (seen.weak_since or now) if weak else None
        if not weak and len(seen.readings) > 2:
            step = now - seen.readings[-2][0]
            weight = min(1.0, step / MEMORY) if now - seen.since > GRACE else 1.0
            seen.usual += weight * (seen.present - seen.usual)

    def _reason(self, now: float, mirror: Mirror) -> str:
        seen = self.seen[mirror]
        if now - seen.since < GRACE:
            return ""
        if seen.without is not None:
            return "aria2 has dropped it" if now - seen.without >= UNUSED else ""
        if seen.usual <= 0:
            return "nothing came from it"
        if seen.weak_since is None:
            return ""
        if seen.present < SILENT * seen.usual:
            return "it stopped sending"
        fell = 100 * seen.present / seen.usual
        return f"it fell to {fell:.0f} % of its speed" if now - seen.weak_since >= 1.0 else ""
