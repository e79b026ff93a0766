"""Faulty listings, in whole runs: rejected with one error before any file is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from standin import Hub, Repo, documents, git_id, pointer_text
from standin.http_server import Handler, Server
from tests.support.repos import contents
from tests.support.user import Done, Serve, User

JSON = {"Content-Type": "application/json"}
BLOB, COMMIT = git_id("blob", b"one"), "c" * 40
SHA256 = hashlib.sha256(b"weights").hexdigest()
Entry = dict[str, Any]


def plain(path: str, data: bytes = b"one", **changes: Any) -> Entry:
    return {"type": "file", "oid": git_id("blob", data), "size": len(data), "path": path} | changes


def large(path: str, sha256: str = SHA256, size: int = 9_000_000, **changes: Any) -> Entry:
    oid = git_id("blob", pointer_text(sha256, size))
    return {"type": "file", "oid": oid, "size": size, "lfs": {"oid": sha256, "size": size}, "path": path} | changes


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/r: two files of three bytes."""
    files = {"a.txt": b"one", "b.txt": b"two"}
    return Repo.build("org/r", files, folder=tmp_path_factory.mktemp("r"), direct=True)


def listed(repo: Repo) -> list[Entry]:
    commit = repo.commits[repo.head]
    return [documents.item(repo, commit, path, expand=False, xet=False) for path in commit.listing]


def say(hub: Hub, page: object, **headers: str) -> None:
    """Make every page of every file list equal to `page`."""
    body = page if isinstance(page, bytes) else json.dumps(page).encode()
    hub.fault("/tree/", status=200, body=body, headers={**JSON, **headers})


def fetch(user: User, *words: str) -> Done:
    return user.quick("fetch", "org/r", "--to", "out", "--patience", "1s", *words)


def refused(user: User, hub: Hub, done: Done, status: int, *words: str) -> None:
    """Check for one error, no request for a file, and no file on disk."""
    done.refused(status, *words)
    assert len(done.err) < 1000
    assert not [seen for seen in hub.requests if "/resolve/" in seen.target]
    assert not (user.home / "out").exists() or contents(user.home / "out") == {}
    assert [path.name for path in user.home.iterdir() if path.name not in ("out", ".local", ".config")] == []


# --- entries ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One row: `page` is added to the correct entries, or replaces a.txt if it has that name."""

    name: str
    entries: tuple[Entry, ...]
    sees: str
    status: int = 7
    says: str = ""
    does: str = "Rejects the listing."

    @property
    def param(self) -> Any:
        mark = pytest.mark.fault(self.name, where="listing", does=self.does, sees=self.sees, status=self.status)
        return pytest.param(self, marks=mark, id=self.name)


SIZE, DIGEST = "the file name and the invalid size", "the file name, and that its checksum is invalid"
NAME, UNSAFE = "the file name with its characters escaped, and what is wrong with it", "Rejects the listing."
ENTRIES = [
    Case(
        "entry: the same name twice, with different data",
        (plain("a.txt", b"other"),),
        "the file name",
        says="twice, differently",
    ),
    Case("size: negative", (plain("x", size=-1),), SIZE, says="size for 'x': -1"),
    Case("size: larger than any disk", (plain("x", size=1 << 60),), SIZE, says="size for 'x': 11529"),
    Case("size: not an integer", (plain("x", size=3.5),), SIZE, says="size for 'x': 3.5"),
    Case("size: wrong for a large file", (large("x", size=5, lfs={"oid": SHA256, "size": 5}, oid=BLOB),), DIGEST),
    Case("digest: malformed", (plain("x", oid="z" * 40),), DIGEST, says="no valid git id"),
    Case("digest: upper case", (large("x", lfs={"oid": SHA256.upper(), "size": 9_000_000}),), DIGEST),
    Case("digest: that of another file", (large("x", oid=BLOB),), DIGEST, says="contradicts itself"),
    *(
        Case(f"name: {what}", (plain(name),), NAME, 8, "unsafe file name", UNSAFE)
        for what, name in {
            "parent folder (..)": "../up.txt",
            "absolute path": "/etc/cron.d/x",
            "Windows drive": "C:/x",
            "UNC path": "\\\\host\\share\\x",
            "backslash": "a\\..\\b",
            "control characters": "a\x1b[2Jb",
            "right-to-left marks": "invoice\u202egpj.exe",
            "longer than 255 bytes": "n" * 300,
            "path longer than 1,024 bytes": "/".join(["n" * 200] * 6),
            "Windows device name": "sub/nul.txt",
            "folder reserved for tools (.git)": ".git/hooks/pre-commit",
        }.items()
    ),
    *(
        Case(f"name: {what} and options for aria2c", (large(name),), NAME, 8, "unsafe file name", UNSAFE)
        for what, name in {
            "a newline": "x.bin\n  dir=/tmp\n  out=evil",
            "a tab": "x.bin\thttp://127.0.0.1:1/evil",
            "a carriage return": "x.bin\r out=evil",
        }.items()
    ),
    Case(
        "name: file and folder of the same name",
        (plain("a.txt/inner"),),
        "both file names",
        8,
        "both as a file and as a folder",
    ),
]


