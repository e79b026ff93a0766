"""Digests over streams of bytes, in constant memory.

Names: sha256, sha512, sha3-256, sha1, md5 as in FIPS and RFC 1321; `git-sha1` is the id of a git blob, which hashes
`blob <size>\\0` before the content (git's own object format); `sha256-prefix` is torch.hub's "sha256 starts with".
"""

import hashlib
from typing import BinaryIO, Protocol

from gpuaria.records import Digest

CHUNK = 1 << 20
EMPTY = frozenset(
    [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # sha256 of nothing
        "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",  # git's id of the empty blob
    ]
)
LENGTHS = {"sha256": 64, "sha512": 128, "sha3-256": 64, "sha1": 40, "md5": 32, "git-sha1": 40}
_CONSTRUCTORS = {"git-sha1": "sha1", "sha3-256": "sha3_256", "sha256-prefix": "sha256"}


class Hasher(Protocol):
    """What hashlib's objects offer of use here."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def hasher(algorithm: str, size: int) -> Hasher:
    """A fresh hasher for a content of `size` bytes. Raises ValueError for an unknown algorithm."""
    if algorithm not in LENGTHS and algorithm not in _CONSTRUCTORS:
        raise ValueError(f"unknown digest algorithm {algorithm!r}")
    new = hashlib.new(_CONSTRUCTORS.get(algorithm, algorithm), usedforsecurity=False)
    if algorithm == "git-sha1":
        new.update(b"blob %d\0" % size)
    return new


def matches(digest: Digest, hexdigest: str) -> bool:
    """Whether a finished hash is the one that was declared. An empty declaration never matches."""
    found = hexdigest[: len(digest.hex)] if digest.algorithm == "sha256-prefix" else hexdigest
    return digest.hex != "" and found == digest.hex


def hash_stream(stream: BinaryIO, algorithm: str, size: int) -> tuple[str, int]:
    """Hash what is left of `stream`; `size` is the length that the content claims. Returns (hex, bytes read)."""
    state, total = hasher(algorithm, size), 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        state.update(view[:count])
        total += count
    return state.hexdigest(), total


def hash_bytes(data: bytes, algorithm: str) -> str:
    """The hex digest of `data`."""
    state = hasher(algorithm, len(data))
    state.update(data)
    return state.hexdigest()


def lfs_pointer_oid(sha256: str, size: int) -> str:
    """The git blob id of the LFS pointer for a content: what a hub's tree must give as `oid` (git-lfs spec v1)."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return hash_bytes(pointer.encode(), "git-sha1")


def git_id(kind: str, data: bytes) -> str:
    """The id of a whole git object of that kind: "commit", "tree", "blob" or "tag"."""
    state = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)), usedforsecurity=False)
    state.update(data)
    return state.hexdigest()
