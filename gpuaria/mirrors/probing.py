"""Background probes of mirrors during a fetch: DNS, TCP and ICMP during the listing, then a small range of a file.

A fetch never waits for a probe. Results that arrive before the mirrors are ranked affect the ranking; later ones go
into the report, and measured rates into the history.
"""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuaria.dns import false_answers
from gpuaria.dns.deadline import BackgroundCall, Deadline
from gpuaria.errors import GpuariaError, Interrupted
from gpuaria.http.client import Http
from gpuaria.mirrors.location import UNKNOWN, Location, distance, own_place, place_named
from gpuaria.mirrors.ranking import Ranking
from gpuaria.records import Manifest, Mirror, MirrorUse, RemoteFile
from gpuaria.settings import Settings
from gpuaria.sources.protocol import Source

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused: the probe ends with the TCP connection
LOG = logging.getLogger("gpuaria.mirrors")
BUDGET = 3.0  # seconds for each phase
RESOLVER_GRACE = 0.1  # seconds for slower resolvers once one has answered
ADDRESSES = 2  # tried per mirror
PINGS = 2
PING_AFTER = 0.15  # seconds that a listing takes before mirrors are pinged: icmplib needs 0.09 s of CPU to import
RANGE_LIMITS = 0.5, 256 << 10  # seconds and bytes of the small range at most
LEAST_SIZE = 32_000_000  # bytes; no range is read of smaller files


@dataclass(frozen=True, slots=True)
class Probed:
    """The probes of one mirror so far; times in seconds, rate in bytes per second, None if not measured.

    `rtt`: time to connect to its fastest address. `ping`, `loss`: of echo requests. `problem`: why it cannot be
    reached.
    """

    addresses: tuple[str, ...] = ()
    rtt: float | None = None
    ping: float | None = None
    loss: float | None = None
    rate: float | None = None
    problem: str = ""


