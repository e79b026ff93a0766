"""What an address says by itself: whose it is, what of it may be shown, whether a credential may travel to it."""

import ipaddress
import re
from urllib.parse import urlsplit


def origin(url: str) -> str:
    """`scheme://host:port` of an address, the unit to which a credential belongs (RFC 6454)."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def bare(url: str) -> str:
    """An address without its query, which may be a signature, and without a password: what logs may show."""
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", url).partition("?")[0]


def encrypted_or_local(url: str) -> bool:
    """Whether a credential may travel to `url`: TLS, or this very machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" or host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, and be it 127.0.0.1.example.org
        return False
