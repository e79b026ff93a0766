"""`gpuaria resolve`, `verify` and `config`: their output, and the tools that read it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from standin import Repo, git_id
from tests.support.repos import SMALL, contents, expected
from tests.support.user import PATH, Serve, User

NEEDS_ARIA2 = pytest.mark.skipif(shutil.which("aria2c", path=PATH) is None, reason="needs aria2c")
QUIET = ["--no-conf", "--quiet", "--allow-overwrite=true"]


@pytest.fixture
def odd(tmp_path: Path) -> Repo:
    """Return a repo with names that XML, aria2 input files or checksum files could misread; all files are LFS."""
    names = ["with space.bin", "a<b>.bin", "100%.bin", "sub/ünï.bin", "it's.bin", "-dash.bin", "#hash.bin", "a=b.bin"]
    files: dict[str, bytes | Path] = {name: name.encode() * 50 for name in names}
    return Repo.build("org/odd", files, folder=tmp_path / "odd")


# --- resolve ------------------------------------------------------------------------------------------------------


def test_the_table_of_files(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    sums = {name: git_id("blob", data) for name, data in SMALL.items()}
    weights = hashlib.sha256(SMALL["weights.bin"]).hexdigest()
    assert user.run("resolve", "org/small").ok().out == (
        f"org/small@main is org/small at {small.head}; checksums from {hub.url}\n"
        "size     digest                                                                   file\n"
        f"9 B      git-sha1:{sums['config.json']}                        config.json\n"
        f"5 B      git-sha1:{sums['sub/folder/deep.txt']}                        sub/folder/deep.txt\n"
        f"6 B      git-sha1:{sums['sub/other.txt']}                        sub/other.txt\n"
        f"32.0 kB  sha256:{weights}  weights.bin\n"
        "4 files, 32.0 kB\n"
    )
    assert hub.cdn.count() == 0
    assert hub.count() == 2


def test_json_is_the_manifest(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    out = user.quick("resolve", "org/small@v1", "--json").ok().out
    assert out == user.quick("resolve", "org/small@v1", "--format", "json").ok().out
    assert out.count("\n") == 1
    told = json.loads(out)
    assert (told["commit"], told["vouched_by"], told["trust"]) == (small.head, hub.url, "origin")
    assert told["ref"] == {"source": "hf", "kind": "model", "name": "org/small", "revision": "v1", "path": ""}
    assert {file["path"]: file["size"] for file in told["files"]} == {name: len(data) for name, data in SMALL.items()}


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["config.json"], {"config.json"}),
        (["sub/"], {"sub/folder/deep.txt", "sub/other.txt"}),
        (["--include", "*.txt"], {"sub/folder/deep.txt", "sub/other.txt"}),
        (["--include", "sub/folder/"], {"sub/folder/deep.txt"}),
        (["--include", "*.json", "*.bin"], {"config.json", "weights.bin"}),
        (["--include", "*.json", "--include", "*.bin"], {"config.json", "weights.bin"}),
        (["--include=*.json", "--exclude", "*.txt", "*.bin"], {"config.json"}),
        (["--exclude", "sub/", "*.bin"], {"config.json"}),
        (["--include", "*.json *.bin"], {"config.json", "weights.bin"}),
        (["--exclude", "sub/ *.bin"], {"config.json"}),
        (["config.json", "--include", "*.bin"], {"config.json", "weights.bin"}),
    ],
)
def test_selected_files(words: list[str], chosen: set[str], user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    for line in (["org/small", *words], ["--repo", "org/small", *words]):
        told = json.loads(user.quick("resolve", *line, "--json").ok().out)
        assert {file["path"] for file in told["files"]} == chosen


@pytest.mark.parametrize("before", ["-x8", "-j4", "-qv", "-qx8", "-x 8", "-qx 8", "-q", "--connections 8", "-x8 -j 4"])
@pytest.mark.parametrize("named", ["org/small", "--repo org/small"])
def test_short_options_before_the_repo(before: str, named: str, user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    line = ["fetch", *before.split(), *named.split(), "--dry-run", "--json", "--exclude", "*.txt", "*.bin"]
    plan = json.loads(user.quick(*line).ok().out)
    assert [step["file"]["path"] for step in plan["steps"]] == ["config.json"]


def test_a_bundle_of_short_options_with_v_logs_requests(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    assert "/api/models/org/small" in user.run("fetch", "-qv", "org/small", "--dry-run").ok().err
    assert "/api/models/org/small" in user.run("fetch", "-vx8", "org/small", "--dry-run").ok().err


def test_patterns_may_precede_the_repo(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    told = json.loads(user.quick("resolve", "--include", "*.bin", "org/small", "--json").ok().out)
    assert [file["path"] for file in told["files"]] == ["weights.bin"]


@NEEDS_ARIA2
@pytest.mark.parametrize("mirrored", [False, True])
def test_aria2c_reads_the_metalink(mirrored: bool, user: User, serve: Serve, odd: Repo) -> None:
    hub = serve(odd)
    flags = ["--mirror", serve(odd, name="mirror").url] if mirrored else []
    text = user.quick("resolve", "org/odd", "--format", "metalink", *flags).ok().out
    assert text.count("<url ") + text.count("<url>") == len(expected(odd)) * (1 + mirrored)
    assert text.count('type="sha-256"') == len(expected(odd))
    assert hub.cdn.count() == 0
    (user.home / "all.meta4").write_text(text)
    user.command("aria2c", *QUIET, "-d", "got", "-M", "all.meta4").ok()
    assert contents(user.home / "got") == expected(odd)


@NEEDS_ARIA2
def test_an_ampersand_is_escaped_or_rejected(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(Repo.build("org/and", {"a&b.bin": b"and"}, folder=tmp_path / "and"))
    done = user.quick("resolve", "org/and", "--format", "metalink")
    if done.status == 0:
        (user.home / "all.meta4").write_text(done.out)
        user.command("aria2c", *QUIET, "-d", "got", "-M", "all.meta4").ok()
        assert contents(user.home / "got") == {"a&b.bin": b"and"}


def test_names_that_aria2_misreads_are_counted_with_an_alternative(user: User, serve: Serve, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {f"{n}&.bin": b"%d" % n for n in range(7)}
    serve(Repo.build("org/and", {**files, "plain.bin": b"p"}, folder=tmp_path / "and"))
    done = user.quick("resolve", "org/and", "--format", "metalink")
    done.refused(8, "7 of 8 files", "'3&.bin', '4&.bin' and 2 more", "--format aria2", "--exclude '*&*'")
    assert done.out == ""
    text = user.quick("resolve", "org/and", "--format", "metalink", "--exclude", "*&*").ok().out
    assert text.count("<file ") == 1
    user.quick("resolve", "org/and", "1&.bin", "--format", "metalink").refused(8, "1 of 1 file ", "'1&.bin'")


@NEEDS_ARIA2
def test_aria2c_reads_the_input_file(user: User, serve: Serve, odd: Repo) -> None:
    serve(odd)
    text = user.quick("resolve", "org/odd", "--format", "aria2").ok().out
    user.command("aria2c", *QUIET, "-d", "got", "-i", "-", data=text).ok()
    assert contents(user.home / "got") == expected(odd)


@NEEDS_ARIA2
def test_aria2c_detects_wrong_bytes_by_the_checksums(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    (user.home / "all.meta4").write_text(user.quick("resolve", "org/small", "--format", "metalink").ok().out)
    text = user.quick("resolve", "org/small", "--format", "aria2").ok().out
    hub.cdn.fault("weights.bin", "flip", offset=7)
    assert user.command("aria2c", *QUIET, "-d", "one", "-M", "all.meta4").status != 0
    assert user.command("aria2c", *QUIET, "-d", "two", "-i", "-", data=text).status != 0


def test_sha256sum_reads_the_sums(user: User, serve: Serve, odd: Repo) -> None:
    serve(odd)
    target = user.quick("fetch", "org/odd", "--to", "got").ok().path
    text = user.quick("resolve", "org/odd", "--format", "sha256sums").ok().out
    done = user.command("sha256sum", "--check", "--strict", "-", cwd=target, data=text).ok()
    assert done.out.count(": OK\n") == len(expected(odd))
    (target / "#hash.bin").write_bytes(b"other")
    assert user.command("sha256sum", "--check", "-", cwd=target, data=text).status == 1


def test_no_format_contains_a_signature_or_contacts_the_byte_server(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    for form in ("table", "json", "metalink", "aria2", "sha256sums", "manifest"):
        assert "Signature" not in user.quick("resolve", "org/big", "--format", form).ok().out
    assert hub.cdn.count() == 0


def test_files_that_need_a_token_are_reported(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(Repo.build("org/private", {"a.bin": b"a"}, folder=tmp_path / "private", private=True))
    done = user.quick("resolve", "org/private", "--format", "aria2", HF_TOKEN="hf_good").ok()
    assert "need an access token" in done.err
    assert "hf_good" not in done.out + done.err


# --- verify -------------------------------------------------------------------------------------------------------


def test_verify_accepts_every_form_of_name(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    cached = user.quick("fetch", "org/small").ok().path
    plain = user.quick("fetch", "org/small", "--to", "x").ok().path
    hub.close()
    told = f"4 ok; checksums from {user.env['HF_ENDPOINT']} (origin)\n"
    for target in ("org/small", "org/small@main", "models/org/small", cached, cached.parent.parent, plain, "x", "./x"):
        done = user.quick("verify", str(target)).ok()
        assert done.out.endswith(told), target
    assert user.run("verify", "org/small", "-q").ok().err == ""


@pytest.mark.parametrize("where", ["org/small", "x"])
def test_verify_lists_every_problem(where: str, user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    flags = ["--to", "x"] if where == "x" else []
    path = user.quick("fetch", "org/small", *flags).ok().path
    (path / "weights.bin").resolve().write_bytes(b"WEIGHTS " * 4000)
    (path / "config.json").resolve().write_bytes(b"{}")
    (path / "sub/other.txt").unlink()
    (path / "stranger.txt").write_bytes(b"?")
    done = user.quick("verify", where)
    assert done.status == 4
    outcomes = {line.partition(": ")[0]: line.partition(": ")[2] for line in done.out.splitlines()[:-1]}
    assert set(outcomes) == {"wrong size", "wrong digest", "missing", "extra"}
    assert "config.json" in outcomes["wrong size"]
    assert "weights.bin" in outcomes["wrong digest"]
    assert "sub/other.txt" in outcomes["missing"]
    assert "stranger.txt" in outcomes["extra"]
    told = user.quick("verify", where, "--json")
    problems = {problem["path"]: problem["outcome"] for problem in told.report["problems"]}
    assert (told.status, told.report["exit_code"]) == (4, 4)
    assert (problems["stranger.txt"], problems["weights.bin"]) == ("extra", "wrong digest")
    assert user.quick("verify", where, "-q").out.count("\n") == 1


def test_a_failed_json_document_ends_with_a_report(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    for words in (["resolve", "org/none"], ["fetch", "org/none", "--dry-run"], ["verify", "org/none"]):
        done = user.quick(*words, "--json")
        assert done.status == done.report["exit_code"] == 5


def test_a_name_that_is_not_text_is_reported_in_json_too(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    path = user.quick("fetch", "org/small", "--to", "x").ok().path
    with open(os.fsencode(path) + b"/\xff\xe2\x80\xae.txt", "wb"):
        pass
    for words in (["verify", "x"], ["verify", "x", "--json"]):
        done = user.run(*words).ok()
        assert not set("\udcff\u202e") & set(done.out)
    assert [problem["path"] for problem in done.report["problems"]] == ["\udcff\u202e.txt"]


def test_verify_returns_3_for_missing_and_0_for_extra_files(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    path = user.quick("fetch", "org/small", "--to", "x").ok().path
    (path / "stranger.txt").write_bytes(b"?")
    assert "1 extra" in user.quick("verify", "x").ok().out
    assert json.loads(user.quick("verify", "x", "--json").ok().out)["exit_code"] == 0
    (path / "config.json").unlink()
    assert user.quick("verify", "x").status == 3


def put(kind: str, path: Path) -> None:
    """Create a special file with that name."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        folder = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket address has room for 107 bytes
        os.close(folder)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("where", ["org/small", "x"])
