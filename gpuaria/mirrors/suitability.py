"""Tests whether a mirror responds and whether aria2 can use its responses.

aria2 (1.36, 1.37) takes compressed bytes for the file's own: it ends with wrong bytes, or waits for the rest of a
piece. It rejects a response without a length ("Size mismatch", or "Invalid range header" if the body ends with the
connection). gpuaria's HTTP client decodes such responses and counts the bytes.
"""

import time

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.content_range import bytes_header
from gpuaria.http.messages import Response
from gpuaria.http.ratelimit import retry_after
from gpuaria.records import MirrorUrl

SAMPLE = 128 * 1024  # bytes requested to test a mirror
PIECE = 1 << 20  # bytes; aria2's smallest range
COMPRESSED = "it compresses files"


def compressed(response: Response) -> bool:
    """Return True if the body is not the file's own bytes (RFC 9110 8.4)."""
    return response.headers.get("content-encoding", "").lower() not in ("", "identity")


def why_incompatible(response: Response) -> str:
    """Return why aria2 cannot use a successful response; empty if it can."""
    if compressed(response):
        return f"{COMPRESSED} ({response.headers['content-encoding'][:18]}) despite Accept-Encoding: identity"
    if "content-length" not in response.headers:
        return "its responses have no Content-Length"
    return ""


def incompatible(http: Http, url: MirrorUrl) -> str:
    """Return why aria2 cannot use a URL's response to a range request; empty if it can, or if no bytes come."""
    headers = bytes_header(0, PIECE)
    try:
        with http.open("GET", url.url, anonymous=True, headers=headers) as (response, _):
            return why_incompatible(response) if response.status in (200, 206) else ""
    except GpuariaError:
        return ""


def refusal(http: Http, url: MirrorUrl) -> tuple[str, float | None]:
    """Return why a URL gives aria2 no bytes now, and the seconds that the server asks to wait.

    ("", None) if it works.
    """
    headers = bytes_header(0, SAMPLE)
    try:
        with http.open("GET", url.url, anonymous=True, headers=headers) as (response, chunks):
            if response.status not in (200, 206):
                return f"it returned HTTP {response.status}", retry_after(response.headers, time.time())
            if next(iter(chunks), b""):
                return why_incompatible(response), None
            return "it sent no data", None
    except GpuariaError as error:
        return error.message, None
