"""Trees that would cost much memory or time are read or rejected fast."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from gpuaria.errors import BadListing
from gpuaria.hashing import git_id
from tests.support.git_objects import Sent, committed, verdict


def test_a_tree_that_contains_itself_many_times_ends() -> None:
    """Forty trees that each contain the next one twice: 2**40 paths."""
    for leaf in (b"", b"100644 a\\b\0" + b"1" * 20):
        data, sent = leaf, Sent([("tree", leaf)])
        for _ in range(40):
            oid = bytes.fromhex(git_id("tree", data))
            data = b"40000 d\0" + oid + b"40000 e\0" + oid
            sent.append(("tree", data))
        commit, began = committed(git_id("tree", data), sent), time.process_time()
        with pytest.raises(BadListing, match="too large to verify"):
            verdict({}, commit, sent)
        assert time.process_time() - began < 20


def wide(entries: int, oid: bytes) -> tuple[str, Sent]:
    tree = b"".join(b"40000 %06x\0%s" % (number, oid) for number in range(entries))
    sent: Sent = [("tree", tree), ("tree", b"")]
    return committed(git_id("tree", tree), sent), sent


def test_a_tree_of_a_million_entries_is_read() -> None:
    assert verdict({}, *wide(1_000_000, bytes.fromhex(git_id("tree", b"")))) == ""
    with pytest.raises(BadListing, match="folder '000000'"):
        verdict({}, *wide(1_000_000, b"1" * 20))


def test_a_wide_tree_costs_no_memory_beyond_its_own_size() -> None:
    commit, sent = wide(50_000, bytes.fromhex(git_id("tree", b"")))
    tracemalloc.start()
    try:
        assert verdict({}, commit, sent) == ""
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