@dataclass
class Probing:
    """The probes of one fetch. Thread-safe. `close` stops probes that have not begun."""

    http: Http
    resolvers: Sequence[str] = ("system",)
    location: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    user_agent: str = "gpuaria"
    _results: dict[Mirror, Probed] = field(default_factory=dict)
    _rank_reasons: dict[str, str] = field(default_factory=dict)
    _without_rate: set[str] = field(default_factory=set)
    _place: Location | None = None
    _ranked: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_settings(cls, settings: Settings, http: Http, user_agent: str) -> "Probing":
        """Return the probing that the settings describe."""
        return cls(http, settings.resolvers, settings.location, user_agent=user_agent)

    def start(self, mirrors: Sequence[Mirror]) -> None:
        """Probe mirrors in the background, once per fetch. If the origin is the only mirror, it is not probed."""
        with self._lock:
            new = [one for one in mirrors if one not in self._results] if not all(m.primary for m in mirrors) else []
            self._results |= {one: Probed() for one in new}
        for mirror in new:
            self._run_in_background(mirror, self._measure_connect)

    def probe_more(self, mirrors: Sequence[Mirror], manifest: Manifest, file: RemoteFile, source: Source) -> None:
        """Read a small range of a large file from each mirror in the background; `file` is about to be downloaded.

        A mirror that was not pinged during the listing is pinged too.
        """
        if file.size < LEAST_SIZE or manifest.restricted:
            return

        def read(mirror: Mirror) -> None:
            self._read_range(mirror, manifest, file, source)

        for mirror in mirrors:
            if self.result_of(mirror).ping is None:
                self._run_in_background(mirror, self._ping)
            self._run_in_background(mirror, read)

    def result_of(self, mirror: Mirror) -> Probed:
        """Return the probes of a mirror so far."""
        with self._lock:
            return self._results.get(mirror, Probed())

    def distance(self, mirror: Mirror) -> int:
        """Return the distance of a mirror from this machine by location, see `location.distance`."""
        if not mirror.location:
            return UNKNOWN
        with self._lock:
            self._place = self._place or own_place(self.location, self.environ)
        return distance(self._place, place_named(mirror.location))

    def record_ranking(self, ranking: Ranking) -> None:
        """Keep the ranking's reasons for the report, and log them."""
        with self._lock:
            self._rank_reasons = {choice.mirror: choice.reason for choice in ranking.accepted}
            self._without_rate = {choice.mirror for choice in ranking.accepted if choice.rate is None}
        self._ranked.set()
        for number, choice in enumerate(ranking.accepted, 1):
            LOG.info("mirror %d: %s, %s", number, choice.mirror, choice.reason)

    def record_joined(self, mirrors: Sequence[Mirror], because: str) -> None:
        """Record and probe mirrors that join during the transfer."""
        with self._lock:
            self._rank_reasons |= {mirror.name: f"joined: {because}" for mirror in mirrors}
        self.start(mirrors)

    @property
    def without_rate(self) -> set[str]:
        """Names of the mirrors whose rate was unknown when they were ranked."""
        with self._lock:
            return set(self._without_rate)

    @property
    def reasons(self) -> dict[str, str]:
        """The reason for each mirror's rank, by name, in ranking order."""
        with self._lock:
            return dict(self._rank_reasons)

    def with_probe_results(self, use: MirrorUse) -> MirrorUse:
        """Return `use` with the mirror's probed times and the reason for its rank."""
        with self._lock:
            found = next((one for mirror, one in self._results.items() if mirror.name == use.name), Probed())
            rtt, ping = (None if time is None else round(time, 6) for time in (found.rtt, found.ping))
            return replace(use, rtt=rtt, ping=ping, rank_reason=self._rank_reasons.get(use.name, ""))

    def rates(self) -> dict[Mirror, float]:
        """Return the rates of the small range reads, in bytes per second."""
        with self._lock:
            return {mirror: one.rate for mirror, one in self._results.items() if one.rate}

    def close(self) -> None:
        """Stop the probes; late results are ignored."""
        self._closed.set()
        self._ranked.set()

    def _run_in_background(self, mirror: Mirror, work: Callable[[Mirror], None]) -> None:
        def probe() -> None:
            try:
                work(mirror)
            except Interrupted:
                pass
            except (GpuariaError, OSError, ValueError) as error:
                self._update(mirror, problem=str(error))

        BackgroundCall(probe)

    def _update(self, mirror: Mirror, **values: object) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._results[mirror] = replace(self._results.get(mirror, Probed()), **values)  # type: ignore[arg-type]

    def _measure_connect(self, mirror: Mirror) -> None:
        from gpuaria.mirrors.measure import tcp  # imported late: takes 25 ms, and most runs do not need it

        route, deadline = self.http.routes.route(mirror.base), Deadline(BUDGET)
        if route.proxy:
            return  # only the proxy's distance to the mirror matters
        addresses = route.addresses or self._resolve(mirror, route.host, deadline)
        if not addresses:
            return
        tried = tcp.happy_eyeballs(addresses)[:ADDRESSES]
        self._update(mirror, addresses=tried)
        reached, _ = tcp.measure(replace(route, tls=False), tried, _NO_TLS, deadline)
        times = [one.seconds for one in reached if one.state == "measured" and one.seconds is not None]
        failed = "; ".join(dict.fromkeys(one.problem for one in reached if one.state == "failed"))
        self._update(mirror, rtt=min(times, default=None), problem="" if times else f"TCP: {failed}" if failed else "")
        LOG.info("mirror %s: %s", mirror.name, self.result_of(mirror))
        if not self._ranked.wait(PING_AFTER):
            self._ping(mirror)

    def _ping(self, mirror: Mirror) -> None:
        from gpuaria.mirrors.measure.icmp import ping

        tried = self.result_of(mirror).addresses
        echoes = [one for one in ping(tried, Deadline(BUDGET), count=PINGS) if one.rtt is not None]
        if echoes:
            best = min(echoes, key=lambda one: one.rtt or 0.0)
            self._update(mirror, ping=best.rtt, loss=best.loss)
            LOG.info(
                "mirror %s: ping %.0f ms, %.0f %% lost", mirror.name, (best.rtt or 0) * 1e3, (best.loss or 0) * 100
            )

    def _resolve(self, mirror: Mirror, host: str, deadline: Deadline) -> tuple[str, ...]:
        from gpuaria.dns.resolvers import Resolvers

        if false_answers.is_literal(host):
            return (host.strip("[]"),)
        # Do not send private names to external resolvers.
        specs = ("system",) if false_answers.is_private_name(host) else self.resolvers
        encrypted = any("://" in spec for spec in specs)
        resolvers = Resolvers(specs, system=False, context=self.http.routes.context() if encrypted else None)
        answers = resolvers.query(host, deadline, settle=RESOLVER_GRACE)
        usable = resolvers.usable(answers)
        if not usable:
            lie = next((lie for answer in answers for lie in answer.lies), "no IP address found")
            self._update(mirror, problem=f"DNS: {lie}")
        return usable

    def _read_range(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, source: Source) -> None:
        from gpuaria.mirrors.measure.connection import TimedConnection
        from gpuaria.mirrors.measure.sample import sample
        from gpuaria.mirrors.measure.stream import SampleLimits

        located = source.locate(mirror, manifest, file, self.http)
        if located is None or self._closed.is_set():
            return
        deadline = Deadline(BUDGET)

        def resolve(host: str) -> Sequence[str]:
            return self._resolve(mirror, host, deadline)

        connection = TimedConnection(resolve, self.http.routes.context(), self.environ, deadline, self.user_agent)
        read = sample(
            located.url, connection, deadline, size=file.size, connections=(1,), limits=SampleLimits(*RANGE_LIMITS)
        )
        if read.rates:
            self._update(mirror, rate=read.rates[0].tail)
            LOG.info(
                "read %d bytes of %s from %s: %.1f MB/s", read.bytes, file.path, mirror.name, (read.rate or 0) / 1e6
            )
