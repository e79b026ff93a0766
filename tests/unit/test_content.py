"""What the bytes of a file are: pickles of every making, safetensors headers, and what a hostile file cannot do."""

from __future__ import annotations

import bz2
import collections
import datetime
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import random
import struct
import subprocess
import tarfile
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuaria.content import pickles, safetensors
from gpuaria.content.names import Scanned, named
from gpuaria.content.opcodes import UNKNOWN
from gpuaria.content.policy import Screening
from gpuaria.paths import SafePath
from gpuaria.records import Digest, RemoteFile
from gpuaria.storage.receipts import Receipts

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
WHOLE, PART = True, False


class Runs:
    """Unpickled, it would run a command."""

    def __init__(self, command: str = "touch /nowhere/at/all") -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def scan(data: bytes, name: str = "") -> Scanned | None:
    """The scan of bytes."""
    return pickles.scan_stream(io.BytesIO(data), name)


def evil(data: bytes, name: str = "") -> bool:
    """Whether the scan names os.system (which pickles as posix.system)."""
    found = scan(data, name)
    return found is not None and "posix.system" in found.imports


# --- pickles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_of_every_protocol(protocol: int) -> None:
    plain = {
        "a": [1, 2.5, None, True, "ü", b"\0", 10**30, (), {1}, frozenset([2])],
        "when": datetime.datetime(2024, 1, 1),
    }
    assert scan(pickle.dumps(plain, protocol)) == Scanned((), WHOLE)
    tensors = collections.OrderedDict(weight=bytearray(200_000))
    assert scan(pickle.dumps(tensors, protocol)) == Scanned((), WHOLE)
    assert scan(pickle.dumps([plain, Runs()], protocol)) == Scanned(("posix.system",), WHOLE)


def test_what_is_no_pickle() -> None:
    texts = [
        b"",
        b"{}",
        b'{"a": 1}',
        b"# readme\n",
        b"config\nfoo\nbar\n",
        b"N.B. this\n",
        b"import os\n",
        b"<html>",
        b"\x89PNG",
    ]
    assert [text for text in texts if scan(text)] == []
    chance = random.Random(5)
    assert not any(scan(chance.randbytes(4000)) for _ in range(500))
    assert not scan(b"GGUF\3\0\0\0" + bytes(4000))
    assert not scan(bytes(100_000))
    assert not scan(b"\x80\x02" + b"\xff" * 100)  # a pickle's first bytes, and nothing of one behind


