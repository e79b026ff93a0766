"""HTTP requests and responses, and the protocol of a transport."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names in lower case. `deadline`: time limit in seconds, 0 for none."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    deadline: float = 0.0


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response; header names in lower case. `body` is empty if it has not been read."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


class Exchange(Protocol):
    """A response whose head has arrived and whose body has not been read."""

    @property
    def status(self) -> int:
        """The status code of the final response."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields by lower-case name; values of repeated fields are joined with commas."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body (RFC 9110 8.4) as it arrives. Raises NetworkError if the transfer breaks off."""

    def close(self) -> None:
        """Release the connection; close it if the body is unread."""


class Transport(Protocol):
    """Sends one request and returns one response; follows no redirects and adds no credentials. Thread-safe."""

    def open(self, request: Request) -> Exchange:
        """Send a request and return its response. Raises NetworkError; ConfigError for an unusable proxy."""

    def close(self) -> None:
        """Abort all requests and close all connections."""
