"""Check the header of a safetensors file against the format and the file size, without reading the tensors.

Format (github.com/huggingface/safetensors, README): 8 bytes with the header length N, N bytes of JSON from `{` on,
then the buffer. Each tensor has a dtype, a shape, and start and end offsets in the buffer. The tensors fill the buffer
without gaps or overlaps; names are unique; `__metadata__` maps text to text.
"""

import json
from pathlib import Path
from typing import Any, BinaryIO

from gpuaria.text import printable

_MAX_HEADER = 100_000_000  # bytes of a header: MAX_HEADER_SIZE of the reference implementation
_MAX_PUNCTUATION = 8_000_000  # brackets, commas and colons of a header, for about 600,000 tensors
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


def header_problem(path: Path) -> str | None:
    """Return the problem of the header, empty if it is valid; None if the file is not in safetensors format.

    Raises OSError if the file is unreadable.
    """
    with path.open("rb") as stream:
        return header_problem_in(stream, path.stat().st_size)


def header_problem_in(stream: BinaryIO, size: int) -> str | None:
    """Check a stream of `size` bytes, positioned at its start, like `header_problem`."""
    start = stream.read(4096)
    if not start[8:].lstrip(b" \t\r\n").startswith(b"{"):
        return None
    length = int.from_bytes(start[:8], "little")
    if length > _MAX_HEADER:
        return f"the header declares {length} bytes, more than the limit of {_MAX_HEADER}"
    if length > size - 8:
        return f"the header declares {length} bytes, but the file has {size}"
    if start[8:9] != b"{":
        return "the header does not begin with '{'"
    stream.seek(8)
    return _check_header(stream.read(length), size - 8 - length)


def _check_header(header: bytes, room: int) -> str:
    if sum(header.count(mark) for mark in (b"[", b"{", b",", b":")) > _MAX_PUNCTUATION:
        return "the header has too many entries"
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_unique_names, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        return f"the header cannot be read: {error}"[:200]
    return _check_tensors(entries, room)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{_quoted(twice)} appears twice")
    return found


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_tensors(entries: dict[str, Any], room: int) -> str:
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return "__metadata__ is not a map of text to text"
    places = []
    for name, entry in entries.items():
        wrong = _tensor_problem(entry, room)
        if wrong:
            return f"tensor {_quoted(name)} {wrong}"
        places.append((*entry["data_offsets"], name))
    end = 0
    for begin, stop, name in sorted(places):
        if begin < end:
            return f"tensor {_quoted(name)} overlaps another one: it begins at byte {begin} of the buffer, before {end}"
        if begin > end:
            return f"bytes {end} to {begin} of the buffer are not part of a tensor"
        end = stop
    return f"bytes {end} to {room} of the buffer are not part of a tensor" if end < room else ""


def _tensor_problem(entry: Any, room: int) -> str:
    """Return the problem of one tensor, as the end of a sentence; empty if it is valid."""
    if not isinstance(entry, dict):
        return "has an invalid entry"
    kind: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(kind, str) or not _are_naturals(shape) or not _are_naturals(offsets) or len(offsets) != 2:
        return "has a missing or invalid dtype, shape or data_offsets"
    begin, end = offsets
    if begin > end:
        return f"ends at byte {end} of the buffer, before it begins at {begin}"
    if end > room:
        return f"ends at byte {end} of a buffer of {room} bytes"
    if kind not in _BITS:
        return ""  # from a later version of the format: its size is unknown
    bits = _BITS[kind]
    for number in shape:
        bits *= number
        if bits >= 1 << 67:
            return "has an impossible size"
    if bits != (end - begin) * 8:
        return f"has {end - begin} bytes, but its shape needs {-(-bits // 8)}"
    return ""


def _are_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _quoted(name: str) -> str:
    return printable(name if len(name) <= 60 else f"{name[:57]}...")
