"""Content that is reported, rejected or signed, in real fetches from the stand-in hub."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import pickle
import random
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from standin import Repo
from tests.support.repos import contents
from tests.support.user import Serve, User


class Runs:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /nowhere/at/all",)


def tensors(size: int, *, past: int = 0) -> bytes:
    """Return a safetensors file of about `size` bytes whose one tensor ends `past` bytes after the end of the file."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size + past], "data_offsets": [0, size + past]}}).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(size).randbytes(size)


PLAIN = {"config.json": b"{}", "model.safetensors": tensors(1000)}
EVIL, HARMLESS = pickle.dumps([Runs()]), pickle.dumps({"a": 1})
PICKLES = {"sub/evil.pkl": EVIL, "weights.bin": HARMLESS, "other.bin": b"no pickle " * 1000}
LINE = "2 pickles (loading them can run any code): 'sub/evil.pkl' (imports posix.system), 'weights.bin'"


def repo(tmp_path: Path, files: dict[str, bytes], name: str = "org/content") -> Repo:
    """Return a repo of these files."""
    return Repo.build(name, dict(files), folder=tmp_path / name.replace("/", "-"), direct=True)


# --- pickles are named --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--to", "x"]], ids=["cache", "folder"])
def test_pickles_are_counted_and_listed(flags: list[str], user: User, serve: Serve, tmp_path: Path) -> None:
    hub = serve(repo(tmp_path, {**PLAIN, **PICKLES}))
    done = user.quick("fetch", "org/content", *flags).ok()
    assert LINE in done.err.splitlines()
    for round_ in range(2):
        hub.reset()
        report = user.quick("fetch", "org/content", *flags, "--json").ok().report
        assert report["pickles"] == 2
        assert report["pickle_files"] == [
            {"path": "sub/evil.pkl", "imports": ["posix.system"], "whole": True},
            {"path": "weights.bin", "imports": [], "whole": True},
        ]
        assert (report["verdicts"], report["misnamed"], report["signature"]) == ({"ok": 5}, [], None)
        assert report["bytes_fetched"] == hub.cdn.count() == 0
        if not round_:  # as if fetched by an earlier version: verified but never scanned
            database = sqlite3.connect(user.home / ".local/state/gpuaria/receipts.sqlite")
            assert database.execute("delete from contents").rowcount == 5
            database.commit()
            database.close()


