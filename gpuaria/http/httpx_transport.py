"""The transport on httpx2: connections, certificates, and by which addresses a host is reached."""

import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import httpx2

from gpuaria.errors import NetworkError, Unreachable
from gpuaria.http.messages import Request
from gpuaria.http.route import USABLE, Route, Routes, unusable
from gpuaria.text import printable
from gpuaria.urls import authority, bare

_CONNECTING = (httpx2.ConnectError, httpx2.ConnectTimeout)


class HttpxTransport:
    """One client for each proxy, and one for each host that other resolvers' addresses lead to. Thread-safe.

    Connections to one address that two hosts share must not be mixed: the certificate was checked for one of them.
    """

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._clients: dict[tuple[bool, str, str], httpx2.Client] = {}
        self._opening = threading.RLock()

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()

    def open(self, request: Request) -> "HttpxExchange":
        """Send one request; where its host cannot be reached, or shows a wrong certificate, at other addresses too."""
        url = request.url
        try:
            return HttpxExchange(self._open(request), url)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _as_ours(error, url) from None
        except (httpx2.InvalidURL, ValueError) as error:
            raise _impossible(url, str(error)) from None

    def _open(self, request: Request) -> httpx2.Response:
        route = self._routes.route(request.url)
        try:
            return self._send(request, route, route.addresses)
        except _CONNECTING as error:
            others = self._routes.others(request.url, route.addresses)
            if not others:
                raise
            try:
                return self._send(request, route, others)
            except _CONNECTING:
                raise error from None  # a certificate that is not trusted says more than silence elsewhere

    def _send(self, request: Request, route: Route, addresses: Sequence[str]) -> httpx2.Response:
        if not addresses:
            client, body = self._client(route, ""), request.body or None
            sent = client.build_request(request.method, request.url, headers=dict(request.headers), content=body)
            return client.send(sent, stream=True)
        failure = None
        client = self._client(route, route.host)
        for address in addresses:
            sent = client.build_request(
                request.method,
                httpx2.URL(request.url).copy_with(host=address),
                headers={**request.headers, "host": authority(request.url)},
                content=request.body or None,
                extensions={"sni_hostname": route.host},
            )
            try:
                response = client.send(sent, stream=True)
            except _CONNECTING as error:
                failure = error
                continue
            self._routes.names.good(route.host, address)
            return response
        assert failure is not None
        raise failure

    def _client(self, route: Route, host: str) -> httpx2.Client:
        """The client for a route; the certificates are read only when there is one to check."""
        proxy = route.proxy
        tls = route.tls or (proxy is not None and proxy.scheme == "https")
        with self._opening:
            key = (tls, host, repr(proxy))
            if key not in self._clients:
                if proxy and proxy.scheme not in USABLE:
                    raise unusable()
                # Every caller has a bounded number of threads; a common bound would let slow mirrors starve the others.
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
                self._clients[key] = httpx2.Client(
                    verify=self._routes.context() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                    timeout=httpx2.Timeout(
                        self._routes.timeouts.read, connect=self._routes.timeouts.connect, pool=None
                    ),
                    limits=limits,
                    follow_redirects=False,
                    trust_env=False,
                    proxy=httpx2.Proxy(proxy.url, auth=proxy.credential()) if proxy else None,
                )
            return self._clients[key]


class HttpxExchange:
    """A response of httpx2 whose head has arrived."""

    def __init__(self, response: httpx2.Response, url: str) -> None:
        self._response, self._url = response, url
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """Return the body as it comes: a larger chunk would be lost when the connection breaks."""
        try:
            yield from self._response.iter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _as_ours(error, self._url) from None

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()


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


def _as_ours(error: Exception, url: str) -> NetworkError:
    """A transport error as one sentence; `retry` says "later" where the same request may pass a second time."""
    host = authority(url) or bare(url)
    text = str(error).strip() or type(error).__name__
    hint = "Check the network, or name a mirror with --mirror."
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0] or text
        hint = "Behind an inspecting proxy, set SSL_CERT_FILE to its certificate bundle."
        return Unreachable(f"the certificate of {host} cannot be trusted: {reason}", hint)
    if isinstance(error, httpx2.ConnectError) and ("Name or service" in text or "name resolution" in text):
        return Unreachable(f"no address is known for {host}", hint)
    if isinstance(error, httpx2.ConnectTimeout):
        said = f"{host} does not answer"
    elif isinstance(error, httpx2.TimeoutException):
        said = f"{host} stopped answering"
    elif isinstance(error, httpx2.ConnectError):
        said = f"cannot connect to {host}: {text}"
    else:
        said = f"{host} broke the connection off: {text}"
    return Unreachable(said, hint, retry="later")
