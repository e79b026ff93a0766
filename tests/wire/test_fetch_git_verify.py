"""With a commit id as the revision, git objects verify a mirror's listing while the origin is down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gpuaria import trust
from gpuaria.errors import Interrupted, NetworkError
from gpuaria.http.client import Http
from gpuaria.records import Mirror, RepoRef
from gpuaria.sources import source as source_of
from standin import Hub, Repo, pointer_text
from tests.support.repos import contents, expected
from tests.support.user import Done, Serve, User

GONE = "http://127.0.0.1:9"  # the discard port: nothing listens
NAME = "org/held"
FILES: dict[str, bytes | Path] = {
    "config.json": b'{"a": 1}',
    "notes.txt": b"first\n",
    "sub/deep/long.txt": b"long " * 200,
    "sub/tokens.bin": b"t" * 300,
    "weights.bin": b"w" * 4000,
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Repo]:
    """Build repos of one name; the same content gives the same commit."""

    def make(folder: str, **options: str) -> Repo:
        return Repo.build(NAME, FILES, folder=tmp_path / folder, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def fetch(user: User) -> Callable[..., Done]:
    """Fetch a commit from these mirrors only."""
    user.env["HF_ENDPOINT"] = GONE

    def run(commit: str, *mirrors: Hub, name: str = NAME, **env: str) -> Done:
        words = [word for hub in mirrors for word in ("--mirror", hub.url)]
        return user.quick("fetch", name, "--revision", commit, "--to", "got", *words, **env)

    return run


def asked_git(hub: Hub) -> list[str]:
    return [seen.target for seen in hub.requests if "/info/refs" in seen.target or "git-upload-pack" in seen.target]


def test_one_mirror_is_enough_for_a_commit(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    hub = serve(repo)
    user.env["HF_ENDPOINT"] = GONE
    words = ("fetch", NAME, "--revision", repo.head, "--to", "got", "--mirror", hub.url)
    done = user.run(*words).ok()
    by = f"commit {repo.head[:12]} itself"
    assert f"checksums from {by}, by way of {hub.url} (pinned)" in done.err
    assert f"the file list from {hub.url[7:]} is verified against {by}" in done.err
    assert "one unverified mirror" not in done.err
    assert GONE[7:] not in done.err.partition("checksums from")[2]  # a request for bytes would name the dead hub
    assert contents(user.home / "got") == expected(repo)
    assert len(asked_git(hub)) == 2
    assert "pinned" in user.quick("verify", "got").ok().out
    report = user.run(*words, "--json").ok().report
    assert (report["trust"], report["vouched_by"]) == ("pinned", f"{by}, by way of {hub.url}")
    assert report["verdicts"] == {"ok": 5}
    assert report["bytes_fetched"] == 0
    user.quick("fetch", NAME, "--revision", repo.head, "--to", "got", "--offline").ok()


def test_resolve_reports_the_verification_too(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    hub = serve(repo)
    user.env["HF_ENDPOINT"] = GONE
    done = user.run("resolve", NAME, "--revision", repo.head, "--mirror", hub.url, "--format", "manifest").ok()
    assert '"trust": "pinned"' in done.out
    assert f'"vouched_by": "commit {repo.head[:12]} itself, by way of {hub.url}"' in done.out
    assert "one unverified mirror" not in done.err


@pytest.mark.parametrize("policy", ["origin", "quorum", "any"])
def test_every_policy_accepts_a_verified_listing(
    policy: str, fetch: Callable[..., Done], serve: Serve, made: Callable[..., Repo]
) -> None:
    repo = made("one")
    done = fetch(repo.head, serve(repo), GPUARIA_TRUST=policy).ok()
    assert "(pinned)" in done.err
    assert "one unverified mirror" not in done.err


def test_an_old_commit_of_a_dataset(fetch: Callable[..., Done], serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one", kind="dataset")
    old = repo.head
    repo.update({"notes.txt": b"second\n", "new.txt": b"new\n"})
    hub = serve(repo)
    assert "(pinned)" in fetch(old, hub, name=f"datasets/{NAME}").ok().err
    assert asked_git(hub)[0].startswith(f"/datasets/{NAME}/info/refs")


def test_a_branch_name_is_not_verified(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    hub = serve(repo)
    user.env["HF_ENDPOINT"] = GONE
    done = user.quick("fetch", NAME, "--to", "got", "--mirror", hub.url).ok()
    assert "one unverified mirror" in done.err
    assert not asked_git(hub)


def test_the_origin_is_still_asked_first(user: User, serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    origin, mirror = serve(repo, name="origin"), serve(made("two"), name="mirror")
    done = user.quick("fetch", NAME, "--revision", repo.head, "--to", "got", "--mirror", mirror.url, "--json").ok()
    assert done.report["trust"] == "origin"
    assert not asked_git(origin) + asked_git(mirror)


def altered_tree(repo: Repo) -> str:
    tree = repo.commits[repo.head].listing["sub"]
    assert isinstance(tree, str)
    repo.tamper(tree, repo.read(tree)[1][:-1] + b"\0")
    return "does not send the git tree of the folder 'sub'"


def altered_commit(repo: Repo) -> str:
    repo.tamper(repo.head, repo.read(repo.head)[1] + b"!")
    return "does not send the commit"


def other_weights(repo: Repo) -> str:
    """The mirror's bytes, sha256 and pointer id all match each other."""
    repo.forge("weights.bin", b"e" * 4000)
    return "lists a different digest for 'weights.bin'"


