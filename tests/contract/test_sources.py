"""The contract of every source, with recorded responses.

A new source adds rows to CONTRACTS and a file to tests/recorded for each; the tests need no change.
"""

import json
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.errors import Gated, GpuariaError, UsageError
from gpuaria.formats import manifest as manifest_format
from gpuaria.hashing import LENGTHS, hash_bytes
from gpuaria.http.client import Http
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, Mirror, MirrorUrl, RepoRef
from gpuaria.sources import RepoInfo
from gpuaria.sources import source as source_of
from tests.support.checkout import RECORDED
from tests.support.recorded import Recorded, always_true, signed_in

ENDPOINT = "https://hub.example"
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
BLOB = "10c66461e4c109db5a2196bff4bb59be30396ed8"
SIZE = 548105171
TEXT = b"text\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- the contract -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contract:
    """One recorded conversation and its result.

    `addresses`: by path, the URL (`{base}`: the endpoint) and its expiry; an exception class if resolving is refused.
    """

    source: str
    recorded: str
    text: str
    ref: RepoRef
    info: RepoInfo
    files: dict[str, tuple[int, str]]
    addresses: dict[str, tuple[str, float | None] | type[GpuariaError]] = field(default_factory=dict)
    requests: int = 2  # for the whole listing

    def held(self, base: str) -> tuple[str, str]:
        """Return the repo's canonical name and its commit."""
        return self.info.name.replace("{base}", base), self.info.commit


def _sha(name: str, key: str) -> str:
    """Return the digest that a recorded tree gives one file."""
    for exchange in json.loads((RECORDED / name).read_text())["exchanges"]:
        for entry in exchange["body"] if isinstance(exchange["body"], list) else []:
            if entry["path"] == key:
                return str(entry.get("lfs", entry)["oid"])
    raise KeyError(key)


