"""Query several resolvers in parallel, compare their answers, and exclude resolvers that return false ones.

Resolvers may return different edges of a CDN: answers without a common address do not contradict each other, and all
addresses are candidates. An in-memory cache honours times to live (RFC 1035 3.2.1) and stores no failures.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from gpuaria.dns import false_answers
from gpuaria.dns.deadline import BackgroundCall, Deadline
from gpuaria.dns.findings import NO_TIME, DnsAnswer, MeasureState, TlsFinding
from gpuaria.dns.server import DnsServer, NoSuchName, parse_server, query_server, query_system
from gpuaria.errors import NetworkError

NXDOMAIN = "NXDOMAIN"
SETTLE = 0.3  # seconds for slower resolvers after the first usable address
RESOLVER_SECONDS = 2.0  # for any resolver to respond
MIN_SECONDS = 0.05  # with less time left, no response would mean nothing
MAX_TTL = 3600.0
SYSTEM_TTL = 30.0  # assumed: getaddrinfo reports none
CACHED = 256  # maximum answers in the cache
FAMILIES = (4, 6)


class Resolvers:
    """The resolvers of one run. Thread-safe.

    `specs`: see `server.parse_server`; `system`: also query the system's resolver, first. `context` verifies DoT and
    DoH servers. Raises ConfigError for an invalid spec.
    """

    def __init__(
        self,
        specs: Iterable[str] = (),
        *,
        system: bool = True,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        settle: float = SETTLE,
    ) -> None:
        names = [*(["system"] if system else []), *specs]
        self.servers = tuple({server.spec: server for server in map(parse_server, names)}.values())
        self._context, self._clock, self._settle = context, clock, settle
        self._cache: dict[tuple[str, str], tuple[float, tuple[DnsAnswer, ...]]] = {}
        self._liars: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def liars(self) -> dict[str, str]:
        """The first false answer of each resolver that is excluded for the rest of the run."""
        with self._lock:
            return dict(self._liars)

    def query(self, host: str, deadline: Deadline, *, settle: float | None = None) -> tuple[DnsAnswer, ...]:
        """Return each resolver's A and AAAA answers for `host`; empty if `host` is an IP address.

        Returns at most `settle` seconds after the first usable address; resolvers that have not responded by then are
        "not measured".
        """
        if false_answers.is_literal(host):
            return ()
        liars = self.liars
        limit = deadline.within(RESOLVER_SECONDS)
        asked = [server for server in self.servers if server.spec not in liars]
        late: tuple[MeasureState, str] = (
            ("failed", "does not respond") if deadline.remaining() > RESOLVER_SECONDS else ("not measured", NO_TIME)
        )
        answers = self._gather(asked, host, limit, self._settle if settle is None else settle, late)
        excluded = [
            DnsAnswer(
                server.spec,
                host,
                family,
                "not measured",
                problem=f"not used, it gives false answers: {liars[server.spec]}",
            )
            for server in self.servers
            if server.spec in liars
            for family in FAMILIES
        ]
        marked = mark_lies([*answers, *excluded])
        self._record_liars(marked)
        return marked

    def usable(self, answers: Sequence[DnsAnswer]) -> tuple[str, ...]:
        """Return the addresses in `answers` from resolvers without a false answer in this run, the system's first.

        If there are none, return the addresses of a local proxy (198.18.0.0/15).
        """
        liars = self.liars
        honest = [a for a in answers if a.resolver not in liars and not a.lies]
        found = dict.fromkeys(address for a in honest for address in a.addresses)
        if not found:
            found = dict.fromkeys(x for a in answers for x in a.addresses if false_answers.address_is_fake(x))
        return tuple(found)

    def mark_certificate_lies(self, answers: Sequence[DnsAnswer], tls: Sequence[TlsFinding]) -> tuple[DnsAnswer, ...]:
        """Return `answers`, marking addresses with a wrong certificate as lies if another address has a valid one."""
        wrong = {f.address: f.certificate_problem for f in tls if f.certificate_problem}
        if not wrong or not any(f.state == "measured" for f in tls):
            return tuple(answers)
        marked = tuple(
            replace(a, lies=(*a.lies, *(f"{x} has a wrong certificate: {wrong[x]}" for x in a.addresses if x in wrong)))
            for a in answers
        )
        self._record_liars(marked)
        return marked

    def _record_liars(self, answers: Iterable[DnsAnswer]) -> None:
        with self._lock:
            for answer in answers:
                if answer.lies:
                    self._liars.setdefault(answer.resolver, f"{answer.host}: {answer.lies[0]}")

    def _gather(
        self, servers: Sequence[DnsServer], host: str, deadline: Deadline, settle: float, late: tuple[MeasureState, str]
    ) -> list[DnsAnswer]:
        queries = [(s, f) for s in servers for f in ((0,) if s.transport == "system" else FAMILIES)]
        changed = threading.Condition()
        found: dict[tuple[DnsServer, int], tuple[DnsAnswer, ...]] = {}

        def work(server: DnsServer, family: int) -> None:
            answers = self._cached(server, host, family, deadline)
            with changed:
                found[server, family] = answers
                changed.notify_all()

        jobs = [BackgroundCall(partial(work, s, f)) for s, f in queries]
        end = deadline
        with changed:
            while len(found) < len(queries) and not end.expired:
                if end is deadline and any(_is_plausible(a) for answers in found.values() for a in answers):
                    end = deadline.within(settle)
                changed.wait(end.remaining())
            done = dict(found)
        now = Deadline(0)
        for job in jobs:
            job.result(now, 0)  # raises an unexpected exception of the job
        state, silent = late if end is deadline else ("not measured", "slower than the other resolvers")
        return [
            answer
            for s, f in queries
            for answer in done.get((s, f))
            or [DnsAnswer(s.spec, host, n, state, problem=silent) for n in ((f,) if f else FAMILIES)]
        ]

    def _cached(self, server: DnsServer, host: str, family: int, deadline: Deadline) -> tuple[DnsAnswer, ...]:
        key = (server.spec, f"{host}/{family}")
        with self._lock:
            cached = self._cache.get(key)
            if cached and self._clock() < cached[0]:
                return cached[1]
        answers = _findings(server, host, family, deadline, self._context)
        times = [SYSTEM_TTL if a.ttl is None else a.ttl for a in answers if a.state == "measured"]
        if len(times) == len(answers) and min(times) > 0:
            with self._lock:
                if len(self._cache) >= CACHED:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[key] = (self._clock() + min(*times, MAX_TTL), answers)
        return answers


def false_answer_of_system(host: str, seconds: float) -> str:
    """Return why the system's answer for `host` is false; empty if it is plausible or takes over `seconds`."""
    answers = Resolvers(("system",), system=False).query(host, Deadline(seconds))
    return next((lie for answer in answers for lie in answer.lies), "")