def test_verify_opens_regular_files_only(where: str, kind: str, user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    flags = ["--to", "x"] if where == "x" else []
    path = user.quick("fetch", "org/small", *flags).ok().path
    (path / "config.json").unlink()
    put(kind, path / "config.json")
    done = user.run("verify", where)
    assert (done.status, done.out.splitlines()[0]) == (3, "failed: 'config.json': is not a regular file")
    assert user.quick("fetch", "org/small", *flags).status == (8 if kind == "folder" else 0)
    assert user.run("verify", where).status == (3 if kind == "folder" else 0)


def test_verify_against_a_lock_file(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    lock = user.home / "small.lock"
    lock.write_text(user.quick("resolve", "org/small", "--format", "manifest").ok().out)
    hub.close()
    for name, data in SMALL.items():
        (user.home / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (user.home / "copy" / name).write_bytes(data)
    user.quick("verify", "copy").refused(8, "copy")
    assert "4 ok" in user.quick("verify", "copy", "--lock", "small.lock").ok().out
    (user.home / "copy/weights.bin").write_bytes(b"x")
    assert user.quick("verify", "copy", "--lock", "small.lock").status == 4
    user.quick("verify", "copy", "--lock", "no.lock").refused(10, "no.lock")
    lock.write_text("{}")
    refused = user.quick("verify", "copy", "--lock", "small.lock")
    assert refused.status == 10
    assert "small.lock" in refused.err


def test_verify_counts_files_without_trusted_checksums(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    lock = user.home / "small.lock"
    text = json.loads(user.quick("resolve", "org/small", "--format", "manifest").ok().out)
    for file in text["files"]:
        if file["path"] == "config.json":
            file["digest"] = None
            file["oid"] = ""
    lock.write_text(json.dumps(text))
    user.quick("fetch", "org/small", "--to", "x").ok()
    done = user.quick("verify", "x", "--lock", "small.lock").ok()
    assert "unverifiable: 'config.json'" in done.out
    assert "3 ok" in done.out
    assert user.quick("verify", "x", "--lock", "small.lock", "--strict").status == 3


def test_verify_accepts_files_of_the_official_client(user: User, serve: Serve, small: Repo) -> None:
    pytest.importorskip("huggingface_hub")
    hub = serve(small)
    user.hf("h.snapshot_download('org/small'); h.snapshot_download('org/small', local_dir='x')")
    hub.close()
    for target in ("org/small", "x"):
        assert "4 ok" in user.quick("verify", target).ok().out


# --- config -------------------------------------------------------------------------------------------------------


def test_config_shows_the_layer_and_the_line(user: User) -> None:
    file = user.home / ".config/gpuaria/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# mine\njobs: 2\nconnections: 8\n")
    (user.home / "gpuaria.yaml").write_text("jobs: 3\n")
    done = user.run("config", GPUARIA_CONNECTIONS="4", HF_TOKEN="hf_secret").ok()
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    assert rows["jobs"] == ["3", "project", f"{user.home}/gpuaria.yaml:1"]
    assert rows["connections"] == ["4", "environment", "GPUARIA_CONNECTIONS"]
    assert rows["patience"] == ["10", "min", "built-in"]
    assert rows["token"] == ["(set,", "hidden)", "environment", "HF_TOKEN"]
    assert "hf_secret" not in done.out
    told = {row["key"]: row for row in user.quick("config", "--json").ok().report["settings"]}
    assert set(told) == set(rows) - {"key"}
    assert (told["connections"]["layer"], told["connections"]["where"]) == ("user", f"{file}:3")


def test_sums_list_what_they_leave_out(user: User, serve: Serve, tmp_path: Path, big: Repo) -> None:
    serve(Repo.build("org/plain", {"a.txt": b"1", "b.txt": b"2"}, folder=tmp_path / "plain"), big)
    user.quick("resolve", "org/plain", "--format", "sha256sums").refused(5, "sha256", "verify")
    done = user.quick("resolve", "org/big", "--format", "sha256sums").ok()
    assert "2 of 3 files have a git id only, no sha256" in done.err
