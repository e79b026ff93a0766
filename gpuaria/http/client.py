"""The HTTP client for metadata and small files: ceilings, credentials that stay at home, retries, the rate budget."""

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from gpuaria.errors import BadListing, Interrupted, NetworkError, RateLimited, Unreachable
from gpuaria.http.pool import SYSTEM, Clients, Names
from gpuaria.http.ratelimit import RateBudget, retry_after
from gpuaria.text import printable
from gpuaria.urls import authority, bare, check_redirect, encrypted_or_local, origin, plain

LOG = logging.getLogger("gpuaria.http.client")
RETRY_STATUS = frozenset([408, 425, 429, 500, 502, 503, 504])
ATTEMPTS = 5
MAX_REDIRECTS = 8
REDIRECTS = frozenset([301, 302, 303, 307, 308])
SHORTEST = 6  # characters of a token that is struck out where it turns up; a shorter one would blot out words
METADATA_CEILING = 64 << 20  # bytes of one decoded metadata answer; a page of 1,000 entries has 0.4 MB


class Hidden(Protocol):
    """A credential whose text comes out on demand only."""

    def reveal(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished response; header names in lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


class Http:
    """A thread-safe client. `credentials` maps an origin to the token that belongs to it and to no other origin.

    A token travels over TLS and within this machine, over plain http to the hosts of `in_clear` alone. Where a server
    repeats it in a header or a metadata document it is struck out.

    Raises NetworkError when a host cannot be reached after a few tries, RateLimited when it asks for more patience
    than `patience` seconds, Interrupted once `stop` is set. Answers with an error status are returned, not raised.
    """

    def __init__(
        self,
        *,
        credentials: Mapping[str, Hidden] | None = None,
        in_clear: Collection[str] = (),
        user_agent: str = "gpuaria",
        connect_timeout: float = 10.0,
        timeout: float = 30.0,
        patience: float = 600.0,
        ca_bundle: str = "",
        on_wait: Callable[[str, float], None] = lambda text, seconds: None,
        names: Names = SYSTEM,
        stop: threading.Event | None = None,
    ) -> None:
        self._credentials = dict(credentials or {})
        self._in_clear = frozenset(in_clear)
        self._sent: frozenset[str] = frozenset()  # tokens that some server knows from us
        self._patience = patience
        self._on_wait = on_wait
        self._stop = stop or threading.Event()
        self.clients = Clients(
            user_agent=user_agent, connect_timeout=connect_timeout, timeout=timeout, ca_bundle=ca_bundle, names=names
        )
        self._counting = threading.Lock()
        self._waits: dict[str, float] = {}  # reason -> monotonic seconds until which somebody waits for it
        self.budget = RateBudget()
        self.requests: Counter[str] = Counter()
        self._heard: set[str] = set()  # origins that have sent a response

    def close(self) -> None:
        """Close every connection."""
        self.clients.close()

    def has_credential(self, url: str) -> bool:
        """Whether a token would be sent to `url`."""
        return origin(url) in self._credentials and not self._exposed(url)

    def withheld(self, url: str) -> str:
        """Why the token that belongs to `url` is not sent there; empty if it is, or if there is none."""
        return self._exposed(url) if origin(url) in self._credentials else ""

    def _exposed(self, url: str) -> str:
        """Who could read a token on its way to `url`, empty if nobody, or if the user wants it sent nevertheless."""
        if url.startswith("https://") or urlsplit(url).hostname in self._in_clear:
            return ""
        if not encrypted_or_local(url):
            return "it is not encrypted"
        return "a proxy would read it" if self.clients.proxied(url) else ""

    def _struck(self, text: str) -> str:
        """`text` without the tokens that were sent, which a server may repeat."""
        for token in self._sent:
            text = text.replace(token, "***")
        return text

    def count(self, url: str) -> int:
        """Requests sent so far to the host of `url`."""
        return self.requests[origin(url)]

    def heard(self, url: str) -> bool:
        """Whether any response, whatever its status, has come from the host of `url`."""
        return origin(url) in self._heard

    def get(
        self,
        url: str,
        *,
        ceiling: int = METADATA_CEILING,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        moved: str = "",
    ) -> Answer:
        """GET a metadata document of at most `ceiling` bytes, following redirects within its origin only.

        `moved`: a query for an address that `url` leads to, if that comes without one.
        """
        return self._walk("GET", url, anonymous=anonymous, ceiling=ceiling, headers=headers, moved=moved)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        ceiling: int = METADATA_CEILING,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST a question that may be asked twice, for at most `ceiling` bytes; a redirect is returned as it is."""
        return self._tried("POST", url, anonymous, ceiling, headers or {}, body)

    def head(self, url: str, *, anonymous: bool = False) -> Answer:
        """HEAD with identity coding; redirects are followed within the origin, a foreign one is returned as it is."""
        return self._walk("HEAD", url, anonymous=anonymous, ceiling=0, headers={"accept-encoding": "identity"})

    def _walk(
        self,
        method: str,
        url: str,
        *,
        anonymous: bool,
        ceiling: int,
        headers: Mapping[str, str] | None = None,
        moved: str = "",
    ) -> Answer:
        hops: dict[str, str] = {}
        for _ in range(MAX_REDIRECTS):
            answer = self._tried(method, url, anonymous, ceiling, headers or {})
            hops |= _told(answer)
            target = redirected(answer)
            if not target or origin(target) != origin(url):
                return Answer(answer.status, url, {**hops, **answer.headers}, answer.body)
            url = f"{target}?{moved}" if moved and "?" not in target else target
        raise _circle(url)

    def _tried(
        self, method: str, url: str, anonymous: bool, ceiling: int, headers: Mapping[str, str], sent: bytes = b""
    ) -> Answer:
        """One request, repeated while its failure is of a kind that passes."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.open(method, url, anonymous=anonymous, headers=headers, body=sent) as (answer, chunks):
                    body = _read(chunks, ceiling, url) if answer.status not in REDIRECTS else b""
                    for token in self._sent:
                        body = body.replace(token.encode(), b"***")
                    answer = Answer(answer.status, answer.url, answer.headers, body)
            except NetworkError as error:
                if attempt == 3 or error.retry != "later":
                    raise
                self.pause(0.3 * attempt)
                continue
            if answer.status not in RETRY_STATUS or attempt == ATTEMPTS:
                return answer
            self.back_off(answer, attempt)
        raise AssertionError("unreachable")

    def back_off(self, answer: Answer, attempt: int) -> None:
        """Wait as long as an answer asks for, or 1, 2, 4, 8 s. Raises RateLimited beyond the patience."""
        asked = retry_after(answer.headers, time.time())
        seconds = asked if asked is not None else min(8.0, 2.0 ** (attempt - 1)) * random.uniform(0.7, 1.0)
        host = urlsplit(answer.url).hostname
        if seconds > self._patience:
            raise RateLimited(
                f"{host} answers {answer.status} and asks to wait {seconds:.0f} s, longer than the patience of "
                f"{self._patience:.0f} s",
                "Try again later, raise --patience, or log in: a token raises the hub's quota.",
            )
        self.pause(seconds, f"{host} answers {answer.status}")

    def pause(self, seconds: float, why: str = "") -> None:
        """Sleep, told to the listener when it is long enough to notice. Raises Interrupted when asked to stop.

        Told once, however many threads wait for the same reason at the same time.
        """
        now, news = time.monotonic(), False
        if why and seconds >= 1:
            with self._counting:
                news = self._waits.get(why, 0.0) <= now
                self._waits[why] = max(self._waits.get(why, 0.0), now + seconds)
        if news:
            self._on_wait(why, seconds)
        if self._stop.wait(seconds):
            raise Interrupted("interrupted")

    @contextlib.contextmanager
    def download(
        self, url: str, start: int = 0, *, anonymous: bool = False
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """GET a file's bytes from offset `start`, following redirects to any host; the credential stays at its own.

        Once they led to another origin none is sent any more, not even that one's own: no server decides what is asked
        elsewhere in the user's name. Never from https down to http. An answer with an error status is given as it is,
        with its body unread.
        """
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={start}-"} if start else {})
        hops: dict[str, str] = {}
        for _ in range(MAX_REDIRECTS):
            with self.open("GET", url, anonymous=anonymous, headers=headers) as (answer, chunks):
                target = redirected(answer)
                if not target:
                    yield replace(answer, headers={**hops, **answer.headers}), chunks
                    return
                hops |= _told(answer)
            check_redirect(url, target)
            anonymous = anonymous or origin(target) != origin(url)
            url = target
        raise _circle(url)

    def admit(self, url: str) -> None:
        """Wait until the quota of its host allows one more request, and count that. Raises RateLimited, Interrupted."""
        while (held := self.budget.wait(url)) > 0:
            if held > self._patience:
                raise RateLimited(
                    f"the quota of {urlsplit(url).hostname} is used up for {held:.0f} s more",
                    "Try again later, raise --patience, or log in: a token raises the hub's quota.",
                )
            self.pause(held, f"the quota of {urlsplit(url).hostname} is used up")
        if self._stop.is_set():
            raise Interrupted("interrupted")
        with self._counting:
            self.requests[origin(url)] += 1

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Send one request, no redirect followed, and give its head and its decoded body in chunks."""
        import httpx2

        self.admit(url)
        sent = dict(headers or {})
        if not anonymous and self.has_credential(url):
            token = self._credentials[origin(url)].reveal()
            with self._counting:
                self._sent |= {token} if len(token) >= SHORTEST else set()
            sent["authorization"] = f"Bearer {token}"
        _check_headers(sent, url)
        started, answered = time.monotonic(), False
        try:
            with contextlib.closing(self.clients.send(method, url, sent, body)) as response:
                LOG.debug("%s %s -> %d in %.3f s", method, bare(url), response.status_code, time.monotonic() - started)
                got = {name.lower(): self._struck(value) for name, value in response.headers.items()}
                self.budget.learn(url, got)
                self._heard.add(origin(url))
                answer, answered = Answer(response.status_code, url, got), True
                # As they come: a larger chunk would be lost when the connection breaks.
                yield answer, response.iter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            LOG.debug("%s %s failed: %s", method, bare(url), type(error).__name__)
            raise _as_ours(error, url, self._struck(str(error).strip())) from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            if answered:
                raise
            raise _impossible(url, str(error)) from None


def _told(answer: Answer) -> dict[str, str]:
    """What a hub says in passing, while it sends its client on: commit, size, digest of the file."""
    return {name: value for name, value in answer.headers.items() if name.startswith("x-")}


def redirected(answer: Answer) -> str:
    """Where an answer sends its client, as an absolute address in plain ASCII; empty if it does not.

    Raises NetworkError for a Location that no client can follow, or should: one with a user or a password.
    """
    if answer.status not in REDIRECTS or "location" not in answer.headers:
        return ""
    try:
        target = urljoin(answer.url, answer.headers["location"])
        origin(target)
        (urlsplit(target).hostname or "").encode("idna")
        return plain(target) if urlsplit(target).scheme in ("http", "https") else target
    except ValueError:
        raise NetworkError(
            f"{bare(answer.url)} redirects to an address that makes no sense",
            "The endpoint or mirror is broken; try another.",
        ) from None


def _circle(url: str) -> NetworkError:
    return NetworkError(f"{bare(url)} redirects in a circle", "The endpoint or mirror is broken; try another.")


def _read(chunks: Iterator[bytes], ceiling: int, url: str) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > ceiling > 0:
            raise BadListing(f"{bare(url)} answers with more than {ceiling:,} bytes", "The endpoint is broken.")
    return bytes(body)


def _check_headers(headers: Mapping[str, str], url: str) -> None:
    """Raise NetworkError for a value that no client can send. It is not shown: it may be a token."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            what = "token" if name == "authorization" else f"header {name}"
            raise NetworkError(f"the {what} for {authority(url)} cannot be sent: it is not printable ASCII")


def _impossible(url: str, said: str) -> NetworkError:
    """An address that httpx2 refuses, or that cannot be put into bytes, as the resolver has a name of a host."""
    host = urlsplit(url).hostname or ""
    try:
        host.encode("idna")  # as the resolver does: not with an empty part, or one of more than 63 letters
        possible = "IDNA hostname" not in said  # as httpx2 does: IDNA 2008 knows fewer letters
    except UnicodeError:
        possible = False
    if not possible:
        return NetworkError(f"{printable(host)} cannot be the name of a host")
    return NetworkError(f"{printable(bare(url))} is no address that can be asked for")


def _as_ours(error: Exception, url: str, said: str) -> NetworkError:
    """A transport error as one sentence; `retry` says "later" where the same request may pass a second time."""
    import httpx2

    host = authority(url) or bare(url)
    text = said or type(error).__name__
    hint = "Check the network, or name a mirror with --mirror."
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0] or text
        hint = "Behind an inspecting proxy, set SSL_CERT_FILE to its certificate bundle."
        return Unreachable(f"the certificate of {host} cannot be trusted: {reason}", hint)
    if isinstance(error, httpx2.ConnectError) and ("Name or service" in text or "name resolution" in text):
        return Unreachable(f"no address is known for {host}", hint)
    if isinstance(error, httpx2.ConnectTimeout):
        ours = Unreachable(f"{host} does not answer", hint)
    elif isinstance(error, httpx2.TimeoutException):
        ours = Unreachable(f"{host} stopped answering", hint)
    elif isinstance(error, httpx2.ConnectError):
        ours = Unreachable(f"cannot connect to {host}: {text}", hint)
    else:
        ours = Unreachable(f"{host} broke the connection off: {text}", hint)
    ours.retry = "later"
    return ours
