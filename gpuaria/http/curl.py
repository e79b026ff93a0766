"""The libcurl transport: requests of many threads over as few connections as the servers allow."""

import re
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import pycurl

from gpuaria.errors import Interrupted, NetworkError
from gpuaria.http.certificates import bundle_error, ca_file
from gpuaria.http.curl_errors import TransferFailed, connection_failed, to_error
from gpuaria.http.curl_loop import CurlLoop
from gpuaria.http.curl_transfer import CurlTransfer, Failure, ResponseHead
from gpuaria.http.messages import Request
from gpuaria.http.route import PROXY_SCHEMES, Route, Routes, proxy_error
from gpuaria.text import printable
from gpuaria.urls import redacted

_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, which pycurl 7.49 does not name
_PIECE = 1 << 20  # maximum bytes per chunk of a decompressed body
_RECEIVE = 256 * 1024  # bytes per read by libcurl
_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED )?CERTIFICATE-----")


class CurlTransport:
    """Transport on one CurlLoop, whose thread starts on the first request. Thread-safe."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._lock = threading.Lock()
        self._loop: CurlLoop | None = None
        self._closed = False
        self._bundle = ""

    def close(self) -> None:
        """Abort all requests, close all connections and join the thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def open(self, request: Request) -> "CurlExchange":
        """Send one request; if its host is unreachable or its certificate is wrong, also try alternative addresses."""
        url = _sendable(request.url)
        route = self._routes.route(url)
        try:
            return self._open_at(request, url, route, route.addresses)
        except TransferFailed as failed:
            others = self._routes.alternatives(url, route.addresses) if connection_failed(failed.failure) else ()
            if others:
                try:
                    return self._open_at(request, url, route, others)
                except TransferFailed:
                    pass  # the first failure (such as an untrusted certificate) tells more
            raise to_error(failed.failure, url, route) from None

    def _open_at(self, request: Request, url: str, route: Route, addresses: Sequence[str]) -> "CurlExchange":
        """Return the response from the first address that accepts a connection; empty: the system's addresses."""
        if not addresses:
            return self._send(request, url, route, "")
        for number, address in enumerate(addresses, 1):
            try:
                exchange = self._send(request, url, route, address)
            except TransferFailed as failed:
                if number < len(addresses) and connection_failed(failed.failure):
                    continue
                raise
            self._routes.address_source.confirm(route.host, address)
            return exchange
        raise AssertionError("unreachable")

    def _send(self, request: Request, url: str, route: Route, address: str) -> "CurlExchange":
        seconds = self._routes.timeouts
        transfer = CurlTransfer(self._handle(request, url, route, address), seconds.read, request.deadline)
        loop = self._running_loop()
        loop.submit(transfer)
        head = transfer.next_item()
        if isinstance(head, ResponseHead):
            return CurlExchange(transfer, loop, head, url, route)
        raise TransferFailed(
            head if isinstance(head, Failure) else Failure(pycurl.E_GOT_NOTHING, "it sent no response")
        )

    def _running_loop(self) -> CurlLoop:
        with self._lock:
            if self._closed:
                raise Interrupted("interrupted")
            self._loop = self._loop or CurlLoop()
            return self._loop

    def _handle(self, request: Request, url: str, route: Route, address: str) -> Any:
        """Return a libcurl handle configured by gpuaria alone, not by the environment."""
        easy = pycurl.Curl()
        headers = {"accept-encoding": "gzip, deflate", **request.headers}
        options: dict[int, Any] = {
            pycurl.URL: url,
            pycurl.NOSIGNAL: 1,
            pycurl.PATH_AS_IS: 1,
            pycurl.CONNECTTIMEOUT_MS: max(1, round(self._routes.timeouts.connect * 1000)),
            pycurl.BUFFERSIZE: _RECEIVE,
            pycurl.NOPROXY: "",
            pycurl.PROXY: "",
            pycurl.HTTPHEADER: [f"{name}: {value}" if value else f"{name};" for name, value in headers.items()],
        }
        if request.method == "HEAD":
            options[pycurl.NOBODY] = 1
        elif request.method == "POST":
            options[pycurl.POSTFIELDS] = request.body
            options[pycurl.HTTPHEADER] += ["Expect:", *([] if "content-type" in headers else ["Content-Type:"])]
        elif request.method != "GET":
            options[pycurl.CUSTOMREQUEST] = request.method
        if route.tls:
            options |= {
                pycurl.CAINFO: self._certificates(),
                pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
                pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
                pycurl.PIPEWAIT: 1,  # wait for a pending connection's HTTP/2 stream instead of opening another
            }
        else:
            options[pycurl.HTTP_VERSION] = pycurl.CURL_HTTP_VERSION_1_1
        if address:
            options[pycurl.CONNECT_TO] = [f"{_bracketed(route.host)}:{route.port}:{_bracketed(address)}:{route.port}"]
        if route.proxy:
            options |= self._proxy_options(route)
        for option, value in options.items():
            easy.setopt(option, value)
        for option in (pycurl.CAPATH, pycurl.PROXY_CAPATH):  # trust the bundle only
            easy.unsetopt(option)
        return easy

    def _proxy_options(self, route: Route) -> dict[int, Any]:
        proxy = route.proxy
        assert proxy is not None
        if proxy.scheme not in PROXY_SCHEMES:
            raise proxy_error()
        # For socks5:// too the proxy resolves names, as it does for aria2c behind the relay.
        url = proxy.url.replace("socks5://", "socks5h://")
        options: dict[int, Any] = {pycurl.PROXY: url, _SUPPRESS_CONNECT_HEADERS: 1}
        if credential := proxy.credential():
            options |= {pycurl.PROXYUSERNAME: credential[0], pycurl.PROXYPASSWORD: credential[1]}
        if proxy.scheme == "https":
            options[pycurl.PROXY_CAINFO] = self._certificates()
        return options

    def _certificates(self) -> str:
        """Return the path of the bundle, after checking once that it holds certificates. Raises NetworkError."""
        with self._lock:
            if not self._bundle:
                path = ca_file(self._routes.ca_bundle)
                try:
                    with open(path, "rb") as file:
                        held = any(_CERTIFICATE.search(line) for line in file)
                except OSError as error:
                    raise bundle_error(path, error.strerror) from None
                if not held:
                    raise bundle_error(path, "it contains no certificate")
                self._bundle = path
            return self._bundle


