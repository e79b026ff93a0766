"""Pickle scans: imports in pickles of every kind, and archives that hide pickles."""

from __future__ import annotations

import bz2
import collections
import datetime
import gzip
import io
import lzma
import pickle
import pickletools
import random
import struct
import subprocess
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuaria.content import pickles
from gpuaria.content.names import PickleScan, has_pickle_name
from gpuaria.content.opcodes import UNKNOWN
from tests.support.weights import PART, PROTOCOLS, WHOLE, Runs, finds_os_system, npy, scan, state_dict, timed, torch_zip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_of_every_protocol(protocol: int) -> None:
    plain = {
        "a": [1, 2.5, None, True, "ü", b"\0", 10**30, (), {1}, frozenset([2])],
        "when": datetime.datetime(2024, 1, 1),
    }
    assert scan(pickle.dumps(plain, protocol)) == PickleScan((), WHOLE)
    tensors = collections.OrderedDict(weight=bytearray(200_000))
    assert scan(pickle.dumps(tensors, protocol)) == PickleScan((), WHOLE)
    assert scan(pickle.dumps([plain, Runs()], protocol)) == PickleScan(("posix.system",), WHOLE)


def test_other_data_is_not_a_pickle() -> None:
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
    assert not scan(b"\x80\x02" + b"\xff" * 100)  # starts like a pickle and continues with other data


def test_every_form_of_import_is_found() -> None:
    """The pickles are written by hand, as an attacker would."""
    written = {
        b"cos\nsystem\n(S'id'\ntR.": "os.system",
        b"(S'id'\nios\nsystem\n.": "os.system",
        b"(cos\nsystem\nS'id'\no.": "os.system",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'id'\ntR.": "os.system",
        b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x01h\x00\x93(S'id'\ntR.": "os.system",  # through the memo
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


def test_a_pickle_that_breaks_after_its_calls_is_a_pickle() -> None:
    """A file that ends in garbage has already run its calls; real malware does this."""
    call = b"cos\nsystem\n(S'id'\ntR"
    for data in (call, call + b"\xff", b"\x80\x04" + call + b"\xff" * 100, call + b"0" * 50):
        assert scan(data) == PickleScan(("os.system",), PART)
    assert scan(b"\x80\x02cos\nsystem\n") == PickleScan(("os.system",), PART)  # the import alone runs a module's code


@pytest.mark.parametrize(
    "before",
    [
        b"I010\n0",  # octal, accepted only by the C unpickler
        b"I12\0 and more\n0",
        b"L\n0",
        b"F?\n0",
        b"I1\np1\0x\n0",
        b"Ptorch\n0",
        b"(((000",
        b"I" + b"9" * 3000 + b"\n0",
        b"V" + b"x" * 200_000 + b"\n0",
        b"X\x00\x00\x03\x00" + b"x" * 196_608 + b"0",
        b"N.I1\n.\x80\x02}.",  # after pickles as torch.save writes them
    ],
)
def test_opcodes_before_the_call_do_not_hide_it(before: bytes) -> None:
    found = scan(before + b"cos\nsystem\n(S'id'\ntR.")
    assert found is not None
    assert found.imports == ("os.system",)


def test_many_imports_do_not_hide_one() -> None:
    harmless = b"".join(b"ccollections\nOrderedDict\n0" for _ in range(300))
    assert scan(b"\x80\x02" + harmless + b"cos\nsystem\n)R.") == PickleScan(("os.system",), WHOLE)
    others = b"".join(b"cmy.module\nName%d\n0" % number for number in range(30))
    found = scan(b"\x80\x02" + others + b"cos\nsystem\n)R.")
    assert found is not None
    assert found.imports[0] == "os.system"  # the dangerous ones come first
    assert len(found.imports) == 8


def test_the_scan_agrees_with_the_real_unpicklers(tmp_path: Path) -> None:
    """For random programs, the scan reports what Python's unpicklers import."""
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


def test_the_opcode_table_is_complete() -> None:
    from gpuaria.content.opcodes import _OPS

    assert len(_OPS) == len(pickletools.opcodes) == 68


def test_torch_archives() -> None:
    assert scan(torch_zip(state_dict())) == PickleScan((), WHOLE)
    assert scan(torch_zip(state_dict(), compressed=True)) == PickleScan((), WHOLE)
    assert scan(torch_zip(state_dict(b"0cposix\nsystem\n)R"))) == PickleScan(("posix.system",), WHOLE)
    assert finds_os_system(torch_zip(pickle.dumps(Runs()), extra=3000))  # after more members than the scan opens
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("readme.txt", "data of no interest")
        archive.writestr("images/1.png", b"\x89PNG")
    assert scan(plain.getvalue()) is None


def test_torch_before_1_6() -> None:
    """A sequence of pickles: magic number, protocol, system, the object, the storage keys; then the raw bytes."""
    row = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in row)
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + random.Random(2).randbytes(16)
    assert scan(head + state_dict() + tail) == PickleScan((), WHOLE)
    assert scan(head + pickle.dumps(Runs(), 2) + tail) == PickleScan(("posix.system",), WHOLE)
    text = b"L119547037146038801333356L\n.I1001\n.(dp0\n."  # the same magic in protocol 0, which torch accepts too
    assert finds_os_system(text + pickle.dumps(Runs(), 0) + tail)


def test_torch_before_0_1_10_and_other_tar_files() -> None:
    def tar(**members: bytes) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    old = {"sys_info": pickle.dumps({}, 2), "storages": pickle.dumps(1, 0) + bytes(40), "tensors": pickle.dumps(0, 0)}
    assert scan(tar(**old, pickle=pickle.dumps([], 2))) == PickleScan((), WHOLE)
    assert finds_os_system(tar(**old, pickle=pickle.dumps(Runs(), 0)))
    assert finds_os_system(
        tar(**{"model_config.yaml": b"a: 1", "model_weights.ckpt": torch_zip(pickle.dumps(Runs()))})
    )  # .nemo
    assert scan(tar(**{"a.txt": b"text", "b.json": b"{}"})) is None


@pytest.mark.parametrize("version", [1, 2, 3])
def test_npy_files(version: int) -> None:
    assert scan(npy(struct.pack("<d", 1.5), "'<f8'", version)) is None
    assert scan(npy(pickle.dumps([1]), "'|O'", version)) == PickleScan((), WHOLE)
    assert finds_os_system(npy(pickle.dumps([Runs()]), "'|O'", version))
    assert finds_os_system(npy(pickle.dumps([Runs()]), "[('a', '<f8'), ('b', 'O')]", version))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(bytes(8), "'<f8'", version))
        archive.writestr("b", npy(pickle.dumps([Runs()]), "'|O'", version))
    assert finds_os_system(out.getvalue())


