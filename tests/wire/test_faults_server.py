"""Faults of a server, in whole runs with a small and a large file: correct bytes, or an error and its status.

Each row of CASES is a row of docs/faults.md. Received bytes are kept: the run after the fault downloads the rest.
"""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from standin import Hub, Repo
from tests.support.repos import contents, expected
from tests.support.user import Done, Serve, User, wait_until

BIG, OTHER = "model.safetensors", "config.json"
SIZES = {"small": 1_000_000, "large": 9_000_000}  # aria2 downloads files from 8 MB on
END = -1  # the last byte
FOREVER = None
Order = tuple[str, int | None, Mapping[str, Any]]


def order(kind: str, times: int | None = FOREVER, **args: Any) -> Order:
    """Return a fault of the byte server, repeated `times` times."""
    return kind, times, args


@dataclass(frozen=True)
class Case:
    """One row: the byte server's faults and their result. `says` is searched in the failed file's reason."""

    name: str
    does: str
    sees: str
    orders: tuple[Order, ...]
    status: int = 0
    says: str = ""
    sizes: tuple[str, ...] = ("small", "large")
    patience: str = "20s"
    timeout: str = "1s"

    def params(self) -> list[Any]:
        """Return a row for each size; the fast subset has one of them, usually the large file."""
        text: dict[str, Any] = {"does": self.does, "sees": self.sees, "status": self.status}
        mark = pytest.mark.fault(self.name, where="server", **text)
        fast = self.sizes[0 if self.name.startswith(("status", "login", "redirect")) else -1]
        return [
            pytest.param(
                self, size, marks=[mark] if size == fast else [mark, pytest.mark.deep], id=f"{self.name}, {size}"
            )
            for size in self.sizes
        ]


NOTHING = "nothing, or one line about the wait"
AGAIN = "the file name, and that its checksum is wrong"
UNUSED = "the file name, and the server's response"


def flipped(place: str, offset: int) -> list[Case]:
    return [
        Case(
            f"bytes: one flipped in the {place} piece, once",
            "Detects it by the checksum and downloads the file again.",
            "nothing",
            (order("flip", 1, offset=offset),),
        ),
        Case(
            f"bytes: one flipped in the {place} piece, always",
            "Downloads the file once more, then fails it. The file is not published.",
            AGAIN,
            (order("flip", offset=offset),),
            4,
            "sha256",
        ),
    ]


