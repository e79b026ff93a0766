"""aria2c's network routes: those of gpuaria's HTTP client, as aria2 options if possible, else through the relay."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpuaria.aria2.options import proxy_options, relay_options
from gpuaria.http.dial import dial
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.http.route import Routes

if TYPE_CHECKING:
    import socket

    from gpuaria.aria2.relay import Relay


class Aria2Path:
    """aria2c's routes, for the thread that drives aria2. The relay starts on demand and charges `bucket`."""

    def __init__(self, routes: Routes, bucket: TokenBucket) -> None:
        self._routes, self._bucket = routes, bucket
        self._relay: Relay | None = None
        self._urls: dict[tuple[str, int], str] = {}

    def close(self) -> None:
        """Close the relay and the connections through it."""
        if self._relay is not None:
            self._relay.close()

    def options(self, urls: Sequence[str]) -> dict[str, str]:
        """Return the aria2 options for a download from `urls`. Raises ConfigError."""
        routes = [self._routes.route(url) for url in urls]
        proxies = {tls: {route.proxy for route in routes if route.tls is tls and route.proxy} for tls in (False, True)}
        mixed = any(len(found) > 1 for found in proxies.values())
        # Many proxies refuse CONNECT to port 80, so use the relay for plain HTTP only as a last resort.
        plain = any(route.proxy and not route.tls for route in routes)
        if (self._bucket.rate and not plain) or mixed or any(route.needs_relay for route in routes):
            self._urls |= {(route.host, route.port): url for route, url in zip(routes, urls, strict=True)}
            return relay_options(self._started().url)
        urls_of = {tls: next((proxy.url for proxy in found), "") for tls, found in proxies.items()}
        direct = sorted({route.host for route in routes if urls_of[route.tls] and route.proxy is None})
        limit = {"max-download-limit": str(self._bucket.rate)} if self._bucket.rate else {}
        return proxy_options(urls_of[False], urls_of[True], direct) | limit

    def received(self) -> Mapping[tuple[str, int], int]:
        """Return the bytes received through the relay so far, by host and port."""
        return self._relay.received() if self._relay else {}

    def _started(self) -> "Relay":
        if self._relay is None:
            from gpuaria.aria2.relay import Relay

            self._relay = Relay(self._connect, self._bucket)
        return self._relay

    def _connect(self, host: str, port: int) -> "socket.socket":
        """Open the relay's connection along the route of a known URL of this host. Raises OSError."""
        url = self._urls.get((host.lower(), port))
        if url is None:
            raise ConnectionError(f"the relay has no download from {host}:{port}")
        return dial(self._routes.route(url), self._routes)