@pytest.mark.parametrize("case", [case.param for case in ENTRIES])
def test_an_invalid_entry(user: User, serve: Serve, repo: Repo, case: Case) -> None:
    hub = serve(repo)
    say(hub, [*listed(repo), *case.entries])
    refused(user, hub, fetch(user), case.status, case.says)


@pytest.mark.fault(
    "entry: the same name twice, identical",
    where="listing",
    does="Uses the entry once.",
    sees="nothing",
    status=0,
)
def test_a_duplicate_entry(user: User, serve: Serve, repo: Repo) -> None:
    say(serve(repo), listed(repo) * 2)
    fetch(user).ok()
    assert contents(user.home / "out") == {"a.txt": b"one", "b.txt": b"two"}


@pytest.mark.fault(
    "size: wrong for a small file",
    where="listing",
    does="Rejects responses whose size differs from the listing.",
    sees="the file name",
    status=7,
)
def test_a_wrong_size(user: User, serve: Serve, repo: Repo) -> None:
    say(serve(repo), [plain("a.txt", size=4), plain("b.txt", b"two")])
    done = fetch(user, "--json")
    assert done.status == 7
    assert [problem["path"] for problem in done.report["problems"]] == ["a.txt"]
    assert contents(user.home / "out") == {"b.txt": b"two"}


@pytest.mark.fault(
    "digest: swapped between two files",
    where="listing",
    does="Detects it by the checksum. Neither file is published.",
    sees="both file names",
    status=4,
)
def test_swapped_digests(user: User, serve: Serve, repo: Repo) -> None:
    say(serve(repo), [plain("a.txt", b"two"), plain("b.txt", b"one")])
    done = fetch(user, "--json")
    assert done.status == 4
    assert {problem["path"] for problem in done.report["problems"]} == {"a.txt", "b.txt"}
    assert contents(user.home / "out") == {}


@pytest.mark.fault(
    "name: %2e%2e and other characters that shells or URLs interpret",
    where="listing",
    does="Uses them literally. The file stays in its folder.",
    sees="nothing",
    status=0,
)
def test_names_that_only_look_dangerous(user: User, serve: Serve, tmp_path: Path) -> None:
    names = ["%2e%2e", "%2e%2e%2fup.txt", "a?b#c&d.txt", "$(id).txt", "-rf", " lead", "out=x"]
    files: dict[str, bytes | Path] = {f"sub/{name}": name.encode() for name in names}
    serve(Repo.build("org/r", files, folder=tmp_path / "r"))
    fetch(user).ok()
    assert contents(user.home / "out") == files