CASES = [
    *flipped("first", 0),
    *flipped("middle", 500_000),
    *flipped("last", END),
    Case(
        "body: truncated, a few times",
        "Resumes at the byte where the connection broke.",
        NOTHING,
        (order("short", 2, after=200_000),),
    ),
    Case(
        "body: truncated, always",
        "Resumes at the byte where the connection broke, and never gives up while bytes still arrive.",
        NOTHING,
        (order("short", after=150_000),),
        patience="3s",
    ),
    Case(
        "body: empty, always",
        "Retries until `--patience` runs out.",
        UNUSED,
        (order("short", after=0),),
        7,
        patience="1s",
    ),
    Case(
        "body: longer than declared, a few times",
        "Rejects the response and retries.",
        NOTHING,
        (order("wrong_size", 2, delta=5),),
    ),
    Case(
        "body: longer than declared, always",
        "Rejects each such response.",
        UNUSED,
        (order("wrong_size", delta=5),),
        7,
        patience="1s",
    ),
    Case(
        "range: ignored, 200 with the whole file, once",
        "Downloads the file from its first byte.",
        NOTHING,
        (order("short", 1, after=300_000), order("ignore_range", 1)),
    ),
    Case(
        "range: ignored, 200 with the whole file, always",
        "Downloads the file from its first byte, over one connection.",
        NOTHING,
        (order("short", 1, after=300_000), order("ignore_range")),
    ),
    Case(
        "range: a wrong Content-Range, a few times",
        "Discards the response and retries.",
        NOTHING,
        (order("short", 1, after=300_000), order("wrong_range", 2, delta=16384)),
    ),
    Case(
        "range: 206 with another range, a few times",
        "Discards the response and retries.",
        NOTHING,
        (order("short", 1, after=300_000), order("other_part", 2, delta=16384)),
    ),
    Case(
        "range: 206 with the wrong bytes under the right Content-Range, once",
        "Detects it by the checksum and downloads the file again.",
        "nothing",
        (order("short", 1, after=300_000), order("wrong_part", 1, delta=16384)),
    ),
    Case(
        "range: 206 with another range, always",
        "Rejects each such response.",
        UNUSED,
        (order("short", 1, after=300_000), order("other_part", delta=16384)),
        7,
        patience="1s",
        sizes=("small",),
    ),
    Case(
        "range: 206 with another range, always (large file)",
        "Rejects each such response, then downloads the file in order over one connection.",
        NOTHING,
        (order("short", 1, after=300_000), order("other_part", delta=16384)),
        sizes=("large",),
    ),
    Case(
        "coding: gzip although identity was requested, once",
        "Decompresses it, or retries.",
        NOTHING,
        (order("gzip", 1),),
    ),
    Case(
        "coding: gzip although identity was requested, always",
        "Decompresses it; downloads a large file over one connection of its HTTP client, without aria2c.",
        NOTHING,
        (order("gzip"),),
        patience="60s",
        timeout="10s",  # the stand-in compresses the whole file for each connection before it responds
    ),
    Case(
        "coding: gzip of the whole file, no ranges, no length, always",
        "Decompresses it; downloads a large file over one connection of its HTTP client, without aria2c.",
        NOTHING,
        (order("flow_gzip"),),
        patience="60s",
        timeout="10s",  # the stand-in compresses the whole file for each connection before it responds
    ),
    Case(
        "coding: gzip of the whole file, and broken connections, a few times",
        "Requests the file from the start and skips the bytes that it has.",
        NOTHING,
        (order("flow_gzip", 2, after=400_000), order("flow_gzip", 1, after=300_000), order("flow_gzip")),
        sizes=("small",),
    ),
    Case(
        "coding: chunked, no length, once",
        "Accepts the response.",
        NOTHING,
        (order("chunked", 1),),
    ),
    Case(
        "coding: chunked, no length, always",
        "Accepts the response; downloads a large file over one connection of its HTTP client, without aria2c.",
        NOTHING,
        (order("chunked"),),
    ),
    Case(
        "coding: the whole file in chunks, no ranges, no length, always",
        "Accepts the response; downloads a large file over one connection of its HTTP client, without aria2c.",
        NOTHING,
        (order("flow"),),
    ),
    Case(
        "coding: the whole file until the connection closes, no ranges, no length, always",
        "Accepts the response; downloads a large file over one connection of its HTTP client, without aria2c.",
        NOTHING,
        (order("flow_until_close"),),
    ),
    Case(
        "coding: no length, and broken connections, a few times",
        "Requests the file from the start and skips the bytes that it has.",
        NOTHING,
        (order("flow", 2, after=400_000), order("flow", 1, after=300_000), order("chunked")),
        sizes=("small",),
    ),
    Case(
        "redirect: a chain of 301, 302, 303, 307 and 308",
        "Follows the redirects.",
        "nothing",
        tuple(order("redirect", 1, status=status) for status in (301, 302, 303, 307, 308)),
    ),
    Case(
        "redirect: loop",
        "Follows a few redirects, then drops the server.",
        UNUSED,
        (order("redirect", status=302),),
        7,
        patience="1s",
    ),
    *(
        Case(
            f"redirect: to {scheme}",
            "Does not follow it.",
            UNUSED,
            (order("redirect", status=302, to=to),),
            7,
            patience="1s",
            sizes=("small",) if to == "file://" else ("small", "large"),  # the large file has a separate test
        )
        for scheme, to in (("ftp", "ftp://127.0.0.1:1"), ("a local file", "file://"))
    ),
    *(
        Case(
            f"status: {status} in mid-file",
            "Resolves the file again and resumes.",
            NOTHING,
            (order("short", 1, after=200_000), order("status", 1, status=status)),
        )
        for status in (401, 403, 404, 408, 416)
    ),
    Case(
        "status: 429 without Retry-After",
        "Retries with a growing delay.",
        "one line about the wait",
        (order("status", 2, status=429),),
    ),
    Case(
        "status: 429 with Retry-After in seconds",
        "Waits for the requested time.",
        "one line about the wait",
        (order("status", 2, status=429, retry_after=1),),
    ),
    Case(
        "status: 429 with Retry-After as a date",
        "Waits until that time.",
        "one line about the wait",
        (order("status", 2, status=429, headers={"Retry-After": "<in 2 s>"}),),
    ),
    Case(
        "status: 429 with the RateLimit headers",
        "Waits until the rate-limit window ends.",
        "one line about the wait",
        (order("status", 1, status=429, headers={"RateLimit": '"pages";r=0;t=1'}),),
    ),
    Case(
        "status: 500, 502, 503 and 504 in a burst",
        "Retries with a growing delay.",
        NOTHING,
        tuple(order("status", 1, status=status) for status in (500, 502, 503, 504)),
    ),
    Case(
        "status: 503, always",
        "Retries until `--patience` runs out.",
        UNUSED,
        (order("status", status=503),),
        7,
        patience="1s",
    ),
    Case(
        "login page with 200, once",
        "Detects the wrong size, discards the page and retries.",
        NOTHING,
        (order("html", 1),),
    ),
    Case(
        "login page with 200, always",
        "Detects the wrong size and drops the server.",
        UNUSED,
        (order("html"),),
        7,
        patience="1s",
    ),
    Case(
        "file changed in mid-download: another ETag and other bytes, once",
        "Detects it by the checksum and downloads the file again.",
        "nothing",
        (order("short", 1, after=300_000), order("changed", 1)),
    ),
    Case(
        "file changed in mid-download: another ETag and other bytes, always",
        "Detects it by the checksum, downloads the file once more, then fails it. The file is not published.",
        AGAIN,
        (order("short", 1, after=300_000), order("changed")),
        4,
        "sha256",
    ),
    Case(
        "file changed in mid-download: another size",
        "Rejects responses of another size.",
        UNUSED,
        (order("short", 1, after=300_000), order("wrong_size", delta=-7)),
        7,
        patience="1s",
    ),
    Case(
        "signed URL: rejected a few times, and broken connections",
        "Resolves the file again and resumes.",
        NOTHING,
        (order("expire", 1), order("short", 2, after=100_000), order("expire", 1), order("reset", 2, after=100_000)),
    ),
    Case(
        "connection: reset, a few times",
        "Resumes at the byte where the connection broke.",
        NOTHING,
        (order("reset", 2, after=200_000),),
    ),
    Case(
        "connection: silent in mid-file, a few times",
        "Reconnects after the time-out and resumes.",
        NOTHING,
        (order("stall", 2, after=200_000),),
    ),
    Case(
        "connection: 1 byte a second, once",
        "Treats it as a stall: reconnects and resumes.",
        NOTHING,
        (order("slow", 1, rate=1),),
    ),
    Case(
        "connection: 1 byte a second, always",
        "Treats it as a stall: reconnects until `--patience` runs out, then fails the file.",
        UNUSED,
        (order("slow", rate=1),),
        7,
        patience="2s",
    ),
    Case(
        "connection: silent, always",
        "Reconnects after each time-out until `--patience` runs out, then fails the file.",
        UNUSED,
        (order("stall", after=100),),
        7,
        patience="1s",
    ),
]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    """Return repos with one file of each size, and a small one without faults."""
    return {
        name: Repo.build(
            f"org/{name}",
            {BIG: random.Random(size).randbytes(size), OTHER: b"{}"},
            folder=tmp_path_factory.mktemp(name),
            direct=True,
        )
        for name, size in SIZES.items()
    }


