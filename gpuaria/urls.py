"""Properties of a URL: host and origin, a redacted form for logs, and whether a credential may be sent to it."""

import ipaddress
import re
from urllib.parse import quote, urlsplit

from gpuaria.errors import NetworkError

# Lower-case scheme: aria2c 1.36 and 1.37 do not recognise `HTTP://`.
PLAIN_URL = re.compile(r"https?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?#][!-~]*)?")


def host_and_port(url: str) -> tuple[str, int]:
    """Return the host, in lower case, and the port, by default that of the scheme."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def url_origin(url: str) -> str:
    """Return `scheme://host:port`; a credential belongs to one such origin (RFC 6454)."""
    host, port = host_and_port(url)
    return f"{urlsplit(url).scheme}://{host}:{port}"


def authority(url: str) -> str:
    """Return host and port as written in the URL, without a user: the Host header (RFC 9110 7.2)."""
    return urlsplit(url).netloc.rpartition("@")[2]


def ascii_url(url: str) -> str:
    """Convert an http(s) URL to the form of PLAIN_URL: IDNA host name, other non-ASCII characters as %XX.

    Raises ValueError if that is impossible, for example for a URL with a user or password.
    """
    scheme, host, rest = re.split(r"://([^/?#]*)", url, maxsplit=1)
    named = host if host.isascii() else host.encode("idna").decode()
    spelt = f"{scheme.lower()}://{named}{re.sub(r'[^!-~]+', lambda found: quote(found[0]), rest)}"
    if not PLAIN_URL.fullmatch(spelt):
        raise ValueError(redacted(url))
    return spelt


def redacted(url: str) -> str:
    """Return a URL without its query (it may be a signature), user and password, safe to log."""
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", url).partition("?")[0]


def ip_and_port(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int | None]:
    """Split `IP[:PORT]`; an IPv6 address with a port needs brackets (RFC 3986 3.2.2). Raises ValueError."""
    if text.count(":") > 1 and not text.startswith("["):
        return ipaddress.ip_address(text), None
    found = re.fullmatch(r"(\[)?([^\[\]]*?)(?(1)\])(?::([0-9]{1,5}))?", text, re.ASCII)
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ValueError(text)
    return ipaddress.ip_address(found[2]), int(found[3]) if found[3] else None


def check_redirect(url: str, target: str) -> None:
    """Raise NetworkError for an unsafe redirect: from https to http, or to a scheme other than http(s)."""
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise NetworkError(
            f"{redacted(url)} redirects to {scheme}://{urlsplit(target).hostname}, which is not encrypted",
            "The endpoint or mirror is broken; try another.",
        )


def encrypted_or_local(url: str) -> bool:
    """Return whether a credential may be sent to `url`: over TLS, or to this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" or host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name, even 127.0.0.1.example.org
        return False
