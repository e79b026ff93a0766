"""What may stand in one field of a file that gpuaria writes: an address, a digest, a comment."""

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
    """`url`, if it is http or https in printable ASCII (RFC 3986) and holds no credential; `of` names its file.

    Raises UsageError, which repeats no part of the address but the host: a signed query is a secret.
    """
    refuse_credential(url, f"a URL of {printable(of)}")
    if not PLAIN_URL.fullmatch(url):
        raise UsageError(
            f"a URL of {printable(of)} is not a plain http:// or https:// URL",
            "Write other characters than printable ASCII as %XX, and the scheme in lower case.",
        )
    return url


def refuse_credential(text: str, what: str) -> None:
    """Raise UsageError if an address in `text` has a user or a password before its host; names the host only."""
    for authority in _AUTHORITY.findall(text):
        if "@" in authority:
            host = authority.rpartition("@")[2]
            raise UsageError(f"{what} has a user or password for {printable(host)}", "Give credentials apart from it.")


def check_digest(digest: Digest, of: str) -> Digest:
    """`digest`, if its hex is lower case and as long as its algorithm has it; raises BadListing naming `of`."""
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
    """`text` for a comment: as it is, or quoted where it would end the line or disturb a terminal."""
    return text if text.isprintable() else ascii(text)
