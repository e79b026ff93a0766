"""Whole runs with a large file and faulty servers: correct bytes or the right exit status, and nothing left behind."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gpuaria.mirrors.history import Experience, History
from gpuaria.mirrors.network import network_id
from gpuaria.records import Mirror
from gpuaria.urls import authority
from standin import Hub, Repo
from tests.support.repos import contents, expected
from tests.support.user import Done, Serve, User, wait_until

SIZE = 24_000_007
BIG = "model.safetensors"
OTHER = "config.json"


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(4).randbytes(SIZE)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Repo:
    """Return org/large: one file of 24 MB and a small one."""
    return Repo.build("org/large", {BIG: data, OTHER: b"{}"}, folder=tmp_path_factory.mktemp("large"), direct=True)


def fetch(user: User, *words: str, patience: str = "2s", **env: str) -> Done:
    """Run a fetch into a folder with a short `--patience`."""
    words = ("fetch", "org/large", "--to", "out", "--json", "--patience", patience, *words)
    return user.run(*words, GPUARIA_TIMEOUT="2s", GPUARIA_CONNECT_TIMEOUT="2s", **env)


def leftovers(user: User) -> list[str]:
    """Return ranges, control files and staged bytes; a finished run leaves none."""
    place = user.home / "out"
    return [str(p) for p in place.rglob("*") if p.suffix in (".windows", ".aria2", ".prefix") or "sha256-" in p.name]


def complete(user: User, done: Done, repo: Repo) -> dict[str, Any]:
    """Check that the run succeeded with the right bytes and no other files."""
    report = done.ok().report
    assert contents(user.home / "out") == expected(repo)
    assert leftovers(user) == []
    assert report["verdicts"] == {"ok": 2}
    return report


def failed(user: User, done: Done, status: int, words: str) -> None:
    """Check that the large file failed with a reason and the small one was published."""
    assert done.status == status, (done.status, done.out[-2000:], done.err)
    assert contents(user.home / "out") == {OTHER: b"{}"}
    (problem,) = done.report["problems"]
    assert problem["path"] == BIG
    assert re.search(words, problem["detail"]), problem
    assert BIG not in problem["detail"], "it is named before that"
    assert "Traceback" not in done.err
    assert "Signature" not in done.out + done.err


Order = Callable[[Hub], object]
PASSING: dict[str, Order] = {
    "short": lambda hub: hub.cdn.fault(BIG, "short", times=4, after=300_000),
    "reset": lambda hub: hub.cdn.fault(BIG, "reset", times=4, after=500_000),
    "reset at once": lambda hub: hub.cdn.fault(BIG, "reset", times=2),
    "stall": lambda hub: hub.cdn.fault(BIG, "stall", times=3, after=200_000),
    "flip": lambda hub: hub.cdn.fault(BIG, "flip", times=1, offset=SIZE // 2),
    "flip at the end": lambda hub: hub.cdn.fault(BIG, "flip", times=1, offset=SIZE - 1),
    "expire": lambda hub: hub.cdn.fault(BIG, "expire", times=3),
    "503": lambda hub: hub.cdn.fault(BIG, "status", times=6, status=503),
    "429": lambda hub: hub.cdn.fault(BIG, "status", times=6, status=429, retry_after=1),
    "500": lambda hub: hub.cdn.fault(BIG, "status", times=6, status=500),
    "ignore_range": lambda hub: hub.cdn.fault(BIG, "ignore_range", times=3),
    "html": lambda hub: hub.cdn.fault(BIG, "html", times=2),
    "wrong_size": lambda hub: hub.cdn.fault(BIG, "wrong_size", times=2),
}
LASTING: dict[str, tuple[Order, int, str]] = {
    "flip": (lambda hub: hub.cdn.fault(BIG, "flip", offset=1000), 4, "sha256"),
    "403": (lambda hub: hub.cdn.fault(BIG, "expire"), 7, "."),
    "404": (lambda hub: hub.cdn.fault(BIG, "status", status=404), 7, "."),
    "503": (lambda hub: hub.cdn.fault(BIG, "status", status=503), 7, "."),
    "html": (lambda hub: hub.cdn.fault(BIG, "html"), 7, "."),
    "longer": (lambda hub: hub.cdn.fault(BIG, "wrong_size", delta=5), 7, "."),
    "stall": (lambda hub: hub.cdn.fault(BIG, "stall", after=100), 7, "."),
}


def some(rows: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """Return the rows of a table; those not in `fast` run only with `make faults` (see test_faults_server.py)."""
    return [pytest.param(*row, marks=[] if row in fast else [pytest.mark.deep]) for row in rows]


@pytest.mark.parametrize("kind", some(((kind,) for kind in PASSING), [("short",), ("flip",), ("expire",)]))
def test_a_temporary_fault(user: User, serve: Serve, repo: Repo, kind: str) -> None:
    PASSING[kind](serve(repo))
    complete(user, fetch(user, patience="30s"), repo)


@pytest.mark.parametrize("kind", some(((kind,) for kind in LASTING), [("flip",), ("stall",)]))
def test_a_permanent_fault(user: User, serve: Serve, repo: Repo, kind: str) -> None:
    order, status, words = LASTING[kind]
    hub = serve(repo)
    order(hub)
    failed(user, fetch(user), status, words)
    if kind in ("flip", "html"):
        hub.heal()
        complete(user, fetch(user), repo)


BESIDE = [("origin", kind, "127.0.0.2") for kind in (*LASTING, "slow", "ignore_range")]
BESIDE += [("mirror", kind, "127.0.0.2") for kind in ("flip", "longer", "403", "stall", "slow")]
BESIDE += [("mirror", kind, "127.0.0.1") for kind in ("stall", "flip")]


FAST = [BESIDE[0], ("origin", "slow", "127.0.0.2"), ("mirror", "403", "127.0.0.2"), ("mirror", "stall", "127.0.0.1")]


@pytest.mark.parametrize(("which", "kind", "host"), some(BESIDE, FAST))
@pytest.mark.fault(
    "mirror: permanently wrong, and another one is correct",
    where="server",
    does="Drops it and fetches everything from the correct one, even if the wrong one is the hub itself.",
    sees="the dropped mirror, with the reason",
    status=0,
)
def test_a_permanent_fault_next_to_a_correct_mirror(
    user: User, serve: Serve, repo: Repo, kind: str, which: str, host: str
) -> None:
    """A mirror with another host name has 16 connections of its own; aria2 shares them within a host name."""
    hubs = {"origin": serve(repo), "mirror": serve(repo, host=host)}
    if kind in LASTING:
        LASTING[kind][0](hubs[which])
    elif kind == "slow":
        hubs[which].cdn.fault(BIG, "slow", rate=2000)
    else:
        hubs[which].cdn.fault(BIG, "ignore_range")
    report = complete(user, fetch(user, "--mirror", hubs["mirror"].url, patience="20s"), repo)
    if kind == "flip" and report["bytes_fetched"] > SIZE * 1.5:
        assert any("failed its checksum" in use["rejected"] for use in report["mirrors"])


@pytest.mark.fault(
    "mirror: lacks the file (404)",
    where="server",
    does="Fetches from the others.",
    sees="the mirror, and that it lacks the file",
    status=0,
)
def test_a_mirror_without_the_file(user: User, serve: Serve, repo: Repo) -> None:
    serve(repo)
    mirror = serve(repo)
    mirror.fault("/resolve/", status=404)
    complete(user, fetch(user, "--mirror", mirror.url), repo)


@pytest.mark.parametrize("target", ["/d\u00e9p\u00f4t/a b/x.bin", "//user:word@127.0.0.1/x.bin"])
@pytest.mark.fault(
    "mirror: redirects to a URL that is invalid by RFC 3986",
    where="server",
    does="Percent-encodes the invalid characters; drops the mirror if the URL holds a user name or password.",
    sees="the dropped mirror, with the reason",
    status=0,
)
def test_a_mirror_that_redirects_to_an_unusual_url(user: User, serve: Serve, repo: Repo, target: str) -> None:
    """The mirror responds first; aria2 accepts ASCII URLs only."""
    serve(repo).fault(f"/resolve/.*{BIG}", delay=1.0)
    mirror = serve(repo)
    location = f"http:{target}" if target.startswith("//") else mirror.cdn.url + target
    mirror.fault("/resolve/", status=302, headers={"Location": location, "X-Repo-Commit": repo.head})
    complete(user, fetch(user, "--mirror", mirror.url, patience="20s"), repo)


@pytest.mark.fault(
    "mirror: stale, serves another commit",
    where="server",
    does="Detects it when it resolves the file. Downloads nothing from this mirror.",
    sees="the mirror and its commit",
    status=0,
)
def test_a_stale_mirror(user: User, serve: Serve, repo: Repo, tmp_path: Path) -> None:
    serve(repo)
    old = Repo.build("org/large", {BIG: bytes(SIZE), OTHER: b"[]"}, folder=tmp_path / "old", direct=True)
    mirror = serve(old)
    report = complete(user, fetch(user, "--mirror", mirror.url), repo)
    assert mirror.cdn.count() == 0
    assert report["bytes_fetched"] >= SIZE


@pytest.mark.fault(
    "signed URL: expires in mid-file, repeatedly",
    where="server",
    does="Resolves the file again before the URL expires; the download continues.",
    sees="nothing",
    status=0,
)
def test_urls_that_expire_within_seconds(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, ttl=3, limit_rate=400_000)
    complete(user, fetch(user, patience="20s"), repo)
    lookups = [seen for seen in hub.requests if "/resolve/" in seen.target and BIG in seen.target]
    assert len(lookups) <= 30, "at most about one a second"


@pytest.mark.fault(
    "signed URL: expired from the start",
    where="server",
    does="Resolves the file again until `--patience` runs out.",
    sees="the file name, and the server's response",
    status=7,
)
def test_urls_that_expire_at_once(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, ttl=-5)
    failed(user, fetch(user), 7, f"{authority(hub.cdn.url)}: .*403")


@pytest.mark.fault(
    "server: restarted in mid-file",
    where="server",
    does="Waits for the server and resumes.",
    sees="nothing, or one line about the wait",
    status=0,
)
def test_the_hub_disappears_and_returns(user: User, repo: Repo) -> None:
    """The server is restarted in mid-file on the same port, and signs its URLs again."""
    first = Hub([repo], server="embedded", limit_rate=400_000)
    first.start()
    port = int(first.url.rpartition(":")[2])
    user.env["HF_ENDPOINT"] = first.url
    done: list[Done] = []
    run = threading.Thread(target=lambda: done.append(fetch(user, patience="30s")))
    run.start()
    wait_until(lambda: sum(seen.sent for seen in first.cdn.requests) > SIZE // 4)
    first.close()
    time.sleep(1)
    with Hub([repo], server="embedded", port=port):
        run.join()
    complete(user, done[0], repo)
    assert done[0].report["bytes_fetched"] < SIZE + (20 << 20)


@pytest.mark.fault(
    "server: disappears in mid-file, for good",
    where="server",
    does="Retries until `--patience` runs out. Keeps the received bytes.",
    sees="the file name, and that no server responds",
    status=7,
)
def test_the_hub_disappears_for_good(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=400_000)
    done: list[Done] = []
    run = threading.Thread(target=lambda: done.append(fetch(user)))
    run.start()
    wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > SIZE // 4)
    hub.close()
    run.join()
    failed(user, done[0], 7, ".")
    with Hub([repo], server="embedded") as again:
        user.env["HF_ENDPOINT"] = again.url
        report = complete(user, fetch(user), repo)
        assert report["bytes_fetched"] < SIZE, "what had arrived was kept"


@pytest.mark.fault("server: disappears in mid-file, for good")
def test_a_long_outage_of_the_byte_server_loses_no_received_bytes(user: User, serve: Serve, repo: Repo) -> None:
    """aria2 reports this as error 1, as it does for an unusable control file."""
    hub = serve(repo, limit_rate=400_000)
    run = user.start("fetch", "org/large", "--to", "out", "--patience", "4s")
    wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > SIZE // 2)
    hub.location_base = "http://127.0.0.1:1"
    hub.cdn.fault(BIG, "reset")
    assert run.wait(60) == 7
    hub.location_base = None
    hub.heal()
    report = complete(user, fetch(user), repo)
    assert report["bytes_fetched"] < SIZE * 0.8


@pytest.mark.fault("pairs: any two temporary faults, on two mirrors at once")
def test_pairs_of_faults(user: User, serve: Serve, repo: Repo) -> None:
    hub, mirror = serve(repo), serve(repo)
    hub.cdn.fault(BIG, "reset", times=5, after=100_000)
    hub.cdn.fault(BIG, "status", times=4, status=503)
    mirror.cdn.fault(BIG, "stall", times=3, after=50_000)
    mirror.cdn.fault(BIG, "flip", times=1, offset=7_000_000)
    complete(user, fetch(user, "--mirror", mirror.url, patience="30s"), repo)


def test_a_small_minimum_range_lowers_the_size_limit_for_aria2(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    complete(user, fetch(user, GPUARIA_SMALL_FILE="100MB"), repo)
    assert {seen.headers["user-agent"].partition("/")[0] for seen in hub.cdn.requests} == {"gpuaria"}


def test_a_returning_mirror_serves_each_file_from_its_own_url(user: User, serve: Serve, tmp_path: Path) -> None:
    """The files have one size: the URL of another one would deliver wrong bytes of the right length."""
    chance = random.Random(11)
    files: dict[str, bytes | Path] = {f"{n}.safetensors": chance.randbytes(24_000_000) for n in range(2)}
    shards = Repo.build("org/large", files, folder=tmp_path / "shards", direct=True)
    serve(shards, limit_rate=60_000)
    mirror = serve(shards, host="127.0.0.2", limit_rate=60_000)
    mirror.cdn.fault(".safetensors", "expire")
    threading.Timer(3.0, mirror.heal).start()
    report = fetch(user, "--mirror", mirror.url, "-j", "2", patience="60s").ok().report
    assert contents(user.home / "out") == files
    assert report["bytes_fetched"] < 48_000_000 + (8 << 20)
    assert not any("failed its checksum" in use["rejected"] for use in report["mirrors"])
    served = {seen.target.partition("?")[0] for seen in mirror.cdn.requests if seen.status == 206}
    assert len(served) == 2, "it is used for both again"


@pytest.mark.parametrize(("known", "connections"), [(False, range(5, 17)), (True, range(1, 4))])
def test_a_much_slower_mirror_gets_fewer_connections(
    user: User, serve: Serve, repo: Repo, known: bool, connections: range
) -> None:
    strong, weak = serve(repo, limit_rate=200_000), serve(repo, host="127.0.0.2", limit_rate=10_000)
    for hub, rate in ((strong, 50e6), (weak, 2e6)) if known else ():
        history = History(user.home / ".local/state/gpuaria", network_id())
        history.record_outcome(Mirror(hub.url, hub.url), Experience("transfer", rate=rate))
        history.close()
    complete(user, fetch(user, "--mirror", weak.url), repo)
    # aria2's requests, which ask for digests; gpuaria downloads the tail itself.
    asked = [seen for seen in weak.cdn.requests if "want-digest" in seen.headers]
    assert len(asked) in connections


def test_one_file_at_a_time(user: User, serve: Serve, tmp_path: Path) -> None:
    """The next file may start during the last connections of the previous one, which would leave the link idle."""
    size = 12_000_000
    files = {f"{n}.gguf": random.Random(n).randbytes(size) for n in range(3)}
    some = Repo.build("org/three", files, folder=tmp_path / "three", direct=True)
    hub = serve(some, server="embedded", limit_rate=400_000)
    run = user.start("fetch", "org/three", "--to", "out", "-j", "1", "-q")
    sent_before: dict[str, int] = {}
    while run.poll() is None:
        for seen in hub.cdn.requests:
            sent_before.setdefault(urlsplit(seen.target).path, sum(one.sent for one in hub.cdn.requests))
        time.sleep(0.02)
    assert run.returncode == 0, run.communicate()[1]
    assert contents(user.home / "out") == expected(some)
    assert len(sent_before) == 3
    for number, sent in enumerate(sent_before.values()):
        assert sent >= (number - 0.25) * size
