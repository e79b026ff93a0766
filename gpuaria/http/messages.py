"""Requests and responses, and the protocol of a transport that exchanges them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it is sent; header names in lower case. `deadline` in seconds for all of it, 0 for none."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    deadline: float = 0.0


@dataclass(frozen=True, slots=True)
class Response:
    """A response; header names in lower case. `body` is empty while it has not been read."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


class Exchange(Protocol):
    """A response whose head has arrived. `chunks` gives the decoded body and raises NetworkError when it breaks off."""

    @property
    def status(self) -> int:
        """The status code of the final response."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields by name in lower case; values of repeated fields are joined by commas."""

    def chunks(self) -> Iterator[bytes]:
        """Return the body, decoded (RFC 9110 8.4), in pieces as they arrive."""

    def close(self) -> None:
        """Give the connection back, or end it where the body has not been read."""


class Transport(Protocol):
    """A thread-safe way to exchange one request for one response; follows no redirect and sends no credential."""

    def open(self, request: Request) -> Exchange:
        """Send a request and return its response. Raises NetworkError, ConfigError for an unusable proxy."""

    def close(self) -> None:
        """End every connection and every request."""
