"""gpuaria.http.client with real local servers: the stand-in hub, and a scripted one."""

import email.utils
import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.errors import BadListing, ConfigError, GpuariaError, Interrupted, NetworkError, RateLimited
from gpuaria.http.certificates import ca_file
from gpuaria.http.client import Http, HttpOptions
from gpuaria.http.messages import Response
from gpuaria.http.ratelimit import RateBudget, retry_after
from gpuaria.http.redirects import redirect_target
from gpuaria.sources.huggingface import HuggingFace
from gpuaria.urls import check_redirect, encrypted_or_local, redacted, url_origin
from standin import Hub, RateLimit, Repo, Seen
from standin.http_server import Handler, Server
from tests.support.clock import FakeClock
from tests.support.ports import closed_url

TOKEN = "hf_secret_of_the_tests"
Reply = tuple[int, Sequence[tuple[str, str]], bytes]


class Token:
    """A credential that only `reveal` shows."""

    def __init__(self, text: str = TOKEN) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text


class Scripted(Server):
    """A server that responds with `reply` and keeps a `journal`; None resets the connection."""

    def __init__(self, reply: Callable[[Seen], Reply | None], *, host: str = "127.0.0.1") -> None:
        super().__init__(_Handler, host=host, port=0, name="scripted")
        self.reply = reply

    def __enter__(self) -> "Scripted":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def seen(self) -> list[Seen]:
        return self.journal.snapshot()


class _Handler(Handler):
    def answer(self) -> None:
        assert isinstance(self.server, Scripted)
        self.rfile.read(int(self.seen.headers.get("content-length") or 0))
        reply = self.server.reply(self.seen)
        if reply is None:
            self.home.journal.add(self.seen)
            return self.abort()
        return self.reply(*reply)


def always(status: int = 200, body: bytes = b"{}", **headers: str) -> Callable[[Seen], Reply]:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return lambda seen: (status, pairs, body)


def in_turn(*replies: Reply | None) -> Callable[[Seen], Reply | None]:
    """Return one reply after the other, then repeat the last one."""
    left = list(replies)
    return lambda seen: left.pop(0) if len(left) > 1 else left[0]


def client(base: str = "", **options: object) -> Http:
    credentials = {url_origin(base): Token()} if base else {}
    given = {name: options.pop(name) for name in ("on_wait", "stop") if name in options}
    return Http(HttpOptions(**options), credentials=credentials, **given)  # type: ignore[arg-type]


def authorized(server: Scripted) -> list[bool]:
    return ["authorization" in seen.headers for seen in server.seen]


def sentence(error: GpuariaError) -> str:
    """Return the message after checking that it is one line without a secret."""
    text = f"{error.message} {error.hint}"
    assert "\n" not in text
    assert TOKEN not in text
    assert "Signature" not in text
    assert "Traceback" not in text
    assert error.message
    return error.message


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.build("org/thing", {"a.json": b"{}", "w.bin": b"weights!" * 50_000}, folder=tmp_path / "store")


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Hub.Example/a?b", "https://hub.example:443"),
        ("http://hub.example", "http://hub.example:80"),
        ("http://hub.example:8080/", "http://hub.example:8080"),
        ("https://user:word@hub.example/", "https://hub.example:443"),
        ("http://[::1]:81/x", "http://::1:81"),
    ],
)
def test_a_url_origin_is_scheme_host_and_port(url: str, expected: str) -> None:
    assert url_origin(url) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.example/a/b?Signature=x", "https://cdn.example/a/b"),
        ("https://me:word@hub.example/a@b?x", "https://hub.example/a@b"),
        ("https://hub.example/a@b", "https://hub.example/a@b"),
        ("https://hub.example?to=me@x", "https://hub.example"),
        ("https://me:w@rd@hub.example", "https://hub.example"),
    ],
)
def test_displayed_urls_have_no_query_and_no_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://hub.example", True),
        ("http://hub.example", False),
        ("http://localhost:1", True),
        ("http://127.0.0.1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://127.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("ftp://localhost.example", False),
    ],
)
def test_a_credential_travels_encrypted_or_on_loopback_only(url: str, safe: bool) -> None:
    assert encrypted_or_local(url) is safe
    assert client(url).has_credential(url) is safe


