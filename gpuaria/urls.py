"""What an address says by itself: whose it is, what of it may be shown, whether a credential may travel to it."""

import ipaddress
import re
from urllib.parse import quote, urlsplit

from gpuaria.errors import NetworkError

# Lower case, since aria2c takes `HTTP://` for no address at all (1.36 and 1.37).
PLAIN_URL = re.compile(r"https?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?#][!-~]*)?")


def host_and_port(url: str) -> tuple[str, int]:
    """The host of an address, in lower case, and its port: the scheme's own where none is named."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def url_origin(url: str) -> str:
    """`scheme://host:port` of an address, the unit to which a credential belongs (RFC 6454)."""
    host, port = host_and_port(url)
    return f"{urlsplit(url).scheme}://{host}:{port}"


def authority(url: str) -> str:
    """Host and port as the address has them, without a user: what a Host header says (RFC 9110 7.2)."""
    return urlsplit(url).netloc.rpartition("@")[2]


def ascii_url(url: str) -> str:
    """The same http(s) address as PLAIN wants it: a host by its IDNA name, what is not printable ASCII as %XX.

    Raises ValueError where that cannot be, as with a user or a password.
    """
    scheme, host, rest = re.split(r"://([^/?#]*)", url, maxsplit=1)
    named = host if host.isascii() else host.encode("idna").decode()
    spelt = f"{scheme.lower()}://{named}{re.sub(r'[^!-~]+', lambda found: quote(found[0]), rest)}"
    if not PLAIN_URL.fullmatch(spelt):
        raise ValueError(redacted(url))
    return spelt


def redacted(url: str) -> str:
    """An address without its query, which may be a signature, and without a password: what logs may show."""
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", url).partition("?")[0]


def ip_and_port(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int | None]:
    """The parts of `IP[:PORT]`; IPv6 with a port is in brackets (RFC 3986 3.2.2). Raises ValueError."""
    if text.count(":") > 1 and not text.startswith("["):
        return ipaddress.ip_address(text), None
    found = re.fullmatch(r"(\[)?([^\[\]]*?)(?(1)\])(?::([0-9]{1,5}))?", text, re.ASCII)
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ValueError(text)
    return ipaddress.ip_address(found[2]), int(found[3]) if found[3] else None


def check_redirect(url: str, target: str) -> None:
    """Raise NetworkError for a redirect that nobody should follow: to another scheme than http(s), or out of TLS."""
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise NetworkError(
            f"{redacted(url)} redirects to {scheme}://{urlsplit(target).hostname}, out of the encrypted connection",
            "The endpoint or mirror is broken; try another.",
        )


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
