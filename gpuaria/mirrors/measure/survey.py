"""Survey of all mirrors at once within one deadline: DNS, then ICMP with TCP and TLS, a HEAD request, a range read.

After a failed stage the later ones of that mirror are skipped, with the reason. A host that serves the bytes of two
mirrors is measured once.
"""

import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gpuaria.dns.deadline import GRACE, BackgroundCall, Deadline, run_all
from gpuaria.dns.findings import NO_TIME
from gpuaria.dns.resolvers import Resolvers
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.http.route import Route, route
from gpuaria.mirrors.measure import tcp
from gpuaria.mirrors.measure.connection import TimedConnection
from gpuaria.mirrors.measure.findings import BytesFinding, FreshFinding, LookupFinding, MirrorFindings
from gpuaria.mirrors.measure.freshness import compare
from gpuaria.mirrors.measure.icmp import ping
from gpuaria.mirrors.measure.sample import sample
from gpuaria.mirrors.measure.shared_hosts import SharedHosts, mark_shared_hosts
from gpuaria.mirrors.measure.stream import SampleLimits
from gpuaria.records import Mirror, RemoteFile
from gpuaria.sources.protocol import Stated

BUDGET = 3.0  # seconds
ADDRESSES = 8  # tried per host
Lookup = Callable[[Mirror], tuple[str, Stated] | None]


@dataclass(frozen=True)
class Tools:
    """The functions with side effects.

    `lookup` returns the final URL of the sampled file at a mirror and the mirror's statements about it, None if its
    bytes need a credential; it raises GpuariaError. `pings`: measure ICMP.
    """

    lookup: Lookup
    resolvers: Resolvers
    context: ssl.SSLContext
    environ: Mapping[str, str] = field(default_factory=dict)
    user_agent: str = "gpuaria"
    pings: bool = True
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Reads:
    """Sampling of a file: one read for each number of connections, each within `limits`."""

    connections: tuple[int, ...] = (1, 4)
    limits: SampleLimits | None = None


def survey(
    mirrors: Sequence[Mirror],
    commit: str,
    file: RemoteFile,
    tools: Tools,
    budget: float = BUDGET,
    reads: Reads = Reads(),
) -> tuple[MirrorFindings, ...]:
    """Measure each mirror for `file` at `commit`; return the findings in the given order after about `budget` seconds.

    A mirror's failure does not raise; Interrupted is raised if `tools.lookup` raises it.
    """
    deadline = Deadline(budget, tools.clock)
    surveys = [_MirrorSurvey(mirror, commit, file, tools, deadline, reads) for mirror in mirrors]
    shared_hosts = SharedHosts()
    run_all([partial(each.run, shared_hosts) for each in surveys], deadline, 2 * GRACE)
    return mark_shared_hosts([each.findings() for each in surveys])


