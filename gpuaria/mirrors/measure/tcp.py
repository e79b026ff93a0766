"""Timed TCP and TLS connections to several addresses, in the order of Happy Eyeballs (RFC 8305).

The address families alternate, IPv6 first; the next attempt starts when the previous one ends or after 250 ms (RFC 8305
5). `measure` tries all addresses, `connect` keeps the first established connection.
"""

import queue
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest

from gpuaria.dns.deadline import BackgroundCall, Deadline
from gpuaria.dns.findings import NO_TIME, TlsFinding
from gpuaria.errors import NetworkError
from gpuaria.http.route import Route
from gpuaria.mirrors.measure.findings import TcpFinding

STAGGER = 0.25  # seconds, RFC 8305's Connection Attempt Delay
PATIENCE = 2.0  # seconds for one address, both stages together
_HEAD_LIMIT = 16384  # bytes of a proxy's response


@dataclass(slots=True)
class TcpAttempt:
    """One connection attempt: its findings, and the socket if it is established. `tls` is None without an attempt."""

    address: str
    tcp: TcpFinding
    tls: TlsFinding | None = None
    sock: socket.socket | None = None
    silent: bool = False  # no response at all

    def close(self) -> None:
        """Close the socket."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    @property
    def problem(self) -> str:
        """Why the connection failed; empty if it is established."""
        return self.tcp.problem or (self.tls.problem if self.tls else "")


def happy_eyeballs(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses without duplicates, families alternating, IPv6 first (RFC 8305 4)."""
    unique = dict.fromkeys(addresses)
    six, four = [a for a in unique if ":" in a], [a for a in unique if ":" not in a]
    return tuple(a for a in chain.from_iterable(zip_longest(six, four)) if a is not None)


def measure(
    route: Route,
    addresses: Sequence[str],
    context: ssl.SSLContext,
    deadline: Deadline,
    ready: Callable[[str], None] = lambda address: None,
) -> tuple[tuple[TcpFinding, ...], tuple[TlsFinding, ...]]:
    """Connect to every address, with a TLS handshake if the route has one; `ready` is called for each open address.

    Through a proxy there is one attempt, to the host by name; `addresses` are then ignored.
    """
    targets = _targets(route, addresses)
    if route.proxy and route.proxy.measuring_problem:
        problem = route.proxy.measuring_problem
        return _untried(route, targets, problem)
    found: dict[str, TcpAttempt] = {}
    for attempt in _connection_attempts(route, targets, context, deadline):
        found[attempt.address] = attempt
        if attempt.sock is not None:
            attempt.close()
            ready(attempt.address)
    tcp, tls = _untried(route, targets, NO_TIME)
    attempts = [found.get(address) for address in targets]
    tls_findings = [
        attempt.tls if attempt and attempt.tls else untried for attempt, untried in zip(attempts, tls, strict=False)
    ]
    # Without a connection there is no handshake to report.
    connected = [attempt is None or attempt.tls is not None for attempt in attempts]
    return (
        tuple(attempt.tcp if attempt else untried for attempt, untried in zip(attempts, tcp, strict=True)),
        tuple(one for one, tried in zip(tls_findings, connected, strict=False) if tried),
    )


def connect(route: Route, addresses: Sequence[str], context: ssl.SSLContext, deadline: Deadline) -> TcpAttempt:
    """Return the first established connection; the caller closes its socket. Raises NetworkError with all reasons."""
    if route.proxy and route.proxy.measuring_problem:
        raise NetworkError(route.proxy.measuring_problem)
    problems: dict[str, None] = {}
    for attempt in _connection_attempts(route, _targets(route, addresses), context, deadline):
        if attempt.sock is not None:
            return attempt
        problems[attempt.problem] = None
    raise NetworkError("; ".join(problems) or (f"no connection to {route.host_header}: {NO_TIME}"))


def _targets(route: Route, addresses: Sequence[str]) -> tuple[str, ...]:
    return (route.host,) if route.proxy else happy_eyeballs(addresses)


def _untried(route: Route, addresses: Sequence[str], why: str) -> tuple[tuple[TcpFinding, ...], tuple[TlsFinding, ...]]:
    tcp = tuple(TcpFinding(a, route.port, "not measured", problem=why) for a in addresses)
    return tcp, tuple(TlsFinding(a, "not measured", problem=why) for a in addresses if route.tls)


