"""Identification of the current network by an opaque id, since a mirror near home may be far from the office.

The id is a hash of the default route and the prefix of the local address. It stays in the local history and reveals
nothing elsewhere. Two homes with equal router settings have the same id.
"""

import hashlib
import ipaddress
import socket
from pathlib import Path

_UP, _GATEWAY = 0x1, 0x2  # RTF_UP, RTF_GATEWAY of route(8)
_TEST_NETS = ((socket.AF_INET, "198.51.100.1", 24), (socket.AF_INET6, "2001:db8::1", 64))  # RFC 5737, RFC 3849


def network_id(routes: Path = Path("/proc/net/route")) -> str:
    """Return 16 hex digits that depend only on the default route and the address prefix. No packet is sent."""
    parts = [default_route(routes), *(_own_prefix(family, target, bits) for family, target, bits in _TEST_NETS)]
    return hashlib.sha256("|".join(["gpuaria network", *parts]).encode()).hexdigest()[:16]


def default_route(routes: Path) -> str:
    """Return interface and gateway of the IPv4 default route with the lowest metric; empty if there is none."""
    try:
        rows = [line.split() for line in routes.read_text("ascii").splitlines()[1:]]
    except (OSError, UnicodeError):
        return ""
    found = []
    for row in rows:
        try:
            name, target, gateway, flags, metric, mask = (row[i] for i in (0, 1, 2, 3, 6, 7))
            if int(target, 16) == 0 and int(mask, 16) == 0 and int(flags, 16) & _UP:
                found.append((int(metric), name, gateway if int(flags, 16) & _GATEWAY else ""))
        except (IndexError, ValueError):
            continue
    return " ".join(min(found)[1:]) if found else ""


def _own_prefix(family: socket.AddressFamily, target: str, bits: int) -> str:
    """Return the network of this machine's source address; connecting a datagram socket sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((target, 9))
            own = str(sock.getsockname()[0]).partition("%")[0]
        return str(ipaddress.ip_network(f"{own}/{bits}", strict=False))
    except (OSError, ValueError):
        return ""
