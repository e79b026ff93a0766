"""gpuaria.hashing, compared with known values, sha256sum and git."""

import hashlib
import io
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria import hashing
from gpuaria.records import Digest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

EMPTY = {
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha512": "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    "sha3-256": "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a",
    "sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "md5": "d41d8cd98f00b204e9800998ecf8427e",
    "git-sha1": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",  # git's well-known empty blob
}


@pytest.mark.parametrize(("algorithm", "expected"), sorted(EMPTY.items()))
def test_empty_content(algorithm: str, expected: str) -> None:
    assert hashing.hash_bytes(b"", algorithm) == expected
    assert len(expected) == hashing.LENGTHS[algorithm]


def test_every_algorithm_has_a_length() -> None:
    assert set(EMPTY) == set(hashing.LENGTHS)


@pytest.mark.parametrize("algorithm", ["", "SHA256", "sha-256", "crc32", "shake_128", "blake3"])
def test_unknown_algorithms_are_rejected(algorithm: str) -> None:
    with pytest.raises(ValueError, match="unknown digest algorithm"):
        hashing.hasher(algorithm, 0)


@pytest.mark.parametrize("size", [0, 1, hashing.CHUNK - 1, hashing.CHUNK, hashing.CHUNK + 1, 3 * hashing.CHUNK + 7])
@pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
def test_a_stream_hashes_like_its_bytes(algorithm: str, size: int) -> None:
    data = b"x" * size
    assert hashing.hash_stream(io.BytesIO(data), algorithm, size) == (hashing.hash_bytes(data, algorithm), size)


class _Trickle(io.BytesIO):
    """A stream that returns at most three bytes per read, as a pipe may."""

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        part = self.read(3)
        memoryview(buffer)[: len(part)] = part
        return len(part)


@given(st.binary(max_size=40))
def test_short_reads_change_nothing(data: bytes) -> None:
    found = hashing.hash_stream(_Trickle(data), "sha256", len(data))
    assert found == (hashlib.sha256(data).hexdigest(), len(data))


def test_a_stream_is_read_from_its_position() -> None:
    stream = io.BytesIO(b"abcdef")
    stream.seek(3)
    assert hashing.hash_stream(stream, "md5", 3) == (hashlib.md5(b"def").hexdigest(), 3)


def test_git_hashes_the_claimed_size() -> None:
    found, count = hashing.hash_stream(io.BytesIO(b"hello"), "git-sha1", 6)
    assert count == 5
    assert found != hashing.hash_bytes(b"hello", "git-sha1")


@pytest.mark.parametrize(
    ("digest", "found", "same"),
    [
        (Digest("sha256", "a" * 64), "a" * 64, True),
        (Digest("sha256", "a" * 64), "a" * 63 + "b", False),
        (Digest("sha256", "a" * 63), "a" * 64, False),
        (Digest("sha256", ""), "", False),
        (Digest("sha256-prefix", ""), "a" * 64, False),
        (Digest("sha256-prefix", "a" * 8), "a" * 8 + "b" * 56, True),
        (Digest("sha256-prefix", "b" * 8), "a" * 8 + "b" * 56, False),
        (Digest("sha256-prefix", "a" * 65), "a" * 64, False),
    ],
)
def test_digest_matches(digest: Digest, found: str, same: bool) -> None:
    assert hashing.matches(digest, found) is same


@given(st.binary(max_size=200), st.integers(1, 64))
def test_a_digest_prefix_matches(data: bytes, length: int) -> None:
    found = hashing.hash_bytes(data, "sha256-prefix")
    assert found == hashlib.sha256(data).hexdigest()
    assert hashing.matches(Digest("sha256-prefix", found[:length]), found)


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\0\r\n\xff" * 999])
def test_git_computes_the_same_ids(data: bytes) -> None:
    git = shutil.which("git")
    if not git:
        pytest.skip("no git")
    result = subprocess.run([git, "hash-object", "--stdin"], input=data, capture_output=True, check=True, timeout=20)
    assert result.stdout.decode().strip() == hashing.hash_bytes(data, "git-sha1")


@pytest.mark.parametrize(
    ("tool", "algorithm"), [("sha256sum", "sha256"), ("sha512sum", "sha512"), ("sha1sum", "sha1"), ("md5sum", "md5")]
)
def test_coreutils_compute_the_same_digests(tool: str, algorithm: str) -> None:
    found = shutil.which(tool)
    if not found:
        pytest.skip(f"no {tool}")
    data = b"some bytes\n" * 10_000
    result = subprocess.run([found], input=data, capture_output=True, check=True, timeout=20)
    assert result.stdout.decode().split()[0] == hashing.hash_bytes(data, algorithm)


def test_an_lfs_pointer_equals_the_blob_that_git_stores() -> None:
    git = shutil.which("git")
    if not git:
        pytest.skip("no git")
    sha256 = hashlib.sha256(b"hello").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 5\n".encode()
    result = subprocess.run([git, "hash-object", "--stdin"], input=pointer, capture_output=True, check=True, timeout=20)
    assert result.stdout.decode().strip() == hashing.lfs_pointer_oid(sha256, 5)


def test_a_non_ascii_digest_does_not_match_and_does_not_raise() -> None:
    assert not hashing.matches(Digest("sha256", "é" * 64), "0" * 64)
