"""Content verdicts: stored with the receipts, applied by the settings."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

from gpuaria.content.policy import Screening
from gpuaria.paths import SafePath
from gpuaria.records import Digest, RemoteFile
from gpuaria.storage.receipts import Receipts
from tests.support.weights import ONE, Runs, tensors


def remote(path: str, data: bytes) -> RemoteFile:
    """Return a file of a manifest; the digest is only a label."""
    return RemoteFile(SafePath.parse(path), len(data), Digest("sha256", f"{zlib.crc32(data):064x}"))


def test_a_verdict_outlives_the_file(tmp_path: Path) -> None:
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


def test_a_header_is_checked_once_the_check_is_enabled(tmp_path: Path) -> None:
    """A run without the check, or the same bytes under another name, leaves the verdict open."""
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
    assert "a buffer of 7 bytes" in screening.judge(file, lambda _: place)
    assert [step.file.path for step in Screening(receipts).beforehand([other, file])[1]] == ["a.safetensors"]
    assert Screening(receipts, check_headers=False).beforehand([other, file])[1] == ()
    receipts.close()


def test_damaged_and_foreign_notes_are_ignored(tmp_path: Path) -> None:
    data, place = b"text", tmp_path / "blob"
    place.write_bytes(data)
    file = remote("a.bin", data)
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "pickle": [1], "header": null}'):
        receipts = Receipts(None)
        receipts.note_content(file.digest, text)  # type: ignore[arg-type]
        screening = Screening(receipts)
        assert screening.beforehand([file]) == ((file,), ()), text
        assert not screening.knows(file)
        assert screening.judge(file, lambda _: place) == ""