def fetch(user: User, repo: Repo, *words: str, patience: str = "20s", **env: str) -> Done:
    """Run a fetch into a folder with time-outs of 1 s."""
    words = ("fetch", repo.repo_id, "--to", "out", "--json", "--patience", patience, *words)
    return user.quick(*words, **{"GPUARIA_TIMEOUT": "1s", "GPUARIA_CONNECT_TIMEOUT": "1s", **env})


def complete(user: User, done: Done, repo: Repo) -> dict[str, Any]:
    """Check the bytes, and that no other file remains."""
    report = done.ok().report
    assert contents(user.home / "out") == expected(repo)
    rest = [path.name for path in (user.home / "out").rglob("*") if "sha256-" in path.name or "tmp-" in path.name]
    assert rest == []
    return report


def failed(user: User, done: Done, status: int, says: str) -> None:
    """Check that one file failed with a reason, and the other is published."""
    assert done.status == status, (done.status, done.out[-2000:], done.err)
    assert contents(user.home / "out") == {OTHER: b"{}"}
    (problem,) = done.report["problems"]
    assert problem["path"] == BIG
    assert re.search(says or ".", problem["detail"]), problem
    assert len(problem["detail"]) < 500
    assert "Traceback" not in done.err
    assert "a bug" not in done.err
    assert "Signature" not in done.out + done.err


def misbehave(hub: Hub, orders: tuple[Order, ...], size: int) -> None:
    for kind, times, args in orders:
        given = {**args, "offset": args.get("offset", 0) % size}
        if given.get("headers", {}).get("Retry-After"):
            given["headers"] = {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}
        hub.cdn.fault(BIG, kind, times=times, **given)


@pytest.mark.parametrize(("case", "size"), [param for case in CASES for param in case.params()])
def test_the_byte_server(user: User, serve: Serve, repos: dict[str, Repo], case: Case, size: str) -> None:
    repo = repos[size]
    hub = serve(repo)
    misbehave(hub, case.orders, SIZES[size])
    done = fetch(user, repo, patience=case.patience, GPUARIA_TIMEOUT=case.timeout)
    if case.status == 0:
        complete(user, done, repo)
        return
    failed(user, done, case.status, case.says)
    hub.heal()
    complete(user, fetch(user, repo), repo)


