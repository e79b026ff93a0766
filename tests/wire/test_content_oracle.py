"""The safetensors library accepts and rejects the same headers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.weights import problem, tensor, tensors


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_the_safetensors_library_agrees(data: st.DataObject) -> None:
    library = pytest.importorskip("safetensors")
    count = data.draw(st.integers(0, 4))
    header, end = {}, 0
    for number in range(count):
        size = data.draw(st.integers(0, 3))
        begin = end + data.draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        stop = begin + size * 2 + data.draw(st.sampled_from([0, 0, 0, 0, 2, -1]))
        kind = data.draw(st.sampled_from(["F16", "BF16", "I16", "U8", "F4"]))
        header[f"t{number}"] = tensor(kind, data.draw(st.sampled_from([[size], [1, size], [size, 1, 1]])), begin, stop)
        end = max(end, stop)
    names = data.draw(st.permutations(list(header)))
    file = tensors({name: header[name] for name in names}, max(0, end + data.draw(st.sampled_from([0, 0, 0, 1, -1]))))
    try:
        library.deserialize(file)
        right = True
    except library.SafetensorError:
        right = False
    assert (problem(file) == "") == right, problem(file)
