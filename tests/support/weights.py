"""Hand-made pickles, archives of pickles and safetensors files, and what gpuaria finds in them."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

from gpuaria.content import pickles, safetensors
from gpuaria.content.names import PickleScan

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
WHOLE, PART = True, False


class Runs:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str = "touch /nowhere/at/all") -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def scan(data: bytes, name: str = "") -> PickleScan | None:
    """Scan bytes."""
    return pickles.scan_stream(io.BytesIO(data), name)


def finds_os_system(data: bytes, name: str = "") -> bool:
    """Return whether the scan finds os.system (pickled as posix.system)."""
    found = scan(data, name)
    return found is not None and "posix.system" in found.imports


def torch_zip(pickled: bytes, *, compressed: bool = False, extra: int = 0) -> bytes:
    """Build the zip file that torch.save writes since 1.6: NAME/data.pkl, NAME/data/0 ..., NAME/version."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for number in range(extra):
            archive.writestr(f"archive/data/x{number}", b"x")
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", random.Random(3).randbytes(5000))
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def state_dict(last: bytes = b"") -> bytes:
    """Build data.pkl of a state dict with one tensor; its storage is a persistent id."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
        b"0X\3\0\0\0cpuK\4tQK\0K\4\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02ccollections\nOrderedDict\n)R(X\6\0\0\0weight" + tensor + b"u" + last + b"."


def npy(value: bytes, descr: str, version: int = 1) -> bytes:
    """Build an .npy file (numpy.lib.format)."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    size = struct.pack("<H", len(header)) if version == 1 else struct.pack("<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + value


def timed(data: Callable[[], Any], seconds: float, megabytes: int) -> Any:
    """Return the result; fail if it takes more CPU seconds or more memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        found = data()
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < seconds
    return found


def tensor(kind: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    """Return the header entry of a tensor."""
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def tensors(header: Any, room: int, pad: bytes = b"") -> bytes:
    """Build a file with this header and `room` bytes after it."""
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + pad
    return struct.pack("<Q", len(text)) + text + bytes(room)


def problem(data: bytes) -> str | None:
    """Return what is wrong with the bytes."""
    return safetensors.header_problem_in(io.BytesIO(data), len(data))


ONE = tensor("F32", [2], 0, 8)
