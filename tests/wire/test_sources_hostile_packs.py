"""Packs that would cost much memory or time are rejected early."""

from __future__ import annotations

import time
import tracemalloc
import zlib

import pytest

from gpuaria.errors import BadListing
from gpuaria.hashing import git_id
from gpuaria.sources.git_pack import MAX_BYTES, unpack
from tests.support.git_packs import back, delta, entry, number, packed, sealed

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
def test_a_broken_or_hostile_pack_is_rejected_fast_and_with_little_memory(name: str) -> None:
    pack = BROKEN[name]
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(BadListing, match="pack from git cannot be read"):
            for _ in unpack(pack):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES * 1.3
    assert time.process_time() - began < 10


def test_deltas_that_each_double_their_base_are_stopped() -> None:
    """Thirty deltas of a few bytes would expand to a petabyte."""
    size, entries = 1 << 16, [entry(3, bytes(1 << 16))]
    for _ in range(30):
        whole = [b"\xf1" + b"\0" + min(1 << 23, size - at).to_bytes(3, "little") for at in range(0, size, 1 << 23)][:8]
        change = number(size, 0, 7) + number(2 * size, 0, 7) + b"".join(whole) * 2
        entries.append(entry(6, change, back(len(entries[-1]))))
        size *= 2
    began = time.process_time()
    with pytest.raises(BadListing, match=f"more than {MAX_BYTES:,} bytes"):
        list(unpack(packed(*entries)))
    assert time.process_time() - began < 20


def test_deltas_in_the_worst_order_take_no_longer() -> None:
    """The chain is sent in reverse: each base comes after its delta."""
    count, data = 20_000, b"0"
    entries = [entry(3, data)]
    for index in range(count):
        target = b"%d" % index
        entries.append(entry(7, delta(data, target), bytes.fromhex(git_id("blob", data))))
        data = target
    began = time.process_time()
    assert len(list(unpack(packed(*reversed(entries))))) == count + 1
    assert time.process_time() - began < 20
