"""Findings about a name and a TLS handshake: frozen records; mirrors/measure/findings.py explains `state`."""

from dataclasses import dataclass
from typing import Literal

State = Literal["measured", "failed", "not measured"]
NO_TIME = "no time left"


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What one resolver says of one name. `family` is 4 or 6, `ttl` None where the resolver does not tell.

    No addresses with "measured": the name has none of this family. `lies`: why the answer cannot be true.
    """

    resolver: str
    host: str
    family: int
    state: State
    addresses: tuple[str, ...] = ()
    ttl: float | None = None
    seconds: float | None = None
    problem: str = ""
    lies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsFinding:
    """One TLS handshake. `certificate_problem` is what is wrong with the certificate alone, and part of `problem`."""

    address: str
    state: State
    seconds: float | None = None
    version: str = ""
    problem: str = ""
    certificate_problem: str = ""
