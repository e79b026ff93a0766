"""Verification of a listing against a commit, on objects made by dulwich."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from dulwich.objects import Blob, ObjectID, Tree
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.errors import BadListing
from gpuaria.hashing import git_id
from gpuaria.paths import SafePath
from gpuaria.records import Digest, RemoteFile
from gpuaria.sources.git_verify import MAX_UNUSABLE, SMALL
from standin import pointer_text
from tests.support.git_objects import Sent, committed, raw, verdict

PLAIN, RUNS, LINK, FOLDER, MODULE = 0o100644, 0o100755, 0o120000, 0o040000, 0o160000
SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
POINTER = pointer_text(SHA256, 548105171)
LONG = b"long " * SMALL
Node = dict[bytes, "tuple[int, bytes] | Node"]
CONTENT: Node = {
    b"README.md": (PLAIN, LONG),
    b"config.json": (PLAIN, b"{}"),
    b"empty": (PLAIN, b""),
    b"model.safetensors": (PLAIN, POINTER),
    b"run.sh": (RUNS, b"#!/bin/sh\n"),
    b"link": (LINK, b"config.json"),
    b"sub": {b"a.txt": (PLAIN, b"a"), b"deep": {"ä.txt".encode(): (PLAIN, b"same")}},
    b"sub.txt": (PLAIN, b"same"),
}


def planted(node: Node, sent: Sent) -> ObjectID:
    """Add the objects of a tree to `sent` and return its id."""
    tree = Tree()
    for name, item in node.items():
        if isinstance(item, dict):
            tree.add(name, FOLDER, planted(item, sent))
            continue
        mode, data = item
        if mode == MODULE:
            tree.add(name, mode, ObjectID(data))
            continue
        blob = Blob.from_string(data)
        sent.append(raw(blob))
        tree.add(name, mode, blob.id)
    sent.append(raw(tree))
    return tree.id


def made(node: Node) -> tuple[str, Sent]:
    sent: Sent = []
    return committed(planted(node, sent).decode(), sent), sent


def file(path: str, data: bytes) -> RemoteFile:
    oid = git_id("blob", data)
    if data == POINTER:
        return RemoteFile(SafePath(path), 548105171, Digest("sha256", SHA256), oid)
    return RemoteFile(SafePath(path), len(data), Digest("git-sha1", oid), oid)


def files(node: Node, folder: str = "") -> dict[str, RemoteFile]:
    found: dict[str, RemoteFile] = {}
    for name, item in node.items():
        path = folder + name.decode()
        if isinstance(item, dict):
            found |= files(item, f"{path}/")
        elif item[0] != MODULE:
            found[path] = file(path, item[1])
    return found


def without(sent: Sent, kind: str, data: bytes | None = None) -> Sent:
    return [one for one in sent if one[0] != kind or (data is not None and one[1] != data)]


def test_the_listing_of_a_commit_is_verified() -> None:
    commit, sent = made(CONTENT)
    assert verdict(files(CONTENT), commit, sent) == ""
    assert verdict({}, *made({})) == ""


def test_object_order_and_unrelated_objects_do_not_matter() -> None:
    commit, sent = made(CONTENT)
    _, others = made({b"else": (PLAIN, b"else")})
    assert verdict(files(CONTENT), commit, [*others, *reversed(sent)]) == ""


def test_large_blobs_are_not_required() -> None:
    commit, sent = made(CONTENT)
    assert verdict(files(CONTENT), commit, without(sent, "blob", LONG)) == ""
    assert "README" not in verdict(files(CONTENT), commit, without(sent, "blob"))


def test_a_missing_small_blob_leaves_a_doubt() -> None:
    commit, sent = made(CONTENT)
    assert "'config.json', which may be an LFS pointer" in verdict(files(CONTENT), commit, without(sent, "blob", b"{}"))
    assert verdict(files(CONTENT), commit, without(sent, "blob", POINTER)) == ""  # its digest matches the id


LIES: dict[str, tuple[Callable[[dict[str, RemoteFile]], object], str]] = {
    "omitted": (lambda known: known.pop("sub/a.txt"), "omits 'sub/a.txt'"),
    "added": (lambda known: known.update(new=file("new", b"new")), "lists 'new', which is not in the commit"),
    "other bytes": (lambda known: known.update({"run.sh": file("run.sh", b"rm\n")}), "a different digest for 'run.sh'"),
    "other large bytes": (
        lambda known: known.update({"README.md": file("README.md", LONG + b"!")}),
        "a different digest for 'README.md'",
    ),
    "another digest beside the id": (
        lambda known: known.update(
            {"README.md": replace(known["README.md"], digest=Digest("git-sha1", git_id("blob", b"evil")))}
        ),
        "a different digest for 'README.md'",
    ),
    "another id beside the digest": (
        lambda known: known.update({"README.md": replace(known["README.md"], oid=git_id("blob", b"evil"))}),
        "a different digest for 'README.md'",
    ),
    "no digest": (
        lambda known: known.update({"README.md": replace(known["README.md"], digest=None)}),
        "a different digest for 'README.md'",
    ),
    "another size": (
        lambda known: known.update(empty=replace(known["empty"], size=1)),
        "a different digest for 'empty'",
    ),
    "LFS: another sha256": (
        lambda known: known.update(
            {"model.safetensors": replace(known["model.safetensors"], digest=Digest("sha256", "0" * 64))}
        ),
        "a different digest for 'model.safetensors'",
    ),
    "LFS: another size": (
        lambda known: known.update({"model.safetensors": replace(known["model.safetensors"], size=1)}),
        "a different digest for 'model.safetensors'",
    ),
    "LFS: the pointer as the file": (
        lambda known: known.update(
            {
                "model.safetensors": RemoteFile(
                    SafePath("model.safetensors"),
                    len(POINTER),
                    Digest("git-sha1", git_id("blob", POINTER)),
                    git_id("blob", POINTER),
                )
            }
        ),
        "lists the LFS file 'model.safetensors' as if its pointer were the file",
    ),
    "LFS: made of a plain file": (
        lambda known: known.update({"config.json": replace(known["model.safetensors"], path=SafePath("config.json"))}),
        "a different digest for 'config.json'",
    ),
    "a folder as a file": (
        lambda known: [known.pop("sub/a.txt"), known.update(sub=file("sub", b""))],
        "omits 'sub/a.txt'",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_different_listing_is_disproved(name: str) -> None:
    commit, sent = made(CONTENT)
    known = files(CONTENT)
    lie, sentence = LIES[name]
    lie(known)
    with pytest.raises(BadListing, match=sentence) as caught:
        verdict(known, commit, sent)
    assert caught.value.message.startswith("http://mirror ")


def test_a_pointer_listed_as_the_file_is_not_verified_even_if_withheld() -> None:
    """With its true size a pointer is below SMALL, so its blob is required; with another size its hash differs."""
    commit, sent = made({b"w.bin": (PLAIN, POINTER)})
    oid = git_id("blob", POINTER)
    known = {"w.bin": RemoteFile(SafePath("w.bin"), len(POINTER), Digest("git-sha1", oid), oid)}
    assert "w.bin" in verdict(known, commit, without(sent, "blob"))


@pytest.mark.parametrize("kind", ["commit", "tree"])
def test_an_altered_object_verifies_nothing(kind: str) -> None:
    commit, sent = made(CONTENT)
    for at, (what, data) in enumerate(sent):
        if what == kind:
            altered = [*sent[:at], (what, data[:-1] + bytes([data[-1] ^ 1])), *sent[at + 1 :]]
            with pytest.raises(BadListing, match=r"does not send the (commit|git tree of the (root )?folder)"):
                verdict(files(CONTENT), commit, altered)


def test_an_object_of_another_type_verifies_nothing() -> None:
    commit, sent = made(CONTENT)
    with pytest.raises(BadListing):
        verdict(files(CONTENT), commit, [("blob", data) for _, data in sent])


def test_submodules_and_unusable_names_are_skipped() -> None:
    odd: Node = {
        b"lib": (MODULE, b"1" * 40),
        b"back\\slash": (PLAIN, b"x"),
        b"con": (PLAIN, b"x"),
        b"..": {b"out.txt": (PLAIN, b"x")},
        b"latin\xe4": (PLAIN, b"x"),
        b"latin\xe4s": {b"x": (PLAIN, b"x")},
        b".cache": {b"huggingface": {b"trees": (PLAIN, b"x")}, b"mine": (PLAIN, b"mine")},
        b"n" * 256: (PLAIN, b"x"),
    }
    commit, sent = made(CONTENT | odd)
    known = files(CONTENT) | {".cache/mine": file(".cache/mine", b"mine")}
    assert verdict(known, commit, sent) == ""
    with pytest.raises(BadListing, match=r"omits '\.cache/mine'"):
        verdict(files(CONTENT), commit, sent)
    with pytest.raises(BadListing, match="lists 'lib'"):
        verdict(known | {"lib": file("lib", b"x")}, commit, sent)


@pytest.mark.parametrize(
    "entry", [b"100644 a/b\0" + b"1" * 20, b"100644 a\0short", b"x", b"100644 \0" + b"1" * 20, b"9 a\0" + b"1" * 20]
)
def test_an_unreadable_tree_is_one_error(entry: bytes) -> None:
    sent: Sent = [("tree", entry)]
    commit = committed(git_id("tree", entry), sent)
    with pytest.raises(BadListing, match="root folder of the commit cannot be read"):
        verdict({}, commit, sent)


def test_a_duplicate_name_in_a_tree_is_rejected() -> None:
    blob = bytes.fromhex(git_id("blob", b"a"))
    tree = 2 * (b"100644 a\0" + blob)
    sent: Sent = [("tree", tree), ("blob", b"a")]
    with pytest.raises(BadListing, match="twice"):
        verdict({"a": file("a", b"a")}, committed(git_id("tree", tree), sent), sent)


def test_old_file_modes_are_read() -> None:
    blob = bytes.fromhex(git_id("blob", b"a"))
    inner = b"100664 a\0" + blob
    tree = b"040000 d\0" + bytes.fromhex(git_id("tree", inner))
    sent: Sent = [("tree", tree), ("tree", inner), ("blob", b"a")]
    assert verdict({"d/a": file("d/a", b"a")}, committed(git_id("tree", tree), sent), sent) == ""


def nested(depth: int) -> tuple[str, Sent]:
    data = b"100644 a\0" + bytes.fromhex(git_id("blob", b"a"))
    sent: Sent = [("blob", b"a"), ("tree", data)]
    for _ in range(depth):
        data = b"40000 d\0" + bytes.fromhex(git_id("tree", data))
        sent.append(("tree", data))
    return git_id("tree", data), sent


def test_folders_deeper_than_any_path_are_skipped() -> None:
    root, sent = nested(10_000)
    commit = committed(root, sent)
    tracemalloc.start()
    try:
        assert verdict({}, commit, sent) == ""
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    root, sent = nested(400)
    path = "d/" * 400 + "a"
    assert verdict({path: file(path, b"a")}, committed(root, sent), sent) == ""


def test_a_limited_number_of_unusable_names_is_skipped() -> None:
    blob = bytes.fromhex(git_id("blob", b"a"))
    for count, fine in ((MAX_UNUSABLE, True), (MAX_UNUSABLE + 1, False)):
        tree = b"".join(b"100644 \\%06x\0%s" % (number, blob) for number in range(count))
        sent: Sent = [("tree", tree), ("blob", b"a")]
        commit = committed(git_id("tree", tree), sent)
        if fine:
            assert verdict({}, commit, sent) == ""
        else:
            with pytest.raises(BadListing, match="too large to verify"):
                verdict({}, commit, sent)


names = st.text("abcä.-", min_size=1, max_size=4).filter(lambda name: name not in (".", "..")).map(str.encode)
nodes: st.SearchStrategy[Node] = st.recursive(
    st.dictionaries(names, st.tuples(st.sampled_from([PLAIN, RUNS, LINK]), st.binary(max_size=5)), max_size=4),
    lambda inner: st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@given(nodes, st.data())
def test_no_single_bit_flip_is_accepted(node: Node, data: st.DataObject) -> None:
    commit, sent = made(node)
    known = files(node)
    assert verdict(known, commit, sent) == ""
    at = data.draw(st.integers(0, len(sent) - 1))
    kind, body = sent[at]
    if body:
        bit = data.draw(st.integers(0, 8 * len(body) - 1))
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        rest = [one for one in sent if one != (kind, body)]
        try:
            assert verdict(known, commit, [*rest, (kind, bytes(flipped))])
        except BadListing:
            pass


def test_ids_match_those_of_git() -> None:
    assert git_id("blob", b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_id("tree", b"") == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
