"""Header checks of a response to a range request (RFC 9110 14, 15). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gpuaria.http.content_range import content_range
from gpuaria.http.ratelimit import retry_after


class Refusal(Exception):
    """A response without bytes of the file. `retry_after`: seconds that it asks to wait."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.retry_after = problem, retry_after


@dataclass(frozen=True, slots=True)
class DeclaredRange:
    """The range that a response declares. `ranges`: it is a range; `size`: the whole file's size, None if not stated.

    `at`: the offset of its bytes, None for a range without description.
    """

    ranges: bool
    size: int | None
    at: int | None


def declared(status: int, headers: Mapping[str, str]) -> DeclaredRange:
    """Read Content-Range, or Content-Length of a whole response; invalid values count as absent."""
    if status != 200:
        spoken = content_range(headers)
        return DeclaredRange(status == 206, spoken.size if spoken else None, spoken.start if spoken else None)
    length = headers.get("content-length", "")
    return DeclaredRange(False, int(length) if re.fullmatch(r"\d{1,18}", length) else None, 0)


def check(status: int, headers: Mapping[str, str], part: DeclaredRange, at: int, size: int | None, now: float) -> None:
    """Raise Refusal for a response that is not the file of `size` bytes (None: unknown) from offset `at`.

    `now`: Unix seconds.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    html = kind in ("text/html", "application/xhtml+xml")
    other = size is not None and part.size is not None and part.size != size
    if status in (200, 206) and html and (other or size is None or part.size is None):
        raise Refusal(f"returned HTTP {status} with a web page instead of the file: a captive portal, or not a mirror")
    if status in (200, 206, 416) and other:
        raise Refusal(f"declares {part.size:,} bytes for the file, not {size:,}")
    if status not in (200, 206):
        asked = retry_after(headers, now)
        wait = f" and asks to wait {asked:.0f} s" if asked is not None else ""
        raise Refusal(f"returned HTTP {status}{wait}", asked)
    if status == 206 and part.at != at:
        raise Refusal("sent another range than requested")


def host_and_port(url: str) -> str:
    """Return the host of a URL, with the port unless it is the scheme's default."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    own = {"http": 80, "https": 443}.get(parts.scheme)
    return host + (f":{parts.port}" if parts.port and parts.port != own else "")
