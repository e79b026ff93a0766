"""git's smart HTTP protocol with git, dulwich and broken servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from dulwich.repo import Repo as DulwichRepo
from dulwich.server import BackendRepo, DictBackend
from dulwich.web import make_wsgi_chain

from gpuaria.errors import BadListing, NetworkError
from gpuaria.http.client import Http, HttpOptions
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef
from gpuaria.sources import git
from gpuaria.sources.git_verify import unproven_reason
from standin import Repo, pointer_text
from standin.http_server import Handler, Server
from tests.support.user import Serve

PROGRAM = shutil.which("git")
needs_git = pytest.mark.skipif(PROGRAM is None, reason="needs the git program")
SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
HTTP = Http(HttpOptions(timeout=5))
NAME = "org/held"
LONG = b"long " * 200


def run_git(folder: Path, *words: str, data: bytes = b"") -> str:
    who = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **who}
    done = subprocess.run([str(PROGRAM), *words], cwd=folder, env=env, input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()


class Backend(Server):
    """`git http-backend` behind HTTP; without `speaks_2` it does not see the header for protocol version 2."""

    def __init__(self, root: Path, *, speaks_2: bool) -> None:
        super().__init__(_Cgi, host="127.0.0.1", port=0, name="git")
        self.root, self.speaks_2 = root, speaks_2

    def __enter__(self) -> Backend:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Cgi(Handler):
    def answer(self) -> None:
        home = cast(Backend, self.home)
        body = self.rfile.read(int(self.seen.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(home.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.seen.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
        }
        if home.speaks_2:
            env["GIT_PROTOCOL"] = self.seen.headers.get("git-protocol", "")
        done = subprocess.run([str(PROGRAM), "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        rows = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((int(value[:3]) for name, value in rows if name == "Status"), 200)
        self.reply(status, [(name, value) for name, value in rows if name != "Status"], answer)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with org/held.git written by git: modes, a link, a submodule, an LFS pointer, deltas."""
    root = tmp_path_factory.mktemp("native")
    work = root / "work"
    work.mkdir()
    run_git(work, "init", "-q", "-b", "main")
    (work / "sub/deep").mkdir(parents=True)
    for number in range(40):
        (work / f"sub/deep/file{number:03d}.txt").write_text("line\n" * 100 + str(number))
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("run.sh")
    (work / "ä b.txt").write_text("name\n")
    (work / "model.safetensors").write_bytes(pointer_text(SHA256, 548105171))
    run_git(work, "add", "-A")
    run_git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
    run_git(work, "commit", "-qm", "first")
    (work / "sub/deep/file007.txt").write_text("changed\n")
    run_git(work, "commit", "-qam", "second")
    run_git(root, "clone", "-q", "--bare", str(work), str(root / "org/held.git"))
    run_git(root / "org/held.git", "repack", "-adfq", "--depth=50")
    return root


def set_up(native: Path, tmp_path: Path, *allowed: str) -> Path:
    """Return a copy of the repo with other settings."""
    shutil.copytree(native / "org", tmp_path / "org")
    for key in allowed:
        run_git(tmp_path / "org/held.git", "config", f"uploadpack.{key}", "true")
    return tmp_path


def listed(repo: Path, commit: str) -> Manifest:
    """Return the listing of a hub, from `git ls-tree`."""
    files = []
    for row in run_git(repo, "ls-tree", "-rlz", commit).split("\0"):
        if not row:
            continue
        words, path = row.split("\t")
        _, kind, oid, size = words.split()
        if path == "model.safetensors":
            files.append(RemoteFile(SafePath(path), 548105171, Digest("sha256", SHA256), oid))
        elif kind == "blob":
            files.append(RemoteFile(SafePath(path), int(size), Digest("git-sha1", oid), oid))
    return Manifest(RepoRef("hf", "model", NAME, commit), NAME, commit, "http://m", "origin", tuple(files))


@needs_git
@pytest.mark.parametrize(
    ("speaks_2", "allowed", "filtered"),
    [
        (True, ("allowFilter",), True),
        (True, (), False),
        (False, ("allowAnySHA1InWant", "allowFilter"), True),
        (False, ("allowReachableSHA1InWant",), False),
    ],
    ids=["version 2, filter", "version 2", "version 0, filter", "version 0"],
)
@pytest.mark.parametrize("back", [0, 1], ids=["tip", "parent"])
def test_git_serves_the_objects_that_verify_its_own_listing(
    speaks_2: bool, allowed: tuple[str, ...], filtered: bool, back: int, native: Path, tmp_path: Path
) -> None:
    root = set_up(native, tmp_path, *allowed)
    commit = run_git(root / "org/held.git", "rev-parse", f"main~{back}")
    manifest = listed(root / "org/held.git", commit)
    assert len(manifest.files) == 44
    with Backend(root, speaks_2=speaks_2) as server:
        sent = git.fetch_objects(f"{server.url}/{NAME}", commit, HTTP)
        seen = server.journal.snapshot()
    assert unproven_reason(commit, manifest, sent) == ""
    assert [kind for kind, _ in sent].count("commit") == 1
    assert any(len(data) > 200 for kind, data in sent if kind == "blob") is not filtered
    assert [(one.method, one.target.partition("?")[0]) for one in seen] == [
        ("GET", f"/{NAME}/info/refs"),
        ("POST", f"/{NAME}/git-upload-pack"),
    ]
    less = replace(manifest, files=manifest.files[1:])
    with pytest.raises(BadListing, match="omits"):
        unproven_reason(commit, less, sent)


