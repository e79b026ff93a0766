"""The Hugging Face source with scripted responses; tests/contract/test_sources.py has the contract of all sources."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuaria.errors import (
    AccessDenied,
    BadListing,
    BadToken,
    FileNotInRepo,
    Gated,
    GpuariaError,
    NetworkError,
    NotAHub,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    UnsafePath,
    UsageError,
)
from gpuaria.hashing import lfs_pointer_oid
from gpuaria.http.client import Http, HttpOptions
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, Mirror, MirrorUrl, RemoteFile, RepoKind, RepoRef
from gpuaria.sources.huggingface import HuggingFace
from gpuaria.sources.protocol import RepoInfo
from gpuaria.sources.web import expiry
from gpuaria.urls import url_origin
from standin import Hub, Repo, Seen
from tests.support.checkout import RECORDED
from tests.support.recorded import TOKEN, Reply, Scripted, always_true, signed_in

ENDPOINT = "https://hub.example"
HF = HuggingFace()
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
POINTER = "44b36d6e32d13c8fb28b0feab0ac8bfefa7efeda"
BLOB = "10c66461e4c109db5a2196bff4bb59be30396ed8"
SIZE = 548105171
ANONYMOUS = Http()  # shared, as loading its certificates is slow


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- parse --------------------------------------------------------------------------------------------------------

PAGES = "https://huggingface.co"
PARSED: list[tuple[str, RepoKind, str, str, str]] = [
    ("gpt2-medium", "model", "gpt2-medium", "main", ""),
    ("  gpt2-medium\n", "model", "gpt2-medium", "main", ""),
    ("org/name", "model", "org/name", "main", ""),
    ("org/name/", "model", "org/name", "main", ""),
    ("org/name@v1.0", "model", "org/name", "v1.0", ""),
    (f"org/name@{COMMIT}", "model", "org/name", COMMIT, ""),
    ("org/name@refs/pr/1", "model", "org/name", "refs/pr/1", ""),
    ("hf://org/name@refs/pr/1/onnx/model.onnx", "model", "org/name", "refs/pr/1", "onnx/model.onnx"),
    ("hf://org/name@main/onnx/model.onnx", "model", "org/name", "main", "onnx/model.onnx"),
    ("hf://org/name@feature%2Fx/a.txt", "model", "org/name", "feature/x", "a.txt"),
    ("org/name@feature/x", "model", "org/name", "feature/x", ""),
    ("hf:org/name@feature%2Fx", "model", "org/name", "feature/x", ""),
    ("hf:gpt2", "model", "gpt2", "main", ""),
    ("hf:org/name@rev", "model", "org/name", "rev", ""),
    ("hf://org/name", "model", "org/name", "main", ""),
    ("hf://datasets/org/name@rev", "dataset", "org/name", "rev", ""),
    ("hf://datasets/org/name@rev/data/a.csv", "dataset", "org/name", "rev", "data/a.csv"),
    ("datasets/org/name", "dataset", "org/name", "main", ""),
    ("datasets/squad", "dataset", "squad", "main", ""),
    ("spaces/org/name", "space", "org/name", "main", ""),
    ("models/org/name", "model", "org/name", "main", ""),
    ("datasets", "model", "datasets", "main", ""),
    ("org/a.b_c-d", "model", "org/a.b_c-d", "main", ""),
    (f"{PAGES}/gpt2", "model", "gpt2", "main", ""),
    (f"{PAGES}/gpt2/tree/main", "model", "gpt2", "main", ""),
    (f"{PAGES}/org/name", "model", "org/name", "main", ""),
    (f"{PAGES}/org/name/", "model", "org/name", "main", ""),
    (f"{PAGES}/org/name?library=transformers#files", "model", "org/name", "main", ""),
    (f"{PAGES}/org/name/tree/v1.0", "model", "org/name", "v1.0", ""),
    (f"{PAGES}/org/name/tree", "model", "org/name", "main", ""),
    (f"{PAGES}/org/tree", "model", "org/tree", "main", ""),
    (f"{PAGES}/org/name/tree/main/onnx", "model", "org/name", "main", "onnx/"),
    (f"{PAGES}/org/name/blob/main/a/b%20c.bin", "model", "org/name", "main", "a/b c.bin"),
    (f"{PAGES}/org/name/resolve/main/w.bin?download=true", "model", "org/name", "main", "w.bin"),
    (f"{PAGES}/org/name/raw/main/w.bin", "model", "org/name", "main", "w.bin"),
    (f"{PAGES}/org/name/blob/main/100%25.txt", "model", "org/name", "main", "100%.txt"),
    (f"{PAGES}/org/name/blob/main/a%3Fb.txt", "model", "org/name", "main", "a?b.txt"),
    (f"{PAGES}/org/name/tree/refs%2Fpr%2F1", "model", "org/name", "refs/pr/1", ""),
    (f"{PAGES}/org/name/tree/refs%2Fpr%2F1/onnx", "model", "org/name", "refs/pr/1", "onnx/"),
    (f"{PAGES}/org/name/tree/refs/pr/1", "model", "org/name", "refs/pr/1", ""),
    (f"{PAGES}/org/name/blob/refs/pr/1/a/b", "model", "org/name", "refs/pr/1", "a/b"),
    (f"{PAGES}/org/name/tree/feature%2Fx/onnx", "model", "org/name", "feature/x", "onnx/"),
    (f"{PAGES}/org/name/tree/main/v1.5/", "model", "org/name", "main", "v1.5/"),
    (f"{PAGES}/org/name/blob/main/LICENSE", "model", "org/name", "main", "LICENSE"),
    (f"{PAGES}/org/name/commits/refs%2Fpr%2F1/onnx", "model", "org/name", "refs/pr/1", ""),
    ("hf://org/name@main/onnx/", "model", "org/name", "main", "onnx/"),
    (f"{PAGES}/org/name/commit/{COMMIT}", "model", "org/name", COMMIT, ""),
    (f"{PAGES}/org/name/commits/dev", "model", "org/name", "dev", ""),
    (f"{PAGES}/org/name/discussions/3", "model", "org/name", "main", ""),
    (f"{PAGES}/datasets/org/name/blob/main/d.csv", "dataset", "org/name", "main", "d.csv"),
    (f"{PAGES}/datasets/squad/tree/main", "dataset", "squad", "main", ""),
    (f"{PAGES}/spaces/org/name/tree/main", "space", "org/name", "main", ""),
    ("http://huggingface.co/org/name", "model", "org/name", "main", ""),
    ("HTTPS://HuggingFace.co/org/name", "model", "org/name", "main", ""),
    ("https://hf.co/org/name", "model", "org/name", "main", ""),
    ("https://hf-mirror.com/org/name/tree/main", "model", "org/name", "main", ""),
    (f"{ENDPOINT}/org/name/tree/dev", "model", "org/name", "dev", ""),
    ("https://mirror.example/hf/org/name/tree/dev", "model", "org/name", "dev", ""),
    ("https://mirror.example/hf/gpt2", "model", "gpt2", "main", ""),
]


@pytest.mark.parametrize(("text", "kind", "name", "revision", "path"), PARSED, ids=[row[0] for row in PARSED])
def test_typed_and_pasted_references(text: str, kind: RepoKind, name: str, revision: str, path: str) -> None:
    ref = HF.parse(text, None, "", [ENDPOINT, "https://mirror.example/hf"])
    assert ref == RepoRef("hf", kind, name, revision, path)


REFUSED = [
    "",
    " ",
    "/",
    "hf:",
    "hf://",
    "a/b/c",
    "org//name",
    "../name",
    "org/..",
    "org/.hidden",
    "-x/name",
    "org/name-",
    "org/na--me",
    "org/na..me",
    "org/name.git",
    "org/na me",
    "org/näme",
    "org/" + "n" * 97,
    "datasets/a/b/c",
    "org/name@a b",
    "org/name@-x",
    "org/name@a^",
    "org/name@a~1",
    "org/name@a:b",
    "org/name@../../etc",
    "org/name@/etc",
    "org/name@",
    "org/name@refs/../x",
    f"{PAGES}",
    f"{PAGES}/a/b/c/d",
    f"{PAGES}/org%2Fname",
    f"{PAGES}/org/name/tree/..%2F..%2Fetc",
    "https://evil.example/org/name",
    "https://huggingface.co.evil.example/org/name",
    "https://huggingface.co:8443/org/name",
    "https://huggingface.co@evil.example/org/name",
    "https://[::/x",
    "https://h:port/x",
    "https://mirror.example/other/org/name",
    "ftp://huggingface.co/org/name",
    "file:///etc/passwd",
    "org/name\0",
    "org/name@v\x1b[2J",
]


@pytest.mark.parametrize("text", REFUSED)
def test_invalid_references(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        HF.parse(text, None, "", [ENDPOINT, "https://mirror.example/hf"])
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    assert caught.value.hint


def test_a_url_of_another_site_is_reported_without_its_password() -> None:
    with pytest.raises(UsageError, match=r"https://evil\.example/x is not a URL of the configured hub") as caught:
        HF.parse("https://me:word@evil.example/x?token=y", None, "", ["https://you:drow@hub.example"])
    assert "word" not in caught.value.message
    assert "token" not in caught.value.message
    assert "drow" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "kind", "revision", "expected"),
    [
        ("org/name", "dataset", "", RepoRef("hf", "dataset", "org/name")),
        ("datasets/org/name", "dataset", "", RepoRef("hf", "dataset", "org/name")),
        ("org/name", None, "v2", RepoRef("hf", "model", "org/name", "v2")),
        ("org/name@v2", None, "v2", RepoRef("hf", "model", "org/name", "v2")),
        ("datasets/org/name", "model", "", "--type says model"),
        (f"{PAGES}/spaces/a/b", "dataset", "", "--type says dataset"),
        ("org/name@v1", None, "v2", "another revision than --revision 'v2'"),
        ("org/name", None, "a b", "is not a revision"),
        ("org/name", None, "../x", "is not a revision"),
    ],
)
def test_options_next_to_the_text(text: str, kind: RepoKind | None, revision: str, expected: RepoRef | str) -> None:
    if isinstance(expected, RepoRef):
        assert HF.parse(text, kind, revision, [ENDPOINT]) == expected
    else:
        with pytest.raises(UsageError, match=expected):
            HF.parse(text, kind, revision, [ENDPOINT])


SHAPED = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["", "hf:", "hf://", "datasets/", f"{PAGES}/", f"{PAGES}/datasets/", "https://", "http://["]),
    st.text("abAZ09-_./%@:\\ \u202e\ud800é", max_size=30),
    st.sampled_from(["", "@", "@v1", "/tree/", "/blob/main/", "/resolve/refs/pr/", "?", "#"]),
    st.text(max_size=10),
)


@given(SHAPED, st.text(max_size=5))
@settings(max_examples=500)
def test_any_reference_is_safe_in_urls_and_folder_names(text: str, revision: str) -> None:
    try:
        ref = HF.parse(text, None, revision, [ENDPOINT])
    except UsageError:
        return
    assert 1 <= len(ref.name.split("/")) <= 2
    assert not set(ref.name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./")
    assert ".." not in ref.name
    SafePath.parse(ref.revision)
    again = HF.parse(f"{ref.name}", ref.kind, ref.revision, [ENDPOINT])
    assert (again.kind, again.name, again.revision) == (ref.kind, ref.name, ref.revision)


# --- commit -------------------------------------------------------------------------------------------------------

REF = RepoRef("hf", "model", "org/name")
INFO = RepoInfo("org/name", COMMIT, restricted=False)
JSON = {"content-type": "application/json"}


def saying(body: object, status: int = 200, headers: Mapping[str, str] = JSON) -> Callable[[Seen], Reply]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda seen: (status, headers, raw)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"id": "org/name", "sha": COMMIT}, INFO),
        ({"sha": COMMIT}, INFO),
        ({"id": "Org/Name", "sha": COMMIT}, RepoInfo("Org/Name", COMMIT, restricted=False)),
        ({"id": "org/name", "sha": COMMIT, "private": True}, RepoInfo("org/name", COMMIT, restricted=True)),
        ({"id": "org/name", "sha": COMMIT, "gated": "auto"}, RepoInfo("org/name", COMMIT, restricted=True)),
    ],
)
def test_a_revision_becomes_a_commit(answer: object, expected: RepoInfo) -> None:
    with Scripted(saying(answer)) as hub:
        assert HF.commit(REF, hub.url, ANONYMOUS) == expected
        assert hub.targets == ["/api/models/org/name/revision/main"]


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Sign in</html>",
        b"",
        b"\xff\xfe\x00",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"sha": ' + b"1" * 5000 + b"}",
        [],
        None,
        3,
        {},
        {"id": "org/name"},
        {"id": "org/name", "sha": COMMIT.upper()},
        {"id": "org/name", "sha": COMMIT[:39]},
        {"id": "org/name", "sha": COMMIT + "\n"},
        {"id": "org/name", "sha": [COMMIT]},
        {"id": "../name", "sha": COMMIT},
        {"id": "a/b/c", "sha": COMMIT},
        {"id": "org/na me", "sha": COMMIT},
        {"id": ["org/name"], "sha": COMMIT},
    ],
)
def test_a_response_without_a_commit_is_not_a_hubs(answer: object) -> None:
    with Scripted(saying(answer)) as hub, pytest.raises(NotAHub) as caught:
        HF.commit(REF, hub.url, ANONYMOUS)
    assert caught.value.exit_code == 7
    assert hub.label == "scripted"
    assert "captive portal" in caught.value.hint


def test_a_captive_portal_is_not_a_hub() -> None:
    with Scripted(saying(b"", 302, {"location": "http://portal.example/login"})) as hub:
        with pytest.raises(NotAHub, match="HTTP 302"):
            HF.commit(REF, hub.url, ANONYMOUS)
        assert len(hub.targets) == 1


def test_the_commit_in_the_response_must_be_the_requested_one() -> None:
    pinned = RepoRef("hf", "model", "org/name", COMMIT)
    with (
        Scripted(saying({"id": "org/name", "sha": "0" * 40})) as hub,
        pytest.raises(NotAHub, match=r"returned commit 0+ instead of"),
    ):
        HF.commit(pinned, hub.url, ANONYMOUS)


def test_a_disabled_repo_is_reported() -> None:
    answer = {"id": "org/name", "sha": COMMIT, "disabled": True}
    with Scripted(saying(answer)) as hub, pytest.raises(AccessDenied, match="disabled"):
        HF.commit(REF, hub.url, ANONYMOUS)


def sibling(path: object, size: int = 3, oid: object = BLOB, **more: object) -> dict[str, object]:
    return {"rfilename": path, "size": size, "blobId": oid, **more}


def moved(siblings: object, kind: RepoKind = "model") -> tuple[dict[str, int], list[str]]:
    """List a repo by its old name from a hub whose redirects drop the query; return sizes and targets."""
    old, new = (f"/api/{kind}s/{name}/revision/main" for name in ("old", "org/name"))

    def reply(seen: Seen) -> Reply:
        if seen.target == old:
            return 307, {"location": new}, b""
        if "/tree/" in seen.target:
            return 200, JSON, json.dumps([plain("a.txt"), plain("b.txt")]).encode()
        return 200, JSON, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()

    with Scripted(reply) as hub:
        ref = RepoRef("hf", kind, "old")
        manifest = HF.listing(ref, HF.commit(ref, hub.url, ANONYMOUS), hub.url, ANONYMOUS, always_true)
        assert (manifest.name, manifest.commit) == ("org/name", COMMIT)
        return {str(file.path): file.size for file in manifest.files}, hub.targets


def test_the_files_of_a_renamed_repo_come_with_its_commit() -> None:
    lfs = sibling("w.bin", SIZE, POINTER, lfs={"sha256": SHA256, "size": SIZE, "pointerSize": 134})
    sizes, targets = moved([lfs, sibling("a.txt"), sibling("none", 0, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")])
    assert sizes == {"a.txt": 3, "none": 0, "w.bin": SIZE}
    assert targets == ["/api/models/old/revision/main", "/api/models/org/name/revision/main?blobs=true"]


@pytest.mark.parametrize(
    "siblings",
    [
        None,
        [],
        [{"rfilename": "a.txt"}],
        [sibling("a.txt"), {"rfilename": "b.txt"}],
        [sibling("a.txt"), sibling([]), 7],
        [sibling("a.txt"), sibling("b.txt", 0, COMMIT)],  # perhaps a submodule
        [sibling("a.txt")] * 10_001,
    ],
    ids=["none", "empty", "names", "not all", "odd", "submodule", "many"],
)
def test_the_tree_is_requested_if_the_repos_page_is_incomplete(siblings: object) -> None:
    sizes, targets = moved(siblings)
    assert sizes == {"a.txt": 665, "b.txt": 665}
    assert [target.partition("?")[0] for target in targets[2:]] == [f"/api/models/org/name/tree/{COMMIT}"]


@pytest.mark.parametrize(("count", "blobs", "asked"), [(2000, True, 2), (2001, True, 1), (2001, False, 1 + 3)])
def test_many_files_come_in_one_response_if_the_hub_supports_it(count: int, asked: int, *, blobs: bool) -> None:
    """A hub without this feature costs one more request than the pages."""
    names = [f"{n}.txt" for n in range(count)]

    def reply(seen: Seen) -> Reply:
        if "/revision/" in seen.target:
            full = blobs and seen.target.endswith("?blobs=true")
            siblings = [sibling(name) if full else {"rfilename": name} for name in names]
            return 200, JSON, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
        start = int(seen.target.partition("cursor=")[2] or 0)
        link = {"link": f'<?cursor={start + 1000}>; rel="next"'} if start + 1000 < count else {}
        return 200, JSON | link, json.dumps([plain(name, size=3) for name in names[start : start + 1000]]).encode()

    with Scripted(reply) as hub:
        info = HF.commit(REF, hub.url, ANONYMOUS)
        manifest = HF.listing(REF, info, hub.url, ANONYMOUS, always_true)
        assert {str(file.path): file.size for file in manifest.files} == dict.fromkeys(names, 3)
        assert len(hub.targets) == 1 + asked


@pytest.mark.parametrize("kind", ["silent", "error", "no JSON"])
def test_a_hub_without_bulk_listing_is_asked_for_pages(kind: str) -> None:
    names = [f"{n}.txt" for n in range(2001)]

    def reply(seen: Seen) -> Reply:
        if seen.target.endswith("?blobs=true"):
            time.sleep(0.6 if kind == "silent" else 0)
            return (400 if kind == "error" else 200), {}, b"<html>"
        if "/tree/" in seen.target:
            return 200, JSON, json.dumps([plain(name) for name in names]).encode()
        siblings = [{"rfilename": name} for name in names]
        return 200, JSON, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()

    with Scripted(reply) as hub:
        http = Http(HttpOptions(timeout=0.3))
        manifest = HF.listing(REF, HF.commit(REF, hub.url, http), hub.url, http, always_true)
        assert len(manifest.files) == 2001


def test_a_dataset_is_not_listed_in_one_request() -> None:
    assert moved([sibling("a.txt")], "dataset")[1][1] == "/api/datasets/org/name/revision/main"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (sibling("a.txt", -1), "invalid size for 'a.txt': -1"),
        (sibling("a.txt", oid="x"), "no valid git id"),
        (sibling("a.txt", oid=[BLOB]), "no valid git id"),
        (sibling("w.bin", SIZE, POINTER, lfs={"sha256": BLOB, "size": SIZE}), "no valid LFS digest"),
        (sibling("w.bin", SIZE, BLOB, lfs={"sha256": SHA256, "size": SIZE}), "contradicts itself"),
        (sibling("w.bin", SIZE, POINTER, lfs="yes"), "no valid LFS digest"),
        (sibling("../a.txt"), "it has the component '..'"),
    ],
)
def test_a_repos_page_is_validated_like_a_tree(entry: object, says: str) -> None:
    with pytest.raises((BadListing, UnsafePath), match=says):
        moved([entry])


# --- errors -------------------------------------------------------------------------------------------------------

ROWS = {row["case"]: row for row in json.loads((RECORDED / "huggingface_refusals.json").read_text())["refusals"]}
CLASSES: list[tuple[str, type[GpuariaError], int, str, str]] = [
    ("repo missing, anonymous", RepoNotFound, 5, "or it is private and no token was sent", "--type dataset"),
    ("repo missing, valid token", RepoNotFound, 5, "has no model org/name$", "spelling"),
    ("bad token", BadToken, 6, "rejects your token", "new token"),
    ("gated, anonymous", Gated, 6, "you must accept its terms", "HF_TOKEN"),
    ("gated, garbage token", BadToken, 6, "rejects your token", "that has accepted the terms at"),
    ("gated, valid token, not granted", Gated, 6, "your token has no access", "Request access"),
    ("bad revision", RevisionNotFound, 5, "no revision 'main'", "/tree/main"),
    ("missing file", FileNotInRepo, 5, "has no file 'w.bin'", ""),
    ("disabled", AccessDenied, 6, "Access to this resource is disabled", "See http"),
    ("repo missing at a mirror, by a file", RepoNotFound, 5, "has no model org/name", "spelling"),
    ("file missing, no code", FileNotInRepo, 5, "has no file 'w.bin'", ""),
    ("file gone", FileNotInRepo, 5, "has no file 'w.bin'", ""),
    ("repo gone", RepoNotFound, 5, "has no model org/name", "spelling"),
    ("forbidden, no reason", AccessDenied, 6, "no reason given", ""),
    ("too many requests", RateLimited, 7, "429", "token raises the quota"),
    ("broken", NetworkError, 7, "returned HTTP 500", "later"),
    ("teapot", NetworkError, 7, "returned HTTP 418", "later"),
]


def test_every_recorded_error_has_its_row() -> None:
    assert [row[0] for row in CLASSES] == list(ROWS)


@pytest.mark.parametrize(("case", "kind", "status", "says", "advice"), CLASSES, ids=[row[0] for row in CLASSES])
def test_each_error_response_has_its_error_class(
    case: str, kind: type[GpuariaError], status: int, says: str, advice: str
) -> None:
    row: dict[str, Any] = ROWS[case]
    with Scripted(saying(b"why", row["status"], row["headers"])) as hub:
        http = signed_in(hub.url) if row["token"] else ANONYMOUS
        mirror = Mirror("here", hub.url, primary=True)
        ask: dict[str, Callable[[], object]] = {
            "commit": lambda: HF.commit(REF, hub.url, http),
            "file": lambda: HF.locate(mirror, whole(hub.url), weights(), http),
        }
        with pytest.raises(kind, match=says) as caught:
            ask[row["step"]]()
    assert type(caught.value) is kind
    assert caught.value.exit_code == status
    assert advice in caught.value.hint
    assert TOKEN not in f"{caught.value.message}{caught.value.hint}"


def test_the_stand_in_hub_gives_the_same_errors(tmp_path: Path) -> None:
    def make(name: str, **options: Any) -> Repo:
        return Repo.build(name, {"a.json": b"{}", "w.bin": b"w" * 99}, folder=tmp_path / name, **options)

    repos = [make("org/open"), make("org/private", private=True), make("org/gated", gated="auto")]
    repos.append(make("org/off", disabled=True))

    def attempt(hub: Hub, name: str, token: str, revision: str = "main") -> GpuariaError | MirrorUrl | None:
        class Given:
            def reveal(self) -> str:
                return token

        http = Http(credentials={url_origin(hub.url): Given()} if token else {})
        ref = RepoRef("hf", "model", name, revision)
        try:
            info = HF.commit(ref, hub.url, http)
            manifest = HF.listing(ref, info, hub.url, http, always_true)
            file = next(file for file in manifest.files if file.path == "w.bin")
            return HF.locate(Mirror("here", hub.url, primary=True), manifest, file, http)
        except GpuariaError as error:
            return error

    with Hub(repos, server="embedded", tokens={"hf_good"}, granted={"hf_in"}) as hub:
        outcomes = {
            (name, token): type(attempt(hub, name, token))
            for name in ("org/open", "org/private", "org/gated", "org/off", "org/none")
            for token in ("", "hf_bad", "hf_good", "hf_in")
        }
        assert type(attempt(hub, "org/open", "", "nope")) is RevisionNotFound
        assert not hub.errors
    assert outcomes == {
        ("org/open", ""): MirrorUrl,
        ("org/open", "hf_bad"): BadToken,
        ("org/open", "hf_good"): MirrorUrl,
        ("org/open", "hf_in"): MirrorUrl,
        ("org/private", ""): RepoNotFound,
        ("org/private", "hf_bad"): BadToken,
        ("org/private", "hf_good"): MirrorUrl,
        ("org/private", "hf_in"): MirrorUrl,
        ("org/gated", ""): Gated,
        ("org/gated", "hf_bad"): BadToken,
        ("org/gated", "hf_good"): Gated,
        ("org/gated", "hf_in"): MirrorUrl,
        ("org/off", ""): AccessDenied,
        ("org/off", "hf_bad"): BadToken,
        ("org/off", "hf_good"): AccessDenied,
        ("org/off", "hf_in"): AccessDenied,
        ("org/none", ""): RepoNotFound,
        ("org/none", "hf_bad"): BadToken,
        ("org/none", "hf_good"): RepoNotFound,
        ("org/none", "hf_in"): RepoNotFound,
    }


# --- the listing --------------------------------------------------------------------------------------------------


def plain(path: Any = "config.json", **changes: Any) -> dict[str, Any]:
    return {"type": "file", "oid": BLOB, "size": 665, "path": path} | changes


def large(path: str = "model.safetensors", **changes: Any) -> dict[str, Any]:
    lfs = {"oid": SHA256, "size": SIZE, "pointerSize": 134}
    return {"type": "file", "oid": POINTER, "size": SIZE, "lfs": lfs, "path": path} | changes


def listed(page: object, wanted: Callable[[str], bool] = always_true) -> Manifest:
    with Scripted(saying(page)) as hub:
        return HF.listing(REF, INFO, hub.url, ANONYMOUS, wanted)


def test_folders_are_omitted_and_files_are_sorted() -> None:
    folder = {"type": "directory", "oid": BLOB, "size": 0, "path": "onnx"}
    module = {"type": "unknown", "oid": BLOB, "size": 0, "path": "sub"}
    manifest = listed([large("z"), folder, module, plain("a"), plain("b", xetHash=None, future={"x": [1]})])
    assert [(str(file.path), file.lfs) for file in manifest.files] == [("a", False), ("b", False), ("z", True)]
    assert manifest.files[2] == RemoteFile(SafePath("z"), SIZE, Digest("sha256", SHA256), POINTER)
    assert listed([]).files == ()


def other_lfs(**changes: Any) -> dict[str, Any]:
    return large(lfs={"oid": SHA256, "size": SIZE} | changes)


MALFORMED: dict[str, Any] = {
    "negative size": plain(size=-1),
    "huge size": plain(size=1 << 60),
    "monstrous size": plain(size=10**400),
    "true size": plain(size=True),
    "float size": plain(size=665.0),
    "text size": plain(size="665"),
    "no size": {"type": "file", "oid": BLOB, "path": "a"},
    "no oid": {"type": "file", "size": 1, "path": "a"},
    "short oid": plain(oid=BLOB[:39]),
    "upper oid": plain(oid=BLOB.upper()),
    "sha256 as oid": plain(oid=SHA256),
    "number oid": plain(oid=3),
    "oid with a line break": plain(oid=BLOB + "\n"),
    "no path": {"type": "file", "oid": BLOB, "size": 1},
    "number path": plain(path=3),
    "null path": plain(path=None),
    "list path": plain(path=["a"]),
    "no type": {"oid": BLOB, "size": 1, "path": "a"},
    "list type": plain(type=["file"]),
    "strange type": plain(type="symlink"),
    "lfs true": large(lfs=True),
    "lfs list": large(lfs=[]),
    "lfs empty": large(lfs={}),
    "lfs text": large(lfs=SHA256),
    "lfs without size": large(lfs={"oid": SHA256}),
    "lfs of other size": other_lfs(size=SIZE + 1),
    "lfs text size": other_lfs(size=str(SIZE)),
    "lfs upper digest": other_lfs(oid=SHA256.upper()),
    "lfs short digest": other_lfs(oid=SHA256[:63]),
    "lfs prefixed digest": other_lfs(oid=f"sha256:{SHA256}"),
    "lfs other digest": other_lfs(oid="0" * 64),
    "digests swapped": large(oid=SHA256, lfs={"oid": POINTER, "size": SIZE}),
    "pointer of another file": large(oid=BLOB),
    "both sizes changed": large(size=1, lfs={"oid": SHA256, "size": 1}),
}


@pytest.mark.parametrize("entry", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_entry_is_a_bad_listing(entry: Any) -> None:
    with pytest.raises(BadListing) as caught:
        listed([plain("good"), entry])
    assert caught.value.exit_code == 7
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<!DOCTYPE html><html></html>",
        b"\x80",
        b"[" * 10_000 + b"]" * 10_000,
        b'[{"type":"file","size":' + b"9" * 5000 + b"}]",
        b"[{}",
        {"error": "x"},
        ["a"],
        [[]],
        [None],
        "text",
        None,
    ],
)
def test_another_document_is_not_a_hubs_listing(page: object) -> None:
    with pytest.raises(NotAHub):
        listed(page)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.builds(
    lambda base, changes, drop: {k: v for k, v in (base | changes).items() if k not in drop},
    st.sampled_from([plain(), large()]),
    st.dictionaries(st.sampled_from(["type", "oid", "size", "path", "lfs"]), JSONS, max_size=2),
    st.sets(st.sampled_from(["type", "oid", "size", "path", "lfs"]), max_size=1),
)


@pytest.fixture(scope="module")
def echo() -> Any:
    page: list[object] = [[]]
    with Scripted(lambda seen: (200, JSON, json.dumps(page[0]).encode())) as hub:
        yield hub.url, page, ANONYMOUS


@given(st.lists(ENTRIES | JSONS, max_size=4) | JSONS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_listing_is_a_manifest_or_one_of_our_errors(echo: Any, page: object) -> None:
    url, said, http = echo
    said[0] = page
    try:
        manifest = HF.listing(REF, INFO, url, http, always_true)
    except (BadListing, NotAHub, UnsafePath):
        return
    for file in manifest.files:
        assert file.digest is not None
        assert not file.lfs or lfs_pointer_oid(file.digest.hex, file.size) == file.oid


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a\\b", "con", "C:x", "a\nb", "\ud800", "", ".git/config"])
def test_an_unsafe_name_matters_only_if_it_is_selected(path: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        listed([plain(path), plain("good")])
    assert caught.value.exit_code == 8
    assert "\n" not in caught.value.message
    manifest = listed([plain(path), plain("good")], lambda name: name == "good")
    assert [str(file.path) for file in manifest.files] == ["good"]


def test_a_duplicate_entry_must_be_identical() -> None:
    assert len(listed([plain(), plain()]).files) == 1
    for other in (plain(size=1), plain(oid="0" * 40), large(path="config.json")):
        with pytest.raises(BadListing, match="twice, differently"):
            listed([plain(), other])


# --- paging -------------------------------------------------------------------------------------------------------


def paged(link: str, pages: int = 2) -> tuple[list[str], list[str]]:
    """List a repo whose pages link on with `link` ({here}, {tree} and {n}); return the names and request targets."""
    count = 0

    def reply(seen: Seen) -> Reply:
        nonlocal count
        count += 1
        tree = seen.target.partition("?")[0]
        more = {"link": link.format(here=hub.url, tree=tree, n=count)} if count < pages else {}
        return 200, JSON | more, json.dumps([plain(f"f{count}")]).encode()

    with Scripted(reply) as hub:
        manifest = HF.listing(REF, INFO, hub.url, ANONYMOUS, always_true)
        return [str(file.path) for file in manifest.files], hub.targets


@pytest.mark.parametrize(
    "link",
    [
        '<{here}{tree}?recursive=true&cursor=a%3D%3D>; rel="next"',
        '<https://huggingface.co{tree}?recursive=true&cursor=a%3D%3D>; rel="next"',
        '<http://huggingface.co{tree}?recursive=true&cursor=a%3D%3D>; rel="next"',
        '<https://hf-mirror.com{tree}?recursive=true&cursor=a%3D%3D>; rel="next"',
        '<{tree}?recursive=true&cursor=a%3D%3D>; rel="next"',
        "<{tree}?recursive=true&cursor=a%3D%3D>; rel=next",
        '<?recursive=true&cursor=a%3D%3D>; rel="next"',
        '<{here}/other>; rel="prev", <{tree}?recursive=true&cursor=a%3D%3D>; title=x; rel="next"',
    ],
)
def test_the_next_page_is_requested_from_the_configured_endpoint(link: str) -> None:
    names, targets = paged(link)
    assert names == ["f1", "f2"]
    assert targets == [
        f"/api/models/org/name/tree/{COMMIT}?recursive=true&expand=false",
        f"/api/models/org/name/tree/{COMMIT}?recursive=true&cursor=a%3D%3D",
    ]


@pytest.mark.parametrize(
    "link",
    [
        '<https://evil.example{tree}?cursor=1>; rel="next"',
        '<https://huggingface.co.evil.example{tree}?cursor=1>; rel="next"',
        '<http://127.0.0.1:1{tree}?cursor=1>; rel="next"',
        '<http://h:port{tree}>; rel="next"',
        '<http://[::{tree}>; rel="next"',
        '<{here}/api/models/other/repo/tree/main?cursor=1>; rel="next"',
        '<https://huggingface.co/api/whoami-v2>; rel="next"',
    ],
)
def test_next_pages_elsewhere_are_not_requested(link: str) -> None:
    with pytest.raises(BadListing, match="continues its file list"):
        paged(link)


def test_an_endless_list_is_stopped() -> None:
    with pytest.raises(BadListing, match="never ends"):
        paged('<{tree}?cursor=same>; rel="next"', pages=1_000_000)
    assert len(paged('<{tree}?cursor={n}>; rel="next"', pages=40)[0]) == 40


def test_links_of_other_kinds_are_not_next_pages() -> None:
    assert paged('<{here}/x>; rel="prev", <{here}/y>; rel="xet-auth"', pages=9)[0] == ["f1"]


def test_a_listing_in_pages_is_complete(tmp_path: Path) -> None:
    files = {f"d{n % 7}/f{n:04d}.txt": b"%d" % n for n in range(1659)}
    repo = Repo.build("org/many", files, folder=tmp_path, kind="dataset")
    with Hub([repo], server="embedded", link_host="https://huggingface.co") as hub:
        http, ref = Http(), RepoRef("hf", "dataset", "org/many")
        manifest = HF.listing(ref, HF.commit(ref, hub.url, http), hub.url, http, always_true)
        assert {str(file.path): file.oid for file in manifest.files} == {
            path: entry.oid for path, entry in repo.commits[repo.head].files.items()
        }
        assert hub.count() == 3


# --- resolving ----------------------------------------------------------------------------------------------------


def weights() -> RemoteFile:
    return RemoteFile(SafePath("w.bin"), SIZE, Digest("sha256", SHA256), POINTER)


def whole(base: str, *, restricted: bool = False) -> Manifest:
    return Manifest(REF, "org/name", COMMIT, base, "origin", (weights(),), restricted)


GOOD = {"x-repo-commit": COMMIT, "x-linked-size": str(SIZE), "x-linked-etag": f'"{SHA256}"'}


def looked_up(status: int, headers: Mapping[str, str], *, restricted: bool = False, token: bool = False) -> Any:
    with Scripted(saying(b"", status, headers)) as hub:
        http = signed_in(hub.url) if token else ANONYMOUS
        found = HF.locate(Mirror("here", hub.url, primary=True), whole(hub.url, restricted=restricted), weights(), http)
        assert hub.targets == [f"/org/name/resolve/{COMMIT}/w.bin"]
        return found and (found.url.replace(hub.url, "{base}"), found.expires)


HERE = f"{{base}}/org/name/resolve/{COMMIT}/w.bin"


def test_the_redirect_target_is_the_url() -> None:
    to = "https://cdn.example/w?Expires=1790000000&Signature=x"
    for status in (301, 302, 303, 307, 308):
        assert looked_up(status, GOOD | {"location": to}) == (to, 1790000000.0)
    assert looked_up(302, {"x-repo-commit": COMMIT, "location": to}) == (to, 1790000000.0)
    assert looked_up(302, GOOD | {"location": to}, restricted=True, token=True) == (to, 1790000000.0)


def test_a_direct_response_is_the_url_if_it_needs_no_credential() -> None:
    assert looked_up(200, GOOD) == (HERE, None)
    assert looked_up(200, GOOD, token=True) == (HERE, None)
    assert looked_up(200, GOOD, restricted=True, token=True) is None


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x-repo-commit": ""}, "no X-Repo-Commit"),
        ({"x-repo-commit": "0" * 40}, "serves commit 000000000000 instead of 607a30d783df"),
        ({"x-repo-commit": COMMIT[:12]}, "serves commit"),
        ({"x-linked-size": "1"}, "reports a wrong size for w.bin: 1 bytes"),
        ({"x-linked-size": "many"}, "reports a wrong size"),
        ({"x-linked-etag": f'"{"0" * 64}"'}, "reports a wrong digest for w.bin"),
        ({"x-linked-etag": f'W/"{"0" * 64}"'}, "reports a wrong digest for w.bin"),
    ],
)
@pytest.mark.parametrize("status", [200, 302])
def test_a_mirror_with_a_different_file_is_rejected(status: int, headers: dict[str, str], says: str) -> None:
    location = {"location": "https://cdn.example/w"} if status == 302 else {}
    with pytest.raises(NetworkError, match=says) as caught:
        looked_up(status, GOOD | location | headers)
    assert caught.value.retry == "elsewhere"


@pytest.mark.parametrize("etag", [f'W/"{SHA256}"', SHA256, '"a-multipart-etag-8"', ""])
def test_an_uninformative_etag_is_accepted(etag: str) -> None:
    assert looked_up(200, GOOD | {"x-linked-etag": etag}) == (HERE, None)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {}),
        (304, {}),
        (204, {}),
        (302, {"location": "ftp://cdn.example/w"}),
        (302, {"location": "file:///etc/passwd"}),
        (302, {"location": "http://h:port/"}),
    ],
)
def test_a_response_without_a_usable_url_is_rejected(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(NetworkError):
        looked_up(status, GOOD | headers)


def test_names_are_quoted_in_urls() -> None:
    manifest = Manifest(RepoRef("hf", "dataset", "o/n"), "o/n", COMMIT, "", "origin", ())
    file = RemoteFile(SafePath("a b/ü#?%&+.bin"), 1, None)
    url = HF.file_url(Mirror("m", "https://m.example/hf"), manifest, file)
    assert url == f"https://m.example/hf/datasets/o/n/resolve/{COMMIT}/a%20b/%C3%BC%23%3F%25%26%2B.bin"


@pytest.mark.parametrize("form", ["cloudfront", "s3"])
@pytest.mark.parametrize("xet", [False, True])
def test_the_url_from_the_stand_in_hub_gives_the_bytes(form: str, xet: bool, tmp_path: Path) -> None:
    files = {"small.json": b"{}", "w.bin": b"weights!" * 1000, "empty.txt": b""}
    repo = Repo.build("org/thing", files, folder=tmp_path)
    ref = RepoRef("hf", "model", "org/thing")
    with Hub([repo], server="embedded", signed_form=form, xet_hash=xet, tokens={TOKEN}) as hub:
        http = signed_in(hub.url)
        mirror = Mirror("here", hub.url, primary=True)
        manifest = HF.listing(ref, HF.commit(ref, hub.url, http), hub.url, http, always_true)
        for file in manifest.files:
            before = http.request_count(hub.url)
            address = HF.locate(mirror, manifest, file, http)
            assert address is not None
            assert http.request_count(hub.url) - before <= 2
            assert (address.expires is not None) == file.lfs
            assert hub.cdn.count() == 0
        for file in manifest.files:
            address = HF.locate(mirror, manifest, file, http)
            assert address is not None
            with Http().download(address.url) as (answer, chunks):
                assert (answer.status, b"".join(chunks)) == (200, files[file.path])
        assert "Signature" not in repr(address)
        assert not hub.errors


@pytest.mark.parametrize(
    ("url", "expires"),
    [
        ("https://cdn/x?Expires=1790000000&Signature=s&Key-Pair-Id=k", 1790000000.0),
        ("https://cdn/x?X-Amz-Date=20260409T100000Z&X-Amz-Expires=3600&X-Amz-Signature=s", 1775732400.0),
        ("https://s/x?X-Goog-Algorithm=G&X-Goog-Date=20260409T100000Z&X-Goog-Expires=60", 1775728860.0),
        ("https://b/x?sv=2024&se=2026-04-09T10%3A00%3A00Z&sig=s", 1775728800.0),
        ("https://s/x?GoogleAccessId=a&Expires=1790000000&Signature=s", 1790000000.0),
        ("https://cdn/x?expires=1790000000", 1790000000.0),
        ("https://cdn/x", None),
        ("https://cdn/x?Expires=soon", None),
        ("https://cdn/x?Expires=3600", None),
        ("https://cdn/x?Expires=-1790000000", None),
        ("https://cdn/x?Expires=", None),
        ("https://cdn/x?X-Amz-Date=20260409T100000Z", None),
        ("https://cdn/x?X-Amz-Expires=3600", None),
        ("https://cdn/x?X-Amz-Date=20269999T999999Z&X-Amz-Expires=3600", None),
        ("https://cdn/x?X-Amz-Date=20260409T100000Z&X-Amz-Expires=99999999999", None),
        ("https://b/x?se=2026-04-09", None),
        ("https://b/x?se=never", None),
    ],
)
def test_the_expiry_of_a_signed_url(url: str, expires: float | None) -> None:
    assert expiry(url) == expires


@given(st.dictionaries(st.sampled_from(["Expires", "se", "X-Amz-Date", "X-Amz-Expires"]), st.text(max_size=20)))
def test_any_query_has_an_expiry_or_none(query: dict[str, str]) -> None:
    found = expiry("https://cdn/x?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert found is None or found > 0