def test_files_written_by_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    for array, kept in ((numpy.arange(9.0), None), (numpy.array([1, "a", {}], dtype=object), PickleScan((), WHOLE))):
        plain, packed = io.BytesIO(), io.BytesIO()
        numpy.save(plain, array, allow_pickle=True)
        numpy.savez_compressed(packed, a=array)
        assert scan(plain.getvalue()) == scan(packed.getvalue()) == kept
        for protocol in PROTOCOLS:
            assert scan(pickle.dumps({"a": array, "b": array.dtype}, protocol)) == PickleScan((), WHOLE)


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, zlib.compress, lzma.compress, lambda b: lzma.compress(b, lzma.FORMAT_ALONE)]
)
def test_joblib_compression(pack: Callable[[bytes], bytes]) -> None:
    assert finds_os_system(pack(pickle.dumps([bytes(3_000_000), Runs()])))
    assert scan(pack(b"some text, not a pickle" * 1000)) is None
    assert finds_os_system(pack(pickle.dumps([Runs(), random.Random(1).randbytes(2_000_000)]))[:-20])  # truncated
    assert scan(pack(b"text")[:9] + b"\xff" * 100) is None


def test_joblib_arrays_interrupt_the_scan() -> None:
    """The array's bytes stand between the opcodes, so the scan cannot see what follows, and reports that."""
    wrapper = b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b"
    assert scan(wrapper + b"\xff\xfe" * 5000 + b"cos\nsystem\n)R.") == PickleScan((), PART)


def test_unknown_compression_is_reported() -> None:
    lz4 = b"\x04\x22\x4d\x18" + bytes(100)
    assert scan(lz4, "model.joblib") == PickleScan((), PART)
    assert scan(lz4, "data.lz4") is None


def test_nested_archives() -> None:
    data = torch_zip(pickle.dumps(Runs()))
    for _ in range(2):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("model.pt", data)
        data = out.getvalue()
    assert finds_os_system(data)
    for _ in range(50):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("model.pt", data)
        data = out.getvalue()
    timed(lambda: scan(data), 5, 30)


def test_an_archive_that_only_torch_reads_is_not_called_harmless() -> None:
    good = torch_zip(pickle.dumps(Runs()))
    directory = good.index(b"PK\1\2")
    assert scan(good[:directory]) == PickleScan((), PART)  # without its directory
    at = good.index(b"archive/data.pkl")
    other = good[:at] + b"archive/DATA.pkl" + good[at + 16 :]  # different names in the directory and at the data
    assert scan(other) == PickleScan((), PART)
    flagged = bytearray(good)
    flagged[good.index(b"PK\1\2") + 8] |= 1  # marked as encrypted
    assert scan(bytes(flagged)) == PickleScan((), PART)
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps(Runs()))
        archive.writestr("archive/data.pkl", state_dict())  # the same name twice
    assert finds_os_system(out.getvalue())


def test_a_file_may_have_two_formats() -> None:
    assert finds_os_system(pickle.dumps(Runs(), 0) + torch_zip(state_dict()))
    zipped = torch_zip(state_dict())
    assert finds_os_system(b"PK\3\4\n0" + pickle.dumps(Runs(), 2) + zipped)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_the_scan_raise(data: bytes) -> None:
    for head in (b"", b"\x80\x04", b"PK\3\4", b"\x93NUMPY\1\0", b"\x1f\x8b", b"BZh9", b"\x78\x9c", b"\xfd7zXZ\0"):
        scan(head + data)


CONTAINERS = [torch_zip(pickle.dumps(Runs())), npy(pickle.dumps([1]), "'|O'"), gzip.compress(pickle.dumps(Runs()))]


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_no_damage_makes_the_scan_raise(data: st.DataObject) -> None:
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


def test_the_scan_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    data = pickle.dumps(Runs(f"touch {trace}"))
    for file in (data, torch_zip(data), gzip.compress(data), npy(data, "'|O'")):
        assert finds_os_system(file)
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
def test_file_names_that_suggest_a_pickle(name: str, says: bool) -> None:
    assert has_pickle_name(name) == says