def test_every_way_to_import_is_seen() -> None:
    """By hand, as an attacker would write it."""
    written = {
        b"cos\nsystem\n(S'id'\ntR.": "os.system",
        b"(S'id'\nios\nsystem\n.": "os.system",
        b"(cos\nsystem\nS'id'\no.": "os.system",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'id'\ntR.": "os.system",
        b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x01h\x00\x93(S'id'\ntR.": "os.system",  # by way of the memo
        b"\x80\x04Vo\\u0073\nS'sys\\x74em'\n\x93(S'id'\ntR.": "os.system",  # escaped
        b"\x80\x04\x8c\x02os2\x8c\x06system\x86\x8500\x8c\x02os\x8c\x06system\x93)R.": "os.system",  # popped again
        b"\x80\x02\x82\x05)R.": "copyreg.extension 5",
        b"\x80\x04cbuiltins\nstr\n\x8c\x01x\x85R\x8c\x06system\x93)R.": UNKNOWN,  # the name is the result of a call
        b"\x80\x04]]\x93)R.": UNKNOWN,
        b"\x80\x02cnumpy\ntesting._private.utils.runstring\n)R.": "numpy.testing._private.utils.runstring",
    }
    for data, name in written.items():
        found = scan(data)
        assert found is not None, data
        assert found.imports == (name,), data


def test_what_runs_before_it_breaks_is_a_pickle() -> None:
    """A file that ends in garbage has run by then; there are real ones."""
    call = b"cos\nsystem\n(S'id'\ntR"
    for data in (call, call + b"\xff", b"\x80\x04" + call + b"\xff" * 100, call + b"0" * 50):
        assert scan(data) == Scanned(("os.system",), PART)
    assert scan(b"\x80\x02cos\nsystem\n") == Scanned(("os.system",), PART)  # an import alone runs a module's code


@pytest.mark.parametrize(
    "before",
    [
        b"I010\n0",  # octal: for C's machine alone
        b"I12\0 and more\n0",
        b"L\n0",
        b"F?\n0",
        b"I1\np1\0x\n0",
        b"Ptorch\n0",
        b"(((000",
        b"I" + b"9" * 3000 + b"\n0",
        b"V" + b"x" * 200_000 + b"\n0",
        b"X\x00\x00\x03\x00" + b"x" * 196_608 + b"0",
        b"N.I1\n.\x80\x02}.",  # pickles before it, as torch.save wrote them
    ],
)
def test_nothing_before_the_call_hides_it(before: bytes) -> None:
    found = scan(before + b"cos\nsystem\n(S'id'\ntR.")
    assert found is not None
    assert found.imports == ("os.system",)


def test_many_imports_do_not_hide_one() -> None:
    harmless = b"".join(b"ccollections\nOrderedDict\n0" for _ in range(300))
    assert scan(b"\x80\x02" + harmless + b"cos\nsystem\n)R.") == Scanned(("os.system",), WHOLE)
    others = b"".join(b"cmy.module\nName%d\n0" % number for number in range(30))
    found = scan(b"\x80\x02" + others + b"cos\nsystem\n)R.")
    assert found is not None
    assert found.imports[0] == "os.system"  # the worst ahead
    assert len(found.imports) == 8


def test_the_walk_agrees_with_the_real_machines(tmp_path: Path) -> None:
    """What Python's own machine imports is what the scan says, for random programs that both can run."""
    seen: list[str] = []

    class Recorder(pickle._Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            seen.append(f"{module}.{name}")
            return collections.OrderedDict

        def persistent_load(self, pid: Any) -> Any:
            return None

    chance = random.Random(9)
    pieces = [
        *(
            b"N",
            b"]",
            b"}",
            b")",
            b"(",
            b"0",
            b"2",
            b"1",
            b"t",
            b"l",
            b"a",
            b"s",
            b"\x94",
            b"\x85",
            b"\x86",
            b"R",
            b"\x93",
        ),
        *(
            b"\x8c\x02os",
            b"\x8c\x06system",
            b"Vnt\n",
            b"S'posix'\n",
            b"cos\nsystem\n",
            b"h\0",
            b"q\0",
            b"h\1",
            b"q\1",
            b"g0\n",
        ),
        *(b"Q", b"K\1", b"X\2\0\0\0os", b"p0\n", b"(ios\nsystem\n", b"u", b"e", b"b", b"\x81"),
    ]
    ran = 0
    for _ in range(20_000):
        data = b"\x80\x04" + b"".join(chance.choices(pieces, k=chance.randint(3, 12))) + b"."
        seen.clear()
        try:
            Recorder(io.BytesIO(data)).load()
        except Exception:  # noqa: BLE001 a program that cannot run
            continue
        ran += 1
        found = scan(data)
        assert found is not None, data
        assert set(seen) <= set(found.imports) | {"collections.OrderedDict"}, data
    assert ran > 300


def test_the_table_of_opcodes_is_whole() -> None:
    from gpuaria.content.opcodes import _OPS

    assert len(_OPS) == len(pickletools.opcodes) == 68


# --- what holds pickles -------------------------------------------------------------------------------------------


def torch_zip(pickled: bytes, *, compressed: bool = False, extra: int = 0) -> bytes:
    """What torch.save writes since 1.6: a stored zip with NAME/data.pkl, NAME/data/0 ..., NAME/version."""
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
    """data.pkl of a state dict with one tensor, by hand: its storage is a persistent id."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
        b"0X\3\0\0\0cpuK\4tQK\0K\4\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02ccollections\nOrderedDict\n)R(X\6\0\0\0weight" + tensor + b"u" + last + b"."


def test_torch_archives() -> None:
    assert scan(torch_zip(state_dict())) == Scanned((), WHOLE)
    assert scan(torch_zip(state_dict(), compressed=True)) == Scanned((), WHOLE)
    assert scan(torch_zip(state_dict(b"0cposix\nsystem\n)R"))) == Scanned(("posix.system",), WHOLE)
    assert evil(torch_zip(pickle.dumps(Runs()), extra=3000))  # far behind more members than are opened
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("readme.txt", "data of no interest")
        archive.writestr("images/1.png", b"\x89PNG")
    assert scan(plain.getvalue()) is None


def test_torch_before_1_6() -> None:
    """A row of pickles: magic number, protocol, system, the object, the keys of its storages; then their bytes."""
    row = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in row)
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + random.Random(2).randbytes(16)
    assert scan(head + state_dict() + tail) == Scanned((), WHOLE)
    assert scan(head + pickle.dumps(Runs(), 2) + tail) == Scanned(("posix.system",), WHOLE)
    text = b"L119547037146038801333356L\n.I1001\n.(dp0\n."  # the same magic in protocol 0, which torch takes too
    assert evil(text + pickle.dumps(Runs(), 0) + tail)


def test_torch_before_0_1_10_and_other_tars() -> None:
    def tar(**members: bytes) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    old = {"sys_info": pickle.dumps({}, 2), "storages": pickle.dumps(1, 0) + bytes(40), "tensors": pickle.dumps(0, 0)}
    assert scan(tar(**old, pickle=pickle.dumps([], 2))) == Scanned((), WHOLE)
    assert evil(tar(**old, pickle=pickle.dumps(Runs(), 0)))
    assert evil(tar(**{"model_config.yaml": b"a: 1", "model_weights.ckpt": torch_zip(pickle.dumps(Runs()))}))  # .nemo
    assert scan(tar(**{"a.txt": b"text", "b.json": b"{}"})) is None


def npy(value: bytes, descr: str, version: int = 1) -> bytes:
    """An .npy file by hand (numpy.lib.format)."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    size = struct.pack("<H", len(header)) if version == 1 else struct.pack("<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + value


@pytest.mark.parametrize("version", [1, 2, 3])
def test_numpy(version: int) -> None:
    assert scan(npy(struct.pack("<d", 1.5), "'<f8'", version)) is None
    assert scan(npy(pickle.dumps([1]), "'|O'", version)) == Scanned((), WHOLE)
    assert evil(npy(pickle.dumps([Runs()]), "'|O'", version))
    assert evil(npy(pickle.dumps([Runs()]), "[('a', '<f8'), ('b', 'O')]", version))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(bytes(8), "'<f8'", version))
        archive.writestr("b", npy(pickle.dumps([Runs()]), "'|O'", version))
    assert evil(out.getvalue())


def test_numpy_itself() -> None:
    numpy = pytest.importorskip("numpy")
    for array, kept in ((numpy.arange(9.0), None), (numpy.array([1, "a", {}], dtype=object), Scanned((), WHOLE))):
        plain, packed = io.BytesIO(), io.BytesIO()
        numpy.save(plain, array, allow_pickle=True)
        numpy.savez_compressed(packed, a=array)
        assert scan(plain.getvalue()) == scan(packed.getvalue()) == kept
        for protocol in PROTOCOLS:
            assert scan(pickle.dumps({"a": array, "b": array.dtype}, protocol)) == Scanned((), WHOLE)


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, zlib.compress, lzma.compress, lambda b: lzma.compress(b, lzma.FORMAT_ALONE)]
)
def test_what_joblib_packs(pack: Callable[[bytes], bytes]) -> None:
    assert evil(pack(pickle.dumps([bytes(3_000_000), Runs()])))
    assert scan(pack(b"some text, not a pickle" * 1000)) is None
    assert evil(pack(pickle.dumps([Runs(), random.Random(1).randbytes(2_000_000)]))[:-20])  # cut short
    assert scan(pack(b"text")[:9] + b"\xff" * 100) is None


