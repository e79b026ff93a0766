"""gpuaria.mirrors.survey: how findings become probes for the ranking."""

from typing import Any

import pytest

from gpuaria.dns.findings import DnsAnswer
from gpuaria.mirrors.history import Past
from gpuaria.mirrors.measure.findings import (
    BytesFinding,
    FreshFinding,
    IcmpFinding,
    LookupFinding,
    MirrorFindings,
    TcpFinding,
    Throughput,
)
from gpuaria.mirrors.survey import probes, problem, stages


def findings(name: str, **more: Any) -> MirrorFindings:
    """Return the findings of a healthy mirror: 12 MB/s over one connection, 40 over four."""
    given: dict[str, Any] = {
        "lookup": LookupFinding("measured", 0.2),
        "bytes": BytesFinding(
            "measured",
            f"cdn.{name}",
            connect=0.08,
            handshake=0.09,
            first_byte=0.1,
            rates=(Throughput(1, 100, 1.0, 10e6, 12e6), Throughput(4, 100, 1.0, 30e6, 40e6, True)),
        ),
        "fresh": FreshFinding("fresh", "c" * 40),
        "addresses": ("192.0.2.1",),
        "dns": (DnsAnswer("system", name, 4, "measured", ("192.0.2.1",), seconds=0.03),),
        "tcp": (TcpFinding("192.0.2.1", 443, "measured", 0.07),),
    }
    return MirrorFindings(name, name, **(given | more))


def test_a_probe_holds_the_findings() -> None:
    lossy = (IcmpFinding("192.0.2.1", "measured", 0.07, 0.0, 0.25),)
    (probe,) = probes([findings("m", icmp=lossy)], {"m": Past(8e6, 0.5, failures=1.0)})
    assert (probe.single, probe.rate, probe.connections, probe.growing) == (12e6, 40e6, 4, True)
    assert (probe.rtt, probe.loss, probe.past, probe.confidence) == (0.08, 0.25, 4e6, 0.5)
    assert probe.setup == pytest.approx(0.03 + 0.2 + 0.08 + 0.09 + 0.1)
    assert stages(findings("m"))["TLS"] is None


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"fresh": FreshFinding("stale", problem="serves commit 1234, not 5678")},
        "stale: it serves commit 1234, not 5678",
    ),
    (
        {"fresh": FreshFinding("different", problem="has f with 1 bytes, not 2")},
        "other size: it has f with 1 bytes, not 2",
    ),
    (
        {"fresh": FreshFinding("different", problem="has other bytes for f: 'a'")},
        "other bytes: it has other bytes for f: 'a'",
    ),
    (
        {
            "bytes": BytesFinding(
                "failed", problem="returned HTTP 200 with a web page instead of the file: a captive portal"
            )
        },
        "captive portal: it returned HTTP 200 with a web page instead of the file",
    ),
    ({"bytes": BytesFinding("failed", problem="sent no data")}, "bytes: sent no data"),
    ({"lookup": LookupFinding("failed", problem="it returned HTTP 418")}, "it returned HTTP 418"),
    (
        {"fresh": FreshFinding("unknown", problem="sends no commit id")},
        "freshness: it sends no commit id",
    ),
    (
        {"dns": (DnsAnswer("8.8.8.8", "m", 4, "failed", problem="NXDOMAIN"),), "addresses": ()},
        "dns: NXDOMAIN",
    ),
    (
        {
            "dns": (
                DnsAnswer("1.1.1.1", "m", 4, "measured", ("127.0.0.1",), lies=("127.0.0.1 is a loopback address",)),
            ),
            "addresses": (),
        },
        "dns: 127.0.0.1 is a loopback address",
    ),
]


@pytest.mark.parametrize(("more", "said"), BAD, ids=[said.partition(" it")[0] for _, said in BAD])
def test_each_problem_has_a_message(more: dict[str, Any], said: str) -> None:
    assert problem(findings("m", **more)) == said


def test_duplicates_of_an_unusable_mirror_form_one_group() -> None:
    same = findings("x").bytes
    stale = FreshFinding("stale", problem="serves commit 1, not 2")
    rows = [findings("a", bytes=same, fresh=stale), findings("b", bytes=same), findings("c", bytes=same)]
    assert [probe.same_pipe_as for probe in probes(rows, {})] == ["", "", "b"]
