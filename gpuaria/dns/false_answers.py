"""Detect addresses that a public name cannot have (IANA special-purpose registries, RFC 6890). Pure."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

FAKE_IP = ipaddress.ip_network(
    "198.18.0.0/15"
)  # RFC 2544; local proxies return these addresses and forward the traffic
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291 2.4: all that IANA allocates
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_NAMED = {  # first match wins
    "unspecified": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "shared (carrier NAT)": ("100.64.0.0/10",),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "benchmarking": ("198.18.0.0/15", "2001:2::/48"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}
_RANGES = [(name, ipaddress.ip_network(text)) for name, texts in _NAMED.items() for text in texts]
_NEVER = ("unspecified", "multicast", "reserved")
_PRIVATE_SUFFIXES = frozenset(
    ["local", "localhost", "lan", "internal", "test", "home", "corp", "intranet", "private", "arpa"]
)


def is_literal(host: str) -> bool:
    """True if `host` is an IP address, with or without brackets."""
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def is_private_name(host: str) -> bool:
    """True for a name that is valid in one network only.

    These are IP addresses, single labels, and names below .local (RFC 6762), .localhost and .test (RFC 6761), .internal
    (ICANN 2024), .home.arpa (RFC 8375), .lan and similar suffixes.
    """
    name = host.rstrip(".").lower()
    return is_literal(host) or "." not in name or name.rpartition(".")[2] in _PRIVATE_SUFFIXES


def special_range(address: str) -> str:
    """Return the special range of an address ("private", "loopback", …, "reserved"), empty for a public address.

    An embedded IPv4 address (mapped, NAT64, 6to4) decides. Raises ValueError if `address` is not an IP address.
    """
    ip = _inner(ipaddress.ip_address(address.partition("%")[0]))
    for name, network in _RANGES:
        if ip.version == network.version and ip in network:
            return name
    public = ip.is_global and (ip.version == 4 or ip in _GLOBAL_UNICAST)
    return "" if public and not ip.is_reserved else "reserved"


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            return IPv4Address(int(ip) & 0xFFFFFFFF)
        return ip.ipv4_mapped or ip.sixtofour or ip
    return ip


def why_false(address: str, host: str) -> str:
    """Return why `address` cannot be an address of `host`; empty if it can."""
    found = special_range(address)
    if not found or (is_private_name(host) and found not in _NEVER):
        return ""
    if address_is_fake(address):
        return f"{address} is a {found} address: probably from a local proxy"
    return f"{address} is {'an' if found[0] in 'aeiou' else 'a'} {found} address"


def address_is_fake(address: str) -> bool:
    """True if local proxies return this address for names that they resolve themselves ("fake-ip")."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.version == 4 and ip in FAKE_IP