def test_a_credential_belongs_to_one_url_origin() -> None:
    http = client("https://hub.example")
    assert http.has_credential("https://hub.example:443/a")
    assert http.has_credential("https://HUB.example/a")
    for other in ("https://hub.example:444", "http://hub.example", "https://cdn.hub.example", "https://example"):
        assert not http.has_credential(other)


def test_the_configured_bundle_is_used(tmp_path: Path) -> None:
    assert ca_file("/no/such/bundle") == "/no/such/bundle"
    assert Path(ca_file()).is_file()
    for bundle in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").write_text("no certificate")
        with pytest.raises(NetworkError, match="certificate bundle") as caught:
            Http(HttpOptions(ca_bundle=str(bundle))).get("https://127.0.0.1:1/")
        sentence(caught.value)


# --- credentials and redirects ------------------------------------------------------------------------------------


def test_the_credential_goes_only_to_its_url_origin_and_not_when_anonymous() -> None:
    with Scripted(always()) as home, Scripted(always()) as other:
        http = client(home.url)
        http.get(f"{home.url}/a")
        http.get(f"{home.url}/a", anonymous=True)
        http.head(f"{home.url}/a", anonymous=True)
        http.get(f"{other.url}/a")
        assert authorized(home) == [True, False, False]
        assert home.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert authorized(other) == [False]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_foreign_redirect_is_returned_without_following_it(status: int) -> None:
    with Scripted(always()) as other, Scripted(always(status, location=f"{other.url}/x?Signature=s")) as home:
        http = client(home.url)
        for answer in (http.get(f"{home.url}/a"), http.head(f"{home.url}/a")):
            assert answer.status == status
            assert answer.headers["location"] == f"{other.url}/x?Signature=s"
        assert other.seen == []


def test_a_post_works_like_a_get_and_follows_no_redirect() -> None:
    replies = in_turn((503, [("Retry-After", "0")], b""), (200, [], b"yes"), (308, [("Location", "/b")], b""))
    with Scripted(replies) as home:
        http, kind = client(home.url), {"content-type": "text/x-question"}
        assert http.post(f"{home.url}/a", b"what?", headers=kind).body == b"yes"
        answer = http.post(f"{home.url}/a", b"what?", anonymous=True)
        assert (answer.status, answer.headers["location"]) == (308, "/b")
        assert [seen.method for seen in home.seen] == ["POST"] * 3
        assert [seen.headers["content-length"] for seen in home.seen] == ["5"] * 3
        assert home.seen[1].headers["content-type"] == "text/x-question"
        assert authorized(home) == [True, True, False]
    with Scripted(always(body=b"x" * 1000)) as home, pytest.raises(BadListing, match="larger than 999 bytes"):
        client().post(f"{home.url}/a", b"what?", ceiling=999)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("host", ["port", "name"])
def test_a_download_follows_redirects_without_the_credential(status: int, host: str) -> None:
    with Scripted(always(body=b"bytes")) as other:
        away = other.url if host == "port" else other.url.replace("127.0.0.1", "localhost")
        with Scripted(always(status, location=f"{away}/x")) as home:
            http = client(home.url)
            with http.download(f"{home.url}/a") as (answer, chunks):
                assert (answer.status, answer.url, b"".join(chunks)) == (200, f"{away}/x", b"bytes")
            assert authorized(home) == [True]
            assert authorized(other) == [False]


def test_after_a_foreign_redirect_no_credential_is_sent() -> None:
    """Not even the other host's own, nor on the way back: a server must not act in the user's name."""

    def reply(seen: Seen) -> Reply:
        return (302, [("Location", f"{other.url}/x")], b"") if seen.target == "/a" else (200, [], b"home")

    with Scripted(always(302, location="/elsewhere")) as other, Scripted(reply) as home:
        other.reply = lambda seen: (307, [("Location", f"{home.url}/b" if seen.target == "/y" else "/y")], b"")
        http = Http(credentials={url_origin(home.url): Token(), url_origin(other.url): Token("hf_of_the_other")})
        with http.download(f"{home.url}/a") as (answer, chunks):
            assert (answer.url, b"".join(chunks)) == (f"{home.url}/b", b"home")
        assert authorized(home) == [True, False]
        assert authorized(other) == [False, False]
        http.head(f"{other.url}/x")
        assert other.seen[-1].headers["authorization"] == "Bearer hf_of_the_other"


