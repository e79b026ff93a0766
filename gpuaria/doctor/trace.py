"""Traces the route to one host with icmplib, all hops at once."""

from functools import partial

from gpuaria.dns.deadline import Deadline, run_all
from gpuaria.doctor.finding import Notes

HOPS = 24
_PERMIT = "sudo setcap cap_net_raw+ep $(readlink -f $(command -v python3))  # or run it as root"


def route_to(host: str, address: str, deadline: Deadline, notes: Notes) -> None:
    """Add one finding with every hop that responds and its round trip."""
    found = run_all(
        [partial(_hop, address, distance, deadline.remaining()) for distance in range(1, HOPS + 1)], deadline
    )
    if any(text == _FORBIDDEN for text, _ in (f for f in found if f)):
        return notes.warn("route", "traceroute is not permitted", _PERMIT)
    last = next((n for n, hop in enumerate(found, 1) if hop and hop[0] == address), 0)
    first: dict[str, str] = {}  # a device that responds for the host appears at every distance
    for n, hop in enumerate(found, 1):
        if hop:
            first.setdefault(hop[0], f"{n} {hop[0]} {hop[1]:.1f} ms")
    shown = first.values()
    path = f"{host} ({address}): {'; '.join(shown)}" if first else f"{host} ({address}): no hop responds"
    if last:
        return notes.ok("route", path)
    fix = f"sudo traceroute -T -p 443 {address}  # many networks drop pings but not TCP"
    return notes.warn("route", f"{path}; the host itself does not respond", fix)


_FORBIDDEN = "not permitted"


def _hop(address: str, distance: int, seconds: float) -> tuple[str, float] | None:
    """Return the address at `distance` hops and its round trip in milliseconds, None without a response."""
    import icmplib

    try:
        hops = icmplib.traceroute(address, count=1, timeout=max(0.1, seconds), first_hop=distance, max_hops=distance)
    except icmplib.SocketPermissionError:
        return _FORBIDDEN, 0.0
    except (icmplib.ICMPLibError, OSError, ValueError):
        return None
    return (str(hops[0].address), float(hops[0].avg_rtt)) if hops else None
