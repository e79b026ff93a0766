"""One DNS server: parse its spec from the settings, and send it one query.

Supports plain DNS over UDP, with TCP if the answer is truncated or UDP gets none (RFC 7766); DNS over TLS (RFC 7858,
the certificate must be valid for the server's address); DNS over HTTPS (RFC 8484); and the system's resolver.
"""

import socket
import ssl
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from gpuaria.dns.deadline import Deadline
from gpuaria.errors import ConfigError, NetworkError
from gpuaria.urls import ip_and_port

UDP_SECONDS = 0.6  # without an answer before TCP is tried
PAYLOAD = 1232  # maximum bytes of a UDP answer without fragmentation (DNS flag day 2020)
_TYPES = {4: "A", 6: "AAAA"}
_DOH = "application/dns-message"
_LONGEST = 65_535  # maximum bytes of a DNS message (RFC 1035 4.2.2)


class NoSuchName(Exception):
    """NXDOMAIN: the server reports that the name does not exist."""


@dataclass(frozen=True, slots=True)
class DnsServer:
    """A parsed spec. `spec`: its text; `host`: an IP address, for DoH a host name; `url`: for DoH only."""

    spec: str
    transport: Literal["system", "plain", "tls", "https"]
    host: str = ""
    port: int = 53
    url: str = ""


def parse_server(spec: str) -> DnsServer:
    """Parse `system`, `IP[:PORT]`, `tls://IP[:PORT]` or `https://host/path`. Raises ConfigError."""
    text = spec.strip()
    try:
        if text.lower() == "system":
            return DnsServer("system", "system")
        if text.lower().startswith("https://"):
            parts = urlsplit(text)
            if not parts.hostname or "@" in parts.netloc:
                raise ValueError
            return DnsServer(text, "https", parts.hostname, parts.port or 443, text)
        if text.lower().startswith("tls://"):
            return DnsServer(text, "tls", *_host_port(text[6:], 853))
        return DnsServer(text, "plain", *_host_port(text, 53))
    except ValueError:
        raise ConfigError(
            f"{spec!r} is not a DNS server", "Give IP[:PORT], tls://IP[:PORT], https://host/dns-query or system."
        ) from None


def _host_port(text: str, port: int) -> tuple[str, int]:
    ip, named = ip_and_port(text)
    return str(ip), named or port


def query_system(host: str) -> dict[int, tuple[str, ...]]:
    """Return the addresses of `host` by family (4, 6) from getaddrinfo (nsswitch, /etc/hosts).

    Blocks without a time limit of its own. Raises NoSuchName, NetworkError.
    """
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise NoSuchName from None
        raise NetworkError(f"the system's resolver: {error.strerror}") from None
    except (OSError, UnicodeError) as error:
        raise NetworkError(f"the system's resolver: {error}") from None
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    return {
        number: tuple(dict.fromkeys(str(row[4][0]) for row in rows if row[0] == family))
        for number, family in families.items()
    }


def query_server(
    server: DnsServer, host: str, family: int, deadline: Deadline, context: ssl.SSLContext | None
) -> tuple[tuple[str, ...], float]:
    """Query a server for addresses of `family` (4, 6); return them and the smallest TTL in the chain, in seconds.

    Raises NoSuchName for NXDOMAIN, NetworkError for every other failure.
    """
    import dns.exception
    import dns.message
    import dns.rcode

    try:
        question = dns.message.make_query(host, _TYPES[family], use_edns=0, payload=PAYLOAD)
        answer = _exchange(server, question, deadline, context)
        if answer.rcode() == dns.rcode.NXDOMAIN:
            raise NoSuchName
        if answer.rcode() != dns.rcode.NOERROR:
            raise NetworkError(f"returned {dns.rcode.to_text(answer.rcode())}")
        chain = answer.resolve_chaining()
    except dns.exception.Timeout:
        raise NetworkError("does not respond") from None
    except (dns.exception.DNSException, UnicodeError) as error:
        raise NetworkError(f"returned an invalid response ({type(error).__name__})") from None
    except ssl.SSLCertVerificationError as error:
        raise NetworkError(f"its certificate cannot be trusted: {error.verify_message}") from None
    except (OSError, EOFError) as error:
        reason = "does not respond" if isinstance(error, TimeoutError) else str(getattr(error, "strerror", "") or error)
        raise NetworkError(reason or "closed the connection") from None
    return tuple(row.address for row in chain.answer or ()), float(chain.minimum_ttl)


def _exchange(server: DnsServer, question: Any, deadline: Deadline, context: ssl.SSLContext | None) -> Any:
    import dns.exception
    import dns.query

    if server.transport == "https":
        return _over_https(server, question, deadline, context)
    if deadline.expired:
        raise dns.exception.Timeout
    if server.transport == "tls":
        return dns.query.tls(
            question,
            server.host,
            timeout=deadline.remaining(),
            port=server.port,
            ssl_context=context or ssl.create_default_context(),
            server_hostname=server.host,
        )
    try:
        patience = min(UDP_SECONDS, deadline.remaining() / 2)
        answer, _ = dns.query.udp_with_fallback(
            question,
            server.host,
            timeout=patience,
            port=server.port,
            ignore_unexpected=True,
            ignore_errors=True,
        )
        return answer
    except (dns.exception.Timeout, OSError):
        return dns.query.tcp(question, server.host, timeout=max(0.001, deadline.remaining()), port=server.port)


def _over_https(server: DnsServer, question: Any, deadline: Deadline, context: ssl.SSLContext | None) -> Any:
    import dns.message

    status, body = _post(server, question.to_wire(), deadline, context or ssl.create_default_context())
    if not 200 <= status < 300:
        raise NetworkError(f"returned HTTP {status}")
    if len(body) > _LONGEST:
        raise NetworkError("returned an invalid response")
    answer = dns.message.from_wire(body)
    if not question.is_response(answer):
        raise NetworkError("returned an invalid response")
    return answer


def _post(server: DnsServer, question: bytes, deadline: Deadline, context: ssl.SSLContext) -> tuple[int, bytes]:
    """POST a query; return status and body, at most one byte longer than a DNS message can be. Raises NetworkError.

    The system's resolver resolves the server's name: dnspython would read resolv.conf, and ignore /etc/hosts and
    nsswitch.
    """
    import http.client

    place = urlsplit(server.url)
    target = (place.path or "/") + (f"?{place.query}" if place.query else "")
    connection = http.client.HTTPSConnection(
        place.hostname or "", place.port or 443, timeout=max(0.001, deadline.remaining()), context=context
    )
    try:
        connection.request("POST", target, question, {"accept": _DOH, "content-type": _DOH})
        connection.sock.settimeout(max(0.001, deadline.remaining()))
        with connection.getresponse() as response:
            return response.status, response.read(_LONGEST + 1)
    except TimeoutError:
        raise NetworkError("does not respond") from None
    except ssl.SSLCertVerificationError as error:
        raise NetworkError(f"its certificate cannot be trusted: {_reason(error)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise NetworkError(f"cannot be queried: {str(error) or type(error).__name__}") from None
    finally:
        connection.close()


def _reason(error: ssl.SSLCertVerificationError) -> str:
    return str(error).partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]
