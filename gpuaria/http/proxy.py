"""The way to a server: straight, or through the proxy that the environment names for it.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` as curl, aria2 and urllib read them: lower case before upper.
"""

import base64
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from gpuaria.urls import server


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; `authorization` is a header's value and is never shown."""

    scheme: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def problem(self) -> str:
        """Why nothing can be measured through it, empty if it can."""
        return "" if self.scheme == "http" else f"not measured through a proxy of kind {self.scheme} ({self})"


@dataclass(frozen=True, slots=True)
class Route:
    """Where an http(s) address leads, and through what."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None = None

    @property
    def place(self) -> str:
        """The host, with its port unless that is the scheme's own: what a Host header says (RFC 9110 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def route(url: str, environ: Mapping[str, str]) -> Route:
    """The way to `url` under `environ`. Raises ValueError for what is no http(s) address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an http address: {url.partition('?')[0]}")
    host, port = server(url)
    return Route(host, port, parts.scheme == "https", proxy_for(parts.scheme, host, port, environ))


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for a server, None to go straight. HTTP_PROXY is not read under CGI, where a client may set it."""
    named = {"http": _read(environ, "http"), "https": _read(environ, "https"), "all": _read(environ, "all")}
    if "REQUEST_METHOD" in environ:
        named["http"] = environ.get("http_proxy", "")
    text = named[scheme] or named["all"]
    excepted = _read(environ, "no")
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not text or (excepted and bypass(f"{host}:{port}", {"no": excepted})):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if not parts.hostname:
        return None
    credential = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        credential = f"Basic {base64.b64encode(pair).decode()}"
    default = {"http": 80, "https": 443}.get(parts.scheme, 1080)
    return Proxy(parts.scheme, parts.hostname, parts.port or default, credential)


def _read(environ: Mapping[str, str], name: str) -> str:
    lower, upper = f"{name}_proxy", f"{name.upper()}_PROXY"
    return environ.get(lower, "") if lower in environ else environ.get(upper, "")
