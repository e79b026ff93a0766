"""Reading packs of git and dulwich, and rejecting damaged ones."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest
from dulwich.object_format import SHA1
from dulwich.objects import Blob, ShaFile, Tree
from dulwich.pack import write_pack_objects
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpuaria.errors import BadListing
from gpuaria.hashing import git_id
from gpuaria.sources.git_pack import MAX_OBJECTS, unpack
from tests.support.git_packs import back, delta, entry, number, packed, sealed

Found = set[tuple[str, bytes]]
GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="needs the git program")
BASE = b"".join(b"line %d\n" % number for number in range(400))
CHANGED = BASE.replace(b"line 7\n", b"line seven\n")


def written(objects: Iterable[ShaFile], *, deltify: bool) -> bytes:
    stream = BytesIO()
    write_pack_objects(stream, list(objects), object_format=SHA1, deltify=deltify)
    return stream.getvalue()


@pytest.mark.parametrize("deltify", [False, True])
def test_a_pack_written_by_dulwich(deltify: bool) -> None:
    tree = Tree()
    tree.add(b"a", 0o100644, Blob.from_string(BASE).id)
    objects = [Blob.from_string(BASE), Blob.from_string(CHANGED), tree, Blob.from_string(b"")]
    pack = written(objects, deltify=deltify)
    assert set(unpack(pack)) == {("blob", BASE), ("blob", CHANGED), ("blob", b""), ("tree", tree.as_raw_string())}


@needs_git
@pytest.mark.parametrize("by", ["offset", "id"])
def test_packs_of_git_with_long_delta_chains(by: str, tmp_path: Path) -> None:
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


def test_both_kinds_of_delta_with_any_base_position() -> None:
    first = entry(3, BASE)
    change = delta(BASE, CHANGED)
    oid = bytes.fromhex(git_id("blob", BASE))
    wanted: Found = {("blob", BASE), ("blob", CHANGED)}
    assert set(unpack(packed(first, entry(7, change, oid)))) == wanted
    assert set(unpack(packed(entry(7, change, oid), first))) == wanted
    assert set(unpack(packed(first, entry(6, change, back(len(first)))))) == wanted
    chain = entry(7, delta(CHANGED, b"end"), bytes.fromhex(git_id("blob", CHANGED)))
    assert set(unpack(packed(chain, entry(7, change, oid), first))) == wanted | {("blob", b"end")}


def test_a_delta_without_a_base_is_skipped() -> None:
    """As in a thin pack or a cycle: the caller reports the missing object."""
    lost = entry(7, delta(BASE, CHANGED), b"1" * 20)
    assert list(unpack(packed(entry(3, b"a"), lost))) == [("blob", b"a")]
    itself = entry(6, delta(BASE, CHANGED), back(0))
    assert list(unpack(packed(entry(3, b"a"), itself))) == [("blob", b"a")]


def test_a_pack_with_too_many_objects_is_rejected_at_its_header() -> None:
    with pytest.raises(BadListing, match="objects"):
        list(unpack(packed(entry(3, b"a"), count=MAX_OBJECTS + 1)))


GOOD = packed(entry(3, BASE), entry(6, delta(BASE, CHANGED), back(len(entry(3, BASE)))), entry(2, b""))


@settings(max_examples=1500)
@given(st.lists(st.tuples(st.integers(12, len(GOOD) - 21), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_few_wrong_bytes_give_objects_or_one_error(changes: list[tuple[int, int]]) -> None:
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
def test_any_delta_gives_an_object_or_one_error(base: bytes, change: bytes) -> None:
    first = entry(3, base)
    for text in (change, number(len(base), 0, 7) + change):
        try:
            list(unpack(packed(first, entry(6, text, back(len(first))))))
        except BadListing:
            pass


@given(st.integers(0, len(GOOD) - 1))
def test_a_truncated_pack_is_rejected(end: int) -> None:
    with pytest.raises(BadListing):
        list(unpack(GOOD[:end]))
    if 12 <= end < len(GOOD) - 20:
        with pytest.raises(BadListing):
            list(unpack(sealed(GOOD[:end])))
