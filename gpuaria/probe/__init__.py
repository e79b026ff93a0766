"""Finding out what a mirror is worth: from its name to its bytes, in one budget of time. See `survey`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuaria.probe.dns import Resolvers
    from gpuaria.probe.findings import (
        BytesFinding,
        DnsAnswer,
        FreshFinding,
        IcmpFinding,
        LookupFinding,
        MirrorFindings,
        TcpFinding,
        Throughput,
        TlsFinding,
    )
    from gpuaria.probe.history import History, Outcome, Past, outcome_of
    from gpuaria.probe.network import network_id
    from gpuaria.probe.stream import Limits
    from gpuaria.probe.survey import Tools, survey

__all__ = [
    "BytesFinding",
    "DnsAnswer",
    "FreshFinding",
    "History",
    "IcmpFinding",
    "Limits",
    "LookupFinding",
    "MirrorFindings",
    "Outcome",
    "Past",
    "Resolvers",
    "TcpFinding",
    "Throughput",
    "TlsFinding",
    "Tools",
    "network_id",
    "outcome_of",
    "survey",
]

_HOMES = {
    "BytesFinding": "findings",
    "DnsAnswer": "findings",
    "FreshFinding": "findings",
    "History": "history",
    "IcmpFinding": "findings",
    "Limits": "stream",
    "LookupFinding": "findings",
    "MirrorFindings": "findings",
    "Outcome": "history",
    "Past": "history",
    "Resolvers": "dns",
    "TcpFinding": "findings",
    "Throughput": "findings",
    "TlsFinding": "findings",
    "Tools": "survey",
    "network_id": "network",
    "outcome_of": "history",
    "survey": "survey",
}


def __getattr__(name: str) -> Any:
    """Import a name's module when it is first used: a fetch wants the history, and not DNS."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gpuaria.probe' has no attribute {name!r}")
    return getattr(import_module(f"gpuaria.probe.{_HOMES[name]}"), name)
