"""A TCP proxy that makes a server reachable at another address, with TLS if needed."""

from __future__ import annotations

import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

Front = Callable[..., str]


class _Relay(socketserver.ThreadingTCPServer):
    """Forward connections to another port; terminate TLS if there is a context."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, host: str, to: str, context: ssl.SSLContext | None) -> None:
        super().__init__((host, 0), _Passing)
        self.to, self.context = (urlsplit(to).hostname, urlsplit(to).port), context


class _Passing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay = self.server
        assert isinstance(relay, _Relay)
        with suppress(OSError), ExitStack() as stack:
            near = self.request
            if relay.context:
                near = stack.enter_context(relay.context.wrap_socket(near, server_side=True))
            far = stack.enter_context(socket.create_connection(relay.to))
            threading.Thread(target=_copy, args=(near, far), daemon=True).start()
            _copy(far, near)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def front() -> Iterator[Front]:
    """Yield a function that starts a proxy for a server; with a certificate, the proxy speaks TLS."""
    with ExitStack() as stack:

        def opened(
            to: str,
            certificate: Path | None = None,
            host: str = "127.0.0.1",
            newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
        ) -> str:
            context = None
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate)
                if newest is not ssl.TLSVersion.MAXIMUM_SUPPORTED:
                    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL's default level rejects older versions
                    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
            relay = _Relay(host, to, context)
            threading.Thread(target=relay.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(relay.server_close)
            stack.callback(relay.shutdown)
            return f"http{'s' if context else ''}://{host}:{relay.server_address[1]}"

        yield opened


def self_signed(folder: Path, name: str) -> Path:
    """Write the key and the self-signed certificate of a host (name or IP address) to one file."""
    both, kind = folder / f"{name}.pem", "IP" if name[0].isdigit() else "DNS"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    openssl(folder, *words, "-addext", f"subjectAltName={kind}:{name}", "-keyout", f"{name}.key", "-out", str(both))
    both.write_text(both.read_text() + (folder / f"{name}.key").read_text())
    return both


def openssl(folder: Path, *words: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