C4 = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
LLAMA = "4e20de362430cd3b72f300e6b0f18e50e7166e08"
DEMO = "9c1c1a9ad6d0cd6a1d1a2b4f39a1ee3f6d1f9a77"
CDN = "https://us.aws.cdn.hf.co/xet-bridge-us/621ffdc036468d709f174338/"
CONTRACTS = [
    Contract(
        "hf",
        "huggingface_gpt2.json",
        "gpt2",
        RepoRef("hf", "model", "gpt2", "main"),
        RepoInfo("openai-community/gpt2", COMMIT, restricted=False),
        {
            ".gitattributes": (445, "git-sha1:602b71f15d40ed68c5f96330e3f3175a76a32126"),
            "config.json": (665, f"git-sha1:{BLOB}"),
            "model.safetensors": (SIZE, f"sha256:{SHA256}"),
            "onnx/config.json": (879, f"git-sha1:{_sha('huggingface_gpt2.json', 'onnx/config.json')}"),
            "onnx/decoder model.onnx": (
                653665842,
                f"sha256:{_sha('huggingface_gpt2.json', 'onnx/decoder model.onnx')}",
            ),
        },
        {
            "config.json": (
                f"{{base}}/api/resolve-cache/models/openai-community/gpt2/{COMMIT}/config.json?"
                f"%2Fopenai-community%2Fgpt2%2Fresolve%2F{COMMIT}%2Fconfig.json=&etag=%22{BLOB}%22",
                None,
            ),
            "model.safetensors": (
                f"{CDN}63bed80836ee0758c8fd4f8975d59bb0b864263ee2753547c358e8a37cde8758?X-Xet-Cas-Uid=public&"
                "response-content-disposition=inline%3B+filename%3D%22model.safetensors%22%3B&Expires=1790000000&"
                "Policy=eyJT&Signature=c2ln&Key-Pair-Id=K2FPYV99P2N66Q",
                1790000000.0,
            ),
            "onnx/decoder model.onnx": (
                "https://cas-bridge.xethub.hf.co/xet-bridge-us/621ffdc036468d709f174338/aa?"
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=cas%2F20260409%2Fus-east-1%2Fs3%2Faws4_request&"
                "X-Amz-Date=20260409T100000Z&X-Amz-Expires=3600&X-Amz-Signature=abc&X-Amz-SignedHeaders=host&"
                "x-id=GetObject",
                1775732400.0,
            ),
        },
    ),
    Contract(
        "hf",
        "huggingface_c4.json",
        "https://huggingface.co/datasets/allenai/c4/tree/refs%2Fpr%2F1",
        RepoRef("hf", "dataset", "allenai/c4", "refs/pr/1"),
        RepoInfo("allenai/c4", C4, restricted=False),
        {
            "README.md": (12345, f"git-sha1:{_sha('huggingface_c4.json', 'README.md')}"),
            **{
                f"en/c4-train.0000{n}-of-01024.json.gz": (
                    size,
                    f"sha256:{_sha('huggingface_c4.json', f'en/c4-train.0000{n}-of-01024.json.gz')}",
                )
                for n, size in enumerate((318891258, 319119184))
            },
            "en/empty.txt": (0, "git-sha1:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        },
        {"en/empty.txt": (f"{{base}}/datasets/allenai/c4/resolve/{C4}/en/empty.txt", None)},
        requests=3,
    ),
    Contract(
        "hf",
        "huggingface_gated.json",
        "hf:meta-llama/Llama-3.2-1B",
        RepoRef("hf", "model", "meta-llama/Llama-3.2-1B", "main"),
        RepoInfo("meta-llama/Llama-3.2-1B", LLAMA, restricted=True),
        {
            "config.json": (843, f"git-sha1:{_sha('huggingface_gated.json', 'config.json')}"),
            "model.safetensors": (2471645608, f"sha256:{_sha('huggingface_gated.json', 'model.safetensors')}"),
        },
        {"model.safetensors": Gated},
    ),
    Contract(
        "hf",
        "huggingface_space.json",
        "spaces/stabilityai/demo@v1.0",
        RepoRef("hf", "space", "stabilityai/demo", "v1.0"),
        RepoInfo("stabilityai/demo", DEMO, restricted=False),
        {
            "app.py": (100, f"git-sha1:{_sha('huggingface_space.json', 'app.py')}"),
            "ünïcode näme.txt": (3, f"git-sha1:{_sha('huggingface_space.json', 'ünïcode näme.txt')}"),
        },
        {"app.py": (f"{{base}}/spaces/stabilityai/demo/resolve/{DEMO}/app.py", None)},
    ),
    Contract(
        "plain",
        "plain_folder.json",
        "{base}/models/",
        RepoRef("plain", "folder", "{base}/models/", ""),
        RepoInfo("{base}/models/", "", restricted=False),
        {
            "a.bin": (4, f"sha256:{hash_bytes(b'aaaa', 'sha256')}"),
            "sub/b c.txt": (5, f"sha256:{hash_bytes(TEXT, 'sha256')}"),
        },
        {"sub/b c.txt": ("{base}/models/sub/b%20c.txt", None)},
        requests=3,
    ),
    Contract(
        "plain",
        "plain_metalink.json",
        "plain:{base}/x.meta4",
        RepoRef("plain", "metalink", "{base}/x.meta4", ""),
        RepoInfo("{base}/x.meta4", "", restricted=False),
        {
            "a.bin": (4, f"sha256:{hash_bytes(b'aaaa', 'sha256')}"),
            "sub/b c.txt": (5, f"md5:{hash_bytes(TEXT, 'md5')}"),
        },
        {"a.bin": ("{base}/a.bin", None), "sub/b c.txt": ("{base}/b.txt", None)},
    ),
]
contracts = pytest.mark.parametrize("contract", CONTRACTS, ids=[contract.recorded for contract in CONTRACTS])


def walk(contract: Contract, hub: Recorded, http: Http) -> Manifest:
    source = source_of(contract.source)
    ref = source.parse(contract.text.replace("{base}", hub.url), None, "", [hub.url], source.about.revision)
    return source.resolve(ref, Mirror("here", hub.url, primary=True), http, always_true)


@contracts
def test_contract_a_text_becomes_a_manifest_in_few_requests(contract: Contract) -> None:
    http = Http()
    with Recorded(contract.recorded) as hub:
        manifest = walk(contract, hub, http)
        ref = replace(contract.ref, name=contract.ref.name.replace("{base}", hub.url))
        assert http.request_count(hub.url) == contract.requests
        assert hub.unknown == []
        assert {str(file.path): (file.size, str(file.digest)) for file in manifest.files} == contract.files
        assert [file.path for file in manifest.files] == sorted(contract.files)
        assert (manifest.ref, manifest.name, manifest.commit) == (ref, *contract.held(hub.url))
        assert (manifest.vouched_by, manifest.trust) == (hub.url, "origin")
        assert manifest.restricted == contract.info.restricted


@contracts
def test_contract_a_manifest_is_well_formed_and_deterministic(contract: Contract) -> None:
    with Recorded(contract.recorded) as hub:
        manifest = walk(contract, hub, Http())
        assert manifest == walk(contract, hub, Http())
    for file in manifest.files:
        assert isinstance(file.path, SafePath)
        assert file.size >= 0
        assert file.digest is None or file.digest.algorithm in source_of(contract.source).about.digests
        assert file.digest is None or len(file.digest.hex) == LENGTHS[file.digest.algorithm]
    assert manifest_format.load(manifest_format.dump(manifest)) == manifest


@contracts
def test_contract_urls_are_resolved_in_one_step(contract: Contract) -> None:
    source, http = source_of(contract.source), Http()
    with Recorded(contract.recorded) as hub:
        manifest = walk(contract, hub, http)
        mirror = Mirror("here", hub.url, primary=True)
        for file in manifest.files:
            expected = contract.addresses.get(file.path)
            url = source.file_url(mirror, manifest, file)
            assert url.startswith(f"{hub.url}/")
            assert manifest.commit in url
            assert (manifest.commit != "") == source.about.versions
            if expected is None:
                continue
            if isinstance(expected, type):
                with pytest.raises(expected):
                    source.locate(mirror, manifest, file, http)
            else:
                wanted = MirrorUrl(mirror, expected[0].replace("{base}", hub.url), expected[1])
                assert source.locate(mirror, manifest, file, http) == wanted
        assert hub.unknown == []


@contracts
def test_contract_mirrors_get_no_credential(contract: Contract) -> None:
    source = source_of(contract.source)
    with Recorded(contract.recorded) as hub:
        http = signed_in(hub.url)
        manifest = walk(contract, hub, http)
        asked = len(hub.targets)
        for file in manifest.files:
            try:
                source.locate(Mirror("there", hub.url, primary=False), manifest, file, http)
            except GpuariaError:
                pass
        seen = hub.journal.snapshot()
        assert all("authorization" in request.headers for request in seen[:asked])
        assert len(seen) > asked
        assert not any("authorization" in request.headers for request in seen[asked:])


@contracts
@given(text=st.text())
def test_contract_any_text_is_a_reference_or_a_usage_error(contract: Contract, text: str) -> None:
    try:
        ref = source_of(contract.source).parse(text, None, "", [ENDPOINT])
    except UsageError:
        return
    assert isinstance(ref, RepoRef)
