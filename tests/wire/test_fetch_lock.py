"""`fetch --lock`: files of a lock file from any source, without another listing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import gpuaria
from gpuaria.errors import UsageError
from standin import Repo
from tests.support.user import Serve, User

FILES: dict[str, bytes | Path] = {
    "config.json": b'{"a": 1}',
    "sub/notes.txt": b"first\n",
    "weights.bin": b"w" * 9_000_000,
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Repo]:
    """Build repos of one name; the same content gives the same commit."""

    def make(folder: str, **changed: bytes) -> Repo:
        return Repo.build("org/held", {**FILES, **changed}, folder=tmp_path / folder)

    return make


def lock(user: User, *more: str) -> Path:
    """Write a lock file with `resolve`."""
    file = user.home / "held.lock.json"
    file.write_text(user.quick("resolve", "org/held", "--format", "manifest", *more).ok().out)
    return file


@pytest.mark.fault(
    "hub: down, and a lock file lists the files",
    where="server",
    does="Uses the file list of the lock file, and fetches the bytes from any mirror.",
    sees="the lock file as the source of the checksums, and `pinned` in the report",
    status=0,
)
def test_a_lock_file_and_any_mirror_are_enough(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    hub, mirror = serve(made("one")), serve(made("two"), name="two", host="127.0.0.2")
    lock(user)
    hub.close()
    user.env["GPUARIA_TRUST"] = "origin"
    done = user.quick("fetch", "--lock", "held.lock.json", "--to", "got", "--mirror", mirror.url, "--json").ok()
    assert (done.report["trust"], done.report["vouched_by"]) == ("pinned", "lock file 'held.lock.json'")
    assert (user.home / "got/weights.bin").read_bytes() == FILES["weights.bin"]
    assert not [seen for seen in mirror.requests if seen.target.startswith("/api/models")]
    assert "3 ok" in user.quick("verify", "got").ok().out


def test_the_branch_may_have_moved(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    serve(repo)
    lock(user)
    old = repo.head
    repo.commit({"sub/notes.txt": b"second\n"})
    newest = user.quick("fetch", "org/held").ok().path
    assert (newest / "sub/notes.txt").read_bytes() == b"second\n"
    locked = user.quick("fetch", "--lock", "held.lock.json").ok().path
    assert locked.name == old != newest.name
    assert (locked / "sub/notes.txt").read_bytes() == b"first\n"
    assert (locked.parent.parent / "refs/main").read_text() == newest.name


@pytest.mark.fault(
    "mirror: its bytes differ from the lock file",
    where="server",
    does="Does not publish the file.",
    sees="that the checksum is wrong",
    status=4,
)
def test_bytes_that_differ_from_the_lock_are_not_published(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    serve(made("one"))
    file = lock(user)
    said = json.loads(file.read_text())
    notes = next(row for row in said["files"] if row["path"] == "sub/notes.txt")
    notes["digest"]["hex"] = "0" * 40
    file.write_text(json.dumps(said))
    assert user.quick("fetch", "--lock", file, "--to", "got").status == 4
    assert not (user.home / "got/sub/notes.txt").exists()
    assert (user.home / "got/config.json").exists()


def test_a_partial_lock_writes_no_complete_listing_for_the_client(
    user: User, serve: Serve, made: Callable[..., Repo]
) -> None:
    serve(made("one"))
    lock(user, "--include", "*.json")
    path = user.quick("fetch", "--lock", "held.lock.json").ok().path
    assert [entry.name for entry in path.iterdir()] == ["config.json"]
    assert not list((path.parent.parent).glob("trees/*"))
    user.quick("fetch", "org/held").ok()
    user.quick("fetch", "--lock", "held.lock.json").ok()
    assert "3 ok" in user.quick("verify", "org/held").ok().out
    assert list((path.parent.parent).glob("trees/*"))


def test_a_lock_without_a_network(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    hub = serve(made("one"))
    lock(user)
    user.quick("fetch", "--lock", "held.lock.json", "--offline").refused(5, "offline")
    user.quick("fetch", "--lock", "held.lock.json").ok()
    before = len(hub.requests)
    user.quick("fetch", "--lock", "held.lock.json", "--offline").ok()
    user.quick("fetch", "--lock", "held.lock.json").ok()
    assert len(hub.requests) == before


def test_selected_files_of_a_lock_and_its_repo_by_name(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    serve(made("one"))
    lock(user)
    user.quick("fetch", "--lock", "held.lock.json", "--repo", "org/held", "config.json", "--to", "one").ok()
    assert not (user.home / "one/weights.bin").exists()
    user.quick("fetch", "--lock=held.lock.json", "--include", "sub/", "c*", "--to", "two").ok()
    assert (user.home / "two/sub/notes.txt").exists()
    assert (user.home / "two/config.json").exists()


@pytest.mark.parametrize(
    "beside", [("--repo", "org/other"), ("--type", "dataset"), ("--revision", "v2"), ("--repo", "org/held@v2")]
)
def test_a_repo_given_with_a_lock_must_match_it(
    beside: tuple[str, ...], user: User, serve: Serve, made: Callable[..., Repo]
) -> None:
    serve(made("one"))
    lock(user)
    user.quick("fetch", "--lock", "held.lock.json", *beside).refused(2, "lock file of org/held@main, not")


def test_a_lock_of_another_revision_than_main(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    repo.tag("v1")
    serve(repo)
    file = lock(user, "--revision", "v1")
    for beside in (["--revision", "main"], ["--repo", "org/held@main"], ["--repo", "org/held", "--revision", "main"]):
        user.quick("fetch", "--lock", file, *beside).refused(2, "lock file of org/held@v1, not of org/held@main")
    for named, revision in (("", "main"), ("org/held", "main"), ("hf:org/held@main", "")):
        with pytest.raises(UsageError, match="lock file of org/held@v1, not of org/held@main"):
            gpuaria.fetch(named, lock=file, revision=revision, environ=user.environ())
    fine: tuple[list[str], ...] = (
        [],
        ["--repo", "org/held"],
        ["--revision", "v1"],
        ["--repo", "org/held@v1"],
        ["--revision", repo.head],
    )
    for beside in fine:
        path = user.quick("fetch", "--lock", file, *beside).ok().path
        assert path.name == (path.parent.parent / "refs/v1").read_text() == repo.head


@pytest.mark.parametrize("content", ["", "{}", '{"format": "gpuaria-manifest/9"}', "\x00\xff"])
def test_a_file_that_is_not_a_lock(content: str, user: User) -> None:
    (user.home / "x.lock").write_text(content, encoding="latin-1")
    user.quick("fetch", "--lock", "x.lock").refused(10, "x.lock")
    user.quick("fetch", "--lock", "no.lock").refused(10, "no.lock", "cannot be read")


def test_a_lock_without_digests_verifies_nothing(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    serve(made("one"))
    file = lock(user)
    said = json.loads(file.read_text())
    for row in said["files"]:
        row |= {"digest": None, "oid": ""}
    file.write_text(json.dumps(said))
    report = user.quick("fetch", "--lock", file, "--to", "got", "--json").ok().report
    assert (report["trust"], report["verdicts"]) == ("none", {"unverifiable": 3})


def test_a_lock_from_python(user: User, serve: Serve, made: Callable[..., Repo], tmp_path: Path) -> None:
    serve(made("one"))
    file = lock(user)
    report = gpuaria.fetch(lock=file, to=tmp_path / "got", environ=user.environ())
    assert (report.trust, report.files) == ("pinned", 3)