def other_text(repo: Repo) -> str:
    repo.forge("sub/deep/long.txt", b"evil " * 200)
    return "lists a different digest for 'sub/deep/long.txt'"


def omitted(repo: Repo) -> str:
    repo.forge("sub/tokens.bin", None)
    return "omits 'sub/tokens.bin'"


def added(repo: Repo) -> str:
    repo.forge("setup.py", b"import os\n")
    return "lists 'setup.py', which is not in the commit"


def pointer_as_the_file(repo: Repo) -> str:
    commit = repo.commits[repo.head]
    entry = commit.files["weights.bin"]
    pointer = pointer_text(entry.sha256, entry.size)
    place = repo.folder / "git" / entry.oid
    place.write_bytes(pointer)
    fake = replace(entry, sha256="", xet="", size=len(pointer), file=place)
    commit.files["weights.bin"] = commit.listing["weights.bin"] = fake
    return "lists the LFS file 'weights.bin' as if its pointer were the file"


LIES = [altered_tree, altered_commit, other_weights, other_text, omitted, added, pointer_as_the_file]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("policy", ["quorum", "any"])
def test_a_mirror_with_a_false_listing_is_skipped(
    lie: Callable[[Repo], str],
    policy: str,
    user: User,
    fetch: Callable[..., Done],
    serve: Serve,
    made: Callable[..., Repo],
) -> None:
    good, bad = made("good"), made("bad")
    sentence = lie(bad)
    liar, honest = serve(bad, name="liar"), serve(good, name="honest", host="127.0.0.2")
    alone = fetch(good.head, liar, GPUARIA_TRUST=policy)
    alone.refused(7, f"{liar.url} {sentence}")
    assert not (user.home / "got").exists()
    done = fetch(good.head, liar, honest, GPUARIA_TRUST=policy).ok()
    assert f"{liar.url} {sentence}" in done.err
    assert f"by way of {honest.url} (pinned)" in done.err
    assert contents(user.home / "got") == expected(good)


NO_GIT: dict[str, tuple[dict[str, object], str]] = {
    "404": ({"status": 404}, "is not a git server (status 404)"),
    "a page": (
        {"status": 200, "headers": {"Content-Type": "text/html; charset=utf-8"}, "body": b"<html>log in</html>"},
        "is not a git server ('text/html')",
    ),
    "401": ({"status": 401}, "is not a git server (status 401)"),
    "moved to another host": (
        {"status": 302, "headers": {"Location": "http://127.0.0.1:9/x"}},
        "is not a git server (status 302)",
    ),
}


