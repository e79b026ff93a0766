"""Findings about mirrors: frozen records, converted to JSON by `records.to_json` and back by `read`.

Every `state` distinguishes three cases: "measured", "failed" (tried; `problem` says what went wrong) and "not measured"
(not tried, or not completed; `problem` says why). A number is None unless measured. Times are seconds, rates bytes per
second, sizes bytes. No record holds a query string: it may contain a signature.
"""

import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

from gpuaria.dns.findings import DnsAnswer, MeasureState, TlsFinding

Freshness = Literal["fresh", "stale", "different", "unknown"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class IcmpFinding:
    """Echo round trips to one address: mean time, mean difference of successive times, share lost."""

    address: str
    state: MeasureState
    rtt: float | None = None
    jitter: float | None = None
    loss: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TcpFinding:
    """Time to connect to one address; through a proxy, until its tunnel is open (`address` is then the host's name)."""

    address: str
    port: int
    state: MeasureState
    seconds: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LookupFinding:
    """Result of the HEAD request for the file's URL. `error`: the error's class (see errors.py) if it failed."""

    state: MeasureState
    seconds: float | None = None
    problem: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Throughput:
    """The throughput of `connections` parallel reads, from the first byte on.

    `rate`: over the whole read. `tail`: over its end (an eighth of a second, or one and a half round trips, in which
    all connections were reading). `growing`: the tail was much faster than the bytes before it, as in slow start, so
    this many connections can reach more than `tail`.
    """

    connections: int
    bytes: int
    seconds: float
    rate: float
    tail: float
    growing: bool = False


@dataclass(frozen=True, slots=True)
class BytesFinding:
    """A range read of a file at its final URL.

    `first_byte`: seconds since the request on an open connection (with `connect` None: since opening it). `bytes`,
    `seconds`, `rate`: of one connection; `rates`: with tail, for each number of connections. `size`: the file's, as the
    response declares it. `final_host`: the sender, with the port if it is not the scheme's default; `peer`: its
    address. `retry_after`: seconds that the host asks to wait.
    """

    state: MeasureState
    final_host: str = ""
    peer: str = ""
    status: int | None = None
    connect: float | None = None
    handshake: float | None = None
    first_byte: float | None = None
    bytes: int = 0
    seconds: float | None = None
    rate: float | None = None
    rates: tuple[Throughput, ...] = ()
    ranges: bool | None = None
    size: int | None = None
    retry_after: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FreshFinding:
    """A mirror's commit, size and digest compared with the manifest.

    A field is empty or None if the mirror does not state it.
    """

    verdict: Freshness
    commit: str = ""
    size: int | None = None
    etag: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MirrorFindings:
    """All findings about one mirror. `addresses`: the usable ones, best first. `proxy`: host:port of the proxy used.

    `same_pipe_as`: an earlier mirror in the list whose bytes come from the same host; empty if there is none.
    """

    mirror: str
    host: str
    lookup: LookupFinding
    bytes: BytesFinding
    fresh: FreshFinding
    addresses: tuple[str, ...] = ()
    dns: tuple[DnsAnswer, ...] = ()
    icmp: tuple[IcmpFinding, ...] = ()
    tcp: tuple[TcpFinding, ...] = ()
    tls: tuple[TlsFinding, ...] = ()
    proxy: str = ""
    same_pipe_as: str = ""

    @property
    def failed(self) -> tuple[str, str]:
        """The first stage that failed and its problem, such as ("tls", "…"); two empty strings if none did.

        ICMP never counts: many good hosts ignore pings.
        """
        if self.dns and not self.addresses:
            return "dns", next((lie for a in self.dns for lie in a.lies), "") or _why(self.dns, "no IP address found")
        for stage, found in (("tcp", self.tcp), ("tls", self.tls)):
            if any(f.state == "failed" for f in found) and not any(f.state == "measured" for f in found):
                return stage, _why(found, "")
        if self.lookup.state == "failed":
            return "lookup", self.lookup.problem
        if self.fresh.verdict in ("stale", "different"):
            return "fresh", self.fresh.problem
        return ("bytes", self.bytes.problem) if self.bytes.state == "failed" else ("", "")


def _why(found: typing.Iterable[Any], otherwise: str) -> str:
    return next((f.problem for f in found if f.state == "failed" and f.problem), otherwise)


def read(record: type[R], value: Any) -> R:
    """Return the record from which `records.to_json` made `value`. Raises ValueError if `value` has another shape."""
    try:
        return typing.cast(R, _read(record, value))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a {record.__name__}: {error!r}") from None


def _read(wanted: Any, value: Any) -> Any:
    kind, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if kind is types.UnionType:
        return None if value is None else _read(parts[0], value)
    if kind is tuple:
        return tuple(_read(parts[0], item) for item in value)
    if kind is Literal:
        if value not in parts:
            raise ValueError(f"{value!r} is none of {parts}")
        return value
    if is_dataclass(wanted):
        hints = typing.get_type_hints(wanted)
        return wanted(**{f.name: _read(hints[f.name], value[f.name]) for f in fields(wanted)})  # type: ignore[operator]
    if wanted is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, wanted):
        raise ValueError(f"{value!r} is no {wanted.__name__}")
    return value