class _MirrorSurvey:
    """The stages of one mirror. Other threads write `_found`; `findings` may be called at any time."""

    def __init__(
        self, mirror: Mirror, commit: str, file: RemoteFile, tools: Tools, deadline: Deadline, reads: Reads
    ) -> None:
        self._mirror, self._commit, self._file, self._tools = mirror, commit, file, tools
        self._deadline, self._reads = deadline, reads
        self._lock = threading.Lock()
        self._reachable: list[str] = []
        self._found = MirrorFindings(
            mirror.name,
            "",
            LookupFinding("not measured", problem=NO_TIME),
            BytesFinding("not measured", problem=NO_TIME),
            FreshFinding("unknown", problem=f"not measured: {NO_TIME}"),
        )

    def findings(self) -> MirrorFindings:
        """Return the findings so far."""
        with self._lock:
            return self._found

    def _set(self, **values: object) -> None:
        with self._lock:
            self._found = replace(self._found, **values)  # type: ignore[arg-type]

    def run(self, shared_hosts: SharedHosts) -> None:
        """Run all stages, as far as they succeed."""
        try:
            target_route = route(self._mirror.base, self._tools.environ)
        except ValueError as error:
            return self._mark_not_measured(str(error))
        self._set(host=target_route.host, proxy=str(target_route.proxy or ""))
        addresses = self._resolve(target_route)
        if not addresses and not target_route.proxy:
            expired = self._deadline.expired
            return self._mark_not_measured(NO_TIME if expired else f"no IP address found for {target_route.host}")
        pings = BackgroundCall(lambda: ping(addresses, self._deadline)) if addresses and self._tools.pings else None
        first = threading.Event()
        reach = BackgroundCall(lambda: self._reach(target_route, addresses, first))
        first.wait(self._deadline.remaining())
        if self._reachable or (target_route.proxy and target_route.proxy.measuring_problem):
            target = self._request_head()
            if target:
                self._read(target, shared_hosts)
        else:
            reach.result(self._deadline)
            stage, problem = self.findings().failed
            self._mark_not_measured(f"{stage}: {problem}" if stage else NO_TIME)
        reach.result(self._deadline)
        self._set(icmp=(pings.result(self._deadline) if pings else None) or ())
        return self._drop_wrong_addresses()

    def _mark_not_measured(self, why: str) -> None:
        """Mark the HEAD request and all later stages as not measured."""
        self._set(
            lookup=LookupFinding("not measured", problem=why),
            fresh=FreshFinding("unknown", problem=f"not measured: {why}"),
            bytes=BytesFinding("not measured", problem=why),
        )

    def _resolve(self, target_route: Route) -> tuple[str, ...]:
        if target_route.proxy:
            return ()  # the proxy resolves the name
        addresses = self._addresses(target_route.host)
        self._set(addresses=addresses)
        return addresses

    def _addresses(self, host: str) -> tuple[str, ...]:
        """Resolve any host on the route, and keep the resolvers' answers."""
        answers = self._tools.resolvers.query(host, self._deadline)
        self._set(dns=(*self.findings().dns, *answers))
        found = self._tools.resolvers.usable(answers) if answers else (host.strip("[]"),)
        return tcp.happy_eyeballs(found)[:ADDRESSES]

    def _reach(self, target_route: Route, addresses: tuple[str, ...], first: threading.Event) -> None:
        def on_connected(address: str) -> None:
            self._reachable.append(address)
            first.set()

        try:
            found, tls = tcp.measure(target_route, addresses, self._tools.context, self._deadline, on_connected)
            self._set(tcp=found, tls=tls)
        finally:
            first.set()

    def _request_head(self) -> str:
        """Return the final URL of the file, empty if there is none to read from."""
        clock, started = self._deadline.clock, self._deadline.clock()
        try:
            done = BackgroundCall(lambda: (self._tools.lookup(self._mirror),)).result(self._deadline, 0)
        except Interrupted:
            raise
        except GpuariaError as error:
            self._mark_not_measured(f"lookup: {error.message}")
            problem = LookupFinding("failed", clock() - started, error.message, type(error).__name__)
            self._set(lookup=problem)
            return ""
        if done is None:
            return ""  # no time left
        self._set(lookup=LookupFinding("measured", clock() - started))
        if done[0] is None:
            why = "it requires a token"
            self._set(bytes=BytesFinding("not measured", problem=why), fresh=FreshFinding("unknown", problem=why))
            return ""
        url, stated = done[0]
        fresh = compare(stated, self._commit, self._file)
        self._set(fresh=fresh)
        if fresh.verdict in ("stale", "different"):
            self._set(bytes=BytesFinding("not measured", problem=f"{fresh.verdict}: {fresh.problem}"))
            return ""
        return url

    def _read(self, url: str, shared_hosts: SharedHosts) -> None:
        try:
            target_route = route(url, self._tools.environ)
        except ValueError as error:
            return self._set(bytes=BytesFinding("failed", problem=str(error)))
        connection = self._new_connection(target_route)
        if connection is None:
            problem = target_route.proxy.measuring_problem if target_route.proxy else ""
            return self._set(bytes=BytesFinding("not measured", target_route.host_header, problem=problem))
        self._set(bytes=BytesFinding("not measured", target_route.host_header, problem=NO_TIME))

        def work() -> BytesFinding:
            return sample(
                url,
                connection,
                self._deadline,
                size=self._file.size,
                connections=self._reads.connections,
                limits=self._reads.limits,
            )

        return self._set(
            bytes=shared_hosts.measure_once(self._mirror.name, target_route.host_header, work, self._deadline)
        )

    def _new_connection(self, target_route: Route) -> TimedConnection | None:
        tools = self._tools
        if target_route.proxy and target_route.proxy.measuring_problem:
            return None

        def resolve(host: str) -> Sequence[str]:
            found = self.findings()
            if host != found.host:
                return self._addresses(host)
            return [*self._reachable, *(a for a in found.addresses if a not in self._reachable)]

        return TimedConnection(resolve, tools.context, tools.environ, self._deadline, tools.user_agent)

    def _drop_wrong_addresses(self) -> None:
        """Remove false answers and unreachable addresses; sort the others by time to connect."""
        found = self.findings()
        answers = self._tools.resolvers.mark_certificate_lies(found.dns, found.tls)
        seconds = {f.address: f.seconds or 0.0 for f in found.tcp if f.state == "measured"}
        reachable = sorted((a for a in found.addresses if a in self._reachable), key=lambda a: seconds.get(a, 0.0))
        failed = {f.address for f in found.tcp if f.state == "failed"}
        failed |= {f.address for f in found.tls if f.state == "failed"}
        untested = [a for a in found.addresses if a not in reachable and a not in failed]
        self._set(dns=answers, addresses=(*reachable, *untested) if reachable else found.addresses)
