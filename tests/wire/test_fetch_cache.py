"""Fetches into the Hugging Face cache, checked with the official client in both directions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from standin import Repo
from tests.support.repos import SMALL, contents, expected
from tests.support.user import GPUARIA, Serve, User

pytest.importorskip("huggingface_hub")

LOOK = """
import json
path = h.snapshot_download({name!r}, revision={revision!r}, repo_type={kind!r}, local_files_only=True)
info = h.scan_cache_dir()
repo, = info.repos
print(json.dumps([path, [str(w) for w in info.warnings], repo.repo_id, repo.nb_files, repo.size_on_disk,
    sorted(ref for rev in repo.revisions for ref in rev.refs)]))
"""


def look(user: User, name: str, revision: str = "main", kind: str = "model") -> tuple[str, list[str], str, int, int]:
    """Return what the client finds offline: path, warnings, name, files, bytes."""
    path, warnings, repo, files, size, _ = json.loads(
        user.hf(LOOK.format(name=name, revision=revision, kind=kind), HF_HUB_OFFLINE="1")
    )
    return path, warnings, repo, files, size


def test_the_client_accepts_what_gpuaria_wrote(user: User, serve: Serve, gpt2: Repo) -> None:
    hub = serve(gpt2, server="auto")
    path = user.run("fetch", "--repo", "gpt2-medium").ok().path
    files = expected(gpt2)
    assert contents(path) == files
    assert path.name == gpt2.head
    assert not any("authorization" in seen.headers for seen in hub.cdn.requests)
    hub.reset()
    size = sum(map(len, files.values()))
    assert look(user, "gpt2-medium") == (str(path), [], "gpt2-medium", len(files), size)
    assert hub.count() == hub.cdn.count() == 0
    verified = user.hf("r = h.HfApi().verify_repo_checksums('gpt2-medium'); print(r.checked_count, r.mismatches)")
    assert verified == f"{len(files)} []"
    hub.reset()
    assert user.hf("print(h.snapshot_download('gpt2-medium'))") == str(path)
    assert hub.cdn.count() == 0
    assert not [seen for seen in hub.requests if "/resolve/" in seen.target]


@pytest.mark.parametrize("name", ["gpt2-medium", "openai-community/gpt2-medium"])
def test_a_fetch_sends_three_requests_and_one_per_file(user: User, serve: Serve, gpt2: Repo, name: str) -> None:
    """Small files and old names need no extra request; an empty file needs none."""
    hub = serve(gpt2)
    report = user.run("fetch", name, "--json").ok().report
    assert hub.count() == report["hub_requests"] == 3 + 11


def test_a_second_run_sends_two_requests_and_downloads_nothing(user: User, serve: Serve, gpt2: Repo) -> None:
    hub = serve(gpt2)
    first = user.quick("fetch", "gpt2-medium").ok().path
    hub.reset()
    report = user.run("fetch", "gpt2-medium", "--json").ok().report
    assert (hub.cdn.count(), hub.count(), report["hub_requests"]) == (0, 2, 2)
    assert (report["path"], report["bytes_fetched"]) == (str(first), 0)
    assert report["bytes_reused"] == sum(map(len, expected(gpt2).values()))
    hub.reset()
    assert user.quick("fetch", "openai-community/gpt2-medium@" + gpt2.head).ok().path.name == gpt2.head


def test_files_of_the_client_are_not_downloaded_again(user: User, serve: Serve, gpt2: Repo) -> None:
    hub = serve(gpt2)
    path = user.hf("print(h.snapshot_download('openai-community/gpt2-medium'))")
    before = {file: file.stat().st_mtime_ns for file in Path(path).rglob("*")}
    hub.reset()
    report = user.run("fetch", "openai-community/gpt2-medium", "--json").ok().report
    assert (report["path"], report["bytes_fetched"], report["verdicts"]) == (path, 0, {"ok": 12})
    assert hub.cdn.count() == 0
    assert hub.count() <= 2
    assert {file: file.stat().st_mtime_ns for file in Path(path).rglob("*")} == before


def test_gpuaria_completes_a_partial_snapshot_of_the_client(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    user.hf("h.hf_hub_download('org/big', 'model.safetensors')")
    hub.reset()
    report = user.run("fetch", "org/big", "--json").ok().report
    assert hub.cdn.count() == 0
    assert report["bytes_fetched"] == sum(len(data) for name, data in expected(big).items() if name[0] != "m")
    assert contents(Path(report["path"])) == expected(big)


def test_wrong_files_of_the_client_are_replaced(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    path = Path(user.hf("print(h.snapshot_download('org/small'))"))
    blob = (path / "weights.bin").resolve()
    blob.write_bytes(b"WEIGHTS " * 4000)
    assert contents(user.run("fetch", "org/small").ok().path) == SMALL


def test_a_missing_blob_is_downloaded_again(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    path = user.quick("fetch", "org/small").ok().path
    (path / "weights.bin").resolve().unlink()
    report = user.quick("fetch", "org/small", "--json").ok().report
    assert report["bytes_fetched"] == len(SMALL["weights.bin"])
    assert contents(path) == SMALL


@pytest.fixture
def versions(tmp_path: Path) -> Repo:
    """Return a repo with two commits, a tag, a branch and a pull request."""
    repo = Repo.build("org/v", {"a.txt": b"one", "same.bin": b"s" * 99}, folder=tmp_path / "v", direct=True)
    repo.tag("v1.0")
    repo.update({"a.txt": b"two"})
    repo.update({"a.txt": b"three"}, branch="feature/x")
    repo.pull(1, {"a.txt": b"four"})
    return repo


@pytest.mark.parametrize(
    ("words", "revision", "text"),
    [
        (["org/v"], "main", b"two"),
        (["hf:org/v@v1.0"], "v1.0", b"one"),
        (["hf://org/v@main"], "main", b"two"),
        (["org/v", "--revision", "feature/x"], "feature/x", b"three"),
        (["org/v@refs/pr/1"], "refs/pr/1", b"four"),
        (["{url}/org/v/tree/v1.0"], "v1.0", b"one"),
        (["{url}/org/v/tree/refs%2Fpr%2F1"], "refs/pr/1", b"four"),
        (["{url}/org/v"], "main", b"two"),
        (["https://huggingface.co/org/v/blob/main/a.txt"], "main", b"two"),
        (["--repo", "{url}/org/v/blob/v1.0/a.txt?download=true"], "v1.0", b"one"),
    ],
)
def test_every_form_of_revision(
    words: list[str], revision: str, text: bytes, user: User, serve: Serve, versions: Repo
) -> None:
    hub = serve(versions)
    path = user.quick("fetch", *(word.format(url=hub.url) for word in words)).ok().path
    assert (path / "a.txt").read_bytes() == text
    assert (path / "same.bin").exists() == ("blob" not in words[-1])
    assert path.name == versions.resolve(revision)
    assert (path.parent.parent / "refs" / revision).read_text() == path.name


def test_a_commit_and_its_prefix(user: User, serve: Serve, versions: Repo) -> None:
    serve(versions)
    oldest = versions.tags["v1.0"]
    path = user.quick("fetch", f"org/v@{oldest}").ok().path
    assert ((path / "a.txt").read_bytes(), path.name) == (b"one", oldest)
    assert not (path.parent.parent / "refs" / oldest).exists()
    assert user.quick("fetch", "org/v", "--revision", oldest[:10]).ok().path == path


def test_a_new_commit_reuses_unchanged_files(user: User, serve: Serve, versions: Repo) -> None:
    hub = serve(versions)
    old = user.quick("fetch", "org/v@v1.0").ok().path
    hub.reset()
    new = user.quick("fetch", "org/v").ok().path
    assert hub.cdn.count() == 0
    assert (old / "same.bin").resolve() == (new / "same.bin").resolve()
    assert ((old / "a.txt").read_bytes(), (new / "a.txt").read_bytes()) == (b"one", b"two")
    assert look(user, "org/v", "v1.0")[:2] == (str(old), [])


def test_a_moved_branch_is_followed(user: User, serve: Serve, versions: Repo) -> None:
    serve(versions)
    user.quick("fetch", "org/v").ok()
    versions.update({"a.txt": b"five"})
    path = user.quick("fetch", "org/v").ok().path
    assert (path.name, (path / "a.txt").read_bytes()) == (versions.head, b"five")
    assert user.quick("fetch", "org/v", "--offline").ok().path == path


@pytest.mark.parametrize("note", [b"\xff\xfe\x00", b"", b"../../x", b"\x1b[2J", b"main\n", None])
def test_a_ref_without_a_commit_counts_as_missing(note: bytes | None, user: User, serve: Serve, versions: Repo) -> None:
    serve(versions)
    path = user.quick("fetch", "org/v").ok().path
    ref = path.parent.parent / "refs/main"
    ref.unlink()
    if note is None:
        os.mkfifo(ref)
    else:
        ref.write_bytes(note)
    user.quick("fetch", "org/v", "--offline").refused(5, "org/v@main is not in", "--offline")
    user.quick("resolve", "org/v", "--offline").refused(5, "org/v@main is not in", "--offline")
    user.quick("verify", "org/v").refused(5, "org/v@main is not in", "gpuaria fetch org/v@main")
    assert "2 ok" in user.quick("verify", path.parent.parent).ok().out
    assert "2 ok" in user.quick("verify", path).ok().out
    user.quick("fetch", "org/v", HF_ENDPOINT="http://127.0.0.1:9").refused(7, "127.0.0.1:9")
    assert user.quick("fetch", "org/v").ok().path == path
    assert ref.read_text() == path.name


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_datasets_and_spaces(kind: str, user: User, serve: Serve, tmp_path: Path) -> None:
    files = {"data/train.bin": b"rows" * 99, "README.md": b"# it\n"}
    repo = Repo.build("org/it", files, folder=tmp_path / "it", kind=kind)
    hub = serve(repo)
    path = user.quick("fetch", f"{kind}s/org/it").ok().path
    assert contents(path) == files
    assert path.parent.parent.name == f"{kind}s--org--it"
    hub.reset()
    for words in (["org/it", "--type", kind], [f"hf:{kind}s/org/it"], [f"{hub.url}/{kind}s/org/it/tree/main/data"]):
        assert user.quick("fetch", *words).ok().path == path
    assert hub.cdn.count() == 0
    assert look(user, "org/it", kind=kind)[:2] == (str(path), [])


def test_the_cache_location_follows_the_variables(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    for env, place in [
        ({"HF_HUB_CACHE": str(user.home / "one")}, "one"),
        ({"HF_HOME": str(user.home / "two")}, "two/hub"),
        ({"XDG_CACHE_HOME": str(user.home / "three")}, "three/huggingface/hub"),
    ]:
        assert user.quick("fetch", "org/small", **env).ok().path.is_relative_to(user.home / place)
    path = user.quick("fetch", "org/small", "--cache-dir", "four", HF_HUB_CACHE=str(user.home / "one")).ok().path
    assert path.is_relative_to(user.home / "four")


def test_force_downloads_again(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    path = user.quick("fetch", "org/small").ok().path
    hub.reset()
    report = user.quick("fetch", "org/small", "--force", "--json").ok().report
    assert report["bytes_fetched"] == sum(map(len, SMALL.values()))
    assert hub.cdn.count() == 1
    assert contents(path) == SMALL


def test_only_selected_files_are_fetched(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    path = user.quick("fetch", "org/small", "--include", "sub/", "*.json", "--exclude", "*deep*").ok().path
    assert set(contents(path)) == {"config.json", "sub/other.txt"}
    assert hub.cdn.count() == 0
    assert contents(user.quick("fetch", "org/small").ok().path) == SMALL


@pytest.mark.fault("processes: two or eight at once on one cache")
def test_two_processes_at_once_on_one_target(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    runs = [user.start("fetch", "org/big", "--json") for _ in range(2)]
    ended = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    reports = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    assert sorted(report["bytes_fetched"] > 0 for report in reports) == [False, True]
    assert contents(Path(reports[0]["path"])) == expected(big)
    assert len([seen for seen in hub.requests if seen.method == "HEAD"]) == 1


def test_1659_files_on_two_pages_are_fetched(user: User, serve: Serve, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {f"d{n % 40}/file-{n:04d}.txt": b"%d\n" % n for n in range(1659)}
    hub = serve(Repo.build("org/many", files, folder=tmp_path / "many", direct=True))
    report = user.run("fetch", "org/many", "--to", "x", "--json").ok().report
    assert contents(user.home / "x") == files
    assert report["verdicts"] == {"ok": 1659}
    assert hub.count() == report["hub_requests"] == 1 + 2 + 1659
    hub.reset()
    user.run("fetch", "org/many", "--to", "x").ok()
    assert hub.count() <= 2


@pytest.mark.parametrize("words", [(), ("--to", "x")])
def test_a_complete_read_only_target_is_usable(
    user: User, serve: Serve, small: Repo, big: Repo, words: tuple[str, ...]
) -> None:
    """An administrator fills one cache for all users of a cluster."""
    hub = serve(small, big)
    path = Path(user.quick("fetch", "org/small", *words).ok().out.strip())
    place = user.home / "x" if words else user.home / ".cache/huggingface"
    folders = [place, *(found for found in place.rglob("*") if found.is_dir() and not found.is_symlink())]
    for folder in folders:
        folder.chmod(0o555)
    powerless = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    try:
        for more in (("--offline",), (), ("--offline",)):
            done = user.command(*powerless, *GPUARIA, "fetch", "org/small", *words, *more, "--json")
            assert done.ok().report["verdicts"] == {"ok": 4}
            assert done.report["path"] == str(path)
        done = user.command(*powerless, *GPUARIA, "fetch", "org/big", *words)
        done.refused(8, "no permission for")
        assert hub.cdn.count() <= 2
    finally:
        for folder in folders:
            folder.chmod(0o755)
