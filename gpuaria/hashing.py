r"""Digests of byte streams, in constant memory.

Algorithms: sha256, sha512, sha3-256, sha1, md5 as in FIPS and RFC 1321. `git-sha1` is the id of a git blob: it hashes
`blob <size>\0` before the content (git's object format). `sha256-prefix` holds the first digits of a sha256, as in
torch.hub.
"""

import hashlib
from typing import BinaryIO, Protocol

from gpuaria.records import Digest

CHUNK = 1 << 20
EMPTY = frozenset(
    [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # sha256 of no bytes
        "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",  # git id of the empty blob
    ]
)
LENGTHS = {"sha256": 64, "sha512": 128, "sha3-256": 64, "sha1": 40, "md5": 32, "git-sha1": 40}
_CONSTRUCTORS = {"git-sha1": "sha1", "sha3-256": "sha3_256", "sha256-prefix": "sha256"}


class Hasher(Protocol):
    """The interface of hashlib objects that gpuaria uses."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Hash more bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in lower case."""


def hasher(algorithm: str, size: int) -> Hasher:
    """Return a new hasher for content of `size` bytes. Raises ValueError for an unknown algorithm."""
    if algorithm not in LENGTHS and algorithm not in _CONSTRUCTORS:
        raise ValueError(f"unknown digest algorithm {algorithm!r}")
    new = hashlib.new(_CONSTRUCTORS.get(algorithm, algorithm), usedforsecurity=False)
    if algorithm == "git-sha1":
        new.update(b"blob %d\0" % size)
    return new


def matches(digest: Digest, hexdigest: str) -> bool:
    """Return whether a finished hash equals the declared digest. An empty digest never matches."""
    found = hexdigest[: len(digest.hex)] if digest.algorithm == "sha256-prefix" else hexdigest
    return digest.hex != "" and found == digest.hex


def hash_stream(stream: BinaryIO, algorithm: str, size: int) -> tuple[str, int]:
    """Hash the rest of `stream` and return (hex, bytes read). `size`: the declared length of the content."""
    state, total = hasher(algorithm, size), 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        state.update(view[:count])
        total += count
    return state.hexdigest(), total


def hash_bytes(data: bytes, algorithm: str) -> str:
    """Return the hex digest of `data`."""
    state = hasher(algorithm, len(data))
    state.update(data)
    return state.hexdigest()


def lfs_pointer_oid(sha256: str, size: int) -> str:
    """Return the git blob id of the LFS pointer file for some content (git-lfs spec v1): the `oid` in a hub's tree."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return hash_bytes(pointer.encode(), "git-sha1")


def git_id(kind: str, data: bytes) -> str:
    """Return the id of a git object of the given kind: "commit", "tree", "blob" or "tag"."""
    state = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)), usedforsecurity=False)
    state.update(data)
    return state.hexdigest()
