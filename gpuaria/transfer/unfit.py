"""What aria2 cannot carry though every byte can be had: files that come packed, or without their length.

aria2 (1.36, 1.37) takes packed bytes for the file's own: it ends with wrong bytes, or waits for the rest of a piece. An
answer without a length it drops ("Size mismatch", or "Invalid range header" where the end is that of the connection).
Our own client unpacks, and counts.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.content_range import bytes_header
from gpuaria.http.messages import Answer
from gpuaria.records import Address
from gpuaria.transfer import windows
from gpuaria.transfer.windows import Window

# What aria2 ends with in these cases, among others: unknown, time-out, no range; and where it cannot get to a host.
DOUBTFUL = {"1", "2", "6", "8", "19"}
PACKED = "it sends files packed"


def packed(answer: Answer) -> bool:
    """Whether the body is not the bytes themselves (RFC 9110 8.4)."""
    return answer.headers.get("content-encoding", "").lower() not in ("", "identity")


def why_unfit(answer: Answer) -> str:
    """Why aria2 cannot use an answer that brings bytes; "" if it can."""
    if packed(answer):
        return f"{PACKED} ({answer.headers['content-encoding'][:18]}), though asked not to"
    if "content-length" not in answer.headers:
        return "it does not say how long its answers are"
    return ""


def ask(http: Http, address: Address) -> str:
    """The same for an address, by its answer to a range as aria2 asks for it; "" too where no bytes come at all."""
    headers = bytes_header(0, windows.PIECE)
    try:
        with http.open("GET", address.url, anonymous=True, headers=headers) as (answer, _):
            return why_unfit(answer) if answer.status in (200, 206) else ""
    except GpuariaError:
        return ""


def keep_prefix(base: Path, row: Sequence[Window], prefix: Path) -> None:
    """Let `prefix` have the bytes of `base` from the start to the first gap, unless it has more. Raises OSError."""
    missing = windows.gaps(row)
    end = missing[0][0] if missing else 0
    if row and end > (prefix.stat().st_size if prefix.exists() else 0):
        os.truncate(base, end)  # first: with its holes it would be of the right size
        base.rename(prefix)
