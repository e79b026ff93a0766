"""The example source of docs/sources.md, installed as a package: every command works with it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from standin import Seen
from tests.support.checkout import ROOT
from tests.support.recorded import Reply, Scripted
from tests.support.user import HERE, User

MARKER = "hf_marker0123456789abcdef"
OWN = "demo_token_of_the_tests"
FILES = {
    "weights.bin": random.Random(5).randbytes(9_000_000),
    "config.json": b"{}",
    "sub/ä b.txt": b"text\n",
}
UNSIZED, UNPROVEN = "config.json", "sub/ä b.txt"  # the listing omits the size of one and the digest of the other


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder into which the example was installed."""
    blocks = re.findall(r"```(?:toml|python)\n# (\S+)\n(.*?)```", (ROOT / "docs/sources.md").read_text(), re.DOTALL)
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("target")
    for name, text in blocks:
        (project / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", target, project], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return target


class DemoHub(Scripted):
    """The hub of the example source."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    def _answer(self, seen: Seen) -> Reply:
        from urllib.parse import unquote

        path = unquote(seen.target)
        if path == "/api/org/name":
            return 200, {"content-type": "application/json"}, json.dumps({"files": [*map(_row, FILES)]}).encode()
        data = FILES.get(path.removeprefix("/files/org/name/"))
        if data is None:
            return 404, {}, b"no such thing"
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", ""))
        if not found:
            return 200, {"etag": '"1"', "accept-ranges": "bytes"}, data
        start, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        return 206, {"content-range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1]


def _row(path: str) -> dict[str, object]:
    size = {} if path == UNSIZED else {"size": len(FILES[path])}
    digest = {} if path == UNPROVEN else {"sha256": hashlib.sha256(FILES[path]).hexdigest()}
    return {"path": path, **size, **digest}


@pytest.fixture
def hub(user: User, package: Path) -> Iterator[DemoHub]:
    """Return the demo hub; the user has the package, a Hugging Face token, and a token of the demo hub."""
    with DemoHub() as server:
        user.env |= {
            "PYTHONPATH": f"{package}{os.pathsep}{HERE}",
            "HF_TOKEN": MARKER,
            "DEMO_TOKEN": OWN,
            "DEMO_ENDPOINT": server.url,
        }
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a target, without gpuaria's own folder."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".gpuaria/")}


def test_fetch_repeat_offline_verify_and_why(user: User, hub: DemoHub) -> None:
    done = user.run("fetch", "demo:org/name", "--json").ok()
    folder = user.home / "name"
    assert (done.report["ref"], Path(done.report["path"])) == ("demo:org/name", folder)
    assert contents(folder) == FILES
    assert (done.report["verdicts"], done.report["vouched_by"]) == ({"ok": 2, "unverifiable": 1}, hub.url)
    asked = len(hub.targets)
    again = user.run("fetch", "demo:org/name", "--json").ok()
    assert (again.report["bytes_fetched"], again.report["verdicts"]) == (0, {"ok": 2, "unverifiable": 1})
    assert not any(seen.method == "GET" and "/files/" in seen.target for seen in hub.journal.snapshot()[asked:])
    assert user.run("fetch", "demo:org/name", "--offline").ok().path == folder
    assert "2 ok, 1 unverifiable" in user.run("verify", "name").ok().out
    assert "2 ok" in user.run("verify", "demo:org/name").ok().out
    told = user.run("why", "name/weights.bin").ok().out
    assert "requested as demo:org/name" in told
    assert hub.url in told
    (folder / "weights.bin").write_bytes(b"x" * 9_000_000)
    (folder / "sub/ä b.txt").write_bytes(b"TEXT\n")
    wrong = user.run("verify", "name")
    assert (wrong.status, "2 wrong digest" in wrong.out) == (
        4,
        True,
    )  # also the file whose digest the source does not give


def test_resolve_and_lock(user: User, hub: DemoHub) -> None:
    told = json.loads(user.run("resolve", "demo:org/name", "--json").ok().out)
    assert {file["path"]: file["size"] for file in told["files"]} == {path: len(data) for path, data in FILES.items()}
    assert (told["commit"], told["ref"]["source"]) == ("", "demo")
    lock = user.home / "lock.json"
    lock.write_text(user.run("resolve", "demo:org/name", "--format", "manifest").ok().out)
    hub.targets.clear()
    before = len(hub.targets)
    assert contents(user.run("fetch", "--lock", lock, "--to", "locked").ok().path) == FILES
    assert not any(target.startswith("/api/") for target in hub.targets[before:])
    assert user.run("verify", "locked", "--lock", lock).status == 0
    user.run("fetch", "--repo", "demo:other/name", "--lock", lock).refused(2, "lock file of")


def test_mirrors_and_doctor(user: User, hub: DemoHub) -> None:
    with DemoHub() as other:
        rows = json.loads(user.run("mirrors", "demo:org/name", "--mirror", other.url, "--json").ok().out)
        assert {row["url"] if "url" in row else row["base"] for row in rows["mirrors"]} == {hub.url, other.url}
        done = user.run("fetch", "demo:org/name", "--mirror", other.url, "--to", "two", "--json").ok()
        assert {use["name"] for use in done.report["mirrors"]} <= {hub.url[7:], other.url[7:]}
        assert not any(OWN in str(seen.headers) for seen in other.journal.snapshot())
    said = user.run("doctor", "demo:org/name", GPUARIA_RESOLVERS="system").ok().out
    assert "its bytes are available" in said
    assert "huggingface" not in said.partition("hub and mirrors")[2]


def test_the_settings_of_the_source(user: User, hub: DemoHub) -> None:
    del user.env["DEMO_ENDPOINT"]
    config = user.home / ".config/gpuaria/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"sources:\n  demo:\n    endpoint: {hub.url}\n")
    assert contents(user.run("fetch", "demo:org/name").ok().path) == FILES
    assert f"{config}:3" in user.run("config").ok().out
    assert contents(user.run("fetch", f"{hub.url}/org/name", "--to", "x").ok().path) == FILES


def test_the_demo_hub_gets_no_other_credential_and_hugging_face_no_request(user: User, hub: DemoHub) -> None:
    user.env["GPUARIA_TOKENS"] = "https://other.example=env:OTHER"
    user.run("fetch", "demo:org/name", "-v").ok()
    user.run("mirrors", "demo:org/name")
    user.run("doctor", "demo:org/name", GPUARIA_RESOLVERS="system")
    seen = hub.journal.snapshot()
    assert len(seen) > len(FILES)
    assert sum(MARKER in str((one.target, one.headers)) for one in seen) == 0
    assert any(one.headers.get("authorization") == f"Bearer {OWN}" for one in seen)
    for path in user.files():
        assert MARKER.encode() not in path.read_bytes()
        assert OWN.encode() not in path.read_bytes()
    names = {str(path.relative_to(user.home / "name")) for path in (user.home / "name").rglob("*")}
    assert not any("huggingface" in name or "models--" in name for name in names)
    assert not (user.home / ".cache/huggingface").exists()


def test_hugging_face_gets_no_token_of_the_demo_hub(user: User, hub: DemoHub) -> None:
    with Scripted(lambda seen: (404, {}, b"{}")) as face:
        user.run("fetch", "org/name", HF_ENDPOINT=face.url)
        assert face.targets
        assert not any(OWN in str(seen.headers) for seen in face.journal.snapshot())


def test_a_source_that_fails_to_load_is_reported(user: User, hub: DemoHub, package: Path, tmp_path: Path) -> None:
    (tmp_path / "gpuaria_demo.py").write_text("raise RuntimeError('broken')\n")
    user.env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{user.env['PYTHONPATH']}"
    user.run("fetch", "demo:org/name").refused(10, "the source demo cannot be loaded")
    assert user.run("config").status == 0
