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
    assert first.split_allowed([file]) == ((file,), ())
    assert first.check_file(file, lambda _: place) == ""
    assert [found.imports for found in first.pickles] == [("posix.system",)]
    receipts.close()
    place.unlink()
    receipts = Receipts(tmp_path / "receipts.sqlite")
    again = Screening(receipts)
    again.split_allowed([file, twin])
    assert again.is_known(file)
    assert again.check_file(file, lambda _: place) == again.check_file(twin, lambda _: place) == ""
    assert [found.path for found in again.pickles] == ["model.bin", "other/name.bin"]
    wanted, refused = Screening(receipts, no_pickle=True).split_allowed([file, remote("a.txt", b"text")])
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
    assert Screening(receipts).check_file(other, lambda _: place) == ""
    assert Screening(receipts, check_headers=False).check_file(file, lambda _: place) == ""
    screening = Screening(receipts)
    assert screening.split_allowed([other, file])[1] == ()
    assert screening.is_known(other)
    assert not screening.is_known(file)
    assert "a buffer of 7 bytes" in screening.check_file(file, lambda _: place)
    assert [step.file.path for step in Screening(receipts).split_allowed([other, file])[1]] == ["a.safetensors"]
    assert Screening(receipts, check_headers=False).split_allowed([other, file])[1] == ()
    receipts.close()


def test_damaged_and_foreign_notes_are_ignored(tmp_path: Path) -> None:
    data, place = b"text", tmp_path / "blob"
    place.write_bytes(data)
    file = remote("a.bin", data)
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "pickle": [1], "header": null}'):
        receipts = Receipts(None)
        receipts.note_content(file.digest, text)  # type: ignore[arg-type]
        screening = Screening(receipts)
        assert screening.split_allowed([file]) == ((file,), ()), text
        assert not screening.is_known(file)
        assert screening.check_file(file, lambda _: place) == ""