def test_secrets_repeated_by_a_server_are_redacted() -> None:
    said = {"X_Error_Message": f"no, Bearer {TOKEN}", "Location": f"http://127.0.0.2:9/{TOKEN}?{TOKEN}"}
    with Scripted(always(403, f"<{TOKEN}>".encode(), **said)) as home, Scripted(always(body=TOKEN.encode())) as other:
        http = client(home.url)
        assert http.get(f"{other.url}/a").body == TOKEN.encode(), "nobody was sent it yet"
        answer = http.get(f"{home.url}/a")
        assert (answer.body, answer.headers["x-error-message"]) == (b"<***>", "no, Bearer ***")
        assert answer.headers["location"] == "http://127.0.0.2:9/***?***"
        with http.open("GET", f"{home.url}/a") as (head, _):
            assert TOKEN not in str(head.headers)
        short = Http(credentials={url_origin(home.url): Token("no")})
        assert short.get(f"{home.url}/a").headers["x-error-message"].startswith("no, "), "too short to be struck out"


def test_the_hubs_cdn_accepts_the_headers_of_a_download(repo: Repo) -> None:
    with Hub([repo], server="embedded", tokens={TOKEN}) as hub:
        http = client(hub.url)
        with http.download(f"{hub.url}/org/thing/resolve/main/w.bin") as (answer, chunks):
            assert (answer.status, b"".join(chunks)) == (200, b"weights!" * 50_000)
        assert [("authorization" in seen.headers) for seen in hub.requests + hub.cdn.requests] == [True, False]


def test_redirects_within_the_url_origin_keep_the_hubs_headers() -> None:
    def reply(seen: Seen) -> Reply:
        if seen.target == "/old":
            return 307, [("Location", "/new?x=1"), ("X-Repo-Commit", "c0ffee"), ("ETag", "first")], b""
        return 200, [("ETag", "second")], b"[]"

    with Scripted(reply) as home:
        answer = client(home.url).get(f"{home.url}/old")
        assert (answer.status, answer.url, answer.body) == (200, f"{home.url}/new?x=1", b"[]")
        assert answer.headers["x-repo-commit"] == "c0ffee"
        assert answer.headers["etag"] == "second"
        assert authorized(home) == [True, True]


def test_a_redirect_loop_ends() -> None:
    with Scripted(always(302, location="/again")) as home:
        http = client()
        for act in (http.get, http.head):
            with pytest.raises(NetworkError, match="in a loop") as caught:
                act(f"{home.url}/again")
            sentence(caught.value)
        with pytest.raises(NetworkError, match="in a loop"), http.download(f"{home.url}/again"):
            pass
        assert len(home.seen) < 30


@pytest.mark.parametrize(
    "location",
    [
        "http://h:port/",
        "http://[::/",
        "http://h:99999/",
        f"http://{'a' * 70}.example/",
        "http://a b/",
        "http://user:word@127.0.0.1/",
    ],
)
def test_a_redirect_to_an_invalid_url_is_an_error_without_traceback(location: str) -> None:
    with Scripted(always(302, location=location)) as home:
        http = client()
        for act in (http.get, http.head):
            with pytest.raises(NetworkError, match="to an invalid URL") as caught:
                act(f"{home.url}/a")
            sentence(caught.value)
        with pytest.raises(NetworkError, match="to an invalid URL"), http.download(f"{home.url}/a"):
            pass


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://h/d\u00e9p\u00f4t/a b?x=\u00fc&y=%C3%BC", "http://h/d%C3%A9p%C3%B4t/a%20b?x=%C3%BC&y=%C3%BC"),
        ("HTTP://H:80/a", "http://H:80/a"),
        ("https://b\u00fccher.example/x", "https://xn--bcher-kva.example/x"),
        ("//[::1]:81/x?sig=a+b/c==", "http://[::1]:81/x?sig=a+b/c=="),
    ],
)
def test_a_redirect_is_returned_in_a_form_that_aria2_reads(location: str, target: str) -> None:
    assert redirect_target(Response(302, "http://127.0.0.1/a", {"location": location})) == target


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_download_follows_to_no_other_scheme(location: str) -> None:
    with Scripted(always(302, location=location)) as home:
        with pytest.raises(NetworkError, match="redirects to") as caught, client().download(f"{home.url}/a"):
            pass
        sentence(caught.value)


