"""Fetches into a plain folder: exact bytes, complete for `hf download --local-dir`, no user file lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from standin import Repo
from tests.support.repos import SMALL, contents, expected
from tests.support.user import Serve, User

NAMES: dict[str, bytes | Path] = {
    "with space.txt": b"1",
    "großes Maß/日本語.json": b"{}",
    "a/b/c/d/e.txt": b"deep",
    "100%.txt": b"percent",
    "a+b&c=d#e?.txt": b"query",
    'it\'s "quoted".txt': b"quotes",
    "-dash.txt": b"dash",
    ".hidden": b"dot",
    "empty.txt": b"",
    "empty.bin": b"",
    "emoji 🤗.bin": b"face" * 50,
    "x.part": b"suffix",
    "x": b"no suffix",
}


def test_exact_bytes_and_nothing_left_to_download(user: User, serve: Serve, gpt2: Repo) -> None:
    hub = serve(gpt2, server="auto")
    done = user.run("fetch", "gpt2-medium", "--to", "models/gpt 2").ok()
    target = user.home / "models/gpt 2"
    assert done.path == target
    assert contents(target) == expected(gpt2)
    hub.reset()
    report = user.run("fetch", "gpt2-medium", "--local-dir", "models/gpt 2", "--json").ok().report
    assert (hub.cdn.count(), report["bytes_fetched"]) == (0, 0)
    assert hub.count() == report["hub_requests"] <= 2


def test_the_client_downloads_nothing_afterwards(user: User, serve: Serve, gpt2: Repo) -> None:
    pytest.importorskip("huggingface_hub")
    hub = serve(gpt2)
    target = user.run("fetch", "gpt2-medium", "--to", "x").ok().path
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()}
    hub.reset()
    assert user.hf(f"print(h.snapshot_download('gpt2-medium', local_dir={str(target)!r}))") == str(target)
    assert hub.cdn.count() == 0
    assert not [seen for seen in hub.requests if "/resolve" in seen.target and seen.method == "GET"]
    after = {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()}
    assert {path: after.get(path) for path in before} == before
    verified = user.hf(
        f"r = h.HfApi().verify_repo_checksums('gpt2-medium', local_dir={str(target)!r})\n"
        "print(r.checked_count, r.mismatches, r.missing_paths)"
    )
    assert verified == "12 [] []"


def test_files_of_the_client_are_not_downloaded_again(user: User, serve: Serve, gpt2: Repo) -> None:
    pytest.importorskip("huggingface_hub")
    hub = serve(gpt2)
    user.hf("h.snapshot_download('gpt2-medium', local_dir='x')")
    hub.reset()
    report = user.run("fetch", "gpt2-medium", "--to", "x", "--json").ok().report
    assert (hub.cdn.count(), report["bytes_fetched"], report["verdicts"]) == (0, 0, {"ok": 12})
    assert contents(user.home / "x") == expected(gpt2)


def test_all_kinds_of_file_names(user: User, serve: Serve, tmp_path: Path) -> None:
    serve(Repo.build("org/names", NAMES, folder=tmp_path / "names"))
    assert contents(user.run("fetch", "org/names", "--to", "x").ok().path) == NAMES
    assert contents(user.quick("fetch", "org/names").ok().path) == NAMES
    assert (
        user.quick("verify", "x").ok().out.endswith("13 ok; checksums from " + user.env["HF_ENDPOINT"] + " (origin)\n")
    )


def test_a_user_file_is_replaced_only_by_verified_bytes(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    target = user.home / "x"
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"mine, and precious")
    (target / "config.json").write_bytes(b"[]")
    (target / "notes.txt").write_bytes(b"not of the repo")
    hub.cdn.fault("model.safetensors", "flip", offset=100)
    done = user.run("fetch", "org/big", "--to", "x")
    assert done.status == 4
    kept = {"model.safetensors": b"mine, and precious", "notes.txt": b"not of the repo"}
    assert contents(target) == {**expected(big), **kept}
    hub.heal()
    user.run("fetch", "org/big", "--to", "x").ok()
    assert contents(target) == {**expected(big), "notes.txt": b"not of the repo"}


def test_identical_files_are_downloaded_once(user: User, serve: Serve, big_bytes: bytes, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {
        "a.safetensors": big_bytes,
        "sub/b.safetensors": big_bytes,
        "one.json": b"{}",
        "two.json": b"{}",
    }
    repo = Repo.build("org/twice", files, folder=tmp_path / "twice", direct=True)
    hub = serve(repo)
    for flags in (["--to", "x"], []):
        hub.reset()
        report = user.run("fetch", "org/twice", *flags, "--json").ok().report
        assert report["bytes_fetched"] == len(big_bytes) + 2
        assert report["verdicts"] == {"ok": 4}
        assert sum(seen.sent for seen in hub.cdn.requests) < 1.5 * len(big_bytes)
        assert contents(Path(report["path"])) == files


def test_a_deleted_copy_is_restored_without_the_network(
    user: User, serve: Serve, big_bytes: bytes, tmp_path: Path
) -> None:
    repo = Repo.build("org/twice", {"a.bin": big_bytes, "b.bin": big_bytes}, folder=tmp_path / "twice")
    hub = serve(repo)
    user.quick("fetch", "org/twice", "--to", "x").ok()
    (user.home / "x/b.bin").unlink()
    hub.reset()
    user.quick("fetch", "org/twice", "--to", "x").ok()
    assert (user.home / "x/b.bin").read_bytes() == big_bytes
    assert hub.cdn.count() == 0


def test_an_empty_repo_and_an_empty_file(user: User, serve: Serve, tmp_path: Path) -> None:
    repo = Repo.build("org/empty", {"only.txt": b""}, folder=tmp_path / "empty")
    hub = serve(repo)
    assert contents(user.quick("fetch", "org/empty", "--to", "x").ok().path) == {"only.txt": b""}
    assert not [seen for seen in hub.requests if "/resolve/" in seen.target]


def test_a_truncated_and_a_touched_file_are_detected(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    target = user.quick("fetch", "org/small", "--to", "x").ok().path
    (target / "weights.bin").write_bytes(SMALL["weights.bin"][:100])
    (target / "config.json").write_bytes(b'{"n": 2}\n')
    os.utime(target / "sub/other.txt")
    report = user.quick("fetch", "org/small", "--to", "x", "--json").ok().report
    assert report["bytes_fetched"] == len(SMALL["weights.bin"]) + len(SMALL["config.json"])
    assert contents(target) == SMALL


@pytest.mark.parametrize("to", [("--to", "x"), ()], ids=["folder", "cache"])
@pytest.mark.parametrize("verified", [True, False])
def test_a_flipped_byte_under_the_old_mtime_is_downloaded_again(
    to: tuple[str, ...], verified: bool, user: User, serve: Serve, small: Repo
) -> None:
    serve(small)
    target = user.quick("fetch", "org/small", *to).ok().path
    weights = (target / "weights.bin").resolve()
    seen = weights.stat()
    weights.write_bytes(b"W" + SMALL["weights.bin"][1:])
    os.utime(weights, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    if verified:
        assert user.quick("verify", str(target)).status == 4
    user.quick("fetch", "org/small", *to).ok()
    assert contents(target) == SMALL


@pytest.mark.fault("disk: a symbolic link planted in the target")
def test_a_link_in_the_target_does_not_lead_outside(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    outside = user.home / "outside"
    outside.mkdir()
    (outside / "other.txt").write_bytes(b"must stay")
    target = user.home / "x"
    target.mkdir()
    (target / "sub").symlink_to(outside)
    user.quick("fetch", "org/small", "--to", "x").refused(8, "sub")
    assert contents(outside) == {"other.txt": b"must stay"}


def test_a_link_as_the_target_is_followed(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    (user.home / "real").mkdir()
    (user.home / "link").symlink_to("real")
    user.quick("fetch", "org/small", "--to", "link").ok()
    assert contents(user.home / "real") == SMALL


def test_another_commit_into_the_same_folder(user: User, serve: Serve, tmp_path: Path) -> None:
    repo = Repo.build("org/v", {"a.txt": b"one", "b.bin": b"same" * 99}, folder=tmp_path / "v", direct=True)
    repo.tag("v1")
    repo.update({"a.txt": b"two"})
    hub = serve(repo)
    user.quick("fetch", "org/v@v1", "--to", "x").ok()
    hub.reset()
    user.quick("fetch", "org/v", "--to", "x").ok()
    assert contents(user.home / "x") == {"a.txt": b"two", "b.bin": b"same" * 99}
    assert hub.cdn.count() == 0


def test_files_of_another_repo_are_not_replaced_without_force(
    user: User, serve: Serve, small: Repo, tmp_path: Path
) -> None:
    other = Repo.build(
        "org/other", {**SMALL, "config.json": b'{"n": 3}\n', "new.txt": b"new"}, folder=tmp_path / "other"
    )
    serve(small, other)
    target = user.quick("fetch", "org/small", "--to", "x").ok().path
    done = user.quick("fetch", "org/other", "--to", "x")
    assert done.status == 2
    assert f"org/other@main would replace 'config.json' of org/small@main in {target}" in done.err
    assert f"--to {target}/other" in done.err
    assert "--force" in done.err
    assert contents(target) == SMALL
    plan = user.quick("fetch", "org/other", "--to", "x", "--dry-run").ok()
    assert "warning: org/other@main would replace 'config.json' of org/small@main" in plan.err
    user.quick("fetch", "org/other", "new.txt", "--to", "x").ok()
    assert contents(target) == {**SMALL, "new.txt": b"new"}, "no name in common"
    user.quick("fetch", "org/small", "--to", "x").ok()
    user.quick("fetch", "org/other", "--to", "x", "--force").ok()
    assert contents(target) == expected(other)


def test_home_and_relative_targets(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    assert user.quick("fetch", "org/small", "config.json", "--to", "~/a/b").ok().path == user.home / "a/b"
    assert user.quick("fetch", "org/small", "config.json", "--to", ".").ok().path == user.home


@pytest.mark.parametrize("other", ["org/other", "org/small@v2", "datasets/org/small"])
def test_offline_a_folder_with_other_files_fails(user: User, serve: Serve, small: Repo, other: str) -> None:
    serve(small)
    user.quick("fetch", "org/small", "--to", "x").ok()
    user.quick("fetch", other, "--to", "x", "--offline").refused(5, "holds org/small@main, not")
    user.quick("fetch", "org/small", "--to", "x", "--offline").ok()
    user.quick("fetch", "ORG/small", "--to", "x", "--offline", "--revision", small.head).ok()
