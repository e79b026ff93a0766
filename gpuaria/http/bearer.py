"""Which bearer token goes with a request: the one of its URL's origin, where no stranger can read it on the way."""

import threading
from collections.abc import Collection, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from gpuaria.http.route import Routes
from gpuaria.urls import encrypted_or_local, url_origin

SHORTEST_MASKED = (
    6  # characters of a token that is masked in responses; masking shorter ones would destroy ordinary words
)


class Credential(Protocol):
    """A credential that only `reveal` gives away."""

    def reveal(self) -> str: ...


class BearerTokens:
    """Tokens by origin; thread-safe.

    A token travels over TLS and within this machine, over plain http to the hosts of `plaintext_hosts` only.
    """

    def __init__(self, tokens: Mapping[str, Credential], plaintext_hosts: Collection[str], routes: Routes) -> None:
        self._tokens, self._in_clear, self._routes = dict(tokens), frozenset(plaintext_hosts), routes
        self._sent: frozenset[str] = frozenset()  # tokens that a server has received from us
        self._lock = threading.Lock()

    def sent_to(self, url: str) -> bool:
        """True if a token would be sent to `url`."""
        return url_origin(url) in self._tokens and not self._exposure(url)

    def withheld(self, url: str) -> str:
        """Return why the token that belongs to `url` is not sent there; empty if it is, or if there is none."""
        return self._exposure(url) if url_origin(url) in self._tokens else ""

    def reveal(self, url: str) -> str:
        """Return the token to send to `url`, empty for none. Raises what the credential raises."""
        if not self.sent_to(url):
            return ""
        token = self._tokens[url_origin(url)].reveal()
        with self._lock:
            self._sent |= {token} if len(token) >= SHORTEST_MASKED else set()
        return token

    def mask(self, text: str) -> str:
        """Return `text` without the tokens that were sent: a server may repeat them."""
        for token in self._sent:
            text = text.replace(token, "***")
        return text

    def mask_bytes(self, body: bytes) -> bytes:
        """The same for a body."""
        for token in self._sent:
            body = body.replace(token.encode(), b"***")
        return body

    def _exposure(self, url: str) -> str:
        """Return who could read a token on its way to `url`; empty if no stranger could, or if the user permits it."""
        if url.startswith("https://") or urlsplit(url).hostname in self._in_clear:
            return ""
        if not encrypted_or_local(url):
            return "it is not encrypted"
        return "a proxy would read it" if self._routes.proxied(url) else ""
