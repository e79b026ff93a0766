"""Fields of lock files that only some sources have, and names that other tools misread."""

import hashlib
import json
from typing import Any

import pytest

from gpuaria.errors import BadListing, FileNotInRepo
from gpuaria.formats import manifest, metalink, sha256sums
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef
from gpuaria.selection import select

PIN = Digest("sha256", "a" * 64)
LISTED = Manifest(
    RepoRef("plain", "model", "https://a.example/x/", ""),
    "x",
    "",
    "https://a.example",
    "origin",
    (RemoteFile(SafePath("f"), 5, None, urls=("https://a.example/x/f",), pinned=PIN),),
)


def changed(**fields: Any) -> str:
    """Return the text of LISTED with other fields in its file."""
    document = json.loads(manifest.dump(LISTED))
    document["files"][0].update(fields)
    return json.dumps(document)


def test_a_file_may_have_urls_and_a_pinned_sha256() -> None:
    assert manifest.load(manifest.dump(LISTED)) == LISTED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pinned": {"algorithm": "md5", "hex": "0" * 32}}, "pinned"),
        ({"urls": "https://a.example/x/f"}, "a list of URLs"),
        ({"urls": [1]}, "a list of URLs"),
    ],
)
def test_other_urls_and_pins_are_rejected(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadListing, match=said):
        manifest.load(changed(**fields))


def test_md5sums_are_read_in_the_same_forms() -> None:
    digest = hashlib.md5(b"x").hexdigest()
    assert sha256sums.load_md5(f"{digest}  ./a\nMD5 (b) = {digest}\n") == {
        SafePath("a"): Digest("md5", digest),
        SafePath("b"): Digest("md5", digest),
    }


def test_aria2_misreads_names_with_an_ampersand() -> None:
    assert metalink.misread_by_aria2("a&b.bin")
    assert not metalink.misread_by_aria2("a b.bin")


def test_a_folder_named_without_its_slash_is_accepted_if_the_patterns_have_it() -> None:
    found = Manifest(LISTED.ref, "x", "", "https://a.example", "origin", (RemoteFile(SafePath("onnx/m"), 5, None),))
    assert select(found, lambda path: path.startswith("onnx/"), ["onnx"], ["onnx/"]) == found
    with pytest.raises(FileNotInRepo) as error:
        select(found, lambda path: True, ["onnx"], [])
    assert error.value.hint == "Did you mean onnx/?"