@needs_git
def test_a_server_that_serves_only_branch_tips_is_not_asked_for_another_commit(native: Path, tmp_path: Path) -> None:
    root = set_up(native, tmp_path)
    tip, parent = (run_git(root / "org/held.git", "rev-parse", name) for name in ("main", "main~1"))
    with Backend(root, speaks_2=False) as server:
        assert (
            unproven_reason(
                tip, listed(root / "org/held.git", tip), git.fetch_objects(f"{server.url}/{NAME}", tip, HTTP)
            )
            == ""
        )
        with pytest.raises(NetworkError, match=f"serves branches and tags only, not the commit {parent[:12]}"):
            git.fetch_objects(f"{server.url}/{NAME}", parent, HTTP)


@needs_git
@pytest.mark.parametrize("speaks_2", [True, False])
def test_a_commit_unknown_to_the_server_has_its_own_error(speaks_2: bool, native: Path, tmp_path: Path) -> None:
    root = set_up(native, tmp_path, "allowAnySHA1InWant", "allowFilter")
    with Backend(root, speaks_2=speaks_2) as server, pytest.raises(NetworkError, match="not our ref"):
        git.fetch_objects(f"{server.url}/{NAME}", "1" * 40, HTTP)


@needs_git
def test_a_server_that_forbids_this_filter_is_asked_without_it(native: Path, tmp_path: Path) -> None:
    root = set_up(native, tmp_path, "allowFilter")
    run_git(root / "org/held.git", "config", "uploadpackfilter.blob:limit.allow", "false")
    commit = run_git(root / "org/held.git", "rev-parse", "main")
    with Backend(root, speaks_2=True) as server:
        sent = git.fetch_objects(f"{server.url}/{NAME}", commit, HTTP)
    assert unproven_reason(commit, listed(root / "org/held.git", commit), sent) == ""


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


