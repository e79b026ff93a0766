"""Small files by HTTP, in whole runs: resumed, retried, fetched from another mirror, never published wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpuaria.errors import NetworkError
from gpuaria.http.messages import Response
from gpuaria.transfer.by_http import prefix_size, resumed_at
from standin import Hub, Repo
from standin.http_server import Handler, Server, parse_range
from tests.support.repos import contents, expected
from tests.support.user import Done, Serve, User

NAME, SIZE = "weights.bin", 1_000_000
DATA = random.Random(8).randbytes(SIZE)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/little: one LFS file of small size, and a plain one; resolve redirects to the CDN."""
    return Repo.build("org/little", {NAME: DATA, "a.txt": b"a"}, folder=tmp_path_factory.mktemp("little"), direct=True)


def fetch(user: User, *words: str) -> Done:
    return user.quick("fetch", "org/little", "--to", "out", "--json", "--patience", "2s", *words, GPUARIA_TIMEOUT="2s")


def good(user: User, done: Done, repo: Repo) -> None:
    assert done.ok().report["verdicts"] == {"ok": 2}
    assert contents(user.home / "out") == expected(repo)
    assert not [path for path in (user.home / "out").rglob("*") if path.suffix == ".prefix"]


def bad(user: User, done: Done, status: int) -> None:
    assert done.status == status, (done.status, done.out, done.err)
    assert NAME not in contents(user.home / "out")
    assert "Please report" not in done.err


def ranges(hub: Hub) -> list[str]:
    return [seen.headers.get("range", "") for seen in hub.cdn.requests]


@pytest.mark.parametrize("kind", ["short", "reset"])
def test_a_broken_download_is_resumed(user: User, serve: Serve, repo: Repo, kind: str) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, kind, times=1, after=700_000)
    good(user, fetch(user), repo)
    first, second = ranges(hub)
    assert first == ""
    start = int(second.removeprefix("bytes=").rstrip("-") or 0)
    assert 0 <= start <= 700_000


def test_an_earlier_run_is_resumed(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "short", times=1, after=700_000)
    hub.cdn.fault(NAME, "expire")
    bad(user, fetch(user), 7)
    (part,) = (user.home / "out").rglob("*.prefix")
    had = part.stat().st_size
    assert part.read_bytes() == DATA[:had]
    assert had
    hub.heal()
    hub.reset()
    good(user, fetch(user), repo)
    assert ranges(hub) == [f"bytes={had}-"]


def test_a_wrong_beginning_costs_one_more_download(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "short", times=1, after=700_000)
    hub.cdn.fault(NAME, "expire")
    bad(user, fetch(user), 7)
    (part,) = (user.home / "out").rglob("*.prefix")
    part.write_bytes(bytes(1000))
    hub.heal()
    hub.reset()
    good(user, fetch(user), repo)
    assert ranges(hub) == ["bytes=1000-", ""]


def test_416_starts_again(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "short", times=1, after=700_000)
    hub.cdn.fault(NAME, "status", times=1, status=416)
    good(user, fetch(user), repo)
    assert ranges(hub)[-1] == ""


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("status", {"status": 429, "retry_after": 1}),
        ("status", {"status": 503}),
        ("status", {"status": 500}),
        ("status", {"status": 408}),
        ("expire", {}),
        ("stall", {"after": 10}),
        ("wrong_size", {"delta": 5}),
        ("wrong_size", {"delta": -5}),
        ("flip", {"offset": 77}),
        ("html", {}),
    ],
)
def test_a_temporary_fault(user: User, serve: Serve, repo: Repo, kind: str, args: dict[str, int]) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, kind, times=1, **args)
    good(user, fetch(user), repo)
    assert hub.cdn.count() == 2


@pytest.mark.parametrize(
    ("kind", "args", "status"),
    [
        ("status", {"status": 429, "retry_after": 3600}, 7),
        ("status", {"status": 503, "retry_after": 3600}, 7),
        ("expire", {}, 7),
        ("wrong_size", {"delta": 5}, 7),
        ("flip", {"offset": 77}, 4),
        ("html", {}, 7),
    ],
)
def test_a_permanent_fault(user: User, serve: Serve, repo: Repo, kind: str, args: dict[str, int], status: int) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, kind, **args)
    bad(user, fetch(user), status)
    assert contents(user.home / "out") == {"a.txt": b"a"}
    hub.heal()
    good(user, fetch(user), repo)


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("status", {"status": 404}),
        ("status", {"status": 403}),
        ("reset", {"after": 99}),
        ("flip", {"offset": 77}),
        ("html", {}),
        ("wrong_size", {"delta": 5}),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.fault("mirror: permanently wrong, and another one is correct")
