"""Findings about names and TLS handshakes, as frozen records. mirrors/measure/findings.py explains `state`."""

from dataclasses import dataclass
from typing import Literal

MeasureState = Literal["measured", "failed", "not measured"]
NO_TIME = "no time left"


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """One resolver's answer for one name and address family (4 or 6).

    "measured" without addresses: the name has none of this family. `ttl`: seconds, None if not reported; `seconds`: the
    time that the query took. `lies`: why the answer must be false.
    """

    resolver: str
    host: str
    family: int
    state: MeasureState
    addresses: tuple[str, ...] = ()
    ttl: float | None = None
    seconds: float | None = None
    problem: str = ""
    lies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsFinding:
    """One TLS handshake. `problem` includes `certificate_problem`, the problem with the certificate alone."""

    address: str
    state: MeasureState
    seconds: float | None = None
    version: str = ""
    problem: str = ""
    certificate_problem: str = ""