@needs_git
def test_dulwich_works_as_a_server(native: Path) -> None:
    """Dulwich speaks version 0 only, and expects the filter before the depth."""
    commit = run_git(native / "org/held.git", "rev-parse", "main")
    with DulwichRepo(str(native / "org/held.git")) as repo:
        backend = DictBackend({f"/{NAME}": cast(BackendRepo, repo)})
        server = make_server("127.0.0.1", 0, make_wsgi_chain(backend), handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            sent = git.fetch_objects(f"http://127.0.0.1:{server.server_port}/{NAME}", commit, HTTP)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    assert unproven_reason(commit, listed(native / "org/held.git", commit), sent) == ""
    assert not any(len(data) >= 200 for kind, data in sent if kind == "blob")


@needs_git
def test_git_clones_from_the_stand_in(serve: Serve, tmp_path: Path) -> None:
    """Shows that the stand-in speaks git."""
    repo = Repo.build(NAME, {"notes.txt": b"first\n", "sub/long.txt": LONG, "w.bin": LONG}, folder=tmp_path / "store")
    first = repo.head
    repo.update({"notes.txt": b"second\n"})
    hub = serve(repo)
    for at, words in enumerate(([], ["--depth=1"], ["--filter=blob:none"], ["--depth=1", "--filter=blob:limit=200"])):
        run_git(tmp_path, "clone", "-q", *words, f"{hub.url}/{NAME}.git", f"clone{at}")
        run_git(tmp_path / f"clone{at}", "fsck", "--strict")
        assert run_git(tmp_path / f"clone{at}", "rev-parse", "HEAD") == repo.head
        assert (tmp_path / f"clone{at}/sub/long.txt").read_bytes() == LONG
    assert run_git(tmp_path / "clone0", "rev-parse", "HEAD~1") == first


# --- hostile servers, and servers that do not speak git ---------------------------------------------------------------

ADVERTISED = "application/x-git-upload-pack-advertisement"


class Scripted(Server):
    """Respond to GET and POST as scripted, and redirect every path below /moved."""

    def __init__(self, refs: bytes, answer: bytes = b"", status: int = 200) -> None:
        super().__init__(_Scripted, host="127.0.0.1", port=0, name="scripted")
        self.refs, self.said, self.status = refs, answer, status
        self.start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Scripted(Handler):
    def answer(self) -> None:
        home = cast(Scripted, self.home)
        self.rfile.read(int(self.seen.headers.get("content-length") or 0))
        if self.path.startswith("/moved"):
            return self.reply(301, [("Location", self.path.removeprefix("/moved"))])
        if self.command == "POST":
            return self.reply(home.status, [("Content-Type", "application/x-git-upload-pack-result")], home.said)
        return self.reply(200, [("Content-Type", ADVERTISED)], home.refs)


def pkt(*lines: bytes) -> bytes:
    return b"".join(b"%04x%s" % (len(line) + 4, line) for line in lines) + b"0000"


V2 = pkt(b"version 2\n", b"agent=x\n", b"fetch=shallow filter\n")
V0 = pkt(b"1" * 40 + b" HEAD\0side-band-64k shallow\n", b"2" * 40 + b" refs/heads/main\n")


@pytest.mark.parametrize(
    ("refs", "answer", "sentence"),
    [
        (b"", b"", "protocol that is too old"),
        (b"zzzz", b"", "an invalid line of the git protocol"),
        (b"-001x", b"", "an invalid line of the git protocol"),
        (b"ffff1", b"", "an invalid line of the git protocol"),
        (pkt(b"version 1\n"), b"", "protocol that is too old"),
        (pkt(b"1" * 40 + b" HEAD\0thin-pack\n"), b"", "protocol that is too old"),
        (V0, b"", "branches and tags only, not the commit 333333333333"),
        (V2, b"", "pack from git cannot be read"),
        (V2, b"<html>", "an invalid line of the git protocol"),
        (V2, b"0000" * 10_000, "pack from git cannot be read"),
        (V2, b"0004" * 10_000, "pack from git cannot be read"),
        (V2, b"0000" * 300_000, "more than 200,000 lines"),
        (V2, pkt(b"packfile\n")[:-4] + b"0004" * 300_000, "more than 200,000 lines"),
        (V2, pkt(b"ERR \x1b[31mno\n"), r"does not serve the commit: '\\x1b\[31mno'"),
        (V2, pkt(b"packfile\n", b"\2busy", b"\3disk full\n"), "does not serve the commit: 'disk full'"),
        (V2, pkt(b"packfile\n", b"\1PACK"), "pack from git cannot be read"),
        (V2, pkt(b"packfile\n", b"\1PACK", b"\1" + b"x" * 100)[:-50], "an invalid line of the git protocol"),
    ],
)
def test_a_server_that_is_not_git_is_one_error(refs: bytes, answer: bytes, sentence: str) -> None:
    with Scripted(refs, answer) as server, pytest.raises(NetworkError, match=sentence):
        git.fetch_objects(f"{server.url}/{NAME}", "3" * 40, HTTP)


def test_a_response_that_is_too_long_is_not_read_to_the_end() -> None:
    with Scripted(V2 + b"0000" * (3 << 20)) as server, pytest.raises(NetworkError, match="larger than 8,388,608 bytes"):
        git.fetch_objects(f"{server.url}/{NAME}", "3" * 40, HTTP)
    with (
        Scripted(V2, b"0000" * (17 << 20)) as server,
        pytest.raises(NetworkError, match="larger than 67,108,864 bytes"),
    ):
        git.fetch_objects(f"{server.url}/{NAME}", "3" * 40, HTTP)


def test_a_rejected_request_is_one_error() -> None:
    with Scripted(V2, status=403) as server, pytest.raises(NetworkError, match="returned HTTP 403 to the git request"):
        git.fetch_objects(f"{server.url}/{NAME}", "3" * 40, HTTP)


def test_the_second_request_goes_to_the_redirected_url() -> None:
    with Scripted(V2, pkt(b"ERR no")) as server:
        with pytest.raises(NetworkError, match="does not serve"):
            git.fetch_objects(f"{server.url}/moved/{NAME}", "3" * 40, HTTP)
        assert server.journal.snapshot()[-1].target == f"/{NAME}/git-upload-pack"


def test_the_repo_may_need_the_git_suffix(serve: Serve, tmp_path: Path) -> None:
    repo = Repo.build(NAME, {"notes.txt": b"first\n"}, folder=tmp_path)
    hub = serve(repo)
    hub.fault(f"/{NAME}/info/refs", status=404)
    assert git.fetch_objects(f"{hub.url}/{NAME}", repo.head, HTTP)
    assert [seen.target.partition("?")[0] for seen in hub.requests] == [
        f"/{NAME}/info/refs",
        f"/{NAME}.git/info/refs",
        f"/{NAME}.git/git-upload-pack",
    ]