def _connection_attempts(
    route: Route, addresses: Sequence[str], context: ssl.SSLContext, deadline: Deadline
) -> Iterator[TcpAttempt]:
    """Yield the outcome for each address: the first attempt that succeeds, else the last that failed.

    An address that is silent when all have been tried gets a second attempt: a lost SYN costs 1 s (RFC 6298 2.1).
    Sockets of attempts that end after the caller has left are closed.
    """
    results: queue.SimpleQueue[TcpAttempt] = queue.SimpleQueue()
    lock, abandoned = threading.Lock(), threading.Event()
    jobs: list[BackgroundCall[None]] = []

    def run_attempt(address: str) -> None:
        attempt = attempt_connection(route, address, context, deadline.within(PATIENCE))
        with lock:
            if abandoned.is_set():
                attempt.close()
            results.put(attempt)

    waiting, running, pending = [*addresses, *addresses], Counter[str](), set(addresses)
    try:
        while pending:
            waiting = [a for a in waiting if a in pending and not deadline.expired]
            if waiting:
                running[waiting[0]] += 1
                jobs.append(BackgroundCall(partial(run_attempt, waiting.pop(0))))
            try:
                attempt = results.get(
                    timeout=deadline.within(STAGGER).remaining() if waiting else deadline.remaining() + 0.1
                )
            except queue.Empty:
                if deadline.expired:
                    break
                continue
            running[attempt.address] -= 1
            refused = attempt.problem and not attempt.silent
            if attempt.address not in pending:
                attempt.close()
            elif (
                attempt.sock is not None or refused or (not running[attempt.address] and attempt.address not in waiting)
            ):
                pending.discard(attempt.address)
                yield attempt
    finally:
        with lock:
            abandoned.set()
        while not results.empty():
            results.get().close()
    for job in jobs:
        job.result(Deadline(0), 0)  # raises unexpected exceptions of the attempts


def attempt_connection(route: Route, address: str, context: ssl.SSLContext, deadline: Deadline) -> TcpAttempt:
    """Make one attempt to connect to an address, or through a proxy's tunnel. Never raises for network errors."""
    started, sock = deadline.clock(), None
    try:
        if route.proxy:
            sock = socket.create_connection((route.proxy.host, route.proxy.port), _positive(deadline))
            if route.tls:
                _tunnel(sock, route, deadline)
        else:
            sock = socket.create_connection((address, route.port), _positive(deadline))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, NetworkError) as error:
        if sock is not None:
            sock.close()
        via = f"the proxy {route.proxy}: " if route.proxy else ""
        finding = TcpFinding(address, route.port, "failed", problem=via + reason(error))
        return TcpAttempt(address, finding, silent=isinstance(error, TimeoutError))
    attempt = TcpAttempt(address, TcpFinding(address, route.port, "measured", deadline.clock() - started), None, sock)
    return _with_tls(attempt, route, context, deadline) if route.tls else attempt


def _with_tls(attempt: TcpAttempt, route: Route, context: ssl.SSLContext, deadline: Deadline) -> TcpAttempt:
    started, plain = deadline.clock(), attempt.sock
    assert plain is not None
    attempt.sock = None
    try:
        plain.settimeout(_positive(deadline))
        attempt.sock = encrypted = context.wrap_socket(plain, server_hostname=route.host)
        attempt.tls = TlsFinding(attempt.address, "measured", deadline.clock() - started, encrypted.version() or "")
    except ssl.SSLCertVerificationError as error:
        plain.close()
        wrong = error.verify_message or str(error)
        text = f"the certificate cannot be trusted: {wrong}"
        attempt.tls = TlsFinding(attempt.address, "failed", problem=text, certificate_problem=wrong)
    except (OSError, ValueError) as error:
        plain.close()
        attempt.tls = TlsFinding(attempt.address, "failed", problem=f"no TLS: {reason(error)}")
    return attempt


def _tunnel(sock: socket.socket, route: Route, deadline: Deadline) -> None:
    """Open a tunnel through a proxy by CONNECT (RFC 9110 9.3.6). Raises NetworkError."""
    assert route.proxy is not None
    host = f"[{route.host}]" if ":" in route.host else route.host
    head = f"CONNECT {host}:{route.port} HTTP/1.1\r\nHost: {host}:{route.port}\r\n"
    if route.proxy.authorization:
        head += f"Proxy-Authorization: {route.proxy.authorization}\r\n"
    sock.settimeout(_positive(deadline))
    sock.sendall(f"{head}\r\n".encode("latin-1"))
    response = b""
    while b"\r\n\r\n" not in response:
        sock.settimeout(_positive(deadline))
        chunk = sock.recv(4096)
        response += chunk
        if not chunk or len(response) > _HEAD_LIMIT:
            raise NetworkError("sent an invalid response to CONNECT")
    status = response.split(b"\r\n")[0].decode("latin-1").partition(" ")[2][:60]
    if not status.startswith("2"):
        raise NetworkError(f"refuses a tunnel to {route.host_header}: {status}")


def _positive(deadline: Deadline) -> float:
    return max(0.001, deadline.remaining())


def reason(error: Exception) -> str:
    """Return a socket error in a few words."""
    if isinstance(error, NetworkError):
        return error.message
    if isinstance(error, TimeoutError):
        return "no response"
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error.strerror or error).replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
