"""Survey of mirrors on one file of a manifest: measured, recorded, and converted for `rank.rank`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from gpuaria.dns.resolvers import Resolvers
from gpuaria.errors import NetworkError, NotAHub, RevisionNotFound
from gpuaria.http.certificates import tls_context
from gpuaria.http.client import Http
from gpuaria.http.redirects import redirect_target
from gpuaria.http.retry import RETRY_ONCE
from gpuaria.mirrors.history import History, Past
from gpuaria.mirrors.measure.findings import BytesFinding, FreshFinding, LookupFinding, MirrorFindings
from gpuaria.mirrors.measure.shared_hosts import mark_shared_hosts
from gpuaria.mirrors.measure.survey import Reads, Tools, survey
from gpuaria.mirrors.rank import rank
from gpuaria.mirrors.ranking import Probe, Ranking
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, Mirror, RemoteFile
from gpuaria.settings import Settings
from gpuaria.sources.protocol import KnowsFreshness, Source, Stated
from gpuaria.urls import check_redirect

MAX_AGE = 300.0  # seconds; older findings are measured again
CONNECTIONS = (1, 4)  # connections of the two reads
NO_FILE = "no repo given to read a file from"


@dataclass(frozen=True, slots=True)
class Subject:
    """The file that every mirror is asked for: by default the largest of a manifest."""

    manifest: Manifest
    file: RemoteFile

    def __str__(self) -> str:
        return f"{self.manifest.version} {self.file.path}"


def subject_of(manifest: Manifest) -> Subject | None:
    """Return the largest file of the manifest; None if it has no file with content."""
    files = [file for file in manifest.files if file.size > 0]
    return Subject(manifest, max(files, key=lambda file: (file.size, file.path))) if files else None


def tools_for(
    settings: Settings,
    source: Source,
    http: Http,
    subject: Subject | None,
    *,
    environ: Mapping[str, str],
    pings: bool = True,
) -> Tools:
    """Return the tools of a survey. Without a subject there is no HEAD request. Raises ConfigError."""
    context = tls_context(str(settings.ca_bundle or ""))

    def lookup(mirror: Mirror) -> tuple[str, Stated] | None:
        return _request_head(source, http, subject, mirror) if subject else None

    resolvers = Resolvers(settings.resolvers, system=False, context=context)  # the setting contains "system" if wanted
    return Tools(lookup, resolvers, context, environ, user_agent=http.options.user_agent, pings=pings)


def reusable(
    mirrors: Sequence[Mirror], history: History, subject: Subject | None, max_age: float = MAX_AGE
) -> dict[str, MirrorFindings]:
    """Return the findings about the same file that are at most `max_age` seconds old, by mirror.

    Failures are left out.
    """
    if subject is None:
        return {}
    found = {mirror.name: history.recent_findings(mirror, max_age, str(subject)) for mirror in mirrors}
    return {
        name: one
        for name, one in found.items()
        if one is not None and not one.failed[0] and one.lookup.state == one.bytes.state == "measured"
    }


def survey_mirrors(
    mirrors: Sequence[Mirror],
    subject: Subject | None,
    tools: Tools,
    history: History,
    *,
    budget: float,
    known: Mapping[str, MirrorFindings] | None = None,
) -> tuple[MirrorFindings, ...]:
    """Return the findings of all mirrors in order, measured within about `budget` seconds unless they are in `known`.

    Findings about a subject are recorded in `history`; without a subject only DNS, TCP and TLS are measured. Raises
    Interrupted.
    """
    known_findings = known or {}
    to_measure = [mirror for mirror in mirrors if mirror.name not in known_findings]
    if subject is None:
        found = [_not_looked_up(one) for one in survey(to_measure, "", _NO_FILE_RECORD, tools, budget)]
    else:
        commit, file = subject.manifest.version, subject.file
        found = [_with_stale_commit(one) for one in survey(to_measure, commit, file, tools, budget, Reads(CONNECTIONS))]
        for mirror, one in zip(to_measure, found, strict=True):
            history.record_survey(mirror, one, str(subject))
    by_name = {**known_findings, **{one.mirror: one for one in found}}
    return mark_shared_hosts([by_name[mirror.name] for mirror in mirrors])


def probes(findings: Sequence[MirrorFindings], pasts: Mapping[str, Past]) -> list[Probe]:
    """Return findings and history as probes for the ranking. Pure.

    A mirror counts as served by the same host as another one only if that one is usable.
    """
    problems = {one.mirror: problem(one) for one in findings}
    usable = mark_shared_hosts([one for one in findings if not problems[one.mirror]])
    same_host = {one.mirror: one.same_pipe_as for one in usable}
    return [
        _probe(one, problems[one.mirror], same_host.get(one.mirror, ""), pasts.get(one.mirror, Past()))
        for one in findings
    ]


def expectations(mirrors: Sequence[Mirror], history: History) -> dict[str, Past]:
    """Return the past of each mirror, by its name."""
    return {mirror.name: history.past_of(mirror) for mirror in mirrors}


def rank_findings(
    findings: Sequence[MirrorFindings], pasts: Mapping[str, Past], size: int, *, connections: int = 16, seed: str = ""
) -> Ranking:
    """Return the order in which to use the mirrors for `size` bytes. Pure."""
    return rank(probes(findings, pasts), size, connections=connections, seed=seed)


def problem(found: MirrorFindings) -> str:
    """Return why a mirror cannot be used, as the failed stage and its problem; empty if it can."""
    stage, seen = found.failed
    if stage == "fresh":
        fresh = found.fresh
        if fresh.verdict == "stale":
            return f"stale: it {seen}"
        other = "other bytes" if "other bytes" in seen else "other size"
        return f"{other}: it {seen}"
    portal = "captive portal" in seen
    if portal or stage == "lookup":
        return seen if not portal or seen.startswith("captive") else f"captive portal: it {seen.partition(':')[0]}"
    if stage:
        return f"{stage}: {seen}"
    if found.lookup.state == "measured" and found.fresh.verdict == "unknown" and found.bytes.state == "measured":
        return f"freshness: it {found.fresh.problem}"  # a fetch rejects such a response as well
    return ""


def stages(found: MirrorFindings) -> dict[str, float | None]:
    """Return the seconds of each stage at the best address, None for stages that were not measured.

    The first byte is timed from the request, on an open connection to the server that sends the bytes.
    """
    dns = [a.seconds for a in found.dns if a.state == "measured" and a.addresses and not a.lies and a.seconds]
    pings = [one.rtt for one in found.icmp if one.state == "measured" and one.rtt is not None]
    tcp = [one.seconds for one in found.tcp if one.state == "measured" and one.seconds is not None]
    tls = [one.seconds for one in found.tls if one.state == "measured" and one.seconds is not None]
    return {
        "DNS": min(dns, default=None),
        "ICMP": min(pings, default=None),
        "TCP": min(tcp, default=None),
        "TLS": min(tls, default=None),
        "look-up": found.lookup.seconds if found.lookup.state == "measured" else None,
        "first byte": found.bytes.first_byte,
    }


def _probe(found: MirrorFindings, why: str, twin: str, past: Past) -> Probe:
    rates, times = found.bytes.rates, stages(found)
    known = [times["DNS"], times["look-up"], found.bytes.connect, found.bytes.handshake, times["first byte"]]
    if found.lookup.state != "measured":
        known += [times["TCP"], times["TLS"]]
    spent = [seconds for seconds in known if seconds is not None]
    losses = [one.loss for one in found.icmp if one.state == "measured" and one.loss is not None]
    rate = past.rate / (1 + past.failures) if past.rate is not None else None
    return Probe(
        found.mirror,
        problem=why,
        setup=sum(spent) if spent else None,
        rtt=found.bytes.connect if found.bytes.connect is not None else times["TCP"],
        loss=min(losses, default=None),
        single=rates[0].tail if rates else None,
        rate=rates[-1].tail if rates else None,
        connections=rates[-1].connections if rates else 1,
        growing=rates[-1].growing if rates else False,
        past=rate,
        confidence=past.confidence,
        same_pipe_as=twin,
    )


def _request_head(source: Source, http: Http, subject: Subject, mirror: Mirror) -> tuple[str, Stated] | None:
    """Return the file's final URL and the mirror's statements about it; None if the bytes need a credential.

    One HEAD request with one retry. Raises NetworkError, NotFound, AccessDenied, Interrupted.
    """
    manifest, file = subject.manifest, subject.file
    if not isinstance(source, KnowsFreshness):
        found = source.locate(mirror, manifest, file, http)
        return (found.url, Stated(manifest.version, file.size)) if found else None
    url = source.file_url(mirror, manifest, file)
    response = http.head(url, anonymous=mirror.anonymous, retry=RETRY_ONCE)
    target = redirect_target(response)
    stated = source.stated(response.headers)
    named = stated.commit != ""
    if response.status >= 400:
        refused = source.refused(mirror, manifest, file, response, http)
        if isinstance(refused, RevisionNotFound):
            raise RevisionNotFound(f"does not have commit {manifest.commit[:12]}")
        raise refused
    if target:
        check_redirect(response.url, target)
        target_parts, request_parts = urlsplit(target), urlsplit(response.url)
        if not named and target_parts.path == request_parts.path:
            raise NetworkError(f"it only redirects to {target_parts.hostname} and serves no files itself")
        return target, stated
    if not named and response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html":
        raise NotAHub("captive portal: it responds with HTML instead of the file")
    if response.status != 200:
        raise NetworkError(f"it returned HTTP {response.status} for {file.path} without a file URL")
    if manifest.restricted and not mirror.anonymous and http.has_credential(url):
        return None
    return response.url, stated


def _with_stale_commit(found: MirrorFindings) -> MirrorFindings:
    """Count a mirror that knows the repo but not the commit as stale."""
    if found.lookup.error != RevisionNotFound.__name__:
        return found
    fresh = FreshFinding("stale", problem=found.lookup.problem)
    return replace(found, lookup=LookupFinding("measured", found.lookup.seconds), fresh=fresh)


def _not_looked_up(found: MirrorFindings) -> MirrorFindings:
    """Return the findings of a survey without a HEAD request, with the reason."""
    if found.failed[0]:
        return found
    return replace(
        found,
        lookup=LookupFinding("not measured", problem=NO_FILE),
        bytes=BytesFinding("not measured", problem=NO_FILE),
        fresh=FreshFinding("unknown", problem=f"not measured: {NO_FILE}"),
    )


_NO_FILE_RECORD = RemoteFile(SafePath("-"), 0, None)  # placeholder for a survey without a file
