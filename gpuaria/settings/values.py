"""Text to one checked value. Each reader raises ValueError without a message: kinds.py says what was expected."""

import math
import re
from decimal import Decimal
from urllib.parse import SplitResult, urlsplit

from gpuaria.urls import ascii_url, ip_and_port

_TRUE = frozenset({"1", "on", "yes", "true"})
_FALSE = frozenset({"0", "off", "no", "false"})

# Decimal as the hub shows sizes, binary where an i asks for it.
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_UNIT_NAMES = {"": "", "k": " kB", "m": " MB", "g": " GB", "t": " TB"} | {
    u: f" {u.title()}B" for u in _UNITS if "i" in u
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?((?:[kmgt]i?)?)b?(?:/s)?", re.IGNORECASE)
_MAX_SIZE = 2**63 - 1

_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_LONG = {
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
_MAX_SECRET = 4096  # characters; an OAuth token has some 1,500


def boolean(text: str) -> bool:
    """1/on/yes/true or 0/off/no/false in any case."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def whole(text: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise ValueError
    return _within(int(text), low, high)


def size(text: str, low: int = 0, high: int = _MAX_SIZE) -> int:
    """Bytes: "8 MB" is 8,000,000 and "8 MiB" 8,388,608; parts of a byte are cut off; "20M/s" is read as "20M"."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError
    return _within(int(Decimal(match[1]) * _UNITS[match[2].lower()]), low, high)


def show_size(count: int) -> str:
    """Text that `size` reads as exactly `count` bytes, in the unit that gives the smallest number."""
    factor, unit = max((factor, unit) for unit, factor in _UNITS.items() if count % factor == 0)
    return f"{count // factor}{_UNIT_NAMES[unit]}" if count else "0"


def seconds(text: str) -> float:
    """Seconds, from 0 to one year: "90", "10 min", "1h30m", "0.5 s"."""
    word = text.strip().lower()
    if _NUMBER.fullmatch(word):
        return _at_most_a_year(float(word))
    terms = _TERM.findall(word)
    if not terms or _TERM.sub("", word):
        raise ValueError
    try:
        return _at_most_a_year(math.fsum(float(number) * _SECONDS[_LONG.get(unit, unit)] for number, unit in terms))
    except KeyError:
        raise ValueError from None


def timeout(text: str) -> float:
    """Seconds, above 0 and at most 600 (aria2's own ceiling for --timeout and --connect-timeout)."""
    value = seconds(text)
    if not 0 < value <= 600:
        raise ValueError
    return value


def show_seconds(value: float) -> str:
    """Text that `seconds` reads as `value`."""
    for unit, factor in (("h", 3600), ("min", 60)):
        if value and value % factor == 0:
            return f"{int(value) // factor} {unit}"
    return f"{int(value)} s" if value == int(value) else f"{Decimal(repr(value)):f} s"


def address(text: str) -> str:
    """An http(s) address with a host, without user, query or fragment; host in lower case, no `/` at the end.

    In plain ASCII, as the addresses have to be that are made from it.
    """
    parts = _split(text)
    return ascii_url(f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}")


def host(text: str) -> str:
    """A host's name or IP address as `urlsplit` gives it: lower case, no brackets."""
    word = text.strip().lower().removeprefix("[").removesuffix("]")
    parts = _split(f"http://[{word}]" if ":" in word else f"http://{word}")
    if parts.path or parts.port or not parts.hostname:
        raise ValueError
    return parts.hostname


def rpc_address(text: str) -> str:
    """The address of an aria2 daemon: http(s)://host:port/jsonrpc."""
    parts = _split(text)
    if not parts.port or parts.path != "/jsonrpc":
        raise ValueError
    return address(text)


def resolver(text: str) -> str:
    """A DNS server: IP or IP:PORT, the same after tls://, https://host/dns-query, or the word "system"."""
    word = text.strip()
    if word.lower() == "system":
        return "system"
    if word.lower().startswith("tls://"):
        return f"tls://{_place(word[6:])}"
    if word.lower().startswith("https://"):
        if _split(word).path in ("", "/"):
            raise ValueError
        return address(word)
    return _place(word)


def _place(text: str) -> str:
    """An IP address, and a port where one is named; IPv6 is in brackets then (RFC 3986 3.2.2)."""
    ip, port = ip_and_port(text)
    if port is None:
        return str(ip)
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def program(text: str) -> str:
    """A program's name or path."""
    if not text.strip() or not text.isprintable():
        raise ValueError
    return text.strip()


def credential(text: str) -> str:
    """A token: printable ASCII without spaces inside; space around it is dropped."""
    word = text.strip()
    if not word or len(word) > _MAX_SECRET or not all("!" <= char <= "~" for char in word):
        raise ValueError
    return word


def label(text: str) -> str:
    """A name or a place for people: one short line."""
    word = text.strip()
    if not word or len(word) > 80 or not word.isprintable():
        raise ValueError
    return word


def shown(text: str) -> str:
    """`text` quoted for a message, or nothing where it may hold a credential."""
    if re.search(r"[@?#]|hf_", text):
        return ""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _split(text: str) -> SplitResult:
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
