"""Runs all checks at once, with one deadline; a check without a result by then is reported as unknown."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from gpuaria.dns.deadline import BackgroundCall, Deadline, run_all
from gpuaria.dns.resolvers import Resolvers
from gpuaria.doctor import hub, machine, names, storage, tls, trace
from gpuaria.doctor.finding import Finding, Notes, exit_status
from gpuaria.doctor.routes import RouteChecks, offline, worst
from gpuaria.errors import ConfigError, GpuariaError
from gpuaria.fetching import World
from gpuaria.fetching.hub import reference
from gpuaria.http.certificates import tls_context
from gpuaria.http.route import route
from gpuaria.mirrors.candidates import may_join
from gpuaria.records import RepoKind, RepoRef
from gpuaria.runtime import Runtime
from gpuaria.settings import Settings
from gpuaria.sources import source

SECONDS = 5.5  # for everything but the traceroute
TRACE = 1.5  # seconds more
_CONNECT, _SILENCE = 2.0, 3.0  # upper limits of the client's time-outs in seconds
# Topics that always get a finding: a command to check by hand, and the exit status if a fetch depends on it.
_MACHINE = {"aria2c": ("aria2c --version", 9), "cache": ("df -h ~/.cache/huggingface", 8), "state": ("df -h ~", 0)}
_NETWORK = {
    "proxy": ("env | grep -i _proxy", 0),
    "DNS": ("getent hosts huggingface.co", 0),
    "TLS": ("curl -v https://huggingface.co", 0),
    "clock": ("timedatectl status", 0),
    "endpoint": ("curl -v https://huggingface.co", 7),
    "token": ("hf auth whoami", 0),
}


@dataclass(frozen=True, slots=True)
class Checkup:
    """All findings, in the order of GROUPS. `ref` is empty if no repo was given."""

    ref: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """Return the exit status, as `exit_status` defines it."""
        return exit_status(self.findings)


def examine(
    settings: Settings, environ: Mapping[str, str], text: str, kind: RepoKind | None, revision: str, *, with_trace: bool
) -> Checkup:
    """Check everything that a fetch of `text` (a repo, or empty) needs, in about 6 s, or 8 s with a trace.

    Raises UsageError if `text` is not a repo. Problems are findings and raise nothing.
    """
    notes, halt = Notes(), threading.Event()
    network = _Network(settings, environ, notes, halt, with_trace=with_trace)
    ref = network.parse(text, kind, revision) if text else None
    deadline = Deadline(SECONDS)
    machine.versions(notes)
    machine.open_files(notes)
    checks: list[Callable[[], None]] = [
        partial(machine.aria2c, settings, notes),
        partial(storage.cache, settings, notes),
        partial(storage.state, settings, notes),
        partial(machine.icmp, deadline, notes),
        partial(network.check, ref, deadline),
    ]
    run_all(checks, Deadline(SECONDS + (TRACE if with_trace else 0.0)))
    halt.set()
    expected = _MACHINE if settings.offline else {**_MACHINE, **_NETWORK}
    return Checkup(str(ref or ""), _completed(notes, expected))


def _completed(notes: Notes, expected: Mapping[str, tuple[str, int]]) -> tuple[Finding, ...]:
    """Return the findings, with "unknown" for topics without a result in time."""
    known = {finding.topic for finding in notes.snapshot()}
    for topic, (fix, status) in expected.items():
        if topic not in known:
            notes.unknown(topic, "not checked: no result in time", fix, status)
    return notes.snapshot()


class _Network:
    """Checks that need a Runtime. The check's thread builds it, since access to the state folder may hang."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], notes: Notes, halt: threading.Event, *, with_trace: bool
    ) -> None:
        self._settings, self._environ, self._notes = settings, environ, notes
        self._halt, self._with_trace = halt, with_trace

    def parse(self, text: str, kind: RepoKind | None, revision: str) -> RepoRef:
        """Return the repo that `text` names. Raises UsageError."""
        return reference(self._settings, text, kind, revision)

    def check(self, ref: RepoRef | None, deadline: Deadline) -> None:
        """Run the network checks, or report that gpuaria is offline."""
        try:
            runtime = self._runtime(ref)
        except ConfigError as error:
            return self._notes.failed("settings", error)
        with runtime, runtime.world(stop=self._halt, ref=ref) as world:
            if self._settings.offline:
                return self._offline(world, ref)
            return self._online(runtime.hub(ref).settings, world, ref, deadline)

    def _runtime(self, ref: RepoRef | None) -> Runtime:
        """Return a runtime with short time-outs; report a token that cannot be read, and continue without it."""
        s = replace(
            self._settings,
            patience=0.0,
            connect_timeout=min(self._settings.connect_timeout, _CONNECT),
            timeout=min(self._settings.timeout, _SILENCE),
        )
        try:
            own = s.for_source(source(ref.source if ref else "hf").about)
            if own.token_source(own.endpoint) is None:
                own.find_token()
        except ConfigError as error:
            self._notes.failed("token", error)
            s = replace(s, implicit_token=False)
        return Runtime(s, stop=self._halt)

    def _offline(self, world: World, ref: RepoRef | None) -> None:
        where = self._settings.setting_source("offline").where or "--offline"
        text = f"{where} is set: a fetch uses local files only; the network is not checked"
        self._notes.warn("offline", text, f"unset {where}" if where.isupper() else f"remove {where}")
        if ref is not None:
            offline(world, ref, self._notes)

    def _online(self, s: Settings, world: World, ref: RepoRef | None, deadline: Deadline) -> None:
        mirrors = world.mirrors
        bundle = str(s.ca_bundle or "")
        try:
            context = tls_context(bundle)
        except GpuariaError as error:
            return self._notes.failed("TLS", error, "unset SSL_CERT_FILE GPUARIA_CA_BUNDLE")
        resolvers = Resolvers(s.resolvers, context=context)
        side = deadline.within(SECONDS - 1.0)
        jobs = [
            BackgroundCall(partial(names.proxies, mirrors, self._environ, side, self._notes)),
            BackgroundCall(partial(names.resolvers, mirrors, resolvers, self._environ, side, self._notes)),
            BackgroundCall(partial(hub.check, s, world.source, world.http, self._notes)),
        ]
        routes = RouteChecks(s, world, ref, deadline, self._notes)
        found = routes.measure(resolvers, context, self._environ)
        tls.check(route(s.endpoint, self._environ), found[0], bundle, deadline, self._notes)
        for job in jobs:
            job.result(deadline, 0)
        if joining := world.candidates.mirrors or world.candidates.forbidden:
            self._notes.ok("mirror", joining if isinstance(joining, str) else may_join(joining))
        if routes.works:
            self._notes.soften("proxy", "TLS")
        hub.quota(s.endpoint, world.http, self._notes, reached=found[0].lookup.state == "measured")
        if self._with_trace:
            bad = worst(found)
            if bad is None:
                text = "no host has an IP address to trace the route to"
                return self._notes.unknown("route", text, "getent hosts huggingface.co")
            trace.route_to(bad.host, bad.addresses[0], Deadline(TRACE - 0.3), self._notes)
        return None
