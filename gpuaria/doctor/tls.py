"""Checks who issued the hub's certificate: a public authority, a private one, or an inspecting proxy."""

import ssl
from collections.abc import Sequence

from gpuaria.dns.deadline import Deadline
from gpuaria.dns.false_answers import is_private_name
from gpuaria.doctor.finding import Notes
from gpuaria.errors import NetworkError
from gpuaria.http.certificates import ca_file, tls_context
from gpuaria.http.route import Route
from gpuaria.mirrors.measure.findings import MirrorFindings
from gpuaria.mirrors.measure.tcp import attempt_connection

_CLOCK = ("not yet valid", "has expired")


def check(there: Route, found: MirrorFindings, bundle: str, deadline: Deadline, notes: Notes) -> None:
    """Check the certificate that the survey saw, with at most three more handshakes."""
    if not there.tls:
        return notes.ok("TLS", f"{there.host_header} is reached over http, without encryption")
    addresses = (there.host,) if there.proxy else found.addresses
    if not addresses:
        return notes.unknown("TLS", f"{there.host_header} could not be reached", f"curl -v https://{there.host_header}")
    problem = next((t.certificate_problem for t in found.tls if t.certificate_problem), "")
    if problem and not any(t.state == "measured" for t in found.tls):
        return _refused(there, addresses, problem, deadline, notes)
    issuer, problem = _issuer(there, addresses, tls_context(bundle), deadline)
    if problem or not issuer:
        text = f"no encrypted connection to {there.host_header}: {problem or 'the handshake did not finish'}"
        return notes.unknown("TLS", text, f"curl -v https://{there.host_header}")
    return _accepted(there, addresses, issuer, bundle, deadline, notes)


def _refused(there: Route, addresses: Sequence[str], problem: str, deadline: Deadline, notes: Notes) -> None:
    issuer = _untrusted_issuer(there, addresses[0], deadline)
    signed = f", signed by {issuer}" if issuer else ""
    text = f"the certificate of {there.host_header}{signed} cannot be trusted: {problem}"
    fix = "export SSL_CERT_FILE=/path/to/the/bundle/of/your/network.pem"
    if any(word in problem for word in _CLOCK):
        fix = "sudo timedatectl set-ntp true  # if `date -u` is wrong; otherwise tell the host's owner"
    return notes.problem("TLS", text, fix, NetworkError.exit_code)


def _accepted(
    there: Route, addresses: Sequence[str], issuer: str, bundle: str, deadline: Deadline, notes: Notes
) -> None:
    """Report a trusted certificate; warn if only a private authority in the bundle trusts it."""
    import certifi

    used = ca_file(bundle)
    text = f"the certificate of {there.host_header} is signed by {issuer}"
    if used == certifi.where() or is_private_name(there.host):
        return notes.ok("TLS", text)
    _, problem = _issuer(there, addresses, tls_context(certifi.where()), deadline)
    if not problem:
        return notes.ok("TLS", text)
    more = f"{text}, not a public authority: a proxy inspects TLS; {used} trusts it"
    return notes.warn("TLS", more, f"export SSL_CERT_FILE={used}")


def _issuer(there: Route, addresses: Sequence[str], context: ssl.SSLContext, deadline: Deadline) -> tuple[str, str]:
    """Return the name of the issuer, or what is wrong with the certificate; both empty if neither is known."""
    line = attempt_connection(there, addresses[0], context, deadline.within(2.0))
    try:
        if isinstance(line.sock, ssl.SSLSocket):
            return _name(line.sock.getpeercert()), ""
        return "", line.tls.certificate_problem if line.tls else ""
    finally:
        line.close()


def _untrusted_issuer(there: Route, address: str, deadline: Deadline) -> str:
    """Return the issuer of an untrusted certificate; empty if it cannot be read.

    The ssl module parses a certificate only after verifying it, so the certificate itself is used as the trust anchor.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    line = attempt_connection(there, address, context, deadline.within(1.0))
    seen = line.sock.getpeercert(binary_form=True) if isinstance(line.sock, ssl.SSLSocket) else None
    line.close()
    if not seen:
        return ""
    anchored = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anchored.check_hostname = False
    anchored.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    anchored.load_verify_locations(cadata=seen)
    return _issuer(there, (address,), anchored, deadline)[0]


def _name(certificate: object) -> str:
    """Return the organisation that issued a certificate, else the common name of the issuer."""
    rows = certificate.get("issuer", ()) if isinstance(certificate, dict) else ()
    names = {key: value for row in rows for key, value in row}
    return str(names.get("organizationName") or names.get("commonName") or "an unnamed authority")