@pytest.mark.deep
@pytest.mark.fault("redirect: to a local file")
def test_no_aria2c_message_contains_a_signature(user: User, serve: Serve, repos: dict[str, Repo]) -> None:
    """The connection that reports last is random, so the test makes three runs."""
    hub = serve(repos["large"])
    hub.cdn.fault(BIG, "redirect", status=302, to="file://")
    for _ in range(3):
        failed(user, fetch(user, repos["large"], patience="1s"), 7, "")


def test_every_client_requests_uncompressed_bytes(user: User, serve: Serve, repos: dict[str, Repo]) -> None:
    """A server may compress for a client that does not state its preference (RFC 9110 12.5.3)."""
    hub = serve(repos["large"])
    complete(user, fetch(user, repos["large"]), repos["large"])
    assert {seen.headers.get("accept-encoding") for seen in hub.cdn.requests} == {"identity"}


CODED = "coding: one server is incompatible with aria2c, another one works"


@pytest.mark.parametrize(
    ("kind", "which"),
    [
        ("gzip", "origin"),
        ("flow", "mirror"),
        *(
            pytest.param(kind, which, marks=pytest.mark.deep)
            for kind in ("gzip", "flow_gzip", "chunked", "flow", "flow_until_close")
            for which in ("origin", "mirror")
            if (kind, which) not in (("gzip", "origin"), ("flow", "mirror"))
        ),
    ],
)
@pytest.mark.fault(
    CODED,
    where="server",
    does="Drops the incompatible server and fetches the file from the other one.",
    sees="the dropped mirror, and that it compresses files or declares no length",
    status=0,
)
def test_a_compressing_server_with_another_mirror(
    user: User, serve: Serve, repos: dict[str, Repo], kind: str, which: str
) -> None:
    hubs = {"origin": serve(repos["large"]), "mirror": serve(repos["large"], host="127.0.0.2")}
    good = hubs["mirror" if which == "origin" else "origin"]
    good.cdn.limit_rate = 300_000  # type: ignore[attr-defined]  # or it may have sent all before the other one joins
    hubs[which].cdn.fault(BIG, kind)
    report = complete(user, fetch(user, repos["large"], "--mirror", hubs["mirror"].url), repos["large"])
    assert report["bytes_fetched"] < SIZES["large"] * 2.5
    # aria2 drops the others at their first response; the tail is decompressed as it arrives.
    if kind == "gzip" and report["bytes_fetched"] > SIZES["large"] * 1.3:
        (bad,) = (use for use in report["mirrors"] if use["name"] == hubs[which].url.removeprefix("http://"))
        assert "compresses" in bad["rejected"]


@pytest.mark.deep
@pytest.mark.fault(CODED)
def test_a_server_without_lengths_is_reported(user: User, serve: Serve, tmp_path: Path) -> None:
    """The download is long enough to notice that aria2 does without it."""
    files: dict[str, bytes | Path] = {BIG: random.Random(9).randbytes(48_000_000), OTHER: b"{}"}
    repo = Repo.build("org/long", files, folder=tmp_path / "long", direct=True)
    serve(repo, limit_rate=250_000)
    mirror = serve(repo, host="127.0.0.2")
    mirror.cdn.fault(BIG, "flow")
    report = complete(user, fetch(user, repo, "--mirror", mirror.url), repo)
    assert any("Content-Length" in use["rejected"] for use in report["mirrors"]), report["mirrors"]


@pytest.mark.fault(
    "coding: no length, and the server disappears in mid-file",
    where="server",
    does="Retries until `--patience` runs out. Keeps the received bytes, and the next run resumes.",
    sees="the file name, and the server's response",
    status=7,
)
@pytest.mark.parametrize("before", ["flow", pytest.param("", marks=pytest.mark.deep)])
def test_bytes_without_a_declared_length_are_kept(
    user: User, serve: Serve, repos: dict[str, Repo], before: str
) -> None:
    """Bytes that aria2c downloaded before from a better server are kept too."""
    hub = serve(repos["large"], limit_rate=0 if before else 150_000)
    if before:
        hub.cdn.fault(BIG, "flow", after=5_000_000)
        failed(user, fetch(user, repos["large"], patience="1s"), 7, "")
    else:
        run = user.start("fetch", "org/large", "--to", "out")
        wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > 6_000_000)
        run.terminate()
        assert run.wait(20) == 130
        hub.cdn.limit_rate = 0  # type: ignore[attr-defined]
    hub.heal()
    hub.cdn.fault(BIG, "chunked")
    hub.reset()
    complete(user, fetch(user, repos["large"]), repos["large"])
    ours = [seen.headers["range"] for seen in hub.cdn.requests if seen.headers.get("range", "").endswith("-")]
    assert len(ours) == 1
    assert int(re.sub(r"\D", "", ours[0])) >= (5_000_000 if before else 200_000)
