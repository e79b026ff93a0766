"""ICMP echo (RFC 792, RFC 4443) by icmplib: raw sockets if permitted, else the kernel's ping sockets.

A hint only: if the system forbids it, the state is "not measured", and a good host may ignore pings. Four pings tell a
loss of a quarter from none, not a loss of a thousandth.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from gpuaria.dns.deadline import Deadline, run_all
from gpuaria.dns.findings import NO_TIME
from gpuaria.mirrors.measure.findings import IcmpFinding

COUNT = 4
PATIENCE = 1.0  # seconds for one reply
GIVE_UP = 2  # unanswered pings before the first reply
NOT_PERMITTED = "not permitted"


def ping(addresses: Sequence[str], deadline: Deadline, *, count: int = COUNT) -> tuple[IcmpFinding, ...]:
    """Ping all addresses at once, `count` times each, until the deadline. Never raises for network errors."""
    found = run_all([partial(_ping, a, deadline, count) for a in addresses], deadline)
    return tuple(f or IcmpFinding(a, "not measured", problem=NO_TIME) for a, f in zip(addresses, found, strict=True))


def _ping(address: str, deadline: Deadline, count: int) -> IcmpFinding:
    for privileged in (True, False):
        found = _ping_as(address, deadline, count, privileged)
        if found.problem != NOT_PERMITTED:
            return found
    return found


def _ping_as(address: str, deadline: Deadline, count: int, privileged: bool) -> IcmpFinding:
    import icmplib

    times: list[float] = []
    sent = 0
    try:
        for turn in range(count):
            if deadline.expired or (not times and sent >= GIVE_UP):
                break
            patience = min(PATIENCE, deadline.remaining() / (count - turn))
            host = icmplib.ping(address, count=1, timeout=patience, privileged=privileged)
            sent += host.packets_sent
            times += [rtt / 1000 for rtt in host.rtts]
            if not host.packets_sent:
                return IcmpFinding(address, "failed", problem="no route to host")
    except icmplib.SocketPermissionError:
        return IcmpFinding(address, "not measured", problem=NOT_PERMITTED)
    except (icmplib.ICMPLibError, OSError, ValueError) as error:
        return IcmpFinding(address, "failed", problem=str(error) or type(error).__name__)
    if not sent:
        return IcmpFinding(address, "not measured", problem=NO_TIME)
    if not times:
        return IcmpFinding(address, "failed", loss=1.0, problem=f"no reply to {sent} pings")
    changes = [abs(b - a) for a, b in pairwise(times)]
    jitter = sum(changes) / len(changes) if changes else None
    return IcmpFinding(address, "measured", sum(times) / len(times), jitter, 1 - len(times) / sent)
