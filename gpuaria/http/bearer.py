"""Select the bearer token of a request by its URL origin, and withhold it where a third party could read it."""

import threading
from collections.abc import Collection, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from gpuaria.http.route import Routes
from gpuaria.urls import encrypted_or_local, url_origin

SHORTEST_MASKED = 6  # characters; masking shorter tokens in responses would destroy ordinary words


class Credential(Protocol):
    """A secret that only `reveal` returns."""

    def reveal(self) -> str:
        """Return the secret. Raises ConfigError, AccessDenied, NetworkError if it cannot be loaded."""


class BearerTokens:
    """Tokens by URL origin. Thread-safe.

    A token is sent over TLS, to this machine, and over plain http only to `plaintext_hosts`.
    """

    def __init__(self, tokens: Mapping[str, Credential], plaintext_hosts: Collection[str], routes: Routes) -> None:
        self._tokens, self._in_clear, self._routes = dict(tokens), frozenset(plaintext_hosts), routes
        self._sent: frozenset[str] = frozenset()  # tokens that were sent to a server
        self._lock = threading.Lock()

    def sent_to(self, url: str) -> bool:
        """True if a token would be sent to `url`."""
        return url_origin(url) in self._tokens and not self._exposure(url)

    def withheld(self, url: str) -> str:
        """Return why the token for `url` is withheld; empty if it is sent, or if there is none."""
        return self._exposure(url) if url_origin(url) in self._tokens else ""

    def reveal(self, url: str) -> str:
        """Return the token to send to `url`, empty for none. Raises the errors of `Credential.reveal`."""
        if not self.sent_to(url):
            return ""
        token = self._tokens[url_origin(url)].reveal()
        with self._lock:
            self._sent |= {token} if len(token) >= SHORTEST_MASKED else set()
        return token

    def mask(self, text: str) -> str:
        """Return `text` with sent tokens masked, since a server may echo them."""
        for token in self._sent:
            text = text.replace(token, "***")
        return text

    def mask_bytes(self, body: bytes) -> bytes:
        """Return `body` with sent tokens masked."""
        for token in self._sent:
            body = body.replace(token.encode(), b"***")
        return body

    def _exposure(self, url: str) -> str:
        """Return how a token could be read on its way to `url`; empty if it could not, or if the user allows it."""
        if url.startswith("https://") or urlsplit(url).hostname in self._in_clear:
            return ""
        if not encrypted_or_local(url):
            return "the connection is not encrypted"
        return "a proxy could read it" if self._routes.proxied(url) else ""
