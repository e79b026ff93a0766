"""Text for people: names and server messages that are safe for a terminal, and sizes in decimal units."""

import re
import unicodedata
from collections.abc import Callable

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_ODD = re.compile(r"[^ -~]")  # a fast pre-check


def printable(text: str) -> str:
    """Return `text` quoted, without control and direction characters, cut at 120 characters."""
    short = text if len(text) <= 120 else text[:117] + "..."
    return ascii(short) if has_hostile(short) else repr(short)


def harmless(text: str, instead: Callable[[str], str] = lambda mark: "?") -> str:
    """Return `text` as one line for a terminal, with `instead` in place of each control and direction character.

    Servers, certificates and credential helpers write parts of such text.
    """
    return _ODD.sub(lambda found: instead(found[0]) if _is_hostile(found[0]) else found[0], text)


def has_hostile(text: str) -> bool:
    """Return whether `text` holds a character that could disturb a terminal."""
    plain = text.isascii() and text.isprintable()  # true for most names, and five times faster
    return not plain and any(_is_hostile(char) for char in text)


def _is_hostile(char: str) -> bool:
    """Return whether a character controls the terminal, direction or lines, except two joiners of Persian and Indic."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\u200c\u200d"


def decimal(size: int) -> str:
    """Return `size` bytes in a decimal unit, as on a hub's page: `140.2 GB`."""
    value, power = float(size), 0
    while value >= 999.95 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.1f} {_UNITS[power]}" if power else f"{size} B"