class CurlExchange:
    """A response of libcurl whose head has arrived."""

    def __init__(self, transfer: CurlTransfer, loop: CurlLoop, head: ResponseHead, url: str, route: Route) -> None:
        self._transfer, self._loop, self._url, self._route = transfer, loop, url, route
        self.status: int = head.status
        self.headers: Mapping[str, str] = head.headers
        self._ended = False

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body as it arrives, so that a broken connection loses no received bytes."""
        codings = [coding.strip().lower() for coding in self.headers.get("content-encoding", "").split(",")]
        pieces = self._received()
        for coding in reversed(codings):
            if coding in ("gzip", "x-gzip", "deflate"):
                pieces = _inflate(pieces)
        try:
            yield from pieces
        except zlib.error as error:
            failure = Failure(pycurl.E_BAD_CONTENT_ENCODING, str(error), connected=True)
            raise to_error(failure, self._url, self._route) from None

    def close(self) -> None:
        """Release the connection; close it if much of the body is unread."""
        if not self._ended and not self._transfer.finished:
            self._loop.abandon(self._transfer)
        self._ended = True

    def _received(self) -> Iterator[bytes]:
        while not self._ended:
            item = self._transfer.next_item()
            if isinstance(item, bytes):
                yield item
                if self._transfer.paused and self._transfer.caught_up:
                    self._loop.resume(self._transfer)
                continue
            self._ended = True
            if isinstance(item, Failure) and not self._ended_without_length(item):
                raise to_error(item, self._url, self._route)

    def _ended_without_length(self, failure: Failure) -> bool:
        """True if a body without declared length ended without a TLS close notification.

        Many old servers omit it. As without TLS, only the reader can check that the body is complete.
        """
        delimited = "content-length" in self.headers or "transfer-encoding" in self.headers
        return not delimited and failure.code == pycurl.E_RECV_ERROR and "unexpected eof" in failure.text


def _inflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip or zlib (RFC 9110 8.4.1), or raw deflate, which some servers send as "deflate"."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    first = True
    for piece in pieces:
        try:
            out = unpack.decompress(piece, _PIECE)
        except zlib.error:
            if not first:
                raise
            unpack = zlib.decompressobj(-zlib.MAX_WBITS)
            out = unpack.decompress(piece, _PIECE)
        first = False
        while out:
            yield out
            out = unpack.decompress(unpack.unconsumed_tail, _PIECE) if unpack.unconsumed_tail else b""
    if rest := unpack.flush():
        yield rest


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _sendable(url: str) -> str:
    """Return the URL in printable ASCII, without its fragment. Raises NetworkError if that is impossible."""
    try:
        host, port = urlsplit(url).hostname or "", urlsplit(url).port
    except ValueError:
        raise _unsendable(url) from None
    try:
        named = host.encode("idna").decode() if host else ""
        if not host.isascii() and not all(letter.isalnum() or letter in "-.·\u0307\u200c\u200d" for letter in host):
            raise UnicodeError  # IDNA 2008 excludes symbols (RFC 5892)
        if not named or not re.fullmatch(r"[A-Za-z0-9._~:%-]+", named):
            raise UnicodeError
    except UnicodeError:
        raise NetworkError(f"{printable(host)} is not a valid host name", "Check the URL.") from None
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise _unsendable(url)
    scheme, place, rest = re.split(r"://([^/?#]*)", url, maxsplit=1)
    if not host.isascii():
        place = f"{named}:{port}" if port is not None else named
    try:
        path = re.sub(r"[^!-~]+", lambda found: quote(found[0]), rest.partition("#")[0])
    except UnicodeError:
        raise _unsendable(url) from None
    return f"{scheme.lower()}://{place}{path}"


def _unsendable(url: str) -> NetworkError:
    return NetworkError(f"{printable(redacted(url))} is not a usable URL", "Check the URL.")
