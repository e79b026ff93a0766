"""HTTP connections, one to a client.

A client of httpx2 that has many looks at each of them for every request, under one lock. Here whoever asks gets one of
their own, the one that was used last for that origin.
"""

import contextlib
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.request import getproxies

from gpuaria.addresses import origin
from gpuaria.errors import ConfigError

if TYPE_CHECKING:
    import httpx2  # which takes long to import

MOST_IDLE = 64  # connections that are kept open while nobody uses them


class Connections:
    """Thread-safe. Times in seconds; `context` is asked for once, when there is a certificate to check."""

    def __init__(
        self, user_agent: str, connect_timeout: float, timeout: float, context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._user_agent, self._timeouts = user_agent, (connect_timeout, timeout)
        self._make_context, self._contexts = context, dict[bool, ssl.SSLContext]()
        self._idle: defaultdict[str, list[httpx2.Client]] = defaultdict(list)
        self._all: set[httpx2.Client] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one(self, url: str) -> Iterator["httpx2.Client"]:
        """A client for one request at a time to the origin of `url`. Raises ConfigError for a proxy of no use."""
        key = origin(url)
        with self._lock:
            client = self._idle[key].pop() if self._idle[key] else self._new(url)
            self._all.add(client)
        try:
            yield client
        finally:
            with self._lock:
                kept = client in self._all and sum(map(len, self._idle.values())) < MOST_IDLE
                if kept:
                    self._idle[key].append(client)
                self._all -= set() if kept else {client}
            if not kept:
                client.close()

    def close(self) -> None:
        """Close every connection, those in use too."""
        with self._lock:
            clients, self._all = self._all, set()
            self._idle.clear()
        for client in clients:
            client.close()

    def _context(self, url: str) -> ssl.SSLContext:
        """The certificates are read only when there is one to check, which takes 0.1 s."""
        tls = not url.startswith("http://") or bool({"http", "all"} & set(getproxies()))
        if tls not in self._contexts:
            self._contexts[tls] = self._make_context() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._contexts[tls]

    def _new(self, url: str) -> "httpx2.Client":
        import httpx2

        connect, read = self._timeouts
        try:
            return httpx2.Client(
                verify=self._context(url),
                timeout=httpx2.Timeout(read, connect=connect, pool=None),
                headers={"user-agent": self._user_agent},
                follow_redirects=False,
            )
        except (ImportError, ValueError, httpx2.InvalidURL):  # its text may show the proxy's password
            raise ConfigError(
                "the proxy that the environment names cannot be used: gpuaria speaks to http and https proxies only",
                "Correct or unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.",
            ) from None