def test_a_repo_without_pickles_has_no_pickle_line(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(repo(tmp_path, PLAIN))
    assert "pickle" not in user.quick("fetch", "org/content").ok().err
    assert user.quick("fetch", "org/content", "--json").ok().report["pickles"] == 0


def test_files_of_other_tools_are_counted_too(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(repo(tmp_path, {**PLAIN, **PICKLES}))
    user.hf("h.snapshot_download('org/content')")
    report = user.quick("fetch", "org/content", "--json").ok().report
    assert (report["pickles"], report["bytes_fetched"]) == (2, 0)
    link = Path(report["path"]) / "weights.bin"
    link.unlink()  # the blob is verified, its name is missing
    assert user.quick("fetch", "org/content", "--json").ok().report["pickles"] == 2
    assert link.exists()


def test_verify_lists_pickles(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(repo(tmp_path, {**PLAIN, **PICKLES}))
    user.quick("fetch", "org/content", "-q").ok()
    assert LINE in user.quick("verify", "org/content").ok().out.splitlines()
    told = json.loads(user.quick("verify", "org/content", "--json").ok().out)
    assert (told["pickles"], [row["path"] for row in told["pickle_files"]]) == (2, ["sub/evil.pkl", "weights.bin"])


def test_many_pickles_fit_on_a_line(user: User, serve: Serve, tmp_path: Path) -> None:
    files = {f"{number:02}.pkl": pickle.dumps(number) for number in range(30)}
    serve(repo(tmp_path, {**files, "99.pkl": EVIL}))
    done = user.quick("fetch", "org/content").ok()
    assert "31 pickles (loading them can run any code): '99.pkl' (imports posix.system)" in done.err
    assert "and 26 more" in done.err
    report = user.quick("fetch", "org/content", "--json").ok().report
    assert (report["pickles"], len(report["pickle_files"])) == (31, 20)


# --- and refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_no_pickle(how: str, user: User, serve: Serve, tmp_path: Path) -> None:
    hub = serve(repo(tmp_path, {**PLAIN, **PICKLES, "x/pytorch_model.bin": HARMLESS}))
    flags, env = (["--no-pickle"], {}) if how == "flag" else ([], {"GPUARIA_NO_PICKLE": "yes"})
    if how == "file":
        (user.home / "own.yaml").write_text("no_pickle: yes\n")
        env = {"GPUARIA_CONFIG": str(user.home / "own.yaml")}
    done = user.quick("fetch", "org/content", "--to", "x", "--json", *flags, **env)
    assert done.status == done.report["exit_code"] == 4
    problems = {row["path"]: row for row in done.report["problems"]}
    assert set(problems) == {"sub/evil.pkl", "weights.bin", "x/pytorch_model.bin"}
    assert {row["outcome"] for row in problems.values()} == {"refused"}
    assert all("--no-pickle refuses" in row["detail"] and "--exclude" in row["detail"] for row in problems.values())
    assert done.report["pickles"] == 0
    assert contents(user.home / "x") == {**PLAIN, "other.bin": PICKLES["other.bin"]}
    asked = " ".join(seen.target for seen in [*hub.requests, *hub.cdn.requests] if "/resolve/" in seen.target)
    assert "evil.pkl" not in asked  # detected by the name
    assert "pytorch_model" not in asked
    hub.reset()
    again = user.quick("fetch", "org/content", "--to", "x", *flags, **env)
    assert (again.status, again.out) == (4, "")
    assert again.err.count("refused: ") == 3
    assert hub.cdn.count() == 0  # the verdict is stored
    assert not [path for path in (user.home / "x").rglob("*") if path.is_file() and path.read_bytes() == HARMLESS]
    left = [*flags, "--exclude", "*.pkl", "--exclude", "w*.bin", "--exclude", "*pytorch*"]
    user.quick("fetch", "org/content", "--to", "x", *left, **env).ok()


def test_a_large_pickle_is_rejected_once(user: User, serve: Serve, tmp_path: Path) -> None:
    data = pickle.dumps([Runs(), random.Random(4).randbytes(9_000_000)])
    hub = serve(repo(tmp_path, {**PLAIN, "model.bin": data}))
    done = user.quick("fetch", "org/content", "--no-pickle", "--json")
    assert (done.status, done.report["verdicts"]) == (4, {"ok": 2, "refused": 1})
    assert "imports posix.system" in done.report["problems"][0]["detail"]
    assert done.report["mirrors"][0]["rejected"] == ""  # the server delivered what was requested
    assert len(data) <= sum(seen.sent for seen in hub.cdn.requests) < 1.2 * len(data)
    assert not [path for path in user.home.rglob("*") if path.is_file() and path.stat().st_size > 1_000_000]
    hub.reset()
    assert user.quick("fetch", "org/content", "--no-pickle").status == 4
    assert hub.cdn.count() == 0
    assert user.quick("fetch", "org/content", "--json").ok().report["pickles"] == 1


def test_a_local_pickle_is_rejected_and_kept(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(repo(tmp_path, {**PLAIN, **PICKLES}))
    path = user.quick("fetch", "org/content", "-q").ok().path
    before = contents(path)
    done = user.quick("fetch", "org/content", "--no-pickle")
    assert (done.status, done.out, done.err.count("refused: ")) == (4, "", 2)
    assert contents(path) == before
    user.hf("h.snapshot_download('org/content', local_dir='plain')")
    done = user.quick("fetch", "org/content", "--no-pickle", "--to", "plain")
    assert (done.status, done.err.count("refused: ")) == (4, 2)
    assert contents(user.home / "plain") == before


def test_a_copy_of_a_pickle_is_a_pickle(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(repo(tmp_path, {"a.bin": EVIL, "b.bin": EVIL, "c.pkl": EVIL, "d.txt": b"text"}))
    done = user.quick("fetch", "org/content", "--no-pickle", "--to", "x", "--json")
    assert (done.status, done.report["verdicts"]) == (4, {"refused": 3, "ok": 1})
    assert contents(user.home / "x") == {"d.txt": b"text"}
    assert user.quick("fetch", "org/content", "--to", "x", "--json").ok().report["pickles"] == 3


def test_a_dry_run_reports_rejected_files(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(repo(tmp_path, {**PLAIN, **PICKLES}))
    told = user.quick("fetch", "org/content", "--no-pickle", "--dry-run").ok().out
    assert [line.split()[0] for line in told.splitlines() if "evil.pkl" in line] == ["refuse"]
    assert [line.split()[0] for line in told.splitlines() if "weights.bin" in line] == ["download"]


# --- safetensors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 9_000_000], ids=["small", "large"])
@pytest.mark.parametrize("flags", [[], ["--to", "x"]], ids=["cache", "folder"])
def test_a_broken_header_is_not_published(
    size: int, flags: list[str], user: User, serve: Serve, tmp_path: Path
) -> None:
    broken = tensors(size, past=5)
    hub = serve(repo(tmp_path, {**PLAIN, "broken.safetensors": broken}))
    done = user.quick("fetch", "org/content", *flags, "--json")
    assert done.status == done.report["exit_code"] == 4
    assert done.report["problems"] == [
        {
            "path": "broken.safetensors",
            "outcome": "refused",
            "detail": "the checksum is right, but the safetensors header is broken: tensor 'w' ends at byte "
            f"{size + 5} of a buffer of {size} bytes; leave it out with --exclude, or accept it with "
            "GPUARIA_CHECK_CONTENT=no",
        }
    ]
    assert done.report["mirrors"][0]["rejected"] == ""
    assert contents(Path(done.report["path"])) == PLAIN
    assert not [path for path in user.home.rglob("*") if path.is_file() and path.read_bytes() == broken]
    hub.reset()
    again = user.quick("fetch", "org/content", *flags)
    assert (again.status, again.out) == (4, "")
    assert "refused: 'broken.safetensors'" in again.err
    assert hub.cdn.count() == 0
    assert contents(user.quick("fetch", "org/content", *flags, "--exclude", "broken*").ok().path) == PLAIN
    path = user.quick("fetch", "org/content", *flags, GPUARIA_CHECK_CONTENT="no").ok().path
    assert contents(path) == {**PLAIN, "broken.safetensors": broken}


def test_other_bytes_under_a_safetensors_name_are_reported_and_published(
    user: User, serve: Serve, tmp_path: Path
) -> None:
    """No loader mistakes such bytes for safetensors, and a repo may hold them for a reason."""
    serve(repo(tmp_path, {**PLAIN, "odd.safetensors": random.Random(7).randbytes(500)}))
    for _ in range(2):
        done = user.quick("fetch", "org/content").ok()
        assert "named .safetensors but not in that format: 'odd.safetensors'" in done.err.splitlines()
    assert user.quick("fetch", "org/content", "--json").ok().report["misnamed"] == ["odd.safetensors"]


def test_the_name_decides_the_check_of_a_copy(user: User, serve: Serve, tmp_path: Path) -> None:
    broken = tensors(100, past=1)
    serve(repo(tmp_path, {"a.bin": broken, "b.safetensors": broken}))
    done = user.quick("fetch", "org/content", "--to", "x", "--json")
    assert done.status == 4
    assert "b.safetensors" not in contents(user.home / "x")
    again = user.quick("fetch", "org/content", "--to", "x", "--json")
    assert (again.status, again.report["verdicts"]) == (4, {"ok": 1, "refused": 1})
    assert contents(user.home / "x") == {"a.bin": broken}


def test_a_project_file_cannot_disable_the_check(user: User) -> None:
    for line in ("check_content: no", "no_pickle: no", "signature_key: /tmp/mine.pub"):
        (user.home / "gpuaria.yaml").write_text(line + "\n")
        user.quick("fetch", "org/content").refused(10, "project's settings file")


# --- signatures -----------------------------------------------------------------------------------------------------

SIGNED = {**PLAIN, "sub/notes.txt": b"notes\n", ".gitattributes": b"* text\n"}
BUNDLE = json.dumps({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": {}}).encode()
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("model_signing") is None, reason="the package model-signing is not installed"
)


@pytest.mark.parametrize("name", ["model.sig", "other.sig"])
def test_an_unchecked_signature_is_reported(
    name: str, user: User, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(repo(tmp_path, {**SIGNED, name: BUNDLE, "x.sig": b"of another kind", "sub/model.sig": BUNDLE}))
    done = user.quick("fetch", "org/content").ok()
    assert f"signature '{name}' is present, not checked: " in done.err
    assert "set signature_key" in done.err
    monkeypatch.setitem(sys.modules, "model_signing", None)  # as if it were not installed
    assert "pip install 'gpuaria[model-signing]'" in user.quick("fetch", "org/content").ok().err
    signature = user.quick("fetch", "org/content", "--json").ok().report["signature"]
    assert (signature["path"], signature["state"]) == (name, "not checked")
    assert user.quick("fetch", "org/content", "config.json", "--json").ok().report["signature"] is None


def test_a_key_without_the_package_is_an_error_before_the_download(
    user: User, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)  # as if it were not installed
    hub = serve(repo(tmp_path, SIGNED))
    user.quick("fetch", "org/content", GPUARIA_SIGNATURE_KEY="/key.pub").refused(
        10, "signature_key", "gpuaria[model-signing]"
    )
    assert hub.cdn.count() == 0


def public_key(place: Path) -> Any:
    """Create a private key and write the public one to `place`."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    place.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return key


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Return a public key, and the signature of SIGNED that `model_signing sign key` makes with the private key."""
    from cryptography.hazmat.primitives import serialization as form

    place = tmp_path_factory.mktemp("signed")
    key = public_key(place / "key.pub")
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (place / "key").write_bytes(pem)
    for name, data in SIGNED.items():
        (place / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "model" / name).write_bytes(data)
    words = [sys.executable, "-m", "model_signing", "sign", "key", "model", "--private_key", "key"]
    subprocess.run([*words, "--signature", "model.sig"], cwd=place, check=True, capture_output=True)
    return str(place / "key.pub"), (place / "model.sig").read_bytes()


@needs_package
@pytest.mark.parametrize("flags", [[], ["--to", "x"]], ids=["cache", "folder"])
def test_a_valid_signature(
    flags: list[str], user: User, serve: Serve, tmp_path: Path, signed: tuple[str, bytes]
) -> None:
    key, signature = signed
    serve(repo(tmp_path, {**SIGNED, "model.sig": signature}))
    for _ in range(2):
        done = user.quick("fetch", "org/content", *flags, GPUARIA_SIGNATURE_KEY=key).ok()
        assert f"signature 'model.sig' is right: by the key {key}, over 4 files" in done.err.splitlines()
    assert done.path.is_dir()
    part = user.quick("fetch", "org/content", "model.sig", *flags, "--json", GPUARIA_SIGNATURE_KEY=key).ok().report
    assert part["signature"]["state"] == "not checked"
    assert "whole repo" in part["signature"]["detail"]


@needs_package
@pytest.mark.parametrize("what", ["whole", "part", "changed"])
def test_a_signature_together_with_a_lock_file(
    what: str, user: User, serve: Serve, tmp_path: Path, signed: tuple[str, bytes]
) -> None:
    """A lock of a part is complete for this run, but the signature covers more."""
    key, signature = signed
    serve(repo(tmp_path, {**SIGNED, **({"config.json": b"[]"} if what == "changed" else {}), "model.sig": signature}))
    flags = [] if what == "whole" else ["--exclude", "sub/"]
    lock = user.home / "lock.json"
    lock.write_text(user.quick("resolve", "org/content", "--format", "manifest", *flags).ok().out)
    done = user.quick("fetch", "--lock", str(lock), "--to", "x", "--json", GPUARIA_SIGNATURE_KEY=key)
    state = {"whole": "right", "part": "not checked", "changed": "wrong"}[what]
    assert (done.status, done.report["signature"]["state"]) == (4 if what == "changed" else 0, state)


@needs_package
@pytest.mark.parametrize("what", ["changed", "large", "added", "missing", "another key", "forged", "garbage"])
def test_a_wrong_signature_fails_the_run(
    what: str, user: User, serve: Serve, tmp_path: Path, signed: tuple[str, bytes]
) -> None:
    key, signature = signed
    files = dict(SIGNED)
    if what == "changed":
        files["sub/notes.txt"] = b"other\n"
    elif what == "large":
        files["model.safetensors"] = tensors(1000).replace(b"U8", b"I8")
    elif what == "added":
        files["modeling.py"] = b"import os\n"
    elif what == "missing":
        del files["config.json"]
    elif what == "another key":
        key = str(tmp_path / "other.pub")
        public_key(Path(key))
    elif what == "forged":
        bundle = json.loads(signature)
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = bundle["dsseEnvelope"]["signatures"][0]["sig"][::-1]
        signature = json.dumps(bundle).encode()
    else:
        signature = BUNDLE
    serve(repo(tmp_path, {**files, "model.sig": signature}))
    for _ in range(2):
        done = user.quick("fetch", "org/content", "--json", GPUARIA_SIGNATURE_KEY=key)
        assert done.status == done.report["exit_code"] == 4
        assert done.report["signature"]["state"] == "wrong"
        assert [(row["path"], row["outcome"]) for row in done.report["problems"]] == [("model.sig", "refused")]
        assert "the signature is wrong" in done.report["problems"][0]["detail"]
    told = user.quick("fetch", "org/content", GPUARIA_SIGNATURE_KEY=key)
    assert (told.status, told.out) == (4, "")


@needs_package
def test_files_that_a_signature_cannot_cover_are_reported(
    user: User, serve: Serve, tmp_path: Path, signed: tuple[str, bytes]
) -> None:
    key, signature = signed
    other = json.loads(signature)
    said = json.loads(base64.b64decode(other["dsseEnvelope"]["payload"]))
    said["predicate"]["serialization"]["hash_type"] = "blake3"
    other["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    hub = {"none": b"", "garbage": b"garbage", "blake": json.dumps(other).encode()}
    made = [
        repo(tmp_path, {**PLAIN, **({"model.sig": data} if data else {})}, f"org/{name}") for name, data in hub.items()
    ]
    serve(*made)
    done = user.quick("fetch", "org/none", GPUARIA_SIGNATURE_KEY=key).ok()
    assert "no signature: signature_key is set, but the repo has no model.sig" in done.err.splitlines()
    done = user.quick("fetch", "org/blake", GPUARIA_SIGNATURE_KEY=key).ok()
    assert "present, not checked: it signs files over blake3" in done.err
    assert "not a sigstore bundle" in user.quick("fetch", "org/garbage", GPUARIA_SIGNATURE_KEY=key).err
    user.quick("fetch", "org/none", GPUARIA_SIGNATURE_KEY="/no/key.pub").refused(10, "/no/key.pub", "cannot be read")
