"""Checks of the resolvers (time, false answers, failures) and of the proxies in the environment."""

import socket
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from gpuaria.dns.deadline import Deadline, run_all
from gpuaria.dns.false_answers import is_literal
from gpuaria.dns.findings import DnsAnswer
from gpuaria.dns.resolvers import NXDOMAIN, RESOLVER_SECONDS, Resolvers
from gpuaria.doctor.finding import Notes
from gpuaria.errors import ConfigError, NetworkError
from gpuaria.http.route import PROXY_SCHEMES, Proxy, route
from gpuaria.mirrors.measure.tcp import reason
from gpuaria.records import Mirror

_ITSELF = "the system's resolver: "
_SYSTEM = "echo 'nameserver 1.1.1.1' | sudo tee /etc/resolv.conf"
_OVER_HTTPS = "export GPUARIA_RESOLVERS=https://1.1.1.1/dns-query"


def resolvers(
    mirrors: Sequence[Mirror], tools: Resolvers, environ: Mapping[str, str], deadline: Deadline, notes: Notes
) -> None:
    """Ask each resolver for every host that is reached without a proxy; add one finding per resolver."""
    routes = [route(mirror.base, environ) for mirror in mirrors]
    hosts = list(dict.fromkeys(one.host for one in routes if not one.proxy and not is_literal(one.host)))
    if not hosts:
        return notes.ok("DNS", "no name to resolve: all hosts are IP addresses, or a proxy resolves them")
    asked = [partial(tools.query, host, deadline, settle=RESOLVER_SECONDS) for host in hosts]
    answers = [answer for found in run_all(asked, deadline) for answer in found or ()]
    good = [server.spec for server in tools.servers if _reliable(_of(answers, server.spec))]
    for server in tools.servers:
        _add_finding(server.spec, _of(answers, server.spec), good, notes)
    return None


def _of(answers: Sequence[DnsAnswer], spec: str) -> list[DnsAnswer]:
    return [answer for answer in answers if answer.resolver == spec]


def _reliable(answers: Sequence[DnsAnswer]) -> bool:
    return any(a.addresses for a in answers) and not any(a.lies for a in answers)


def _add_finding(spec: str, answers: Sequence[DnsAnswer], good: Sequence[str], notes: Notes) -> None:
    """Add the finding for one resolver: false answers first, then failures, then silence."""
    who = "the system's resolver" if spec == "system" else f"resolver {spec}"
    others = ",".join(name for name in good if name not in (spec, "system"))
    fix = _SYSTEM if spec == "system" else f"export GPUARIA_RESOLVERS={others}" if others else _OVER_HTTPS
    lies = [f"{a.host}: {lie}" if a.host not in lie else lie for a in answers for lie in a.lies]
    lies += [a.problem for a in answers if "it gives false answers" in a.problem]
    times = [a.seconds for a in answers if a.addresses and a.seconds is not None]
    failed = [a for a in answers if a.state == "failed"]
    if lies:
        return notes.warn("DNS", f"{who} gives false answers and is not used: {lies[0]}", fix)
    if failed and not times:
        said = f"reports that {failed[0].host} does not exist" if failed[0].problem == NXDOMAIN else failed[0].problem
        return notes.warn("DNS", f"{who}: {said.removeprefix(_ITSELF)}", fix)
    if not times:
        return notes.unknown("DNS", f"{who} returned no address in time", fix)
    known = {a.host: sum(len(b.addresses) for b in answers if b.host == a.host) for a in answers}
    told = ", ".join(f"{count} {'address' if count == 1 else 'addresses'} of {host}" for host, count in known.items())
    return notes.ok("DNS", f"{who} responds in {1000 * min(times):.0f} ms: {told}")


def proxies(mirrors: Sequence[Mirror], environ: Mapping[str, str], deadline: Deadline, notes: Notes) -> None:
    """Check that each proxy in the environment accepts connections; report which hosts use it."""
    through: dict[Proxy, list[Mirror]] = {}
    for mirror in mirrors:
        proxy = route(mirror.base, environ).proxy
        if proxy:
            through.setdefault(proxy, []).append(mirror)
    if not through:
        return notes.ok("proxy", "no proxy is set for these hosts")
    tried = run_all([partial(_tried, proxy, deadline) for proxy in through], deadline)
    for (proxy, behind), problem in zip(through.items(), tried, strict=True):
        hosts = ", ".join(dict.fromkeys(urlsplit(mirror.base).hostname or "" for mirror in behind))
        fix = f"export no_proxy={hosts.replace(', ', ',')}  # or correct http_proxy, https_proxy, all_proxy"
        text = f"{hosts} through proxy {proxy}"
        if not problem:
            notes.ok("proxy", text)
        elif any(mirror.primary for mirror in behind):
            kind = ConfigError if proxy.scheme not in PROXY_SCHEMES else NetworkError
            notes.problem("proxy", f"{text}, which {problem}", fix, kind.exit_code)
        else:
            notes.warn("proxy", f"{text}, which {problem}", fix)
    return None


def _tried(proxy: Proxy, deadline: Deadline) -> str:
    """Return what is wrong with the proxy, empty if it accepts a connection."""
    if proxy.scheme not in PROXY_SCHEMES:
        return f"has the unsupported type {proxy.scheme}: gpuaria supports http, https and socks5 proxies"
    try:
        socket.create_connection((proxy.host, proxy.port), max(0.1, deadline.remaining())).close()
    except OSError as error:
        return f"does not respond ({reason(error)})"
    return ""
