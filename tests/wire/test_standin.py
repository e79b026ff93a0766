"""The stand-in hub with real clients: huggingface_hub, aria2c, and plain HTTP."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gpuaria.aria2 import binary
from standin import Hub, RateLimit, Repo, find_nginx, git_id, make_gpt2, pointer_text
from tests.support.checkout import SCRIPTS

GPT2 = "openai-community/gpt2-medium"
SERVERS = [
    "embedded",
    pytest.param("nginx", marks=pytest.mark.skipif(find_nginx() is None, reason="needs nginx")),
]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | bytes]:
    return make_gpt2(tmp_path_factory.mktemp("source"), 8)


@pytest.fixture(scope="module")
def gpt2(source: dict[str, Path | bytes], tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo.build(GPT2, source, folder=tmp_path_factory.mktemp("store"))


@pytest.fixture
def embedded(gpt2: Repo) -> Iterator[Hub]:
    with Hub([gpt2], server="embedded") as hub:
        yield hub
        assert not hub.errors


@pytest.fixture(params=SERVERS)
def any_hub(request: pytest.FixtureRequest, gpt2: Repo) -> Iterator[Hub]:
    with Hub([gpt2], server=request.param) as hub:
        yield hub
        assert not hub.errors


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=10) as client:
        yield client


def content(value: Path | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.read_bytes()


def resolve(hub: Hub, path: str = WEIGHTS, revision: str = "main") -> str:
    return f"{hub.url}/{GPT2}/resolve/{revision}/{path}"


def signed(hub: Hub, http: httpx2.Client, path: str = WEIGHTS) -> str:
    return str(http.get(resolve(hub, path)).headers["location"])


def small(tmp_path: Path, name: str = "org/thing", **options: object) -> Repo:
    files: dict[str, Path | bytes] = {"a.json": b"{}", "w.bin": b"weights" * 100}
    return Repo.build(name, files, folder=tmp_path / "store", **options)  # type: ignore[arg-type]


# --- the repository and the model ---------------------------------------------------------------------------------


def test_the_pointer_of_the_real_gpt2_gets_its_real_git_id() -> None:
    pointer = pointer_text("248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707", 548105171)
    assert (len(pointer), git_id("blob", pointer)) == (134, "44b36d6e32d13c8fb28b0feab0ac8bfefa7efeda")


def test_git_accepts_every_object_and_reaches_every_file(gpt2: Repo) -> None:
    objects = pytest.importorskip("dulwich.objects")
    numbers = {"commit": 1, "tree": 2, "blob": 3}
    for oid, (kind, raw) in gpt2.objects.items():
        parsed = objects.ShaFile.from_raw_string(numbers[kind], raw)
        parsed.check()
        assert parsed.id.decode() == oid
    commit = gpt2.commits[gpt2.head]
    assert f"tree {commit.tree}".encode() in gpt2.read(commit.oid)[1]
    for entry in commit.files.values():
        assert git_id(*gpt2.read(entry.oid)) == entry.oid


def test_git_sorts_a_folder_after_names_with_lesser_bytes(tmp_path: Path) -> None:
    repo = Repo.build("o/r", {"a/x": b"1", "a.b": b"2", "a-b": b"3", "a0": b"4"}, folder=tmp_path)
    assert list(repo.commits[repo.head].listing) == ["a-b", "a.b", "a", "a/x", "a0"]


def test_update_keeps_old_commits_and_ids_are_reproducible(tmp_path: Path) -> None:
    repo, twin = small(tmp_path), small(tmp_path / "twin")
    first = repo.head
    assert twin.head == first
    second = repo.update({"a.json": b"[]", "w.bin": None})
    pull = repo.pull(1, {"new.txt": b"x"})
    repo.tag("v1", first)
    assert [repo.resolve(name) for name in ("main", first, first[:8], "v1", "refs/pr/1", "refs/heads/main")] == [
        *(second, first, first, first, pull, second)
    ]
    assert repo.resolve("nope") is None
    assert list(repo.commits[second].files) == ["a.json"]
    assert set(repo.commits[first].files) == {"a.json", "w.bin"}


def test_the_safetensors_library_reads_the_model(source: dict[str, Path | bytes]) -> None:
    library = pytest.importorskip("safetensors")
    data = content(source[WEIGHTS])
    tensors = dict(library.deserialize(data))
    assert {"wte.weight", "h.0.attn.c_attn.weight", "ln_f.bias"} <= set(tensors)
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F16", "F32"}
    assert len(source) == 12
    assert 7_000_000 < len(data) < 9_000_000
    blocks = [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
    assert len(set(blocks)) == len(blocks)


# --- huggingface_hub ----------------------------------------------------------------------------------------------


def hf(code: str, home: Path, **env: str) -> str:
    """Run code in a fresh interpreter with its own Hugging Face home; return its output."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    env = {**keep, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("xet_hash", [False, True])
