"""Routes to servers: proxy or direct connection, IP addresses, certificates and time-outs.

Our HTTP client and aria2c use the same routes. `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` are read as curl
and urllib read them: lower case takes precedence over upper case.
"""

import base64
import os
import ssl
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import unquote, urlsplit

from gpuaria.errors import ConfigError
from gpuaria.http.certificates import tls_context
from gpuaria.urls import host_and_port

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")  # supported schemes of a proxy URL


class AddressSource(Protocol):
    """A source of IP addresses for hosts that the system's resolver does not resolve, or resolves wrongly."""

    def overrides(self, host: str) -> Sequence[str]:
        """Return the addresses to use for `host`; empty to use the system's."""

    def alternatives(self, host: str, tried: Sequence[str]) -> Sequence[str]:
        """Return addresses other than those `tried` without success; an empty `tried` means the system's."""

    def confirm(self, host: str, address: str) -> None:
        """Record that `address` works."""


class _SystemResolver:
    """The system's resolver only: no overrides and no alternatives."""

    def overrides(self, host: str) -> Sequence[str]:
        return ()

    def alternatives(self, host: str, tried: Sequence[str]) -> Sequence[str]:
        return ()

    def confirm(self, host: str, address: str) -> None:
        return None


SYSTEM_RESOLVER = _SystemResolver()


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. `authorization`: the value of its Proxy-Authorization header, never shown."""

    scheme: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The proxy's URL, without its credential."""
        return f"{self.scheme}://{self}"

    @property
    def measuring_problem(self) -> str:
        """The reason why mirrors cannot be measured through this proxy, empty if they can."""
        return "" if self.scheme == "http" else f"not measured: unsupported proxy type {self.scheme} ({self})"

    def credential(self) -> tuple[str, str] | None:
        """Return user and password, None without a credential."""
        if not self.authorization:
            return None
        user, _, password = base64.b64decode(self.authorization.removeprefix("Basic ")).decode().partition(":")
        return user, password


@dataclass(frozen=True, slots=True)
class Route:
    """The route to the server of an http(s) URL.

    `addresses`: IP addresses to try in this order instead of the system's; empty for the system's, and behind a proxy.
    """

    host: str
    port: int
    tls: bool
    proxy: Proxy | None = None
    addresses: tuple[str, ...] = ()

    @property
    def host_header(self) -> str:
        """The value of the Host header (RFC 9110 7.2): the host, with its port unless that is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def needs_relay(self) -> bool:
        """True if aria2c cannot use this route without the relay.

        aria2c supports the system's resolver and http proxies only. A proxy's password must not become an aria2
        option: an attached daemon may write its options to a session file.
        """
        return bool(self.addresses) or (
            self.proxy is not None and (self.proxy.scheme != "http" or bool(self.proxy.authorization))
        )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits in seconds: to connect, and to wait for the next byte."""

    connect: float = 10.0
    read: float = 30.0


class Routes:
    """The routes of one process. Thread-safe. The proxy of each server is read from the environment once."""

    def __init__(
        self, names: AddressSource = SYSTEM_RESOLVER, *, timeouts: Timeouts | None = None, ca_bundle: str = ""
    ) -> None:
        self.address_source, self.timeouts, self.ca_bundle = names, timeouts or Timeouts(), ca_bundle
        self._context: ssl.SSLContext | None = None
        self._direct: dict[tuple[str, str], Route] = {}
        self._lock = threading.Lock()

    def route(self, url: str) -> Route:
        """Return the route to the server of `url`; may take seconds for a new host. Raises ConfigError, ValueError."""
        known = self._route_by_system(url)
        if known.proxy:
            return known
        addresses = self.address_source.overrides(known.host)
        return replace(known, addresses=tuple(addresses)) if addresses else known

    def proxied(self, url: str) -> bool:
        """True if requests for `url` use a proxy. Raises ConfigError."""
        return self._route_by_system(url).proxy is not None

    def alternatives(self, url: str, tried: Sequence[str]) -> Sequence[str]:
        """Return other addresses for the host of `url` than those `tried`; an empty `tried` means the system's."""
        known = self._route_by_system(url)
        return () if known.proxy else self.address_source.alternatives(known.host, tried)

    def context(self) -> ssl.SSLContext:
        """Return the shared TLS context for connections made in Python. Raises NetworkError."""
        with self._lock:
            self._context = self._context or tls_context(self.ca_bundle)
            return self._context

    def _route_by_system(self, url: str) -> Route:
        parts = urlsplit(url)
        server_key = parts.scheme, parts.netloc
        found = self._direct.get(server_key)
        if found is None:
            found = self._direct[server_key] = route(url, os.environ)
        return found


def route(url: str, environ: Mapping[str, str]) -> Route:
    """Return the route to `url` with the proxies of `environ` and the system's addresses.

    Raises ValueError if `url` is not an http(s) URL, ConfigError for an invalid proxy.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an http URL: {url.partition('?')[0]}")
    host, port = host_and_port(url)
    return Route(host, port, parts.scheme == "https", proxy_for(parts.scheme, host, port, environ))


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a server, None for a direct connection. Raises ConfigError for an invalid proxy URL.

    HTTP_PROXY is ignored under CGI, where a client may set it.
    """
    proxies = {
        "http": _proxy_variable(environ, "http"),
        "https": _proxy_variable(environ, "https"),
        "all": _proxy_variable(environ, "all"),
    }
    if "REQUEST_METHOD" in environ:
        proxies["http"] = environ.get("http_proxy", "")
    text = proxies[scheme] or proxies["all"]
    exceptions = _proxy_variable(environ, "no")
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not text or (exceptions and bypass(f"{host}:{port}", {"no": exceptions})):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port_number = parts.port
    except ValueError:
        raise proxy_error() from None
    if not parts.hostname:
        return None
    credential = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        credential = f"Basic {base64.b64encode(pair).decode()}"
    default = {"http": 80, "https": 443}.get(parts.scheme, 1080)
    return Proxy(parts.scheme, parts.hostname, port_number or default, credential)


def proxy_error() -> ConfigError:
    """Return the error for an unusable proxy. It omits the proxy's URL, which may hold a password."""
    return ConfigError(
        "unsupported proxy in the environment: gpuaria supports http, https and socks5 proxies",
        "Correct or unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.",
    )


def _proxy_variable(environ: Mapping[str, str], name: str) -> str:
    lower, upper = f"{name}_proxy", f"{name.upper()}_PROXY"
    return environ.get(lower, "") if lower in environ else environ.get(upper, "")