def test_a_redirect_without_a_location_is_an_ordinary_response() -> None:
    with Scripted(always(302)) as home:
        assert client().get(f"{home.url}/a").status == 302


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> Iterator[Callable[[Callable[[Seen], Reply | None]], Scripted]]:
    opened: list[Scripted] = []

    def open_(reply: Callable[[Seen], Reply | None]) -> Scripted:
        server = Scripted(reply)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.start()
        opened.append(server)
        return server

    yield open_
    for server in opened:
        server.close()


def secure(server: Scripted) -> str:
    return server.url.replace("http://", "https://")


def test_an_untrusted_certificate_has_its_own_message(
    tls: Callable[[Callable[[Seen], Reply | None]], Scripted],
) -> None:
    server = tls(always())
    with pytest.raises(NetworkError, match=r"certificate of 127\.0\.0\.1:\d+ cannot be trusted: ") as caught:
        client(secure(server)).get(f"{secure(server)}/a")
    sentence(caught.value)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert server.seen == []


def test_https_with_the_right_bundle_never_downgrades_to_http(
    certificate: tuple[Path, Path], tls: Callable[[Callable[[Seen], Reply | None]], Scripted]
) -> None:
    with Scripted(always(body=b"plain")) as plain:
        server = tls(
            lambda seen: (302, [("Location", f"{plain.url}/x")], b"") if seen.target == "/a" else (200, [], b"yes")
        )
        http = client(secure(server), ca_bundle=str(certificate[0]))
        assert http.get(f"{secure(server)}/b").body == b"yes"
        assert http.get(f"{secure(server)}/a").status == 302
        refused = pytest.raises(NetworkError, match="not encrypted")
        with refused as caught, http.download(f"{secure(server)}/a"):
            pass
        sentence(caught.value)
        assert plain.seen == []
        plain.reply = lambda seen: (302, [("Location", f"{secure(server)}/up")], b"")
        http = client(plain.url, ca_bundle=str(certificate[0]))
        with http.download(f"{plain.url}/a") as (_, chunks):
            assert b"".join(chunks) == b"yes"
        assert (authorized(plain), server.seen[-1].target) == ([True], "/up")
        assert "authorization" not in server.seen[-1].headers, "another scheme is another origin"


@pytest.mark.parametrize(
    ("url", "target", "fine"),
    [
        ("https://a", "https://b", True),
        ("http://a", "http://b", True),
        ("http://a", "https://b", True),
        ("https://a", "http://b", False),
        ("http://a", "ftp://b", False),
        ("http://a", "file:///x", False),
    ],
)
def test_redirects_that_must_not_be_followed(url: str, target: str, fine: bool) -> None:
    if fine:
        check_redirect(url, target)
    else:
        with pytest.raises(NetworkError):
            check_redirect(url, target)


# --- ceilings -----------------------------------------------------------------------------------------------------


def test_a_response_above_its_size_limit_is_rejected_even_if_compressed() -> None:
    packed = gzip.compress(bytes(8 << 20))
    with Scripted(in_turn((200, [], b"x" * 1001), (200, [("Content-Encoding", "gzip")], packed))) as home:
        http = client()
        for ceiling in (1000, 1 << 20):
            with pytest.raises(BadListing, match="larger than") as caught:
                http.get(f"{home.url}/a", ceiling=ceiling)
            sentence(caught.value)
    with Scripted(always(body=b"x" * 1000)) as home:
        assert len(client().get(f"{home.url}/a", ceiling=1000).body) == 1000


def test_a_badly_compressed_response_is_a_network_error() -> None:
    with Scripted(always(body=b"this is no gzip", content_encoding="gzip")) as home:
        with pytest.raises(NetworkError) as caught:
            client().get(f"{home.url}/a")
        sentence(caught.value)


# --- the rate budget ----------------------------------------------------------------------------------------------

API, FILE = "https://hub.example/api/models/x", "https://hub.example/x/resolve/main/a"


def limits(name: str, left: int, seconds: int, quota: int = 0, window: int = 0) -> dict[str, str]:
    policy = {"ratelimit-policy": f'"fixed window";"{name}";q={quota};w={window}'} if quota else {}
    return {"ratelimit": f'"{name}";r={left};t={seconds}'} | policy