@pytest.mark.fault(
    "name: differs from another name only by case or Unicode form",
    where="listing",
    does="Keeps both if the file system distinguishes them, else rejects the listing.",
    sees="nothing, or both file names",
    status=(0, 8),
)
def test_names_that_some_file_systems_do_not_distinguish(user: User, serve: Serve, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {"A.txt": b"1", "a.txt": b"2", "\u00e9": b"3", "e\u0301": b"4"}
    serve(Repo.build("org/r", files, folder=tmp_path / "r"))
    done = fetch(user)
    if done.status == 0:
        assert contents(user.home / "out") == files
    else:
        done.refused(8, "are the same name on this file system")


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "says"),
    [
        pytest.param(
            '<{tree}?cursor=1>; rel="next"',
            "never ends",
            marks=pytest.mark.fault(
                "pages: loop",
                where="listing",
                does="Stops when a page repeats or adds nothing new.",
                sees="that the listing never ends",
                status=7,
            ),
            id="circle",
        ),
        pytest.param(
            '<https://elsewhere.example{path}?cursor=1>; rel="next"',
            "on another server, https://elsewhere.example",
            marks=pytest.mark.fault(
                "pages: next page on another host",
                where="listing",
                does="Does not request it.",
                sees="the name of that host",
                status=7,
            ),
            id="another host",
        ),
        pytest.param('<http://127.0.0.1:9{path}?a=b>; rel="next"', "server, http://127.0.0.1:9", id="another port"),
        pytest.param(
            '<{hub}/api/models/other/repo/tree/main>; rel="next"',
            "another path",
            marks=pytest.mark.fault(
                "pages: next page in another repo",
                where="listing",
                does="Does not request it.",
                sees="that the listing continues elsewhere",
                status=7,
            ),
            id="another path",
        ),
    ],
)
def test_misleading_next_pages(user: User, serve: Serve, repo: Repo, link: str, says: str) -> None:
    hub = serve(repo)
    path = f"/api/models/org/r/tree/{repo.head}"
    say(hub, listed(repo), Link=link.format(hub=hub.url, tree=hub.url + path, path=path))
    refused(user, hub, fetch(user), 7, says)
    assert hub.count() < 6


@pytest.mark.fault(
    "pages: repeat under new URLs",
    where="listing",
    does="Stops at the first page that adds nothing new.",
    sees="that the listing repeats",
    status=7,
)
def test_repeating_pages(user: User) -> None:
    with Pages(lambda number: [plain(f"f{number % 2}")], 10**9) as hub:
        done = user.quick("fetch", "org/r", "--to", "out", HF_ENDPOINT=hub.url)
        done.refused(7, "never ends", "repeats")
        assert len(hub.journal) < 6


@pytest.mark.fault(
    "pages: endless new names",
    where="listing",
    does="Stops after one million files and folders, before memory runs out.",
    sees="that the listing exceeds the limit",
    status=7,
)
def test_pages_with_endless_new_names(user: User) -> None:
    rest: list[Entry] = [{"type": "unknown"}] * 99_999  # short, so that a million take no time
    with Pages(lambda number: [plain(f"f{number}"), *rest], 10**9) as hub:
        done = user.quick("fetch", "org/r", "--to", "out", HF_ENDPOINT=hub.url)
        done.refused(7, "more than 1,000,000 files and folders")
        assert len(hub.journal) <= 13


@pytest.mark.fault(
    "pages: list ends early",
    where="listing",
    does="Compares the list with the file names on the repo's page, if the hub provides them.",
    sees="a missing name",
    status=7,
)
def test_pages_that_end_early(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    say(hub, listed(repo)[:1])
    refused(user, hub, fetch(user), 7, "is incomplete", "b.txt")


# --- texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        pytest.param(
            b'[{"type":"file","path":"a.tx',
            {},
            "does not respond like a hub",
            marks=pytest.mark.fault(
                "text: truncated JSON",
                where="listing",
                does="Rejects the response.",
                sees="that the response is not a hub's",
                status=7,
            ),
            id="cut off",
        ),
        pytest.param(
            b"[" * 10_000 + b"]" * 10_000,
            {},
            "does not respond like a hub",
            marks=pytest.mark.fault(
                "text: JSON nested 10,000 deep",
                where="listing",
                does="Rejects the response.",
                sees="that the response is not a hub's",
                status=7,
            ),
            id="nested",
        ),
        pytest.param(
            gzip.compress(b" " * (200 << 20), 1),
            {"Content-Encoding": "gzip"},
            "larger than 67,108,864 bytes",
            marks=pytest.mark.fault(
                "text: 200 MB compressed into 1 MB",
                where="listing",
                does="Stops decompressing at 64 MiB.",
                sees="that the response is too long",
                status=7,
            ),
            id="packed",
        ),
    ],
)
def test_invalid_response_texts(
    user: User, serve: Serve, repo: Repo, body: bytes, headers: dict[str, str], says: str
) -> None:
    hub = serve(repo)
    say(hub, body, **headers)
    refused(user, hub, fetch(user), 7, says)


