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
from gpuaria.dns.server import NoSuchName, Server, ask_system, parse
from gpuaria.errors import NetworkError

SYSTEM = 2.0  # seconds for the system's resolver; glibc by itself waits 5 s for each server, twice
OTHERS = 3.0  # seconds for all the others
AGAIN = 30.0  # seconds after which they are asked once more


@dataclass
class _Host:
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: bool = False
    system: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    others: dict[str, str] = field(default_factory=dict)  # address: who gave it
    at: float = float("-inf")  # when they were asked, monotonic seconds
    problem: str = ""
    told: bool = False


class Names:
    """Thread-safe; a host's first question may take `SYSTEM` + `OTHERS` seconds. `specs` as `resolver.parse` has them.

    `context` checks DoT and DoH. `tell` gets a sentence once for each host that is not reached as the system says.
    Raises ConfigError for a spec that makes no sense.
    """

    def __init__(
        self, specs: Sequence[str], context: Callable[[], ssl.SSLContext], tell: Callable[[str], None]
    ) -> None:
        self._servers = [server for server in map(parse, specs) if server.way != "system"]
        self._context, self._warn = context, tell
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def instead(self, host: str) -> Sequence[str]:
        """The addresses to use for `host`; empty while the system's own are good, or nobody knows better."""
        if _is_known(host):
            return ()
        one = self._host(host)
        if not one.asked:  # else without the lock: who drives the downloads must not wait for it
            with one.lock:
                if not one.asked:
                    one.system, one.problem = _of_system(host)
                    if one.problem:
                        self._ask(one, host)
                        one.instead = tuple(one.others)
                    one.asked = True
        return one.instead

    def doubt(self, host: str, tried: Sequence[str]) -> Sequence[str]:
        """Addresses beside those `tried` in vain, or beside the system's if these are what was tried."""
        if _is_known(host):
            return ()
        with (one := self._host(host)).lock:
            if time.monotonic() - one.at > AGAIN:
                one.problem = one.problem or "gives no address at which it can be reached"
                self._ask(one, host)
            left = tuple(address for address in one.others if address not in (tried or one.system))
            one.instead = one.instead if left else ()
            return left

    def good(self, host: str, address: str) -> None:
        """Of the others' addresses this one answers: it is tried first from now on."""
        with (one := self._host(host)).lock:
            one.instead = (address, *(other for other in one.others if other != address))
            if not one.told:
                one.told = True
                self._warn(f"{host}: the system's resolver {one.problem}; {one.others.get(address, 'another')} does")

    def _host(self, host: str) -> _Host:
        with self._lock:
            return self._hosts.setdefault(host, _Host())

    def _ask(self, one: _Host, host: str) -> None:
        """Ask all who may know; names of one network only those in it."""
        from gpuaria.dns.resolvers import Resolvers

        one.at = time.monotonic()
        specs = [s.spec for s in self._servers if not false_answers.is_private_name(host) or _is_near(s)]
        if not specs:
            one.others = {}
            return
        resolvers = Resolvers(specs, system=False, context=self._context())
        answers = resolvers.ask(host, Deadline(OTHERS))
        usable = resolvers.usable(answers)
        one.others = {
            address: next(a.resolver for a in answers if address in a.addresses)
            for address in usable
            if address not in one.system
        }


def _is_known(host: str) -> bool:
    """Whether nobody need be asked for it: an address, or this machine by any name (RFC 6761 6.3)."""
    return not host or false_answers.is_literal(host) or f".{host}".endswith(".localhost")


def _of_system(host: str) -> tuple[tuple[str, ...], str]:
    """Its addresses, and what is wrong with its answer."""
    try:
        both = Job(partial(ask_system, host)).result(Deadline(SYSTEM), 0)
    except NoSuchName:
        return (), "does not know it"
    except NetworkError:
        return (), "cannot be asked"
    found = tuple(address for family in (4, 6) for address in both[family]) if both else ()
    return found, "" if found else "does not answer" if both is None else "knows no address of it"


def _is_near(server: Server) -> bool:
    """Whether a resolver is in the user's own network, by its address or its name."""
    if false_answers.is_literal(server.host):
        return bool(false_answers.kind(server.host))
    return false_answers.is_private_name(server.host)