def declared(clock: FakeClock) -> RateBudget:
    """Return a limiter that knows the quotas of API's hub."""
    budget = RateBudget(clock)
    budget.declare(API, HuggingFace().about.bucket)
    return budget


def test_a_quota_is_respected_before_the_hub_rejects_requests() -> None:
    clock = FakeClock()
    budget = declared(clock)
    assert budget.reserve(API) == 0
    budget.update(API, limits("api", 2, 10))
    assert [budget.reserve(API) for _ in range(2)] == [0, 0]
    assert budget.reserve(API) == 11
    clock.advance(4)
    assert budget.reserve(API) == 7
    assert budget.reserve(FILE) == 0
    assert budget.reserve(API.replace("hub.", "other.")) == 0
    clock.advance(7)
    assert budget.reserve(API) == 0


def test_delayed_requests_do_not_all_start_in_the_next_window() -> None:
    clock = FakeClock()
    budget = declared(clock)
    budget.update(API, limits("api", 0, 10, quota=3, window=300))
    assert budget.reserve(API) == 11
    clock.advance(11)
    waits = [budget.reserve(API) for _ in range(8)]
    assert waits[:3] == [0, 0, 0]
    assert all(wait > 0 for wait in waits[3:])
    budget.update(API, limits("api", 2, 299, quota=3, window=300))
    assert budget.reserve(API) > 0  # the two others are in flight
    clock.advance(302)
    assert budget.reserve(API) == 0


def test_responses_out_of_order_do_not_raise_the_quota() -> None:
    clock = FakeClock()
    budget = declared(clock)
    budget.update(API, limits("api", 5, 100))
    for _ in range(5):
        assert budget.reserve(API) == 0
    budget.update(API, limits("api", 4, 100))
    assert budget.remaining(API) == {"api": 0}
    clock.advance(200)
    budget.update(API, limits("api", 499, 300))
    assert budget.remaining(API) == {"api": 499}
    assert budget.remaining(API.replace("hub.", "other.")) == {}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (API, "api"),
        (FILE, "resolvers"),
        ("https://hub.example/api/resolve-cache/models/x/c/a", "resolvers"),
        ("https://hub.example/datasets/a/b/resolve/c/d", "resolvers"),
        ("https://hub.example/a/b", "pages"),
    ],
)
def test_the_quota_of_each_url(url: str, name: str) -> None:
    budget = declared(FakeClock())
    for each in ("api", "resolvers", "pages"):
        budget.update(url, limits(each, 0 if each == name else 9, 50))
    assert budget.reserve(url) == 51


@pytest.mark.parametrize("number", ["9" * 10, "9" * 400, "9" * 5000])
@pytest.mark.parametrize("field", ["r", "t", "q", "w"])
def test_implausible_quota_values_are_ignored(field: str, number: str) -> None:
    said = {"r": "5", "t": "55", "q": "500", "w": "300"} | {field: number}
    budget = RateBudget(FakeClock())
    limit, policy = f'"api";r={said["r"]};t={said["t"]}', f'"api";q={said["q"]};w={said["w"]}'
    budget.update("https://hub/api/x", {"ratelimit": limit, "ratelimit-policy": policy})
    assert budget.reserve("https://hub/api/x") == 0
    assert budget.remaining("https://hub/api/x") == ({} if field in "rt" else {"api": 4})


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_rate_header_can_be_parsed(text: str, policy: str) -> None:
    budget = RateBudget(FakeClock())
    budget.update(API, {"ratelimit": text, "ratelimit-policy": policy})
    budget.update(API, {"ratelimit": f'"api";r=1;t=2{text}', "ratelimit-policy": f'"api";q={policy}'})
    assert budget.reserve(API) >= 0
    assert (retry_after({"retry-after": text, "ratelimit": policy}, 0.0) or 0) >= 0


def test_no_request_is_rejected_if_the_hub_announces_its_quota(repo: Repo) -> None:
    waits: list[float] = []
    with Hub([repo], server="embedded", rate=RateLimit(api=3, window=2)) as hub:
        http = client(on_wait=lambda text, seconds: waits.append(seconds))
        url = f"{hub.url}/api/models/org/thing"
        assert http.get(url).status == 200
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: http.get(url), range(6)))
        assert {answer.status for answer in answers} == {200}
        assert [seen.status for seen in hub.requests] == [200] * 7
        assert http.request_count(hub.url) == 7
        assert waits