def test_joblib_arrays_break_the_row() -> None:
    """The array's bytes stand between the opcodes, so that what comes behind them is not seen: the answer says so."""
    wrapper = b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b"
    assert scan(wrapper + b"\xff\xfe" * 5000 + b"cos\nsystem\n)R.") == Scanned((), PART)


def test_packed_in_a_way_that_is_not_known_here() -> None:
    lz4 = b"\x04\x22\x4d\x18" + bytes(100)
    assert scan(lz4, "model.joblib") == Scanned((), PART)
    assert scan(lz4, "data.lz4") is None


# --- hostile ------------------------------------------------------------------------------------------------------


def timed(data: Callable[[], Any], seconds: float, megabytes: int) -> Any:
    """The result, had within CPU seconds and memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        found = data()
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < seconds
    return found


def test_a_hundred_gigabytes_that_begin_as_a_pickle(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as out:
        out.write(b"\x80\x04\x8e" + struct.pack("<Q", 99 << 30))  # one bytes object
        out.truncate(100 << 30)
    assert timed(lambda: pickles.scan(file), 5, 20) is None  # zeros behind it: no pickle can be read on
    with file.open("r+b") as out:
        out.seek((99 << 30) + 11)
        out.write(b"cos\nsystem\n)R.")
    assert timed(lambda: pickles.scan(file), 5, 20) == Scanned(("os.system",), WHOLE)
    with file.open("r+b") as out:
        out.write(b"\x80\x04(" + b"N0" * 1_000_000)
    assert timed(lambda: pickles.scan(file), 60, 60) == Scanned((), PART)
    for start in (b"\x80\x04V", b"\x80\x04c", b"cos\n"):
        with file.open("r+b") as out:
            out.truncate(0)
            out.write(start + b"x" * 70_000_000)  # a line without an end
        found = timed(lambda: pickles.scan(file), 20, 40)
        assert found == Scanned((), PART)


def test_bombs() -> None:
    zeros = zlib.compressobj()
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(100)) + zeros.flush()
    assert timed(lambda: scan(bomb), 5, 20) is None
    push = zlib.compress(b"\x80\x04(" + b"N" * 5_000_000)
    assert timed(lambda: scan(push), 60, 60) == Scanned((), PART)
    archive = torch_zip(b"\x80\x04\x8e" + struct.pack("<Q", 99 << 20) + bytes(99 << 20) + b".", compressed=True)
    assert timed(lambda: scan(archive), 10, 20) == Scanned((), PART)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as packed:
            packed.writestr("archive/data.pkl", bytes(50 << 20))
        assert timed(partial(scan, out.getvalue()), 5, 20) == Scanned((), PART)


def test_archives_in_archives() -> None:
    data = torch_zip(pickle.dumps(Runs()))
    for _ in range(2):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("model.pt", data)
        data = out.getvalue()
    assert evil(data)
    for _ in range(50):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("model.pt", data)
        data = out.getvalue()
    timed(lambda: scan(data), 5, 30)


def test_an_archive_that_only_torch_can_read_is_not_taken_for_harmless() -> None:
    good = torch_zip(pickle.dumps(Runs()))
    directory = good.index(b"PK\1\2")
    assert scan(good[:directory]) == Scanned((), PART)  # without its directory
    at = good.index(b"archive/data.pkl")
    other = (
        good[:at] + b"archive/DATA.pkl" + good[at + 16 :]
    )  # one name in the directory and another one beside the data
    assert scan(other) == Scanned((), PART)
    flagged = bytearray(good)
    flagged[good.index(b"PK\1\2") + 8] |= 1  # "encrypted"
    assert scan(bytes(flagged)) == Scanned((), PART)
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps(Runs()))
        archive.writestr("archive/data.pkl", state_dict())  # the same name twice
    assert evil(out.getvalue())


def test_a_file_may_be_two_things() -> None:
    assert evil(pickle.dumps(Runs(), 0) + torch_zip(state_dict()))
    zipped = torch_zip(state_dict())
    assert evil(b"PK\3\4\n0" + pickle.dumps(Runs(), 2) + zipped)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for head in (b"", b"\x80\x04", b"PK\3\4", b"\x93NUMPY\1\0", b"\x1f\x8b", b"BZh9", b"\x78\x9c", b"\xfd7zXZ\0"):
        scan(head + data)


CONTAINERS = [torch_zip(pickle.dumps(Runs())), npy(pickle.dumps([1]), "'|O'"), gzip.compress(pickle.dumps(Runs()))]


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_no_damage_makes_it_raise(data: st.DataObject) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("ü" * 120 + ".pkl")
        info.size = 30
        archive.addfile(info, io.BytesIO(bytes(30)))
    whole = bytearray(data.draw(st.sampled_from([*CONTAINERS, out.getvalue()])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    scan(bytes(whole[: data.draw(st.integers(1, len(whole)))]))


def test_nothing_is_ever_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    data = pickle.dumps(Runs(f"touch {trace}"))
    for file in (data, torch_zip(data), gzip.compress(data), npy(data, "'|O'")):
        assert evil(file)
    assert not trace.exists()
    room = Path(pickles.__file__).parent
    assert subprocess.run(
        ["grep", "-rnE", r"(pickle|marshal|dill|joblib|torch|numpy)\.load|\beval\(|\bexec\(", room]
    ).returncode


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((f"a/model.{kind}", True) for kind in ("pkl", "pickle", "pt", "pth", "ckpt", "joblib", "PT")),
        *(
            (f"{name}.bin", True)
            for name in ("pytorch_model", "pytorch_model-00001-of-00002", "x/adapter_model", "training_args")
        ),
        ("unet/diffusion_pytorch_model.fp16.bin", True),
        *(
            (name, False)
            for name in ("model.bin", "pt", "a.pt/config.json", "model.safetensors", "pytorch_model.bin.index.json")
        ),
    ],
)
def test_names_that_say_pickle(name: str, says: bool) -> None:
    assert named(name) == says


# --- safetensors --------------------------------------------------------------------------------------------------


def tensor(kind: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    """An entry of a header."""
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def tensors(header: Any, room: int, pad: bytes = b"") -> bytes:
    """A file with that header and `room` bytes behind it."""
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + pad
    return struct.pack("<Q", len(text)) + text + bytes(room)


def problem(data: bytes) -> str | None:
    """What is wrong with bytes."""
    return safetensors.problem_in(io.BytesIO(data), len(data))


ONE = tensor("F32", [2], 0, 8)


def test_headers_that_are_right() -> None:
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
        ({"a": ONE, "b": tensor("F32", [2], 12, 20)}, 20, "bytes 8 to 12 of the buffer belong to no tensor"),
        ({"b": tensor("F32", [2], 4, 12)}, 12, "bytes 0 to 4"),
        ({"a": ONE}, 9, "bytes 8 to 9"),
        ({"a": ONE}, 7, "ends at byte 8 of the buffer, which has 7"),
        ({"a": tensor("F32", [2], 8, 0)}, 8, "before it begins"),
        ({"a": tensor("F32", [3], 0, 8)}, 8, "has 8 bytes, and its shape takes 12"),
        ({"a": tensor("F32", [2**62, 8], 0, 8)}, 8, "larger than anything"),
        ({"a": tensor("F32", [10**18] * 500, 0, 8)}, 8, "larger than anything"),
        ({"a": tensor("F32", [-2], 0, 8)}, 8, "lacks a usable"),
        ({"a": tensor("F32", [2.0], 0, 8)}, 8, "lacks a usable"),
        ({"a": tensor("F32", [True], 0, 4)}, 4, "lacks a usable"),
        ({"a": tensor("F32", [2], 0, None)}, 8, "lacks a usable"),
        ({"a": tensor(5, [2], 0, 8)}, 8, "lacks a usable"),
        ({"a": {"dtype": "F32"}}, 8, "lacks a usable"),
        ({"a": [1]}, 8, "no entry"),
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
def test_headers_that_are_wrong(header: Any, room: int, said: str) -> None:
    found = problem(tensors(header, room))
    assert found is not None
    assert said in found
    assert len(found) < 300


def test_lengths_of_headers() -> None:
    assert "and the file has 10" in (problem(struct.pack("<Q", 50) + b"{}") or "")
    assert "100000000 are the most" in (problem(struct.pack("<Q", 2**63) + b"{}") or "")
    assert [problem(data) for data in (b"", b"abc", bytes(20), b"\xff" * 50, pickle.dumps({}))] == [None] * 5


def test_a_large_hostile_header_costs_little() -> None:
    for text in (b'{"a":[' + b"[]," * 20_000_000, b'{"a":"' + b"x" * 90_000_000 + b'"}'):
        assert timed(partial(problem, tensors(text, 0)), 20, 600)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_the_safetensors_library_thinks_the_same(data: st.DataObject) -> None:
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


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_makes_it_raise(text: bytes, rest: bytes) -> None:
    problem(text)
    problem(struct.pack("<Q", len(text) + 1) + b"{" + text + rest)


# --- rules and memory ---------------------------------------------------------------------------------------------


def remote(path: str, data: bytes) -> RemoteFile:
    """A file of a manifest; the digest is only a label here."""
    return RemoteFile(SafePath.parse(path), len(data), Digest("sha256", f"{zlib.crc32(data):064x}"))


def test_a_verdict_outlives_the_file_it_was_made_of(tmp_path: Path) -> None:
    data, place = pickle.dumps(Runs()), tmp_path / "blob"
    place.write_bytes(data)
    file, twin = remote("model.bin", data), remote("other/name.bin", data)
    receipts = Receipts(tmp_path / "receipts.sqlite")
    first = Screening(receipts)
    assert first.beforehand([file]) == ((file,), ())
    assert first.judge(file, lambda _: place) == ""
    assert [found.imports for found in first.pickles] == [("posix.system",)]
    receipts.close()
    place.unlink()
    receipts = Receipts(tmp_path / "receipts.sqlite")
    again = Screening(receipts)
    again.beforehand([file, twin])
    assert again.knows(file)
    assert again.judge(file, lambda _: place) == again.judge(twin, lambda _: place) == ""
    assert [found.path for found in again.pickles] == ["model.bin", "other/name.bin"]
    wanted, refused = Screening(receipts, no_pickle=True).beforehand([file, remote("a.txt", b"text")])
    assert [other.path for other in wanted] == ["a.txt"]
    assert [(step.action, step.file.path) for step in refused] == [("refuse", "model.bin")]
    assert "imports posix.system" in refused[0].reason
    receipts.close()


def test_a_header_is_looked_at_once_it_counts(tmp_path: Path) -> None:
    """The same bytes under another name, and a run without the check, leave it open."""
    data, place = tensors({"a": ONE}, 7), tmp_path / "blob"
    place.write_bytes(data)
    other, file = remote("a.dat", data), remote("a.safetensors", data)
    receipts = Receipts(tmp_path / "receipts.sqlite")
    assert Screening(receipts).judge(other, lambda _: place) == ""
    assert Screening(receipts, check_headers=False).judge(file, lambda _: place) == ""
    screening = Screening(receipts)
    assert screening.beforehand([other, file])[1] == ()
    assert screening.knows(other)
    assert not screening.knows(file)
    assert "which has 7" in screening.judge(file, lambda _: place)
    assert [step.file.path for step in Screening(receipts).beforehand([other, file])[1]] == ["a.safetensors"]
    assert Screening(receipts, check_headers=False).beforehand([other, file])[1] == ()
    receipts.close()


def test_damaged_and_foreign_notes_are_no_notes(tmp_path: Path) -> None:
    data, place = b"text", tmp_path / "blob"
    place.write_bytes(data)
    file = remote("a.bin", data)
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "pickle": [1], "header": null}'):
        receipts = Receipts(None)
        receipts.say(file.digest, text)  # type: ignore[arg-type]
        screening = Screening(receipts)
        assert screening.beforehand([file]) == ((file,), ()), text
        assert not screening.knows(file)
        assert screening.judge(file, lambda _: place) == ""
