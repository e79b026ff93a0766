"""Finding out what a mirror is worth: from its name to its bytes, in one budget of time. See `survey`."""

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
