"""HTTP connections: certificates, proxies, and by which addresses a host is reached."""

import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from gpuaria.errors import ConfigError, NetworkError
from gpuaria.urls import authority

if TYPE_CHECKING:
    import httpx2


class Names(Protocol):
    """Who knows addresses where the system's resolver is of no use.

    `instead`: the addresses to use for a host, empty for the system's. `doubt`: others than those that were tried in
    vain. `good`: an address of theirs that answers.
    """

    def instead(self, host: str) -> Sequence[str]: ...

    def doubt(self, host: str, tried: Sequence[str]) -> Sequence[str]: ...

    def good(self, host: str, address: str) -> None: ...


class _System:
    """Nobody but the system's resolver."""

    def instead(self, host: str) -> Sequence[str]:
        return ()

    def doubt(self, host: str, tried: Sequence[str]) -> Sequence[str]:
        return ()

    def good(self, host: str, address: str) -> None:
        return None


SYSTEM = _System()


def ca_file(bundle: str = "") -> str:
    """The certificate bundle that Python and aria2c both use: the setting, the system's, or certifi's."""
    if bundle:
        return bundle
    system = ssl.get_default_verify_paths().cafile
    candidates = [system or "", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
    found = next((c for c in candidates if c and Path(c).is_file()), "")
    if found:
        return found
    import certifi

    return certifi.where()


def tls_context(bundle: str = "") -> ssl.SSLContext:
    """Certificates verified against one bundle, TLS 1.2 or newer."""
    try:
        context = ssl.create_default_context(cafile=ca_file(bundle))
    except (OSError, ssl.SSLError) as error:
        raise NetworkError(
            f"the certificate bundle {ca_file(bundle)} cannot be read: {error}", "Correct SSL_CERT_FILE or ca_bundle."
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def by_proxy(url: str) -> bool:
    """Whether an address is asked for by way of a proxy that the environment names."""
    parts = urlsplit(url)
    named = getproxies()
    return bool(named.get(parts.scheme) or named.get("all")) and not proxy_bypass(parts.hostname or "")


class Clients:
    """One client for all hosts that the system's resolver knows, and one for each other host. Thread-safe.

    Of such a host the addresses come from `names`: connections to one address that two hosts share must not be
    mixed, since the certificate was checked for one of them only. Times in seconds.
    """

    def __init__(
        self, *, user_agent: str, connect_timeout: float, timeout: float, ca_bundle: str, names: Names
    ) -> None:
        self.user_agent, self.timeouts, self._ca_bundle = user_agent, (connect_timeout, timeout), ca_bundle
        self._context: ssl.SSLContext | None = None
        self._names = names
        self._clients: dict[tuple[bool, str], httpx2.Client] = {}
        self._by_proxy: dict[tuple[str, str], bool] = {}
        self._opening = threading.RLock()

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> "httpx2.Response":
        """Send one request, no redirect followed; the answer's body is not read yet, and it has to be closed.

        Where a host cannot be reached, or shows a wrong certificate, other resolvers' addresses are tried.
        """
        import httpx2

        addresses = self.elsewhere(url)
        try:
            return self._send(addresses, method, url, headers, body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            others = () if self.proxied(url) else self._names.doubt(urlsplit(url).hostname or "", addresses)
            if not others:
                raise
            try:
                return self._send(others, method, url, headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                raise error from None  # a certificate that is not trusted says more than silence elsewhere

    def elsewhere(self, url: str) -> Sequence[str]:
        """The addresses by which its host is reached, empty where the system's resolver or a proxy sees to that."""
        return () if self.proxied(url) else self._names.instead(urlsplit(url).hostname or "")

    def connect(self, host: str, port: int) -> socket.socket:
        """A plain connection to a host, by the same addresses. Raises OSError."""
        others = self._names.instead(host)
        failure = OSError(f"no address is known for {host}")
        for address in others or (host,):
            try:
                line = socket.create_connection((address, port), self.timeouts[0])
            except OSError as error:
                failure = error
                continue
            if others:
                self._names.good(host, address)
            return line
        raise failure

    def context(self) -> ssl.SSLContext:
        """Read once; it takes 0.1 s."""
        with self._opening:
            self._context = self._context or tls_context(self._ca_bundle)
            return self._context

    def proxied(self, url: str) -> bool:
        """The same as `by_proxy`, which takes too long to be asked for every request."""
        parts = urlsplit(url)
        place = parts.scheme, parts.netloc
        if place not in self._by_proxy:
            self._by_proxy[place] = by_proxy(url)
        return self._by_proxy[place]

    def _send(
        self, addresses: Sequence[str], method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> "httpx2.Response":
        import httpx2

        if not addresses:
            client = self._client(url)
            return client.send(client.build_request(method, url, headers=headers, content=body or None), stream=True)
        host, failure = urlsplit(url).hostname or "", None
        client = self._client(url, host)
        for address in addresses:
            request = client.build_request(
                method,
                httpx2.URL(url).copy_with(host=address),
                headers={**headers, "host": authority(url)},
                content=body or None,
                extensions={"sni_hostname": host},
            )
            try:
                response = client.send(request, stream=True)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
                continue
            self._names.good(host, address)
            return response
        assert failure is not None
        raise failure

    def _client(self, url: str, host: str = "") -> "httpx2.Client":
        """The client for an address; the certificates are read only when there is one to check."""
        tls = not url.startswith("http://") or bool({"http", "all"} & set(getproxies()))
        with self._opening:
            if (tls, host) not in self._clients:
                import httpx2

                connect, read = self.timeouts
                # Every user has a bounded number of threads; a common bound would let slow mirrors starve the others.
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
                context = self.context() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                try:
                    self._clients[tls, host] = httpx2.Client(
                        verify=context,
                        timeout=httpx2.Timeout(read, connect=connect, pool=None),
                        limits=limits,
                        headers={"user-agent": self.user_agent},
                        follow_redirects=False,
                    )
                except (ImportError, ValueError, httpx2.InvalidURL):  # its text may show the proxy's password
                    raise ConfigError(
                        "the proxy that the environment names cannot be used: gpuaria speaks to http and https "
                        "proxies only",
                        "Correct or unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.",
                    ) from None
            return self._clients[tls, host]
