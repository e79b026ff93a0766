"""Valid and invalid headers of safetensors files."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.weights import ONE, problem, tensor, tensors


def test_valid_headers() -> None:
    for header, room, pad in (
        ({}, 0, b""),
        ({"__metadata__": {"format": "pt"}}, 0, b""),
        ({"a": ONE}, 8, b"     "),
        ({"b": tensor("BF16", [1, 2, 3], 8, 20), "a": ONE, "c": tensor("I64", [], 20, 28)}, 28, b""),
        ({"a": ONE, "nothing": tensor("F32", [0, 5], 8, 8)}, 8, b""),
        ({"a": tensor("F4", [3, 2], 0, 3), "b": tensor("F6_E2M3", [4], 3, 6)}, 6, b""),
        ({"a": tensor("OF_THE_FUTURE", [7], 0, 8)}, 8, b""),
        ({"a": {**ONE, "more": [{"x": 1}]}}, 8, b""),
    ):
        assert problem(tensors(header, room, pad)) == "", header


@pytest.mark.parametrize(
    ("header", "room", "said"),
    [
        ({"a": ONE, "b": tensor("F32", [2], 4, 12)}, 12, "'b' overlaps"),
        ({"a": ONE, "b": tensor("F32", [2], 12, 20)}, 20, "bytes 8 to 12 of the buffer are not part of a tensor"),
        ({"b": tensor("F32", [2], 4, 12)}, 12, "bytes 0 to 4"),
        ({"a": ONE}, 9, "bytes 8 to 9"),
        ({"a": ONE}, 7, "ends at byte 8 of a buffer of 7"),
        ({"a": tensor("F32", [2], 8, 0)}, 8, "before it begins"),
        ({"a": tensor("F32", [3], 0, 8)}, 8, "has 8 bytes, but its shape needs 12"),
        ({"a": tensor("F32", [2**62, 8], 0, 8)}, 8, "impossible size"),
        ({"a": tensor("F32", [10**18] * 500, 0, 8)}, 8, "impossible size"),
        ({"a": tensor("F32", [-2], 0, 8)}, 8, "has a missing or invalid"),
        ({"a": tensor("F32", [2.0], 0, 8)}, 8, "has a missing or invalid"),
        ({"a": tensor("F32", [True], 0, 4)}, 4, "has a missing or invalid"),
        ({"a": tensor("F32", [2], 0, None)}, 8, "has a missing or invalid"),
        ({"a": tensor(5, [2], 0, 8)}, 8, "has a missing or invalid"),
        ({"a": {"dtype": "F32"}}, 8, "has a missing or invalid"),
        ({"a": [1]}, 8, "has an invalid entry"),
        ({"__metadata__": {"a": 1}}, 0, "text to text"),
        ({"__metadata__": ["a"]}, 0, "text to text"),
        (
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            1,
            "twice",
        ),
        (b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1, "twice"),
        (b' {"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "begin with"),
        (b"{" + b"[" * 100_000, 0, "cannot be read"),
        (b'{"a":' + b"[" * 100_000, 0, "cannot be read"),
        (b'{"a":NaN}', 0, "NaN"),
        (b'{"a":' + b"9" * 5000 + b"}", 0, "cannot be read"),
        (b'{"\xff":1}', 0, "cannot be read"),
        (b"{", 0, "cannot be read"),
    ],
)
def test_invalid_headers(header: Any, room: int, said: str) -> None:
    found = problem(tensors(header, room))
    assert found is not None
    assert said in found
    assert len(found) < 300


def test_header_lengths() -> None:
    assert "but the file has 10" in (problem(struct.pack("<Q", 50) + b"{}") or "")
    assert "more than the limit of 100000000" in (problem(struct.pack("<Q", 2**63) + b"{}") or "")
    assert [problem(data) for data in (b"", b"abc", bytes(20), b"\xff" * 50, pickle.dumps({}))] == [None] * 5


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_makes_the_check_raise(text: bytes, rest: bytes) -> None:
    problem(text)
    problem(struct.pack("<Q", len(text) + 1) + b"{" + text + rest)
