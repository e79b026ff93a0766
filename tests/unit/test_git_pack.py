"""Packs from git and from dulwich are read; packs that want to hurt are refused."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import time
import tracemalloc
import zlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest
from dulwich.object_format import SHA1
from dulwich.objects import Blob, ShaFile, Tree
from dulwich.pack import create_delta, write_pack_objects
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpuaria.errors import BadListing
from gpuaria.hashing import git_id
from gpuaria.sources.git_pack import MAX_BYTES, MAX_OBJECTS, unpack

Found = set[tuple[str, bytes]]
GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="needs the git program")
BASE = b"".join(b"line %d\n" % number for number in range(400))
CHANGED = BASE.replace(b"line 7\n", b"line seven\n")


def number(value: int, first: int, bits: int) -> bytes:
    """A size as git writes it, below `first` in the first byte, which holds `bits` of it."""
    out = [first | value & (1 << bits) - 1]
    value >>= bits
    while value:
        out[-1] |= 0x80
        out.append(value & 0x7F)
        value >>= 7
    return bytes(out)


def entry(kind: int, data: bytes, base: bytes = b"", size: int | None = None, packed: bytes | None = None) -> bytes:
    head = number(len(data) if size is None else size, kind << 4, 4)
    return head + base + (zlib.compress(data) if packed is None else packed)


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha1(body).digest()


def packed(*entries: bytes, count: int | None = None) -> bytes:
    return sealed(b"PACK\0\0\0\2" + (len(entries) if count is None else count).to_bytes(4) + b"".join(entries))


def back(distance: int) -> bytes:
    out = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        out.append(0x80 | distance & 0x7F)
    return bytes(reversed(out))


def delta(base: bytes, target: bytes) -> bytes:
    return b"".join(create_delta(base, target))


def written(objects: Iterable[ShaFile], *, deltify: bool) -> bytes:
    stream = BytesIO()
    write_pack_objects(stream, list(objects), object_format=SHA1, deltify=deltify)
    return stream.getvalue()


@pytest.mark.parametrize("deltify", [False, True])
def test_a_pack_of_dulwich(deltify: bool) -> None:
    tree = Tree()
    tree.add(b"a", 0o100644, Blob.from_string(BASE).id)
    objects = [Blob.from_string(BASE), Blob.from_string(CHANGED), tree, Blob.from_string(b"")]
    pack = written(objects, deltify=deltify)
    assert set(unpack(pack)) == {("blob", BASE), ("blob", CHANGED), ("blob", b""), ("tree", tree.as_raw_string())}


@needs_git
@pytest.mark.parametrize("by", ["offset", "id"])
def test_packs_of_git_with_long_chains_of_deltas(by: str, tmp_path: Path) -> None:
    def git(*words: str, data: bytes = b"") -> bytes:
        env = {"GIT_DIR": str(tmp_path / "r"), "HOME": str(tmp_path), "PATH": str(Path(str(GIT)).parent)}
        return subprocess.run([str(GIT), *words], env=env, input=data, capture_output=True, check=True).stdout

    git("init", "-q", "--bare", str(tmp_path / "r"))
    shades = [BASE.replace(b"line 9\n", b"line 9 " + b"x" * number + b"\n") for number in range(60)]
    ids = [git("hash-object", "-w", "--stdin", data=shade).strip() for shade in shades]
    large = random.Random(1).randbytes(3_000_000)
    ids.append(git("hash-object", "-w", "--stdin", data=large).strip())
    words = ["--delta-base-offset"] if by == "offset" else []
    pack = git("pack-objects", "--stdout", "-q", "--depth=50", *words, data=b"\n".join(ids) + b"\n")
    assert set(unpack(pack)) == {("blob", shade) for shade in shades} | {("blob", large)}
    assert len(pack) < 3_100_000


def test_deltas_of_either_kind_wherever_their_base_is() -> None:
    first = entry(3, BASE)
    change = delta(BASE, CHANGED)
    oid = bytes.fromhex(git_id("blob", BASE))
    wanted: Found = {("blob", BASE), ("blob", CHANGED)}
    assert set(unpack(packed(first, entry(7, change, oid)))) == wanted
    assert set(unpack(packed(entry(7, change, oid), first))) == wanted
    assert set(unpack(packed(first, entry(6, change, back(len(first)))))) == wanted
    chain = entry(7, delta(CHANGED, b"end"), bytes.fromhex(git_id("blob", CHANGED)))
    assert set(unpack(packed(chain, entry(7, change, oid), first))) == wanted | {("blob", b"end")}


def test_a_delta_to_nothing_is_left_out() -> None:
    """As in a thin pack, or in a circle: whoever needs the object will miss it."""
    lost = entry(7, delta(BASE, CHANGED), b"1" * 20)
    assert list(unpack(packed(entry(3, b"a"), lost))) == [("blob", b"a")]
    itself = entry(6, delta(BASE, CHANGED), back(0))
    assert list(unpack(packed(entry(3, b"a"), itself))) == [("blob", b"a")]


BOMB = zlib.compress(bytes(50_000_000), 9)
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "no pack": sealed(b"<html>" * 10),
    "version 9": sealed(b"PACK\0\0\0\x09\0\0\0\0"),
    "wrong checksum": packed(entry(3, b"a"))[:-1] + b"x",
    "more objects than there are": packed(entry(3, b"a"), count=2),
    "more behind its end": packed(entry(3, b"a"), entry(3, b"b"), count=1),
    "four billion objects": packed(count=0xFFFFFFFF),
    "kind 0": packed(entry(0, b"a")),
    "kind 5": packed(entry(5, b"a")),
    "larger than it says": packed(entry(3, b"", size=3, packed=BOMB)),
    "smaller than it says": packed(entry(3, b"a", size=5)),
    "two gigabytes": packed(entry(3, b"", size=2 << 30, packed=zlib.compress(b""))),
    "many bombs": packed(*[entry(3, b"", size=50_000_000, packed=BOMB)] * 6),
    "an endless size": packed(b"\xbf" + b"\xff" * 1_000_000),
    "an endless distance": packed(entry(3, b"a"), b"\xe5" + b"\xff" * 1_000_000),
    "a delta before the beginning": packed(entry(6, b"\0\0", back(1 << 40))),
    "no zlib": packed(entry(3, b"a", packed=b"no zlib at all")),
    "zlib without an end": packed(entry(3, bytes(100), packed=zlib.compress(bytes(100))[:-6])),
    "an empty delta": packed(entry(3, b"a"), entry(6, b"", back(10))),
    "a delta that copies beyond its base": packed(entry(3, b"a"), entry(6, b"\1\5\x91\0\5", back(10))),
    "a delta for another size": packed(entry(3, b"a"), entry(6, b"\x05\1\1x", back(10))),
    "a delta that grows": packed(entry(3, b"a"), entry(6, b"\1" + number(1 << 40, 0, 7) + b"\x90\1", back(10))),
    "a delta of an endless size": packed(entry(3, b"a"), entry(6, b"\1" + b"\xff" * 100_000, back(10))),
    "a delta without an opcode": packed(entry(3, b"a"), entry(6, b"\1\1\0", back(10))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_pack_that_is_broken_or_wants_to_hurt_is_refused_soon_and_small(name: str) -> None:
    pack = BROKEN[name]
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(BadListing, match="pack from git cannot be read"):
            for _ in unpack(pack):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES * 1.3
    assert time.monotonic() - began < 10


def test_a_pack_of_more_objects_than_allowed_is_not_begun() -> None:
    with pytest.raises(BadListing, match="objects"):
        list(unpack(packed(entry(3, b"a"), count=MAX_OBJECTS + 1)))


def test_deltas_that_each_double_their_base_end() -> None:
    """Thirty deltas of a few bytes would make a petabyte."""
    size, entries = 1 << 16, [entry(3, bytes(1 << 16))]
    for _ in range(30):
        whole = [b"\xf1" + b"\0" + min(1 << 23, size - at).to_bytes(3, "little") for at in range(0, size, 1 << 23)][:8]
        change = number(size, 0, 7) + number(2 * size, 0, 7) + b"".join(whole) * 2
        entries.append(entry(6, change, back(len(entries[-1]))))
        size *= 2
    began = time.monotonic()
    with pytest.raises(BadListing, match=f"more than {MAX_BYTES:,} bytes"):
        list(unpack(packed(*entries)))
    assert time.monotonic() - began < 20


def test_deltas_in_the_worst_order_take_no_longer_than_others() -> None:
    """A chain that is told from its end: each base comes after its delta."""
    count, data = 20_000, b"0"
    entries = [entry(3, data)]
    for index in range(count):
        target = b"%d" % index
        entries.append(entry(7, delta(data, target), bytes.fromhex(git_id("blob", data))))
        data = target
    began = time.monotonic()
    assert len(list(unpack(packed(*reversed(entries))))) == count + 1
    assert time.monotonic() - began < 20


GOOD = packed(entry(3, BASE), entry(6, delta(BASE, CHANGED), back(len(entry(3, BASE)))), entry(2, b""))


@settings(max_examples=1500)
@given(st.lists(st.tuples(st.integers(12, len(GOOD) - 21), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_few_wrong_bytes_end_in_objects_or_in_a_sentence(changes: list[tuple[int, int]]) -> None:
    body = bytearray(GOOD[:-20])
    for at, value in changes:
        body[at] = value
    try:
        list(unpack(sealed(bytes(body))))
    except BadListing:
        pass


@settings(max_examples=1500)
@given(st.binary(max_size=60), st.binary(max_size=40))
@example(b"\x80", b"")
def test_any_delta_ends_in_an_object_or_in_a_sentence(base: bytes, change: bytes) -> None:
    first = entry(3, base)
    for text in (change, number(len(base), 0, 7) + change):
        try:
            list(unpack(packed(first, entry(6, text, back(len(first))))))
        except BadListing:
            pass


@given(st.integers(0, len(GOOD) - 1))
def test_a_pack_cut_anywhere_is_refused(end: int) -> None:
    with pytest.raises(BadListing):
        list(unpack(GOOD[:end]))
    if 12 <= end < len(GOOD) - 20:
        with pytest.raises(BadListing):
            list(unpack(sealed(GOOD[:end])))