def test_a_permanent_fault_next_to_a_correct_mirror(
    user: User, serve: Serve, repo: Repo, kind: str, args: dict[str, int], which: int
) -> None:
    hubs = [serve(repo), serve(repo)]
    hubs[which].cdn.fault(NAME, kind, **args)
    good(user, fetch(user, "--mirror", hubs[1].url), repo)


def test_wrong_bytes_once_from_each_mirror(user: User, serve: Serve, repo: Repo) -> None:
    hubs = [serve(repo), serve(repo, host="127.0.0.2")]
    for hub in hubs:
        hub.cdn.fault(NAME, "flip", times=1, offset=5)
    good(user, fetch(user, "--mirror", hubs[1].url), repo)


def test_wrong_bytes_from_one_mirror_and_errors_from_the_other(user: User, serve: Serve, repo: Repo) -> None:
    """The mirror with wrong bytes is not asked again while the correct one fails temporarily."""
    hubs = [serve(repo), serve(repo)]
    hubs[1].cdn.fault(NAME, "flip", offset=77)
    hubs[0].cdn.fault(NAME, "expire", times=2)
    good(user, fetch(user, "--mirror", hubs[1].url), repo)
    assert hubs[1].cdn.count() <= 1


def test_wrong_bytes_once_and_then_network_errors_end_the_run(user: User, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    hub.cdn.fault(NAME, "flip", times=1, offset=77)
    hub.cdn.fault(NAME, "expire")
    bad(user, fetch(user), 7)


def test_the_credential_stays_at_the_hub(user: User, serve: Serve, repo: Repo) -> None:
    hub, mirror = serve(repo), serve(repo)
    user.env["HF_TOKEN"] = "hf_good"
    good(user, fetch(user, "--mirror", mirror.url), repo)
    assert any(seen.headers.get("authorization") == "Bearer hf_good" for seen in hub.requests)
    for seen in (*hub.cdn.requests, *mirror.cdn.requests, *mirror.requests):
        assert "authorization" not in seen.headers


@pytest.mark.parametrize("slash", ["%2F", "/"])
def test_the_resolve_cache_url_is_learned(user: User, serve: Serve, tmp_path: Path, slash: str) -> None:
    """A 307 for each file would double the requests. The Hub writes the slashes of a path as %2F there."""
    files: dict[str, bytes | Path] = {f"{'' if n % 3 else 'a b/c/'}{n:03d} ü.txt": b"%d" % n for n in range(150)}
    hub = serve(Repo.build("org/plain", files, folder=tmp_path / "plain"), cache_slash=slash)
    done = user.quick("fetch", "org/plain", "--to", "out", "--json").ok()
    assert contents(user.home / "out") == files
    assert done.report["hub_requests"] == hub.count()
    assert len([seen for seen in hub.requests if "/resolve/" in seen.target]) == 1
    wrong = hub.count() - (2 + 150 + 1)
    assert wrong == 0 if slash == "%2F" else wrong <= 32


def test_a_hub_that_rejects_the_resolve_cache_url_is_asked_the_usual_way(
    user: User, serve: Serve, tmp_path: Path
) -> None:
    files: dict[str, bytes | Path] = {f"{n:03d} ü.txt": b"%d" % n for n in range(150)}
    hub = serve(Repo.build("org/plain", files, folder=tmp_path / "plain"), sealed_cache=True)
    user.quick("fetch", "org/plain", "--to", "out").ok()
    assert contents(user.home / "out") == files
    assert len([seen for seen in hub.requests if "/resolve/" in seen.target]) == 150
    assert hub.count() <= 2 + 2 * 150 + 32


@pytest.mark.parametrize("large", [0, 12_000_000])
def test_the_speed_limit_applies_to_small_files(user: User, serve: Serve, tmp_path: Path, large: int) -> None:
    """Small files once ignored the limit. The time is a lower bound, so a slow machine cannot break the test."""
    files: dict[str, bytes | Path] = {f"{n}.bin": random.Random(n).randbytes(1_500_000) for n in range(4)}
    files |= {"large.bin": random.Random(9).randbytes(large)} if large else {}
    serve(Repo.build("org/mixed", files, folder=tmp_path / "mixed", direct=True))
    began = time.monotonic()
    user.run("fetch", "org/mixed", "--to", "out", GPUARIA_MAX_SPEED="3M" if large else "1M").ok()
    assert time.monotonic() - began > (18 / 3 if large else 6 / 1) * 0.7
    assert contents(user.home / "out") == files


# --- answers that no decent server gives ----------------------------------------------------------------------------


class Odd(Handler):
    """A byte server that sends the prepared responses first, whatever the request, then correct ones."""

    answers: list[tuple[int, dict[str, str], bytes]]

    def answer(self) -> None:
        if self.answers:
            status, headers, body = self.answers.pop(0)
            return self.reply(status, list(headers.items()), body)
        span = parse_range(self.seen.headers.get("range"), SIZE)
        start, end = span or (0, SIZE)
        said = [("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")] if span else []
        return self.reply(206 if span else 200, said, DATA[start:end])


@pytest.fixture
def odd() -> Iterator[Server]:
    with ExitStack() as stack:
        server = Server(type("One", (Odd,), {"answers": []}), host="127.0.0.1", port=0, name="odd")
        server.start()
        stack.callback(server.close)
        yield server


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (206, {"Content-Range": f"bytes 1000-{SIZE - 1}/{SIZE}"}, DATA[1000:]),
        (206, {"Content-Range": f"bytes 0-99/{SIZE}"}, DATA[:100]),
        (206, {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE + 1}"}, DATA),
        (206, {"Content-Range": "items 0-1/2"}, DATA),
        (206, {"Content-Range": "bytes x"}, DATA),
        (206, {}, DATA),
        (200, {"Content-Encoding": "gzip"}, DATA),
        (200, {}, b""),
        (204, {}, b""),
        (304, {}, b""),
        (301, {"Location": "/again"}, b""),
        (302, {"Location": "ftp://127.0.0.1/x"}, b""),
        (302, {}, b""),
        (416, {"Content-Range": "bytes */0"}, b""),
        (600, {}, b""),
    ],
)
def test_unusual_responses_are_handled(
    user: User,
    serve: Serve,
    repo: Repo,
    odd: Server,
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    serve(repo, location_base=odd.url)
    odd.RequestHandlerClass.answers.append((status, headers, body))  # type: ignore[attr-defined]
    good(user, fetch(user), repo)


@pytest.mark.parametrize(
    ("said", "begun", "start"),
    [
        ("bytes 0-9/10", 0, 0),
        ("bytes 5-9/10", 5, 5),
        ("bytes 5-9/*", 7, 5),
        (" bytes 0-9/10 ", 3, 0),
        ("bytes 6-9/10", 5, None),
        ("bytes 5-9/11", 5, None),
        ("bytes -5-9/10", 5, None),
        ("bytes */10", 5, None),
        ("bytes 5", 5, None),
        ("", 0, None),
        ("bytes ٥-9/10", 5, None),
        ("bytes " + "9" * 5000 + "-9/10", 5, None),
    ],
)
def test_the_start_of_a_partial_response(said: str, begun: int, start: int | None) -> None:
    answer = Response(206, "http://x/", {"content-range": said})
    if start is None:
        with pytest.raises(NetworkError):
            resumed_at(answer, begun, 10)
    else:
        assert resumed_at(answer, begun, 10) == start
    assert resumed_at(Response(200, "http://x/", {}), begun, 10) == 0


def test_received_bytes_count_only_while_shorter_than_the_file(tmp_path: Path) -> None:
    from gpuaria.paths import SafePath
    from gpuaria.records import RemoteFile

    part, file = tmp_path / "part", RemoteFile(SafePath.parse("x"), 10, None)
    assert prefix_size(part, file) == 0
    for size, counted in ((0, 0), (1, 1), (9, 9), (10, 0), (11, 0)):
        part.write_bytes(bytes(size))
        assert prefix_size(part, file) == counted