def test_snapshot_download_of_the_alias_is_exact_and_then_works_offline(
    server: str, xet_hash: bool, gpt2: Repo, source: dict[str, Path | bytes], tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub")
    code = "import huggingface_hub as h; print(h.snapshot_download('gpt2-medium'))"
    with Hub([gpt2], server=server, xet_hash=xet_hash) as hub:
        folder = Path(hf(code, tmp_path, HF_ENDPOINT=hub.url))
        assert folder.name == gpt2.head
        assert hub.cdn.count() == 2
        endpoint = hub.url
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content(value) for name, value in source.items()}
    blobs = {path.resolve().name for path in folder.rglob("*") if path.is_file()}
    assert blobs == {entry.etag for entry in gpt2.commits[gpt2.head].files.values()}
    assert hf(code, tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1") == str(folder)


def test_hf_api_reads_pages_info_refs_and_paths(gpt2: Repo, tmp_path: Path) -> None:
    api_class = pytest.importorskip("huggingface_hub").HfApi
    many = {f"d{number % 7}/f{number:03d}.txt": b"%d" % number for number in range(120)}
    data = Repo.build("org/many", many, folder=tmp_path, kind="dataset")
    data.pull(3, {"extra.txt": b"e"})
    with Hub([gpt2, data], server="embedded", page=50) as hub:
        api = api_class(endpoint=hub.url, token=False)
        tree = list(api.list_repo_tree("org/many", recursive=True, repo_type="dataset"))
        assert sorted(item.path for item in tree) == sorted(data.commits[data.head].listing)
        assert hub.count() == 3
        expanded = list(api.list_repo_tree("org/many", "d1", expand=True, repo_type="dataset"))
        assert {item.last_commit.oid for item in expanded} == {data.head}
        assert "extra.txt" in api.list_repo_files("org/many", revision="refs/pr/3", repo_type="dataset")
        refs = api.list_repo_refs("org/many", repo_type="dataset", include_pull_requests=True)
        assert [ref.target_commit for ref in refs.branches + refs.pull_requests] == [data.head, data.pulls[3]]
        info = api.model_info("GPT2-medium".lower(), files_metadata=True)
        weights = next(one for one in info.siblings if one.rfilename == WEIGHTS)
        entry = gpt2.commits[gpt2.head].files[WEIGHTS]
        assert (info.id, info.sha, weights.lfs.sha256, weights.blob_id) == (GPT2, gpt2.head, entry.sha256, entry.oid)
        assert [one.path for one in api.get_paths_info(GPT2, [WEIGHTS, "onnx", "none"])] == [WEIGHTS, "onnx"]
        assert api.whoami(token="hf_good")["name"] == "standin"


def test_errors_raise_the_same_classes_as_the_real_hub(tmp_path: Path) -> None:
    api_class = pytest.importorskip("huggingface_hub").HfApi
    from huggingface_hub import errors
    from huggingface_hub.utils import hf_raise_for_status

    repos = [
        small(tmp_path / "private", "org/private", private=True),
        small(tmp_path / "gated", "org/gated", gated="manual"),
        small(tmp_path / "off", "org/off", disabled=True),
        small(tmp_path / "open"),
    ]
    refused: list[tuple[str | bool, int]] = [(False, 401), ("hf_junk", 401), ("hf_good", 403)]
    allowed: list[tuple[str, str | bool]] = [("org/gated", "hf_in"), ("org/private", "hf_good"), ("org/thing", False)]
    with Hub(repos, server="embedded", tokens={"hf_good"}, granted={"hf_in"}) as hub:

        def fetch(repo: str, file: str = "a.json", token: str | bool = False, revision: str = "main") -> str:
            place = tmp_path / "cache" / f"{repo}-{token}"
            api = api_class(endpoint=hub.url, token=token)
            return str(api.hf_hub_download(repo, file, cache_dir=place, revision=revision))

        with pytest.raises(errors.RepositoryNotFoundError):
            fetch("org/none", token="hf_good")
        for repo in ("org/none", "org/private"):
            with pytest.raises(errors.HfHubHTTPError, match="Invalid username or password") as caught:
                fetch(repo)
            assert caught.value.response.status_code == 401
            assert "x-error-code" not in caught.value.response.headers
            # The client reads such a 401 as a missing repository only over https.
            secure = httpx2.Request("GET", f"https://hub.example/api/models/{repo}")
            with pytest.raises(errors.RepositoryNotFoundError):
                hf_raise_for_status(httpx2.Response(401, headers=caught.value.response.headers, request=secure))
        for token, status in refused:
            with pytest.raises(errors.GatedRepoError) as gate:
                fetch("org/gated", "w.bin", token=token)
            assert gate.value.response.status_code == status
        with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials"):
            fetch("org/thing", token="hf_junk")
        with pytest.raises(errors.RevisionNotFoundError):
            fetch("org/thing", revision="v9")
        with pytest.raises(errors.RemoteEntryNotFoundError) as entry:
            fetch("org/thing", "b.json")
        assert entry.value.response.headers["x-repo-commit"] == repos[3].head
        with pytest.raises(errors.DisabledRepoError):
            api_class(endpoint=hub.url, token=False).model_info("org/off")
        sizes = [one.size for one in api_class(endpoint=hub.url, token=False).list_repo_tree("org/gated")]
        assert sorted(sizes) == [2, 700]
        for repo, token in allowed:
            assert [Path(fetch(repo, name, token=token)).stat().st_size for name in ("a.json", "w.bin")] == [2, 700]
        assert not [seen for seen in hub.cdn.requests if "authorization" in seen.headers]


# --- the shapes of an answer --------------------------------------------------------------------------------------


def test_shape_a_redirects_to_the_resolve_cache(embedded: Hub, gpt2: Repo, http: httpx2.Client) -> None:
    entry = gpt2.commits[gpt2.head].files["config.json"]
    for path in ("config.json", "notes f%C3%BCr alle.txt", "onnx/config.json"):
        first = http.head(resolve(embedded, path.replace(" ", "%20")))
        assert (first.status_code, first.headers["x-repo-commit"]) == (307, gpt2.head)
        assert first.headers["location"].startswith(f"/api/resolve-cache/models/{GPT2}/{gpt2.head}/")
        assert http.get(embedded.url + first.headers["location"]).status_code == 200
    first = http.get(resolve(embedded, "config.json"))
    assert first.headers["x-linked-etag"] == f'"{entry.oid}"'
    assert int(first.headers["content-length"]) == len(first.content) > 100
    part = http.get(embedded.url + first.headers["location"], headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, entry.file.read_bytes()[5:10])
    assert part.headers["etag"] == f'"{entry.oid}"'
    assert http.get(resolve(embedded, "empty.txt")).status_code == 200
    short = http.head(resolve(embedded, "config.json", gpt2.head[:7]))
    assert short.headers["x-repo-commit"] == gpt2.head
    assert http.get(resolve(embedded).replace("resolve", "raw")).content.startswith(b"version https://git-lfs")


def test_shape_b_names_size_and_sha256(any_hub: Hub, gpt2: Repo, http: httpx2.Client) -> None:
    entry = gpt2.commits[gpt2.head].files[WEIGHTS]
    first = http.head(resolve(any_hub).replace("openai", "OpenAI"))
    assert (first.status_code, first.headers["location"]) == (307, f"/{GPT2}/resolve/main/{WEIGHTS}")
    second = http.head(resolve(any_hub))
    assert (second.status_code, second.headers["x-linked-size"]) == (302, str(entry.size))
    assert second.headers["x-linked-etag"] == f'"{entry.sha256}"'
    assert second.headers["ratelimit"].startswith('"resolvers";r=2998;t=')
    assert second.headers["location"].startswith(any_hub.cdn.url + "/")


def test_the_byte_servers_give_the_same_responses(any_hub: Hub, gpt2: Repo, http: httpx2.Client) -> None:
    entry = gpt2.commits[gpt2.head].files[WEIGHTS]
    data, size, url = entry.file.read_bytes(), entry.size, signed(any_hub, http)
    ranges = {
        "bytes=0-0": (0, 1),
        "bytes=1000-1999": (1000, 2000),
        f"bytes={size - 5}-": (size - 5, size),
        "bytes=-7": (size - 7, size),
        f"bytes=10-{size * 2}": (10, size),
    }
    for value, (start, end) in ranges.items():
        part = http.get(url, headers={"Range": value})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for value in ("bytes=0-1,5-6", "lines=1-2"):
        assert http.get(url, headers={"Range": value}).status_code == 200
    for value in (f"bytes={size}-", "bytes=9-3", "bytes=-", "bytes=x-"):
        refused = http.get(url, headers={"Range": value})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
    whole = http.head(url)
    assert (whole.status_code, whole.headers["content-length"]) == (200, str(size))
    assert (whole.headers["etag"], whole.headers["accept-ranges"]) == (f'"{entry.sha256}"', "bytes")
    assert http.get(any_hub.cdn.url + "/other").status_code == 404
    seen = any_hub.cdn.requests
    assert [(one.method, one.status, one.sent) for one in seen[:2]] == [("GET", 206, 1), ("GET", 206, 1000)]
    assert seen[1].headers["range"] == "bytes=1000-1999"
    assert any_hub.cdn.count() == len(ranges) + 2 + 4 + 2
    any_hub.reset()
    assert (any_hub.count(), any_hub.cdn.count()) == (0, 0)


def test_the_byte_server_rejects_tokens_and_forged_urls(any_hub: Hub, http: httpx2.Client) -> None:
    url = signed(any_hub, http)
    refused = http.get(url, headers={"Authorization": "Bearer hf_good"})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/xml")
    assert b"<Code>InvalidArgument</Code>" in refused.content
    forged = http.get(url.replace("Signature=", "Signature=x"))
    assert (forged.status_code, b"SignatureDoesNotMatch" in forged.content) == (403, True)
    assert http.get(url.partition("?")[0]).status_code == 403
    assert any_hub.cdn.requests[0].headers["authorization"] == "Bearer hf_good"


@pytest.mark.parametrize("server", SERVERS)
def test_expired_and_s3_urls(server: str, gpt2: Repo, http: httpx2.Client) -> None:
    with Hub([gpt2], server=server, ttl=60, signed_age=61) as hub:
        late = http.get(signed(hub, http))
        assert (late.status_code, b"Request has expired" in late.content) == (403, True)
    with Hub([gpt2], server=server, signed_form="s3", signed_age=360) as hub:
        url = signed(hub, http)
        assert "X-Amz-Expires=3600" in url
        date = time.strftime("%Y%m%dT%H%M", time.gmtime(time.time() - 360))
        assert f"X-Amz-Date={date}" in url or time.gmtime().tm_sec < 5
        assert http.get(url, headers={"Range": "bytes=0-0"}).status_code == 206
        assert http.head(url).status_code == 403


@pytest.mark.parametrize("server", SERVERS)
def test_a_changed_repository_is_served_at_once_and_the_etag_may_be_xet(
    server: str, tmp_path: Path, http: httpx2.Client
) -> None:
    repo = small(tmp_path)
    with Hub([repo], server=server, xet_hash=True) as hub:
        old = repo.head
        repo.update({"w.bin": b"new weights"})
        for commit, data in [(old, b"weights" * 100), ("main", b"new weights")]:
            first = http.get(f"{hub.url}/org/thing/resolve/{commit}/w.bin")
            got = http.get(first.headers["location"])
            assert got.content == data
            assert got.headers["etag"] == f'"{first.headers["x-xet-hash"]}"'
            assert first.links["xet-auth"]["url"].startswith(f"{hub.url}/api/models/org/thing/xet-read-token/")
            assert first.headers["x-linked-etag"] == f'"{hashlib.sha256(data).hexdigest()}"'


@pytest.mark.parametrize("server", SERVERS)
def test_limit_rate_holds_per_connection(server: str, gpt2: Repo, http: httpx2.Client) -> None:
    with Hub([gpt2], server=server, limit_rate=200_000) as hub:  # nginx starts with a burst of one second
        url, begin = signed(hub, http), time.monotonic()
        http.get(url, headers={"Range": "bytes=0-299999"})
        assert 0.5 < time.monotonic() - begin < 4


def test_private_gated_direct_and_short_names_are_shape_c(tmp_path: Path, http: httpx2.Client) -> None:
    repos = [small(tmp_path / "d", "org/direct", direct=True), small(tmp_path / "s", "short")]
    with Hub(repos, server="embedded") as hub:
        for name in ("org/direct", "short"):
            answer = http.get(f"{hub.url}/{name}/resolve/main/a.json")
            assert (answer.status_code, answer.content) == (200, b"{}")
            assert answer.headers["x-repo-commit"] == repos[0].head
            assert http.get(f"{hub.url}/{name}/resolve/main/w.bin").status_code == 302
            past = http.get(f"{hub.url}/{name}/resolve/main/a.json", headers={"Range": "bytes=2-"})
            assert (past.status_code, past.headers["content-range"]) == (416, "bytes */2")


def test_pages_link_to_the_requested_host(gpt2: Repo, http: httpx2.Client) -> None:
    with Hub([gpt2], server="embedded", page=5, link_host="https://huggingface.co") as hub:
        paths: list[str] = []
        url = f"{hub.url}/api/models/{GPT2}/tree/main?recursive=true&expand=false"
        while url:
            page = http.get(url)
            assert len(page.json()) <= 5
            paths += [item["path"] for item in page.json()]
            link = page.links.get("next", {}).get("url", "")
            assert not link or link.startswith("https://huggingface.co/api/models/")
            url = link.replace("https://huggingface.co", hub.url)
        assert paths == list(gpt2.commits[gpt2.head].listing)
        assert http.get(f"{hub.url}/api/models/{GPT2}/tree/main?cursor=junk").status_code == 400
        assert http.get(f"{hub.url}/api/models/{GPT2}/tree/main/config.json").status_code == 404


def test_rate_limits_count_and_respond_429(gpt2: Repo, http: httpx2.Client) -> None:
    with Hub([gpt2], server="embedded", rate=RateLimit(api=2, resolvers=1, window=300)) as hub:
        answers = [http.get(f"{hub.url}/api/models/{GPT2}") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["ratelimit"].startswith('"api";r=1;t=')
        assert answers[2].headers["ratelimit"].startswith('"api";r=0;t=')
        assert answers[2].headers["ratelimit-policy"] == '"fixed window";"api";q=2;w=300'
        assert answers[2].headers["content-type"].startswith("text/html")
        assert [http.head(resolve(hub)).status_code for _ in range(2)] == [302, 429]
        hub.reset()
        assert http.head(resolve(hub)).status_code == 302


def test_a_broken_mirror_and_a_mirror_without_its_own_bytes(embedded: Hub, gpt2: Repo, http: httpx2.Client) -> None:
    with Hub([gpt2], commit_header=False, location_base=embedded, name="mirror") as mirror:
        answer = http.get(resolve(mirror))
        assert "x-repo-commit" not in answer.headers
        assert answer.headers["location"].startswith(embedded.cdn.url)
        assert http.head(answer.headers["location"]).status_code == 200
    with Hub([gpt2], server="embedded", location_base="http://cdn.example") as mirror:
        assert signed(mirror, http).startswith("http://cdn.example/xet-bridge-us/")


# --- aria2c -------------------------------------------------------------------------------------------------------


@pytest.mark.wire
def test_aria2c_downloads_a_signed_url_with_sixteen_connections(
    any_hub: Hub, gpt2: Repo, http: httpx2.Client, tmp_path: Path
) -> None:
    options = ["-q", "-x16", "-s16", "-k1M", "--no-conf", "-d", str(tmp_path), "-o", "out"]
    subprocess.run([binary.find_binary().path, *options, signed(any_hub, http)], check=True, timeout=60)
    entry = gpt2.commits[gpt2.head].files[WEIGHTS]
    assert hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest() == entry.sha256
    ranged = [seen for seen in any_hub.cdn.requests if seen.status == 206]
    assert len(ranged) >= 3
    assert any_hub.count() == 1


# --- faults -------------------------------------------------------------------------------------------------------


def test_faults_of_the_byte_server(embedded: Hub, gpt2: Repo, http: httpx2.Client) -> None:
    entry, url, cdn = gpt2.commits[gpt2.head].files[WEIGHTS], signed(embedded, http), embedded.cdn
    data = entry.file.read_bytes()
    cdn.fault(WEIGHTS, "status", times=1, status=503, retry_after=7, headers={"X-Why": "test"})
    busy = http.get(url)
    assert (busy.status_code, busy.headers["retry-after"], busy.headers["x-why"]) == (503, "7", "test")
    assert http.get(url, headers={"Range": "bytes=0-9"}).content == data[:10]
    cdn.fault(entry.sha256, "flip", times=1, offset=500)
    assert http.get(url, headers={"Range": "bytes=0-99"}).content == data[:100]
    got = http.get(url, headers={"Range": "bytes=400-599"}).content
    assert [index for index in range(200) if got[index] != data[400 + index]] == [100]
    cdn.fault(WEIGHTS, "ignore_range", times=1)
    assert http.get(url, headers={"Range": "bytes=5-9"}).status_code == 200
    cdn.fault(WEIGHTS, "html", times=1)
    assert http.get(url).headers["content-type"].startswith("text/html")
    cdn.fault(WEIGHTS, "expire", times=1)
    assert http.get(url).status_code == 403
    for delta in (-3, 4):
        cdn.fault(WEIGHTS, "wrong_size", times=2, delta=delta)
        assert len(http.get(url).content) == entry.size + delta
        tail = http.get(url, headers={"Range": f"bytes={entry.size + delta - 2}-"})
        assert tail.headers["content-range"].endswith(f"/{entry.size + delta}")
        assert len(tail.content) == 2
    cdn.fault(WEIGHTS, "slow", times=1, rate=20_000)
    begin = time.monotonic()
    assert http.get(url, headers={"Range": "bytes=0-9999"}).content == data[:10_000]
    assert time.monotonic() - begin > 0.4
    with pytest.raises(ValueError, match="unknown kind"):
        cdn.fault(WEIGHTS, "explode")


@pytest.mark.parametrize(
    ("kind", "said", "sent"), [("wrong_range", 150, 100), ("other_part", 150, 150), ("wrong_part", 100, 150)]
)
def test_faults_that_mix_up_ranges(
    embedded: Hub, gpt2: Repo, http: httpx2.Client, kind: str, said: int, sent: int
) -> None:
    entry, url = gpt2.commits[gpt2.head].files[WEIGHTS], signed(embedded, http)
    data = entry.file.read_bytes()
    embedded.cdn.fault(WEIGHTS, kind, times=1, delta=50)
    assert http.get(url).content == data, "without a range there is no other part"
    answer = http.get(url, headers={"Range": "bytes=100-199"})
    assert answer.headers["content-range"] == f"bytes {said}-{said + 99}/{entry.size}"
    assert answer.content == data[sent : sent + 100]
    assert http.get(url, headers={"Range": "bytes=100-199"}).content == data[100:200]


def test_faults_of_the_response_form(embedded: Hub, gpt2: Repo, http: httpx2.Client) -> None:
    entry, url, cdn = gpt2.commits[gpt2.head].files[WEIGHTS], signed(embedded, http), embedded.cdn
    data = entry.file.read_bytes()
    cdn.fault(WEIGHTS, "gzip", times=1)
    packed = http.get(url)
    assert (packed.headers["content-encoding"], packed.content) == ("gzip", data)
    cdn.fault(WEIGHTS, "chunked", times=1)
    endless = http.get(url, headers={"Range": "bytes=5-9"})
    assert ("content-length" in endless.headers, endless.content) == (False, data[5:10])
    cdn.fault(WEIGHTS, "changed", times=1)
    changed = http.get(url)
    assert (changed.content, changed.headers["etag"] == f'"{entry.sha256}"') == (bytes(entry.size), False)
    cdn.fault(WEIGHTS, "redirect", times=1, status=308, to="http://127.0.0.2:1")
    assert http.get(url).headers["location"].startswith("http://127.0.0.2:1/xet-bridge-us/")


@pytest.mark.parametrize(
    ("kind", "error"),
    [("short", httpx2.RemoteProtocolError), ("reset", httpx2.ReadError), ("stall", httpx2.ReadTimeout)],
)
def test_faults_that_truncate_a_body(embedded: Hub, kind: str, error: type[Exception], http: httpx2.Client) -> None:
    url, got = signed(embedded, http), 0
    ended: type[Exception] | None = None
    embedded.cdn.fault("", kind, after=100_000)
    try:
        with http.stream("GET", url, timeout=0.3) as answer:
            for chunk in answer.iter_raw():
                got += len(chunk)
    except httpx2.HTTPError as caught:
        ended = type(caught)
    assert ended is error
    assert got <= 100_000 < int(answer.headers["content-length"])
    assert embedded.cdn.requests[-1].sent == 100_000
    embedded.heal()
    assert http.get(url).status_code == 200


def test_faults_of_the_hub(embedded: Hub, http: httpx2.Client) -> None:
    embedded.fault(r"/tree/", status=429, headers={"Retry-After": "3", "RateLimit": '"api";r=9;t=1'}, times=1)
    embedded.fault(r"^/api/.*/refs", status=200, body=b"<html>", headers={"Content-Type": "text/html"})
    embedded.fault(r"/revision/", delay=0.2)
    tree = f"{embedded.url}/api/models/{GPT2}/tree/main"
    limited = http.get(tree)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
    assert limited.headers["ratelimit"] == '"api";r=9;t=1'
    assert http.get(tree).status_code == 200
    assert http.get(f"{embedded.url}/api/models/{GPT2}/refs").content == b"<html>"
    begin = time.monotonic()
    assert http.get(f"{embedded.url}/api/models/{GPT2}/revision/main").status_code == 200
    assert time.monotonic() - begin >= 0.2


# --- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_nginx() is None, reason="needs nginx")
def test_nginx_has_no_faults_and_does_not_outlive_a_killed_python(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from standin import Hub, Repo\n"
        "repo = Repo.build('o/r', {'a.bin': b'1'}, folder=Path(sys.argv[1]))\n"
        "with Hub([repo], server='nginx') as hub:\n"
        "    try: hub.cdn.fault('', 'short')\n"
        "    except ValueError: print(hub.cdn.url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stream:
        host, port = stream.readline().decode().strip().removeprefix("http://").split(":")
    assert list(tmp_path.glob("standin-nginx-*"))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while list(tmp_path.glob("standin-nginx-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)


def test_the_demo_prints_its_url_and_ends_on_interrupt(tmp_path: Path, http: httpx2.Client) -> None:
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-m", "standin", "--folder", str(tmp_path), "--megabytes", "1"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        url = stream.readline().strip()
        assert http.get(f"{url}/api/models/gpt2-medium", follow_redirects=True).json()["id"] == GPT2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