def test_no_request_is_sent_if_the_quota_wait_exceeds_patience() -> None:
    with Scripted(always(RateLimit='"pages";r=0;t=900')) as home:
        http = client(max_wait=60)
        http.get(f"{home.url}/a")
        with pytest.raises(RateLimited, match=r"quota of 127\.0\.0\.1 is used up for another 90\d s") as caught:
            http.get(f"{home.url}/a")
        sentence(caught.value)
        assert len(home.seen) == 1


# --- answers that ask for patience --------------------------------------------------------------------------------

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 12 "}, 12),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": email.utils.formatdate(NOW + 30, usegmt=True)}, 30),
        ({"retry-after": email.utils.formatdate(NOW - 30, usegmt=True)}, 0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 30}, None),
        ({"retry-after": "Mon, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"ratelimit": '"api";r=0;t=55', "retry-after": "3"}, 56),
        ({"ratelimit": '"api";r=7;t=55', "retry-after": "3"}, 3),
        ({"ratelimit": '"api";r=7;t=55'}, None),
        ({"ratelimit": "nonsense"}, None),
    ],
)
def test_the_wait_requested_by_a_response(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_temporary_failure_is_retried(status: int) -> None:
    with Scripted(in_turn((status, [("Retry-After", "0")], b"no"), (200, [], b"yes"))) as home:
        http = client()
        assert http.get(f"{home.url}/a").body == b"yes"
        assert http.request_count(home.url) == len(home.seen) == 2


@pytest.mark.parametrize("wait", ["garbage", email.utils.formatdate(0, usegmt=True)])
def test_a_503_with_an_implausible_wait_is_retried(wait: str) -> None:
    with Scripted(in_turn((503, [("Retry-After", wait)], b""), (200, [], b"yes"))) as home:
        assert client().get(f"{home.url}/a").body == b"yes"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 501])
def test_a_client_error_is_returned_at_once(status: int) -> None:
    with Scripted(always(status, b"why", X_Error_Code="Thing")) as home:
        answer = client().get(f"{home.url}/a")
        assert (answer.status, answer.body, answer.headers["x-error-code"]) == (status, b"why", "Thing")
        assert len(home.seen) == 1


def test_a_lasting_failure_is_returned_after_a_few_tries() -> None:
    with Scripted(always(503, Retry_After="0")) as home:
        assert client().get(f"{home.url}/a").status == 503
        assert len(home.seen) == 5


@pytest.mark.parametrize(
    "wait", ["3600", email.utils.formatdate(time.time() + 7200, usegmt=True)], ids=["seconds", "date"]
)
def test_a_429_beyond_patience_is_an_error_at_once(wait: str) -> None:
    with Scripted(always(429, Retry_After=wait)) as home:
        with pytest.raises(RateLimited, match="longer than the waiting limit of 5 s") as caught:
            client(home.url, max_wait=5).get(f"{home.url}/a")
        sentence(caught.value)
        assert caught.value.exit_code == 7
        assert len(home.seen) == 1


def test_a_wait_is_reported_and_can_be_interrupted() -> None:
    stop, told = threading.Event(), list[tuple[str, float]]()

    def on_wait(text: str, seconds: float) -> None:
        told.append((text, seconds))
        stop.set()

    with Scripted(always(429, Retry_After="500")) as home:
        http = client(on_wait=on_wait, stop=stop)
        with pytest.raises(Interrupted):
            http.get(f"{home.url}/a")
        assert told == [("127.0.0.1 returned HTTP 429", 500.0)]
        with pytest.raises(Interrupted):
            http.get(f"{home.url}/a")
        assert len(home.seen) == 1


def test_a_shared_wait_is_reported_once() -> None:
    told: list[str] = []
    http = client(on_wait=lambda text, seconds: told.append(text))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: http.pause(1.5, "the quota is used up"), range(16)))
    http.pause(1.0, "the quota is used up")
    http.pause(0.1, "too short to notice")
    assert told == ["the quota is used up"] * 2


def test_an_interrupt_ends_a_quota_wait() -> None:
    stop = threading.Event()
    with Scripted(always(RateLimit='"pages";r=0;t=500')) as home:
        http = client(on_wait=lambda text, seconds: stop.set(), stop=stop)
        http.get(f"{home.url}/a")
        with pytest.raises(Interrupted):
            http.get(f"{home.url}/a")
        assert len(home.seen) == 1


