"""Each format reads back its own output; any other text is read or rejected with one error message."""

import dataclasses
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuaria.errors import GpuariaError, UnsafePath
from gpuaria.formats import aria2_input, manifest, metalink, sha256sums
from gpuaria.hashing import LENGTHS
from gpuaria.paths import SafePath, check_together
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef
from tests.support.manifests import a_file, a_manifest, is_safe_path, urls_for_all

relaxed = settings(deadline=None, max_examples=60)  # no time limit: the machine may be busy


def _paths(excluded: str) -> st.SearchStrategy[SafePath]:
    letters = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"), exclude_characters="/\\:" + excluded)
    part = st.text(letters, min_size=1, max_size=12)
    return st.lists(part, min_size=1, max_size=3).map("/".join).filter(is_safe_path).map(SafePath.parse)


paths = _paths("")
xml_paths = _paths("\ufffe\uffff")
hexes = st.integers(0, 2**512 - 1).map(lambda number: f"{number:0128x}")
digests = st.builds(lambda name, text: Digest(name, text[: LENGTHS[name]]), st.sampled_from(sorted(LENGTHS)), hexes)
sizes = st.integers(0, manifest.MAX_SIZE)
printables = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="@"), max_size=20)
labels = printables.filter(bool)
urls = st.lists(
    st.builds(
        lambda scheme, path, place: (f"{scheme}://m.example/{quote(path)}?a=1&b=2", place),
        st.sampled_from(["http", "https"]),
        paths,
        st.sampled_from(["", "cn", "de"]),
    ),
    min_size=1,
    max_size=3,
)


def _together(files: list[RemoteFile]) -> bool:
    try:
        check_together((file.path for file in files), case_sensitive=True)
    except UnsafePath:
        return False
    return True


def _file_lists(names: st.SearchStrategy[SafePath]) -> st.SearchStrategy[list[RemoteFile]]:
    oids = hexes.map(lambda text: text[:40]) | st.just("")
    files = st.builds(RemoteFile, names, sizes, st.none() | digests, oids)
    return st.lists(files, max_size=5, unique_by=lambda file: file.path).filter(_together)


def _manifests(names: st.SearchStrategy[SafePath]) -> st.SearchStrategy[Manifest]:
    return st.builds(
        lambda ref, files, name, vouched_by, trust, restricted: a_manifest(
            *files, ref=ref, name=name, vouched_by=vouched_by, trust=trust, restricted=restricted
        ),
        st.builds(
            RepoRef,
            st.just("hf"),
            st.sampled_from(["model", "dataset", "space"]),
            labels,
            printables,
            printables,
        ),
        _file_lists(names),
        labels,
        printables,
        st.sampled_from(["pinned", "origin", "quorum", "mirror only", "first seen", "none"]),
        st.booleans(),
    )


@relaxed
@given(_manifests(paths))
def test_manifest_round_trip(subject: Manifest) -> None:
    text = manifest.dump(subject)
    assert manifest.load(text) == subject
    assert manifest.dump(dataclasses.replace(subject, files=subject.files[::-1])) == text


@relaxed
@given(_manifests(xml_paths), st.data())
def test_metalink_round_trip(subject: Manifest, data: st.DataObject) -> None:
    where = {file.path: data.draw(urls) for file in subject.files}
    loaded = metalink.load(metalink.dump(subject, where))
    assert [(file.name, file.size, file.urls) for file in loaded] == [
        (file.path, file.size, tuple(where[file.path])) for file in subject.files
    ]
    plain = {"sha256", "sha512", "sha1", "md5"}
    for file, origin in zip(loaded, subject.files, strict=True):
        assert file.digests == ((origin.digest,) if origin.digest and origin.digest.algorithm in plain else ())


@relaxed
@given(_manifests(paths), st.data())
def test_input_file_round_trip(subject: Manifest, data: st.DataObject) -> None:
    keep = [f for f in subject.files if f.path == f.path.strip(" ") and "${HOME}" not in f.path]
    subject = dataclasses.replace(subject, files=tuple(keep))
    where = {file.path: data.draw(urls) for file in subject.files}
    entries = aria2_input.load(aria2_input.dump(subject, where, directory="/data/models"))
    assert [entry.options["out"] for entry in entries] == [file.path for file in subject.files]
    assert [entry.uris for entry in entries] == [tuple(url for url, _ in where[f.path]) for f in subject.files]
    for entry, file in zip(entries, subject.files, strict=True):
        sha256 = file.digest.hex if file.digest and file.digest.algorithm == "sha256" else None
        assert entry.options.get("checksum") == (f"sha-256={sha256}" if sha256 else None)
        assert entry.options["dir"] == "/data/models"


@relaxed
@given(_manifests(paths))
def test_sums_round_trip(subject: Manifest) -> None:
    wanted = {f.path: f.digest for f in subject.files if f.digest and f.digest.algorithm == "sha256"}
    assert sha256sums.load(sha256sums.dump(subject)) == wanted


LOADERS: list[Callable[[str], object]] = [metalink.load, aria2_input.load, sha256sums.load, manifest.load]
_VALID = [
    metalink.dump(a_manifest(a_file("a b"), a_file("c")), urls_for_all(a_manifest(a_file("a b"), a_file("c")))),
    aria2_input.dump(a_manifest(a_file("a b")), urls_for_all(a_manifest(a_file("a b")))),
    sha256sums.dump(a_manifest(a_file("a b"), a_file("c"))),
    manifest.dump(a_manifest(a_file("a b"), a_file("c"))),
]


@pytest.mark.parametrize("load", LOADERS)
@relaxed
@given(text=st.text(st.characters()))
def test_any_text_is_read_or_rejected_with_our_error(load: Callable[[str], object], text: str) -> None:
    _read_or_refuse(load, text)


@pytest.mark.parametrize(("load", "valid"), list(zip(LOADERS, _VALID, strict=True)))
@relaxed
@given(data=st.data())
def test_a_damaged_file_is_read_or_rejected_with_our_error(
    load: Callable[[str], object], valid: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(valid)))
    length = data.draw(st.integers(0, 40))
    middle = data.draw(st.text(max_size=5) | st.sampled_from(["-1", "null", "[]", "<x/>", "\n", "\t", '"', "1e9"]))
    _read_or_refuse(load, valid[:start] + middle + valid[start + length :])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@relaxed
@given(st.data())
def test_a_manifest_with_one_foreign_value_is_read_or_rejected(data: st.DataObject) -> None:
    row = json.loads(_VALID[3])
    target = data.draw(st.sampled_from([row, row["ref"], row["files"][0], row["files"][0]["digest"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(_json)
    _read_or_refuse(manifest.load, json.dumps(row))


def _read_or_refuse(load: Callable[[str], object], text: str) -> None:
    refusal = "none"
    try:
        load(text)
    except GpuariaError as error:
        refusal = error.message
    assert refusal
    assert "\n" not in refusal
