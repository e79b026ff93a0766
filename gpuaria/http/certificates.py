"""The certificate bundle: one file for our HTTP client, aria2c and all measurements."""

import ssl
from pathlib import Path

from gpuaria.errors import NetworkError


def ca_file(bundle: str = "") -> str:
    """Return the path of the bundle: the one in the settings, else the system's, else certifi's."""
    if bundle:
        return bundle
    system = ssl.get_default_verify_paths().cafile
    candidates = [system or "", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
    found = next((c for c in candidates if c and Path(c).is_file()), "")
    if found:
        return found
    import certifi

    return certifi.where()


def tls_context(bundle: str = "") -> ssl.SSLContext:
    """Return a context for TLS 1.2 or newer that trusts this bundle only. Takes 0.1 s. Raises NetworkError."""
    try:
        context = ssl.create_default_context(cafile=ca_file(bundle))
    except (OSError, ssl.SSLError) as error:
        raise bundle_error(bundle, error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def bundle_error(bundle: str, why: object) -> NetworkError:
    """Return the error for a bundle that is unreadable or holds no certificates."""
    return NetworkError(
        f"the certificate bundle {ca_file(bundle)} cannot be read: {why}", "Correct SSL_CERT_FILE or ca_bundle."
    )
