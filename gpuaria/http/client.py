"""The HTTP client: one request with credentials and quotas; redirects, retries and size limits around it."""

import contextlib
import copy
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from urllib.parse import urlsplit

from gpuaria.errors import BadListing, Interrupted, NetworkError, RateLimited
from gpuaria.http import redirects
from gpuaria.http.bearer import BearerTokens, Credential
from gpuaria.http.content_range import bytes_header
from gpuaria.http.messages import Exchange, Request, Response, Transport
from gpuaria.http.ratelimit import RateBudget
from gpuaria.http.retry import DEFAULT_RETRY, RetryPolicy, Waits
from gpuaria.http.route import SYSTEM_RESOLVER, AddressSource, Routes, Timeouts
from gpuaria.urls import authority, redacted, url_origin

LOG = logging.getLogger("gpuaria.http.client")
METADATA_CEILING = 64 << 20  # bytes of one decoded metadata response; a page of 1,000 entries has 0.4 MB
METADATA_SECONDS = 900.0  # total time limit of one metadata response
_NO_BODY: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Options of a client; times in seconds.

    `max_wait`: the longest pause that a server may ask for. `plaintext_hosts`: hosts that get their token over plain
    http.
    """

    user_agent: str = "gpuaria"
    connect_timeout: float = 10.0
    timeout: float = 30.0
    max_wait: float = 600.0
    ca_bundle: str = ""
    plaintext_hosts: tuple[str, ...] = ()


class Http:
    """HTTP client. Thread-safe.

    `credentials`: tokens by URL origin; each is sent to its origin only. `on_wait(reason, seconds)` is called before a
    noticeable pause. Methods raise NetworkError if a server is still unreachable after several tries, RateLimited if it
    requires a longer pause than `max_wait`, Interrupted once `stop` is set. An error status is returned, not raised.
    """

    def __init__(
        self,
        options: HttpOptions | None = None,
        *,
        credentials: Mapping[str, Credential] | None = None,
        on_wait: Callable[[str, float], None] = lambda text, seconds: None,
        names: AddressSource = SYSTEM_RESOLVER,
        stop: threading.Event | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.options = options or HttpOptions()
        timeouts = Timeouts(self.options.connect_timeout, self.options.timeout)
        self.routes = Routes(names, timeouts=timeouts, ca_bundle=self.options.ca_bundle)
        self.bearers = BearerTokens(credentials or {}, self.options.plaintext_hosts, self.routes)
        self.waits = Waits(stop or threading.Event(), self.options.max_wait, on_wait)
        self._transport = transport or _LazyCurl(self.routes)
        self._counting = threading.Lock()
        self.budget = RateBudget()
        self.requests: Counter[str] = Counter()
        self._responses: Counter[str] = Counter()

    def for_fetch(self, stop: threading.Event, on_wait: Callable[[str, float], None]) -> "Http":
        """Return a client with a separate stop event, wait listener and request counters.

        It shares connections, credentials and quotas with this client; close only this one.
        """
        client = copy.copy(self)
        client.waits = Waits(stop, self.options.max_wait, on_wait)
        client.requests, client._responses = Counter(), Counter()
        return client

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def has_credential(self, url: str) -> bool:
        """True if a token would be sent to `url`."""
        return self.bearers.sent_to(url)

    def withheld(self, url: str) -> str:
        """Return why the token for `url` is withheld; empty if it is sent, or if there is none."""
        return self.bearers.withheld(url)

    def request_count(self, url: str) -> int:
        """Return the number of requests sent to the URL origin of `url`."""
        return self.requests[url_origin(url)]

    def response_count(self, url: str) -> int:
        """Return the number of responses from the URL origin of `url`, of any status."""
        return self._responses[url_origin(url)]

    def get(
        self,
        url: str,
        *,
        ceiling: int = METADATA_CEILING,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        redirect_query: str = "",
    ) -> Response:
        """GET a metadata document of at most `ceiling` bytes; follow redirects within its URL origin only.

        `redirect_query`: query string appended to a redirect target without one.
        """
        request = Request("GET", url, headers or {})
        return self._follow(request, anonymous, ceiling, redirects.RedirectRules(True, redirect_query))

    def head(
        self, url: str, *, anonymous: bool = False, retry: RetryPolicy = DEFAULT_RETRY, cross_origin: bool = False
    ) -> Response:
        """Send HEAD, uncompressed, and follow redirects within its URL origin; return any other redirect.

        `cross_origin`: follow redirects to other servers too.
        """
        request = Request("HEAD", url, {"accept-encoding": "identity"})
        return self._follow(request, anonymous, 0, redirects.RedirectRules(not cross_origin), retry)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        ceiling: int = METADATA_CEILING,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """POST an idempotent request; the response may have `ceiling` bytes. A redirect is returned, not followed."""
        return self._request(Request("POST", url, headers or {}, body), anonymous, ceiling, DEFAULT_RETRY)

    @contextlib.contextmanager
    def download(
        self, url: str, start: int = 0, end: int | None = None, *, anonymous: bool = False
    ) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """GET the bytes of a file from `start` to before `end`; yield the response and its body in chunks.

        Follows redirects to any host, without the credential once the URL origin changes. A response with an error
        status is yielded too.
        """
        headers = bytes_header(start, end) if start or end else {"accept-encoding": "identity"}

        def send(url: str, anonymous: bool) -> contextlib.AbstractContextManager[redirects.Opened]:
            return self.open("GET", url, anonymous=anonymous, headers=headers)

        with redirects.follow(url, redirects.RedirectRules(False), send, anonymous=anonymous) as opened:
            yield opened

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        deadline: float = 0.0,
    ) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Send one request without following redirects; yield the response head and its decoded body in chunks.

        `deadline`: time limit of the whole exchange in seconds, 0 for none.
        """
        self.wait_for_quota(url)
        sent = {"user-agent": self.options.user_agent, **(headers or {})}
        token = "" if anonymous else self.bearers.reveal(url)
        if token:
            sent["authorization"] = f"Bearer {token}"
        _check_headers(sent, url)
        started = time.monotonic()
        try:
            exchange = self._transport.open(Request(method, url, sent, body, deadline))
        except NetworkError as error:
            raise self._mask_error(error, method, url) from None
        with contextlib.closing(exchange):
            LOG.debug("%s %s -> %d in %.3f s", method, redacted(url), exchange.status, time.monotonic() - started)
            received = {name: self.bearers.mask(value) for name, value in exchange.headers.items()}
            self.budget.update(url, received)
            self._responses[url_origin(url)] += 1
            yield Response(exchange.status, url, received), self._chunks(exchange, method, url)

    def pause(self, seconds: float, why: str = "") -> None:
        """Sleep; report `why` if the pause is long enough to notice. Raises Interrupted once `stop` is set."""
        self.waits.pause(seconds, why)

    def back_off(self, response: Response, attempt: int) -> None:
        """Sleep as long as a response asks, else 1, 2, 4, 8 s. Raises RateLimited for more than `max_wait`."""
        self.waits.back_off(response, attempt)

    def wait_for_quota(self, url: str) -> None:
        """Wait until the server's quota allows a request, and count the request. Raises RateLimited, Interrupted."""
        while (wait := self.budget.reserve(url)) > 0:
            if wait > self.options.max_wait:
                raise RateLimited(
                    f"the request quota of {urlsplit(url).hostname} is used up for another {wait:.0f} s",
                    "Try again later, raise --patience, or log in: a token raises the hub's quota.",
                )
            self.waits.pause(wait, f"the request quota of {urlsplit(url).hostname} is used up")
        if self.waits.stop.is_set():
            raise Interrupted("interrupted")
        with self._counting:
            self.requests[url_origin(url)] += 1

    def _follow(
        self,
        request: Request,
        anonymous: bool,
        ceiling: int,
        rules: redirects.RedirectRules,
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> Response:
        """Send a request, following redirects by `rules` and retrying by `retry`; return the last response."""

        def send(url: str, anonymous: bool) -> contextlib.AbstractContextManager[redirects.Opened]:
            hop = Request(request.method, url, request.headers, request.body)
            return nullcontext((self._request(hop, anonymous, ceiling, retry), iter(_NO_BODY)))

        with redirects.follow(request.url, rules, send, anonymous=anonymous) as (response, _):
            return response

    def _request(self, request: Request, anonymous: bool, ceiling: int, retry: RetryPolicy) -> Response:
        """Send one request without following redirects; return the response with its body."""

        def send() -> Response:
            opened = self.open(
                request.method,
                request.url,
                anonymous=anonymous,
                headers=request.headers,
                body=request.body,
                deadline=METADATA_SECONDS,
            )
            with opened as (response, chunks):
                body = (
                    _read_body(chunks, ceiling, request.url)
                    if response.status not in redirects.REDIRECT_STATUS
                    else b""
                )
                return Response(response.status, response.url, response.headers, self.bearers.mask_bytes(body))

        return retry.run(send, self.waits)

    def _chunks(self, exchange: Exchange, method: str, url: str) -> Iterator[bytes]:
        try:
            yield from exchange.chunks()
        except NetworkError as error:
            raise self._mask_error(error, method, url) from None

    def _mask_error(self, error: NetworkError, method: str, url: str) -> NetworkError:
        LOG.debug("%s %s failed: %s", method, redacted(url), error.message)
        return type(error)(self.bearers.mask(error.message), error.hint, retry=error.retry)


class _LazyCurl:
    """The libcurl transport, imported on the first request: many commands send none."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._closed = False

    def open(self, request: Request) -> Exchange:
        """See Transport."""
        with self._lock:
            if self._closed:
                raise Interrupted("interrupted")
            if self._transport is None:
                from gpuaria.http.curl import CurlTransport

                self._transport = CurlTransport(self._routes)
            transport = self._transport
        return transport.open(request)

    def close(self) -> None:
        """See Transport."""
        with self._lock:
            self._closed = True
        if self._transport is not None:
            self._transport.close()


def _read_body(chunks: Iterator[bytes], ceiling: int, url: str) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > ceiling > 0:
            raise BadListing(
                f"the response of {redacted(url)} is larger than {ceiling:,} bytes",
                "The server is broken; try another one.",
            )
    return bytes(body)


def _check_headers(headers: Mapping[str, str], url: str) -> None:
    """Raise NetworkError for an unsendable header value. The message omits the value, which may be a token."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            what = "token" if name == "authorization" else f"header {name}"
            raise NetworkError(
                f"the {what} for {authority(url)} cannot be sent: it contains characters other than printable ASCII",
                "Set it again without spaces, line ends and special characters.",
            )
