"""The Content-Range header (RFC 9110 14.4), and the headers of a range request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SYNTAX = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A byte range from `start` to before `end` (None: no range), and the file's `size` in bytes (None: unknown)."""

    start: int | None
    end: int | None
    size: int | None


def content_range(headers: Mapping[str, str]) -> ContentRange | None:
    """Parse the Content-Range header; None if it is missing or malformed. `headers` has lower-case names."""
    match = _SYNTAX.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    start, last, size = match.groups()
    return ContentRange(
        int(start) if start else None, int(last) + 1 if last else None, None if size == "*" else int(size)
    )


def bytes_header(start: int, end: int | None = None) -> dict[str, str]:
    """Return headers that request the bytes from `start` to before `end` (None: to the end), uncompressed."""
    last = "" if end is None else str(end - 1)
    return {"range": f"bytes={start}-{last}", "accept-encoding": "identity"}
