"""Checks of the fields of files that gpuaria writes: URLs, digests, comments."""

import re

from gpuaria.errors import BadListing, UsageError
from gpuaria.hashing import LENGTHS
from gpuaria.records import Digest
from gpuaria.text import printable
from gpuaria.urls import PLAIN_URL

_HEX = re.compile(r"[0-9a-f]+")
_PREFIX_LENGTHS = range(8, 65)  # torch.hub: "the first eight or more digits of the SHA256 hash"
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#\\\s]*)")


def check_url(url: str, of: str) -> str:
    """Return `url` if it is http or https in printable ASCII (RFC 3986) without a credential; `of` names its file.

    Raises UsageError, whose message contains only the host of the URL: a signed query is a secret.
    """
    refuse_credential(url, f"a URL of {printable(of)}")
    if not PLAIN_URL.fullmatch(url):
        raise UsageError(
            f"a URL of {printable(of)} is not a plain http:// or https:// URL",
            "Write other characters than printable ASCII as %XX, and the scheme in lower case.",
        )
    return url


def refuse_credential(text: str, what: str) -> None:
    """Raise UsageError if a URL in `text` has a user or password; the message contains only its host."""
    for authority in _AUTHORITY.findall(text):
        if "@" in authority:
            host = authority.rpartition("@")[2]
            raise UsageError(f"{what} has a user or password for {printable(host)}", "Give credentials apart from it.")


def check_digest(digest: Digest, of: str) -> Digest:
    """Return `digest` if its hex is in lower case and has the right length; else raise BadListing naming `of`."""
    if digest.algorithm == "sha256-prefix":
        fits = len(digest.hex) in _PREFIX_LENGTHS
    elif digest.algorithm in LENGTHS:
        fits = len(digest.hex) == LENGTHS[digest.algorithm]
    else:
        raise BadListing(f"{printable(of)} has a digest of unknown algorithm {printable(digest.algorithm)}")
    if not (fits and _HEX.fullmatch(digest.hex)):
        raise BadListing(f"{printable(of)} has a {digest.algorithm} that is not one: {printable(digest.hex)}")
    return digest


def one_line(text: str) -> str:
    """Return `text` for a comment, quoted if it would end the line or disturb a terminal."""
    return text if text.isprintable() else ascii(text)
