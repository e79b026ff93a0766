"""The addresses that a run uses for a host: the system's, and where those are of no use, other resolvers'.

The system comes first: it alone knows the names of a company and of /etc/hosts, and nobody else need learn what is
fetched. Others are asked when it does not know a name, stays silent, or gives addresses at which nobody answers or a
wrong certificate is shown.
"""

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gpuaria.dns import false_answers
from gpuaria.dns.deadline import Deadline, Job
from gpuaria.dns.server import NoSuchName, Server, parse_server, query_system
from gpuaria.errors import NetworkError

SYSTEM_SECONDS = 2.0  # seconds for the system's resolver; glibc by itself waits 5 s for each server, twice
OTHERS_SECONDS = 3.0  # seconds for all the others
RETRY_SECONDS = 30.0  # seconds after which they are asked once more


@dataclass
class _HostState:
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: bool = False
    system: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    others: dict[str, str] = field(default_factory=dict)  # address: who gave it
    asked_at: float = float("-inf")  # when they were asked, monotonic seconds
    problem: str = ""
    warned: bool = False


class FallbackResolver:
    """Replacement addresses for hosts that the system's resolver does not resolve properly. Thread-safe.

    The first query for a host takes up to `SYSTEM_SECONDS` + `OTHERS_SECONDS`. `specs`: see `server.parse_server`.

    `context` checks DoT and DoH. `warn` gets a sentence once for each host that is not reached as the system says.
    Raises ConfigError for a spec that makes no sense.
    """

    def __init__(
        self, specs: Sequence[str], context: Callable[[], ssl.SSLContext], warn: Callable[[str], None]
    ) -> None:
        self._servers = [server for server in map(parse_server, specs) if server.transport != "system"]
        self._context, self._warn = context, warn
        self._hosts: dict[str, _HostState] = {}
        self._lock = threading.Lock()

    def overrides(self, host: str) -> Sequence[str]:
        """The addresses to use for `host`; empty while the system's own are good, or nobody knows better."""
        if _needs_no_resolver(host):
            return ()
        state = self._state(host)
        if not state.asked:  # else without the lock: who drives the downloads must not wait for it
            with state.lock:
                if not state.asked:
                    state.system, state.problem = _ask_system(host)
                    if state.problem:
                        self._query_others(state, host)
                        state.overrides = tuple(state.others)
                    state.asked = True
        return state.overrides

    def alternatives(self, host: str, tried: Sequence[str]) -> Sequence[str]:
        """Addresses beside those `tried` in vain, or beside the system's if these are what was tried."""
        if _needs_no_resolver(host):
            return ()
        with (state := self._state(host)).lock:
            if time.monotonic() - state.asked_at > RETRY_SECONDS:
                state.problem = state.problem or "gives no address at which it can be reached"
                self._query_others(state, host)
            left = tuple(address for address in state.others if address not in (tried or state.system))
            state.overrides = state.overrides if left else ()
            return left

    def confirm(self, host: str, address: str) -> None:
        """Of the others' addresses these answers: it is tried first from now on."""
        with (state := self._state(host)).lock:
            state.overrides = (address, *(other for other in state.others if other != address))
            if not state.warned:
                state.warned = True
                self._warn(
                    f"{host}: the system's resolver {state.problem}; {state.others.get(address, 'another')} does"
                )

    def _state(self, host: str) -> _HostState:
        with self._lock:
            return self._hosts.setdefault(host, _HostState())

    def _query_others(self, state: _HostState, host: str) -> None:
        """Ask all who may know; names of one network only those in it."""
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
    """Whether nobody need be asked for it: an address, or this machine by any name (RFC 6761 6.3)."""
    return not host or false_answers.is_literal(host) or f".{host}".endswith(".localhost")


def _ask_system(host: str) -> tuple[tuple[str, ...], str]:
    """Its addresses, and what is wrong with its answer."""
    try:
        both = Job(partial(query_system, host)).result(Deadline(SYSTEM_SECONDS), 0)
    except NoSuchName:
        return (), "does not know it"
    except NetworkError:
        return (), "cannot be asked"
    found = tuple(address for family in (4, 6) for address in both[family]) if both else ()
    return found, "" if found else "does not answer" if both is None else "knows no address of it"


def _is_local(server: Server) -> bool:
    """Whether a resolver is in the user's own network, by its address or its name."""
    if false_answers.is_literal(server.host):
        return bool(false_answers.special_range(server.host))
    return false_answers.is_private_name(server.host)
