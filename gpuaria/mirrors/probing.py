"""Probe mirrors while a fetch is busy: DNS, TCP and ICMP during the listing, then a small range of a file.

Nothing waits for a probe. What is known when the mirrors are ranked counts; the rest is for the report, and a
measured rate for the history.
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
from gpuaria.records import Manifest, Mirror, MirrorUse, Ranking, RemoteFile
from gpuaria.settings import Settings
from gpuaria.sources.protocol import Source

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used: the probe ends with the TCP connection
LOG = logging.getLogger("gpuaria.mirrors")
BUDGET = 3.0  # seconds for each part of the probes
SETTLE = 0.1  # seconds that slower resolvers get once one has answered
ADDRESSES = 2  # of one mirror that are tried
PINGS = 2
RANGE = 0.5, 256 << 10  # seconds and bytes of the small range at most
WORTH = 32_000_000  # bytes of the largest file from which a small range of it is read


@dataclass(frozen=True, slots=True)
class Probed:
    """The probes of one mirror so far; times in seconds, rate in bytes per second, None where not measured.

    `rtt`: to connect to its quickest address. `ping`, `loss`: of echo requests. `problem`: why it cannot be reached.
    """

    addresses: tuple[str, ...] = ()
    rtt: float | None = None
    ping: float | None = None
    loss: float | None = None
    rate: float | None = None
    problem: str = ""


@dataclass
class Probing:
    """The probes of one fetch. Thread-safe. `close` ends what they would still begin."""

    http: Http
    resolvers: Sequence[str] = ("system",)
    location: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    user_agent: str = "gpuaria"
    _found: dict[Mirror, Probed] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)
    _place: Location | None = None
    _closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, settings: Settings, http: Http, user_agent: str) -> "Probing":
        """The probes that these settings describe."""
        return cls(http, settings.resolvers, settings.location, user_agent=user_agent)

    def start(self, mirrors: Sequence[Mirror]) -> None:
        """Probe mirrors in the background, each once per fetch. The origin alone needs no order, and is not probed."""
        with self._lock:
            new = [one for one in mirrors if one not in self._found] if not all(m.primary for m in mirrors) else []
            self._found |= {one: Probed() for one in new}
        for mirror in new:
            self._begin(mirror, self._reach)

    def deepen(self, mirrors: Sequence[Mirror], manifest: Manifest, file: RemoteFile, source: Source) -> None:
        """Read a small range of a large file from each mirror in the background; `file` is to be fetched."""
        if file.size < WORTH or manifest.restricted:
            return

        def read(mirror: Mirror) -> None:
            self._read(mirror, manifest, file, source)

        for mirror in mirrors:
            self._begin(mirror, read)

    def found(self, mirror: Mirror) -> Probed:
        """Return the probes of a mirror so far."""
        with self._lock:
            return self._found.get(mirror, Probed())

    def distance(self, mirror: Mirror) -> int:
        """How far a mirror is from this machine by its location, see `location.distance`."""
        if not mirror.location:
            return UNKNOWN
        with self._lock:
            self._place = self._place or own_place(self.location, self.environ)
        return distance(self._place, place_named(mirror.location))

    def ranked(self, ranking: Ranking) -> None:
        """Take in the order in which the mirrors are used, for the report and the log."""
        with self._lock:
            self._reasons = {choice.mirror: choice.reason for choice in ranking.accepted}
            self._unknown = {choice.mirror for choice in ranking.accepted if choice.rate is None}
        for number, choice in enumerate(ranking.accepted, 1):
            LOG.info("mirror %d: %s, %s", number, choice.mirror, choice.reason)

    def joined(self, mirrors: Sequence[Mirror], because: str) -> None:
        """Take in mirrors that join during the transfer, and why; they are probed for the report."""
        with self._lock:
            self._reasons |= {mirror.name: f"joined: {because}" for mirror in mirrors}
        self.start(mirrors)

    @property
    def unknown(self) -> set[str]:
        """Mirrors of whose rate nothing was known when they were ranked."""
        with self._lock:
            return set(self._unknown)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each ranked mirror has its place in the order, by its name, the first one first."""
        with self._lock:
            return dict(self._reasons)

    def told(self, use: MirrorUse) -> MirrorUse:
        """`use` with the probes of the mirror and the reason for its place in the order."""
        with self._lock:
            found = next((one for mirror, one in self._found.items() if mirror.name == use.name), Probed())
            rtt, ping = (None if time is None else round(time, 6) for time in (found.rtt, found.ping))
            return replace(use, rtt=rtt, ping=ping, rank_reason=self._reasons.get(use.name, ""))

    def rates(self) -> dict[Mirror, float]:
        """Return the rates that small ranges measured, in bytes per second."""
        with self._lock:
            return {mirror: one.rate for mirror, one in self._found.items() if one.rate}

    def close(self) -> None:
        """End the probes; a late result changes nothing."""
        self._closed.set()

    def _begin(self, mirror: Mirror, work: Callable[[Mirror], None]) -> None:
        def probe() -> None:
            try:
                work(mirror)
            except Interrupted:
                pass
            except (GpuariaError, OSError, ValueError) as error:
                self._set(mirror, problem=str(error))

        BackgroundCall(probe)

    def _set(self, mirror: Mirror, **values: object) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._found[mirror] = replace(self._found.get(mirror, Probed()), **values)  # type: ignore[arg-type]

    def _reach(self, mirror: Mirror) -> None:
        from gpuaria.mirrors.measure import tcp  # the measuring modules take 25 ms to import, and most runs need none

        route, deadline = self.http.routes.route(mirror.base), Deadline(BUDGET)
        if route.proxy:
            return  # the proxy reaches it, and its distance is not this machine's
        addresses = route.addresses or self._resolved(mirror, route.host, deadline)
        if not addresses:
            return
        tried = tcp.happy_eyeballs(addresses)[:ADDRESSES]
        self._set(mirror, addresses=tried)
        reached, _ = tcp.measure(replace(route, tls=False), tried, _NO_TLS, deadline)
        times = [one.seconds for one in reached if one.state == "measured" and one.seconds is not None]
        failed = "; ".join(dict.fromkeys(one.problem for one in reached if one.state == "failed"))
        self._set(mirror, rtt=min(times, default=None), problem="" if times else f"TCP: {failed}" if failed else "")
        LOG.info("mirror %s: %s", mirror.name, self.found(mirror))
        self._ping(mirror)

    def _ping(self, mirror: Mirror) -> None:
        from gpuaria.mirrors.measure.icmp import ping

        tried = self.found(mirror).addresses
        echoes = [one for one in ping(tried, Deadline(BUDGET), count=PINGS) if one.rtt is not None]
        if echoes:
            best = min(echoes, key=lambda one: one.rtt or 0.0)
            self._set(mirror, ping=best.rtt, loss=best.loss)
            LOG.info(
                "mirror %s: ping %.0f ms, %.0f %% lost", mirror.name, (best.rtt or 0) * 1e3, (best.loss or 0) * 100
            )

    def _resolved(self, mirror: Mirror, host: str, deadline: Deadline) -> tuple[str, ...]:
        from gpuaria.dns.resolvers import Resolvers

        if false_answers.is_literal(host):
            return (host.strip("[]"),)
        # The names of one network are no business of resolvers elsewhere.
        specs = ("system",) if false_answers.is_private_name(host) else self.resolvers
        encrypted = any("://" in spec for spec in specs)
        resolvers = Resolvers(specs, system=False, context=self.http.routes.context() if encrypted else None)
        answers = resolvers.query(host, deadline, settle=SETTLE)
        usable = resolvers.usable(answers)
        if not usable:
            lie = next((lie for answer in answers for lie in answer.lies), "no address is known")
            self._set(mirror, problem=f"DNS: {lie}")
        return usable

    def _read(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, source: Source) -> None:
        from gpuaria.mirrors.measure.connection import Straight
        from gpuaria.mirrors.measure.sample import sample
        from gpuaria.mirrors.measure.stream import SampleLimits

        there = source.locate(mirror, manifest, file, self.http)
        if there is None or self._closed.is_set():
            return
        deadline = Deadline(BUDGET)

        def resolve(host: str) -> Sequence[str]:
            return self._resolved(mirror, host, deadline)

        carrier = Straight(resolve, self.http.routes.context(), self.environ, deadline, self.user_agent)
        read = sample(there.url, carrier, deadline, size=file.size, connections=(1,), limits=SampleLimits(*RANGE))
        if read.rates:
            self._set(mirror, rate=read.rates[0].tail)
            LOG.info(
                "read %d bytes of %s from %s: %.1f MB/s", read.bytes, file.path, mirror.name, (read.rate or 0) / 1e6
            )
