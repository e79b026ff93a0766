"""The survey of `gpuaria mirrors` as a table, in detail, and as JSON."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpuaria.cli.output import figures
from gpuaria.cli.survey import Survey
from gpuaria.dns.findings import DnsAnswer
from gpuaria.mirrors.history import Past
from gpuaria.mirrors.measure.findings import BytesFinding, MirrorFindings
from gpuaria.mirrors.survey import NO_FILE, Subject, stages
from gpuaria.records import to_json
from gpuaria.text import harmless, printable

HEADER = ("mirror", "address", "DNS", "ICMP", "TCP", "TLS", "first byte", "MB/s", "fresh", "verdict", "reason")
NONE = "-"


def table(found: Survey) -> str:
    """Return a line that names the repo and file used for measuring, and a table of mirrors, best first."""
    by_name = {one.mirror: one for one in found.findings}
    accepted = {choice.mirror: choice for choice in found.ranking.accepted}
    rows: list[Sequence[str]] = [HEADER]
    rows += [_row(by_name[name], "accepted", choice.reason) for name, choice in accepted.items()]
    rows += [_row(by_name[name], "rejected", reason) for name, reason in found.ranking.rejected]
    notes = [harmless(f"note: {remark}") for remark in found.remarks]
    lines = [_opening(found), figures.table(rows), *notes]
    if found.reused:
        lines.append(f"results from the last 5 minutes reused for: {', '.join(sorted(found.reused))}")
    return "\n".join(lines)


def _opening(found: Survey) -> str:
    if found.subject is None:
        reason = NO_FILE if found.problem is None else "the repo could not be resolved"
        return f"measured DNS, TCP and TLS only: {reason}"
    manifest, file = found.subject.manifest, found.subject.file
    return (
        f"{manifest.ref} is {manifest.name} at {manifest.version[:12]}; checksums from {manifest.vouched_by} "
        f"({manifest.trust}); measured with {printable(file.path)} ({figures.size(file.size)})"
    )


def _row(one: MirrorFindings, verdict: str, reason: str) -> Sequence[str]:
    times = stages(one)
    return (
        one.mirror,
        f"via {one.proxy}" if one.proxy else next(iter(one.addresses), NONE),
        _dns(one, times["DNS"]),
        _icmp(one, times["ICMP"]),
        _stage(times["TCP"], [tcp.state for tcp in one.tcp]),
        _stage(times["TLS"], [tls.state for tls in one.tls]),
        ms(times["first byte"]),
        _speed(one.bytes),
        NONE if one.fresh.verdict == "unknown" else one.fresh.verdict,
        verdict,
        reason,
    )


def ms(seconds: float | None) -> str:
    """Return milliseconds, or `-` if nothing was measured."""
    if seconds is None:
        return NONE
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"


def _stage(seconds: float | None, states: Sequence[str]) -> str:
    return "failed" if seconds is None and "failed" in states else ms(seconds)


def _dns(one: MirrorFindings, seconds: float | None) -> str:
    if seconds is None and any(answer.lies for answer in one.dns):
        return "false answer"
    return _stage(seconds, [answer.state for answer in one.dns])


def _icmp(one: MirrorFindings, seconds: float | None) -> str:
    if seconds is None and any(ping.problem == "not permitted" for ping in one.icmp):
        return "not permitted"
    return "no reply" if _stage(seconds, [ping.state for ping in one.icmp]) == "failed" else ms(seconds)


def _speed(found: BytesFinding) -> str:
    if found.state == "failed":
        return "failed"
    return f"{found.rates[-1].tail / 1e6:.1f}" if found.rates else NONE


def details(found: Survey) -> str:
    """Return all measurements, mirror by mirror."""
    blocks = []
    for mirror, one in zip(found.mirrors, found.findings, strict=True):
        where = f", {mirror.location}" if mirror.location else ""
        lines = [f"{mirror.name}: {mirror.base}{where}", *(f"  {line}" for line in _measurements(one))]
        lines += [f"  {_history(found.pasts.get(mirror.name, Past()))}", f"  verdict: {_verdict(found, one.mirror)}"]
        blocks.append("\n".join(map(harmless, lines)))
    return "\n\n".join(blocks)


def _verdict(found: Survey, name: str) -> str:
    for choice in found.ranking.accepted:
        if choice.mirror == name:
            alone = f", {figures.duration(choice.seconds)} alone" if choice.seconds is not None and found.size else ""
            return f"accepted, {choice.reason}{alone}, {choice.connections} connections"
    return f"rejected, {dict(found.ranking.rejected)[name]}"


def _measurements(one: MirrorFindings) -> Iterator[str]:
    if one.proxy:
        yield f"through proxy {one.proxy}"
    yield from map(_answer, one.dns)
    for ping in one.icmp:
        jitter = f", jitter {ms(ping.jitter)}" if ping.jitter is not None else ""
        loss = f", {ping.loss:.0%} lost" if ping.loss is not None else ""
        yield f"ICMP {ping.address}: {_outcome(ping, lambda: ms(ping.rtt) + jitter + loss)}"  # noqa: B023 used at once
    for tcp in one.tcp:
        yield f"TCP {tcp.address} port {tcp.port}: {_outcome(tcp, lambda: ms(tcp.seconds))}"  # noqa: B023
    for tls in one.tls:
        yield f"TLS {tls.address}: {_outcome(tls, lambda: f'{ms(tls.seconds)}, {tls.version}')}"  # noqa: B023
    yield f"resolve: {_outcome(one.lookup, lambda: ms(one.lookup.seconds))}"
    yield f"freshness: {one.fresh.verdict}{f': {one.fresh.problem}' if one.fresh.problem else ''}{_reported(one)}"
    yield f"bytes: {_outcome(one.bytes, lambda: ms(one.bytes.first_byte) + ' to the first byte')}{_sender(one.bytes)}"
    for rate in one.bytes.rates:
        growing = ", still growing" if rate.growing else ""
        speeds = f"{figures.speed(rate.rate)}, at the end {figures.speed(rate.tail)}{growing}"
        amount = f"{figures.size(rate.bytes)} in {figures.duration(rate.seconds)}"
        yield f"  {figures.many(rate.connections, 'connection')}: {amount}, {speeds}"
    if one.same_pipe_as:
        yield f"same byte server as {one.same_pipe_as}"


def _outcome(finding: Any, measured: Callable[[], str]) -> str:
    if finding.state == "measured":
        return measured() + (f" ({finding.problem})" if finding.problem else "")
    return f"{finding.state}{f': {finding.problem}' if finding.problem else ''}"


def _answer(answer: DnsAnswer) -> str:
    kind = {4: "A", 6: "AAAA"}[answer.family]
    ttl = f", for {answer.ttl:.0f} s" if answer.ttl is not None else ""
    said = ", ".join(answer.addresses) or "none"
    lies = f"; false answer: {'; '.join(answer.lies)}" if answer.lies else ""
    return f"DNS {answer.resolver} {kind}: {_outcome(answer, lambda: f'{said} in {ms(answer.seconds)}{ttl}')}{lies}"


def _reported(one: MirrorFindings) -> str:
    fresh = one.fresh
    parts = [f"commit {printable(fresh.commit[:40])}"] if fresh.commit else []
    parts += [f"{fresh.size:,} bytes"] if fresh.size is not None else []
    parts += [f"etag {printable(fresh.etag[:64])}"] if fresh.etag else []
    return f" (reports {', '.join(parts)})" if parts else ""


def _sender(found: BytesFinding) -> str:
    peer = f" ({found.peer})" if found.peer else ""
    parts = [f"from {found.final_host}{peer}"] if found.final_host else []
    parts += [f"status {found.status}"] if found.status else []
    parts += ["ranges" if found.ranges else "no ranges"] if found.ranges is not None else []
    parts += [f"asks to wait {found.retry_after:.0f} s"] if found.retry_after is not None else []
    return "".join(f", {part}" for part in parts)


def _history(past: Past) -> str:
    if past.last_seen is None:
        return "history: none"
    rate = (
        f"{figures.speed(past.rate)} (confidence {past.confidence:.0%})"
        if past.rate is not None
        else "no speed measured"
    )
    failed = f", {past.failures:.1f} recent failures, last: {past.last_failure}" if past.last_failure else ""
    return f"history: {rate}{failed}"


def as_json(found: Survey, status: int) -> dict[str, Any]:
    """Return the survey as one JSON object, with speeds in bytes per second and times in seconds."""
    subject = found.subject
    return {
        **(_subject(subject, found.size) if subject else {}),
        "mirrors": [
            {
                "name": mirror.name,
                "base": mirror.base,
                "location": mirror.location,
                "origin": mirror.primary,
                **_decision(found, mirror.name),
                "stages": stages(one),
                "reused": mirror.name in found.reused,
                "past": to_json(found.pasts.get(mirror.name, Past())),
                "findings": to_json(one),
            }
            for mirror, one in zip(found.mirrors, found.findings, strict=True)
        ],
        "remarks": list(found.remarks),
        "exit_code": status,
        **({"error": found.problem.message, "hint": found.problem.hint} if found.problem else {}),
    }


def _subject(subject: Subject, size: int) -> dict[str, Any]:
    manifest = subject.manifest
    return {
        "ref": str(manifest.ref),
        "commit": manifest.commit,
        "vouched_by": manifest.vouched_by,
        "trust": manifest.trust,
        "file": subject.file.path,
        "size": size,
    }


def _decision(found: Survey, name: str) -> dict[str, Any]:
    for place, choice in enumerate(found.ranking.accepted, 1):
        if choice.mirror == name:
            return {
                "verdict": "accepted",
                "place": place,
                "reason": choice.reason,
                "expected_rate": choice.rate,
                "expected_seconds": choice.seconds,
                "connections": choice.connections,
            }
    return {"verdict": "rejected", "place": None, "reason": dict(found.ranking.rejected)[name]}
