"""Parse text into one checked value. Each parser raises ValueError without text: kinds.py has the message."""

import math
import re
from decimal import Decimal
from urllib.parse import SplitResult, urlsplit

from gpuaria.urls import ascii_url, ip_and_port

_TRUE = frozenset({"1", "on", "yes", "true"})
_FALSE = frozenset({"0", "off", "no", "false"})

# Decimal units, as the hub displays sizes; binary units contain an i.
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_UNIT_NAMES = {"": "", "k": " kB", "m": " MB", "g": " GB", "t": " TB"} | {
    u: f" {u.title()}B" for u in _UNITS if "i" in u
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?((?:[kmgt]i?)?)b?(?:/s)?", re.IGNORECASE)
_MAX_SIZE = 2**63 - 1

_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_UNIT_WORDS = {
    "second": "s",
    "seconds": "s",
    "minute": "m",
    "minutes": "m",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
}
_NUMBER = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,19})?")
_TERM = re.compile(rf"\s*({_NUMBER.pattern})\s*([a-z]+)")

_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?|[0-9a-f:.]+")
_MAX_SECRET = 4096  # characters; an OAuth token has about 1,500


def boolean(text: str) -> bool:
    """Parse 1/on/yes/true or 0/off/no/false, case-insensitive."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def whole_number(text: str, low: int, high: int) -> int:
    """Parse a whole number from `low` to `high`."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise ValueError
    return _within(int(text), low, high)


def size(text: str, low: int = 0, high: int = _MAX_SIZE) -> int:
    """Parse a size in bytes: "8 MB" is 8,000,000, "8 MiB" is 8,388,608, and "/s" is ignored. Rounds down."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError
    return _within(int(Decimal(match[1]) * _UNITS[match[2].lower()]), low, high)


def show_size(count: int) -> str:
    """Format `count` bytes so that `size` returns exactly `count`, in the largest unit that divides it."""
    factor, unit = max((factor, unit) for unit, factor in _UNITS.items() if count % factor == 0)
    return f"{count // factor}{_UNIT_NAMES[unit]}" if count else "0"


def seconds(text: str) -> float:
    """Parse a duration in seconds, from 0 to one year: "90", "10 min", "1h30m", "0.5 s"."""
    word = text.strip().lower()
    if _NUMBER.fullmatch(word):
        return _at_most_a_year(float(word))
    terms = _TERM.findall(word)
    if not terms or _TERM.sub("", word):
        raise ValueError
    try:
        return _at_most_a_year(
            math.fsum(float(number) * _SECONDS[_UNIT_WORDS.get(unit, unit)] for number, unit in terms)
        )
    except KeyError:
        raise ValueError from None


def timeout(text: str) -> float:
    """Parse seconds, above 0 and at most 600 (aria2's limit for --timeout and --connect-timeout)."""
    value = seconds(text)
    if not 0 < value <= 600:
        raise ValueError
    return value


def show_seconds(value: float) -> str:
    """Format seconds so that `seconds` returns `value`."""
    for unit, factor in (("h", 3600), ("min", 60)):
        if value and value % factor == 0:
            return f"{int(value) // factor} {unit}"
    return f"{int(value)} s" if value == int(value) else f"{Decimal(repr(value)):f} s"


def base_url(text: str) -> str:
    """Parse an http(s) URL without user, query or fragment.

    The result is ASCII, with the host in lower case and without a trailing slash.
    """
    parts = _split_url(text)
    return ascii_url(f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}")


def host(text: str) -> str:
    """Parse a host name or IP address; the result is in lower case, without brackets, as from `urlsplit`."""
    word = text.strip().lower().removeprefix("[").removesuffix("]")
    parts = _split_url(f"http://[{word}]" if ":" in word else f"http://{word}")
    if parts.path or parts.port or not parts.hostname:
        raise ValueError
    return parts.hostname


def rpc_url(text: str) -> str:
    """Parse the RPC URL of an aria2 daemon: http(s)://host:port/jsonrpc."""
    parts = _split_url(text)
    if not parts.port or parts.path != "/jsonrpc":
        raise ValueError
    return base_url(text)


def resolver(text: str) -> str:
    """Parse a DNS server: IP[:PORT], tls://IP[:PORT], https://host/dns-query, or "system"."""
    word = text.strip()
    if word.lower() == "system":
        return "system"
    if word.lower().startswith("tls://"):
        return f"tls://{_ip_with_port(word[6:])}"
    if word.lower().startswith("https://"):
        if _split_url(word).path in ("", "/"):
            raise ValueError
        return base_url(word)
    return _ip_with_port(word)


def _ip_with_port(text: str) -> str:
    """Parse IP[:PORT]; an IPv6 address with a port needs brackets (RFC 3986 3.2.2)."""
    ip, port = ip_and_port(text)
    if port is None:
        return str(ip)
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def program(text: str) -> str:
    """Parse the name or path of a program."""
    if not text.strip() or not text.isprintable():
        raise ValueError
    return text.strip()


def credential(text: str) -> str:
    """Parse a token: printable ASCII without spaces. Strips surrounding white space."""
    word = text.strip()
    if not word or len(word) > _MAX_SECRET or not all("!" <= char <= "~" for char in word):
        raise ValueError
    return word


def label(text: str) -> str:
    """Parse a name or location: one line of at most 80 printable characters."""
    word = text.strip()
    if not word or len(word) > 80 or not word.isprintable():
        raise ValueError
    return word


def quoted(text: str) -> str:
    """Return `text` quoted for a message, or empty if it may contain a credential."""
    if re.search(r"[@?#]|hf_", text):
        return ""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _split_url(text: str) -> SplitResult:
    word = text.strip()
    if not word.isprintable() or " " in word or any(char in word for char in "@?#\\"):
        raise ValueError
    parts = urlsplit(word)
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError
    if parts.port == 0 or parts.netloc.endswith(":"):
        raise ValueError
    return parts


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError
    return value


def _at_most_a_year(value: float) -> float:
    if value > 365 * 86400:
        raise ValueError
    return value