def _is_plausible(answer: DnsAnswer) -> bool:
    return bool(answer.addresses) and not any(false_answers.why_false(a, answer.host) for a in answer.addresses)


def _findings(
    server: DnsServer, host: str, family: int, deadline: Deadline, context: ssl.SSLContext | None
) -> tuple[DnsAnswer, ...]:
    """Query one resolver; return one finding, or one for each family from the system's resolver."""
    families = (family,) if family else FAMILIES
    started = deadline.clock()
    if deadline.remaining() < MIN_SECONDS:
        return tuple(DnsAnswer(server.spec, host, f, "not measured", problem=NO_TIME) for f in families)
    try:
        if server.transport == "system":
            both = query_system(host)
            seconds = deadline.clock() - started
            return tuple(DnsAnswer(server.spec, host, f, "measured", both[f], None, seconds) for f in families)
        addresses, ttl = query_server(server, host, family, deadline, context)
        return (DnsAnswer(server.spec, host, family, "measured", addresses, ttl, deadline.clock() - started),)
    except (NoSuchName, NetworkError) as error:
        problem = NXDOMAIN if isinstance(error, NoSuchName) else error.message
        return tuple(DnsAnswer(server.spec, host, f, "failed", problem=problem) for f in families)


def mark_lies(answers: Sequence[DnsAnswer]) -> tuple[DnsAnswer, ...]:
    """Return the answers with `lies` filled in. Pure.

    Lies are addresses that a public name cannot have, and NXDOMAIN against a majority. Exception: the system's
    resolver may know a private address for a name that public resolvers do not know (/etc/hosts, split-horizon DNS).
    """
    given = {a.resolver for a in answers if _is_plausible(a)}
    denied = {a.resolver for a in answers if a.problem == NXDOMAIN}
    private = {a.resolver for a in answers if a.addresses} == {"system"} and bool(denied)
    return tuple(replace(a, lies=tuple(_lies(a, given, denied, private))) for a in answers)


def _lies(answer: DnsAnswer, given: set[str], denied: set[str], private: bool) -> Iterable[str]:
    for address in answer.addresses:
        own = private and false_answers.special_range(address).startswith(
            ("private", "loopback", "shared", "link-local")
        )
        reason = "" if own else false_answers.why_false(address, answer.host)
        if reason:
            yield reason
    if answer.problem == NXDOMAIN and len(given) > len(denied):
        yield f"reports that {answer.host} does not exist, but {len(given)} other resolvers know it"