# --- hosts that do not answer -------------------------------------------------------------------------------------


def test_a_refused_connection_is_one_error_after_a_few_tries() -> None:
    base = closed_url()
    http = client(base)
    with pytest.raises(NetworkError, match=r"cannot connect to 127\.0\.0\.1:") as caught:
        http.get(f"{base}/a?Signature=1")
    sentence(caught.value)
    assert http.request_count(base) == 3


def test_a_host_without_an_address_is_not_retried() -> None:
    http = client()
    with pytest.raises(NetworkError, match=r"no IP address found for no-such-host\.invalid") as caught:
        http.get("http://no-such-host.invalid/a")
    sentence(caught.value)
    assert http.request_count("http://no-such-host.invalid") == 1


@pytest.mark.parametrize(
    "host",
    ["a" * 70, "a" * 64 + ".example", "a..b", ".example", "ü" * 64, "a\udcffb.example", "a😀b.example", "☃.example"],
)
def test_an_invalid_host_name_is_an_error_without_traceback(host: str) -> None:
    http = client()
    with pytest.raises(NetworkError, match="is not a valid host name") as caught:
        http.get(f"http://{host}/a?Signature=1")
    sentence(caught.value)
    assert http.request_count(f"http://{host}") == 1


@pytest.mark.parametrize("path", ["/a\udcff", "/a\x01b", "/a?\udcff"])
def test_an_invalid_url_does_not_count_against_its_host(path: str) -> None:
    http = client()
    with pytest.raises(NetworkError, match=r"'http://h\.example/a.*' is not a usable URL") as caught:
        http.get(f"http://h.example{path}")
    sentence(caught.value)
    assert http.request_count("http://h.example") == 1


def test_non_ascii_letters_in_a_path_are_accepted() -> None:
    with Scripted(always()) as home:
        assert client().get(f"{home.url}/ä b").status == 200
        assert home.seen[0].target == "/%C3%A4%20b"


@pytest.mark.parametrize("word", ["hf_töken", "hf_\udcff", "hf_a\nx: y", "hf_日本"])
def test_an_invalid_token_or_header_is_reported_and_not_shown(word: str) -> None:
    with Scripted(always()) as home:
        with pytest.raises(NetworkError, match=r"the token for 127\.0\.0\.1:\d+ cannot be sent") as caught:
            Http(credentials={url_origin(home.url): Token(word)}).get(f"{home.url}/a")
        sentence(caught.value)
        assert "hf_" not in caught.value.message
        with pytest.raises(NetworkError, match=r"the header x-y for 127\.0\.0\.1:\d+ cannot be sent"):
            client().get(f"{home.url}/a", headers={"x-y": word})
        assert home.seen == []


def test_a_reset_is_retried() -> None:
    with Scripted(in_turn(None, None, (200, [], b"yes"))) as home:
        assert client().get(f"{home.url}/a").body == b"yes"
    with Scripted(in_turn(None)) as home:
        with pytest.raises(NetworkError, match="closed the connection") as caught:
            client().get(f"{home.url}/a")
        sentence(caught.value)
        assert len(home.seen) == 3


def test_a_server_that_does_not_respond_is_one_error_after_a_few_tries() -> None:
    quiet = threading.Event()

    def reply(seen: Seen) -> Reply:
        quiet.wait(30)
        return 200, [], b""

    with Scripted(reply) as home:
        http = client(timeout=0.1)
        with pytest.raises(NetworkError, match="stopped responding") as caught:
            http.get(f"{home.url}/a")
        quiet.set()
        sentence(caught.value)
        assert http.request_count(home.url) == 3