@pytest.mark.parametrize("way", NO_GIT)
def test_a_mirror_without_git_is_treated_as_the_policy_says(
    way: str, fetch: Callable[..., Done], serve: Serve, made: Callable[..., Repo]
) -> None:
    fault, why = NO_GIT[way]
    repo = made("one")
    one, two = serve(repo, name="one"), serve(made("two"), name="two", host="127.0.0.2")
    for hub in (one, two):
        hub.fault("/info/refs", **fault)  # type: ignore[arg-type]
    fetch(repo.head, one, GPUARIA_TRUST="origin").refused(7, f"{one.url}/{NAME} {why}")
    alone = fetch(repo.head, one).ok()
    assert "(mirror only)" in alone.err
    assert "one unverified mirror" in alone.err
    assert f"{one.url}/{NAME} {why}" in alone.err
    both = fetch(repo.head, one, two).ok()
    assert "(quorum)" in both.err
    assert why in both.err
    two.heal()
    assert f"by way of {two.url} (pinned)" in fetch(repo.head, one, two, GPUARIA_TRUST="any").ok().err


def test_a_mirror_whose_git_does_not_respond_is_treated_as_the_policy_says(
    fetch: Callable[..., Done], serve: Serve, made: Callable[..., Repo]
) -> None:
    repo = made("one")
    hub = serve(repo)
    hub.fault("git-upload-pack$", delay=30)
    done = fetch(repo.head, hub, GPUARIA_TIMEOUT="1").ok()
    assert "stopped responding" in done.err
    assert "one unverified mirror" in done.err


def test_two_equal_false_listings_are_not_a_quorum_against_the_commit(
    fetch: Callable[..., Done], serve: Serve, made: Callable[..., Repo]
) -> None:
    repos = [made("one"), made("two")]
    for repo in repos:
        other_weights(repo)
    hubs = [serve(repo, name=f"m{at}", host=f"127.0.0.{at + 2}") for at, repo in enumerate(repos)]
    done = fetch(repos[0].head, *hubs)
    done.refused(7, *[f"{hub.url} lists a different digest for 'weights.bin'" for hub in hubs])


def test_a_mirrors_git_gets_no_token(fetch: Callable[..., Done], serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    hub = serve(repo)
    fetch(repo.head, hub, HF_TOKEN="hf_good").ok()
    assert asked_git(hub)
    assert not [seen for seen in hub.requests if "authorization" in seen.headers]


def test_unusable_names_do_not_prevent_verification(
    user: User, fetch: Callable[..., Done], serve: Serve, tmp_path: Path
) -> None:
    repo = Repo.build(NAME, {**FILES, "back\\slash.txt": b"x", "../out.txt": b"x"}, folder=tmp_path / "store")
    user.env["HF_ENDPOINT"] = GONE
    words = ("fetch", NAME, "config.json", "--revision", repo.head, "--to", "got", "--mirror", serve(repo).url)
    assert "(pinned)" in user.quick(*words).ok().err


def test_an_interrupt_is_not_a_mirrors_response(serve: Serve, made: Callable[..., Repo]) -> None:
    repo = made("one")
    hub, stop = serve(repo), threading.Event()
    stop.set()
    mirrors = [Mirror("origin", GONE, primary=True), Mirror("m", hub.url)]
    trusted = trust.ListingTrust(Http(stop=stop), source_of("hf"), mirrors, "quorum", lambda event: None)
    with pytest.raises(Interrupted):
        trust.listing_from_mirrors(
            trusted,
            RepoRef("hf", "model", NAME, repo.head),
            lambda path: True,
            trust.OriginUnavailable(NetworkError("away")),
        )
