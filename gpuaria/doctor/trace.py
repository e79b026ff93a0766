"""The way to one host, hop by hop (icmplib): all hops are asked at once."""

from functools import partial

from gpuaria.dns.deadline import Deadline, run_all
from gpuaria.doctor.finding import Notes

HOPS = 24
_PERMIT = "sudo setcap cap_net_raw+ep $(readlink -f $(command -v python3))  # or run it as root"


def route_to(host: str, address: str, deadline: Deadline, notes: Notes) -> None:
    """One finding that names every hop that answers, with its round trip."""
    found = run_all(
        [partial(_hop, address, distance, deadline.remaining()) for distance in range(1, HOPS + 1)], deadline
    )
    if any(text == _FORBIDDEN for text, _ in (f for f in found if f)):
        return notes.warn("route", "a traceroute is not permitted here", _PERMIT)
    last = next((n for n, hop in enumerate(found, 1) if hop and hop[0] == address), 0)
    first: dict[str, str] = {}  # whoever answers for a host behind it answers at every distance
    for n, hop in enumerate(found, 1):
        if hop:
            first.setdefault(hop[0], f"{n} {hop[0]} {hop[1]:.1f} ms")
    shown = first.values()
    way = f"{host} ({address}): {'; '.join(shown)}" if first else f"{host} ({address}): no hop answers"
    if last:
        return notes.ok("route", way)
    fix = f"sudo traceroute -T -p 443 {address}  # many networks drop pings and let TCP pass"
    return notes.warn("route", f"{way}; the host itself does not respond", fix)


_FORBIDDEN = "not permitted"


def _hop(address: str, distance: int, seconds: float) -> tuple[str, float] | None:
    """Who answers at `distance` hops, and after how many milliseconds."""
    import icmplib

    try:
        hops = icmplib.traceroute(address, count=1, timeout=max(0.1, seconds), first_hop=distance, max_hops=distance)
    except icmplib.SocketPermissionError:
        return _FORBIDDEN, 0.0
    except (icmplib.ICMPLibError, OSError, ValueError):
        return None
    return (str(hops[0].address), float(hops[0].avg_rtt)) if hops else None