@pytest.mark.parametrize("speech", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/9 what\r\n\r\n", b"\0" * 100, b""])
def test_a_server_that_does_not_speak_http_is_one_error(speech: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(3):
                connection, _address = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(speech)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(NetworkError) as caught:
            client().get(f"http://127.0.0.1:{listener.getsockname()[1]}/a")
        sentence(caught.value)
        thread.join(10)


# --- downloads ----------------------------------------------------------------------------------------------------


def test_a_download_resumes_where_it_stopped(repo: Repo) -> None:
    data = b"weights!" * 250_000
    repo.update({"w.bin": data})
    got = bytearray()

    def fetch(start: int) -> int:
        with http.download(url, start) as (answer, chunks):
            for chunk in chunks:
                got.extend(chunk)
            return answer.status

    with Hub([repo], server="embedded", tokens={TOKEN}) as hub:
        http, url = client(hub.url), f"{hub.url}/org/thing/resolve/main/w.bin"
        hub.cdn.fault("w.bin", "short", after=1_500_000, times=1)
        with pytest.raises(NetworkError, match="closed the connection") as caught:
            fetch(0)
        assert caught.value.retry == "later"
        sentence(caught.value)
        begun = len(got)
        assert 0 < begun <= 1_500_000
        assert fetch(begun) == 206
        assert got == data
        assert [seen.headers.get("range") for seen in hub.cdn.requests] == [None, f"bytes={begun}-"]
        assert {seen.headers["accept-encoding"] for seen in hub.cdn.requests} == {"identity"}


def test_a_rejected_download_returns_the_response_with_its_body_unread() -> None:
    with (
        Scripted(always(403, b"no", X_Error_Code="GatedRepo")) as home,
        client().download(f"{home.url}/a") as (
            answer,
            _chunks,
        ),
    ):
        assert (answer.status, answer.headers["x-error-code"], answer.body) == (403, "GatedRepo", b"")


def test_an_error_of_the_reader_propagates_through_a_download() -> None:
    with Scripted(always(body=b"x" * 100)) as home:
        http = client()
        for error in (ValueError("mine"), UnicodeError("mine"), OSError("mine")):
            with pytest.raises(type(error), match="mine"), http.download(f"{home.url}/a"):
                raise error
        assert http.get(f"{home.url}/a").status == 200


def test_head_requests_no_compression() -> None:
    with Scripted(always()) as home:
        client().head(f"{home.url}/a")
        assert (home.seen[0].method, home.seen[0].headers["accept-encoding"]) == ("HEAD", "identity")


def test_requests_are_counted_by_url_origin_and_name_the_client() -> None:
    with Scripted(always()) as home, Scripted(always(302, location="/x", times="1")) as other:
        http = client(user_agent="gpuaria/test")
        for _ in range(3):
            http.get(f"{home.url}/a")
        with pytest.raises(NetworkError):
            http.get(f"{other.url}/a")
        assert {seen.headers["user-agent"] for seen in home.seen} == {"gpuaria/test"}
        assert http.request_count(home.url) == 3
        assert http.request_count(other.url) == len(other.seen)
        http.close()


# --- proxies ------------------------------------------------------------------------------------------------------


def test_the_environment_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scripted(always(body=b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert client().get("http://hub.example.invalid/api/x").body == b"by proxy"
        assert [seen.target for seen in proxy.seen] == ["http://hub.example.invalid/api/x"]
        with Scripted(always(body=b"directly")) as home:
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert client().get(f"{home.url}/a").body == b"directly"


@pytest.mark.parametrize("proxy", ["socks5://me:word@127.0.0.1:1", "foo://me:word@x:1", "http://[me:word"])
def test_an_unusable_proxy_is_one_error_without_its_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises((ConfigError, NetworkError)) as caught:
        client().get("http://127.0.0.1:1/")
    sentence(caught.value)
    assert "word" not in f"{caught.value.message} {caught.value.hint}"


def test_a_credential_never_leaves_this_machine_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scripted(always()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        here = client("http://127.0.0.1:9")
        here.get("http://127.0.0.1:9/a")
        assert authorized(proxy) == [False]
        assert here.withheld("http://127.0.0.1:9") == "a proxy could read it"
        named = client("http://hub.example.invalid", plaintext_hosts=("hub.example.invalid",))
        named.get("http://hub.example.invalid/a")
        assert authorized(proxy) == [False, True]
        proxy.journal.reset()
        http = client("http://hub.example.invalid")
        assert http.withheld("http://hub.example.invalid/x") == "the connection is not encrypted"
        assert http.withheld("http://other.example.invalid") == ""
        http.get("http://hub.example.invalid/api/x")
        http.head("http://hub.example.invalid/api/x")
        with http.download("http://hub.example.invalid/api/x"):
            pass
        assert authorized(proxy) == [False, False, False]
