"""Turn libcurl's error codes (libcurl-errors(3)) into gpuaria's errors."""

import os
import re

import pycurl

from gpuaria.errors import GpuariaError, Interrupted, Unreachable
from gpuaria.http.certificates import bundle_error
from gpuaria.http.curl_transfer import Failure
from gpuaria.http.route import Route
from gpuaria.urls import authority

_PROXY = 97  # CURLE_PROXY, which pycurl 7.49 does not name
_OTHER_NAME = re.compile(r"match(es)? target")  # in libcurl's text for the certificate of another host
_HINT = "Check the network, or add a mirror with --mirror."
_UNTRUSTED = {pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_ISSUER_ERROR, pycurl.E_SSL_INVALIDCERTSTATUS}
_CONNECTING = {
    pycurl.E_COULDNT_RESOLVE_HOST,
    pycurl.E_COULDNT_CONNECT,
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_SSL_CACERT_BADFILE,
    *_UNTRUSTED,
}


class TransferFailed(Exception):
    """Raised for a request that got no response."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


def connection_failed(failure: Failure) -> bool:
    """True if connecting or certificate verification failed: another address of the host may work."""
    return failure.code in _CONNECTING or (failure.code == pycurl.E_OPERATION_TIMEDOUT and not failure.connected)


def to_error(failure: Failure, url: str, route: Route) -> GpuariaError:
    """Return the error to raise; its `retry` is "later" if the same request may succeed later."""
    host, code, text = authority(url), failure.code, failure.text or f"error {failure.code} of libcurl"
    if code == pycurl.E_ABORTED_BY_CALLBACK:
        return Interrupted("interrupted")
    if code in _UNTRUSTED:
        reason = f"it is not valid for {route.host}" if _OTHER_NAME.search(text) else text.partition(": ")[2] or text
        hint = "Behind an inspecting proxy, set SSL_CERT_FILE to its certificate bundle."
        return Unreachable(f"the certificate of {host} cannot be trusted: {reason}", hint)
    if code == pycurl.E_SSL_CACERT_BADFILE:
        return bundle_error("", text)
    if code == pycurl.E_COULDNT_RESOLVE_HOST:
        return Unreachable(f"no IP address found for {host}", _HINT)
    if code == pycurl.E_COULDNT_RESOLVE_PROXY:
        return Unreachable(f"no IP address found for the proxy {route.proxy}", _HINT)
    if code == pycurl.E_OPERATION_TIMEDOUT:
        said = f"{host} stopped responding" if failure.connected else f"{host} does not respond"
    elif code == pycurl.E_COULDNT_CONNECT:
        at = f"the proxy {route.proxy}" if route.proxy else host
        said = f"cannot connect to {at}: {os.strerror(failure.errno) if failure.errno else text}"
    elif code in (pycurl.E_SSL_CONNECT_ERROR, _PROXY) or "CONNECT tunnel" in text:
        said = f"cannot connect to {host}: {text}"
    else:
        said = f"{host} closed the connection: {text}"
    return Unreachable(said, _HINT, retry="later")