class Pages(Server):
    """A hub of one repo whose file list has `count` pages; a `page` given as bytes is sent 2^30 bytes long."""

    def __init__(self, page: Callable[[int], list[Entry] | bytes], count: int) -> None:
        super().__init__(_Pages, host="127.0.0.1", port=0, name="pages")
        self.page, self.count, self.stack = page, count, ExitStack()

    def __enter__(self) -> Pages:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pages(Handler):
    def answer(self) -> None:
        hub = self.server
        assert isinstance(hub, Pages)
        path, _, query = self.path.partition("?")
        if "/revision/" in path:
            return self.reply(200, list(JSON.items()), json.dumps({"id": "org/r", "sha": COMMIT}).encode())
        number = int(query.rpartition("cursor=")[2]) if "cursor=" in query else 0
        page = hub.page(number)
        if isinstance(page, bytes):
            self.wfile.write(self.head(200, list(JSON.items()), 1 << 30))
            while self.seen.sent < 1 << 30:
                self.seen.sent += self.connection.send(page)
            return None
        more = {"Link": f'<{path}?cursor={number + 1}>; rel="next"'} if number + 1 < hub.count else {}
        return self.reply(200, list({**JSON, **more}.items()), json.dumps(page).encode())


@pytest.mark.fault(
    "text: 1 GB long",
    where="listing",
    does="Closes the connection after 64 MiB.",
    sees="that the response is too long",
    status=7,
)
def test_a_response_of_a_gigabyte(user: User) -> None:
    with Pages(lambda number: b" " * (1 << 20), 1) as hub:
        user.run("fetch", "org/r", "--to", "out", HF_ENDPOINT=hub.url).refused(7, "larger than 67,108,864 bytes")
        assert max(seen.sent for seen in hub.journal.snapshot()) < 100 << 20


@pytest.fixture(params=[10_000, pytest.param(100_000, marks=pytest.mark.deep)])
def thousands(request: pytest.FixtureRequest) -> Iterator[Pages]:
    """Serve this number of files on pages of 1,000."""
    names = [f"d{number // 1000:02d}/file-{number:06d}.json" for number in range(request.param)]
    entries = [plain(name, name.encode()) for name in names]
    pages = [entries[start : start + 1000] for start in range(0, request.param, 1000)]
    with Pages(lambda number: pages[number], len(pages)) as hub:
        yield hub


MOST = """
import resource, subprocess, sys
status = subprocess.run([sys.executable, "-m", "gpuaria", *sys.argv[1:]]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.fault(
    "100,000 files",
    where="listing",
    does="Lists and plans them (see the figures below).",
    sees="the plan",
    status=0,
)
def test_100_000_files(user: User, thousands: Pages, record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    words = ("fetch", "org/r", "--to", "out", "--dry-run")
    done = user.command(sys.executable, "-c", MOST, *words, env={"HF_ENDPOINT": thousands.url}).ok()
    seconds = time.monotonic() - began
    most = int(done.err.split()[-1]) / 1024
    record_property("seconds", round(seconds, 1))
    record_property("megabytes", round(most))
    print(f"{seconds:.1f} s, {most:.0f} MiB at most")
    assert sum("/file-" in line for line in done.out.splitlines()) == thousands.count * 1000
    assert len(thousands.journal) == thousands.count + 1


def test_a_dry_run_warns_about_missing_disk_space(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    say(hub, [*listed(repo), large("huge.bin", size=1 << 49)])
    told = fetch(user, "--dry-run").ok()
    assert "huge.bin" in told.out
    assert told.err.startswith("warning: not enough disk space: 562.9 TB needed, ")
    assert told.err.endswith(f" free at {user.home}\n")
    warned, plan = fetch(user, "--dry-run", "--json").ok().events
    assert (warned["event"], plan["event"], plan["space"]) == ("warned", "plan", (1 << 49) + 6)
    assert warned["text"].startswith("not enough disk space: 562.9 TB needed, ")
    refused(user, hub, fetch(user), 8, "562.9 TB needed")
