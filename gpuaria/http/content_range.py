"""The Content-Range header (RFC 9110 14.4): which bytes of a file a response carries."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SYNTAX = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes from `start` to before `end`, None for no range; `size` of the file, None if unknown."""

    start: int | None
    end: int | None
    size: int | None


def content_range(headers: Mapping[str, str]) -> ContentRange | None:
    """Return what the Content-Range header says; None where it is missing or malformed. Header names in lower case."""
    match = _SYNTAX.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    start, last, size = match.groups()
    return ContentRange(
        int(start) if start else None, int(last) + 1 if last else None, None if size == "*" else int(size)
    )


def bytes_header(start: int, end: int | None = None) -> dict[str, str]:
    """Return the headers that ask for the bytes from `start` to before `end` (None: all that follow), uncompressed."""
    last = "" if end is None else str(end - 1)
    return {"range": f"bytes={start}-{last}", "accept-encoding": "identity"}
