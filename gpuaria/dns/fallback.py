"""Fall back to other resolvers for a host when the system's resolver fails.

The system's resolver comes first: only it knows /etc/hosts and internal names, and no outside server learns which hosts
gpuaria contacts. Other resolvers are queried if it does not know a name, does not respond, or returns addresses that do
not accept a connection or present a wrong certificate.
"""

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gpuaria.dns import false_answers
from gpuaria.dns.deadline import BackgroundCall, Deadline
from gpuaria.dns.server import DnsServer, NoSuchName, parse_server, query_system
from gpuaria.errors import NetworkError

SYSTEM_SECONDS = 2.0  # for the system's resolver; glibc alone waits 5 s for each server, twice
OTHERS_SECONDS = 3.0  # for all other resolvers together
RETRY_SECONDS = 30.0  # until the other resolvers are queried again for the same host


@dataclass
class _HostState:
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: bool = False
    system: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    others: dict[str, str] = field(default_factory=dict)  # address -> resolver
    asked_at: float = float("-inf")  # last query to the others, in monotonic seconds
    problem: str = ""
    warned: bool = False


class FallbackResolver:
    """Replacement addresses for hosts that the system's resolver does not resolve properly. Thread-safe.

    The first query for a host takes up to `SYSTEM_SECONDS` + `OTHERS_SECONDS`. `specs`: see `server.parse_server`.

    `context` verifies DoT and DoH servers. `warn` is called once for each host for which other addresses are used.
    Raises ConfigError for an invalid spec.
    """

    def __init__(
        self, specs: Sequence[str], context: Callable[[], ssl.SSLContext], warn: Callable[[str], None]
    ) -> None:
        self._servers = [server for server in map(parse_server, specs) if server.transport != "system"]
        self._context, self._warn = context, warn
        self._hosts: dict[str, _HostState] = {}
        self._lock = threading.Lock()

    def overrides(self, host: str) -> Sequence[str]:
        """Return the addresses to use for `host`; empty to use the system's."""
        if _needs_no_resolver(host):
            return ()
        state = self._state(host)
        if not state.asked:  # otherwise without the lock: the transfer loop must not wait for it
            with state.lock:
                if not state.asked:
                    state.system, state.problem = _ask_system(host)
                    if state.problem:
                        self._query_others(state, host)
                        state.overrides = tuple(state.others)
                    state.asked = True
        return state.overrides

    def alternatives(self, host: str, tried: Sequence[str]) -> Sequence[str]:
        """Return addresses other than those `tried` without success; an empty `tried` means the system's."""
        if _needs_no_resolver(host):
            return ()
        with (state := self._state(host)).lock:
            if time.monotonic() - state.asked_at > RETRY_SECONDS:
                state.problem = state.problem or "returns no reachable IP address"
                self._query_others(state, host)
            left = tuple(address for address in state.others if address not in (tried or state.system))
            state.overrides = state.overrides if left else ()
            return left

    def confirm(self, host: str, address: str) -> None:
        """Record that `address` works: it is tried first from now on."""
        with (state := self._state(host)).lock:
            state.overrides = (address, *(other for other in state.others if other != address))
            if not state.warned:
                state.warned = True
                other = state.others.get(address, "another resolver")
                self._warn(f"{host}: the system's resolver {state.problem}; using {other}")

    def _state(self, host: str) -> _HostState:
        with self._lock:
            return self._hosts.setdefault(host, _HostState())

    def _query_others(self, state: _HostState, host: str) -> None:
        """Query the other resolvers; for a name of a private network only those in the user's own network."""
        from gpuaria.dns.resolvers import Resolvers

        state.asked_at = time.monotonic()
        specs = [s.spec for s in self._servers if not false_answers.is_private_name(host) or _is_local(s)]
        if not specs:
            state.others = {}
            return
        resolvers = Resolvers(specs, system=False, context=self._context())
        answers = resolvers.query(host, Deadline(OTHERS_SECONDS))
        usable = resolvers.usable(answers)
        state.others = {
            address: next(a.resolver for a in answers if address in a.addresses)
            for address in usable
            if address not in state.system
        }


def _needs_no_resolver(host: str) -> bool:
    """True for an IP address, and for names of this machine (RFC 6761 6.3)."""
    return not host or false_answers.is_literal(host) or f".{host}".endswith(".localhost")


def _ask_system(host: str) -> tuple[tuple[str, ...], str]:
    """Return the system's addresses for a host, and the problem with its answer (empty if none)."""
    try:
        both = BackgroundCall(partial(query_system, host)).result(Deadline(SYSTEM_SECONDS), 0)
    except NoSuchName:
        return (), "reports that it does not exist"
    except NetworkError:
        return (), "cannot be queried"
    found = tuple(address for family in (4, 6) for address in both[family]) if both else ()
    return found, "" if found else "does not respond" if both is None else "has no IP address for it"


def _is_local(server: DnsServer) -> bool:
    """True if a resolver is in the user's own network, by its address or its name."""
    if false_answers.is_literal(server.host):
        return bool(false_answers.special_range(server.host))
    return false_answers.is_private_name(server.host)
