"""DNS servers for the tests, and runs that resolve names only there, in a mount namespace."""

from __future__ import annotations

import os
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from standin import Hub
from tests.support.user import User

Zone = dict[str, list[str]]


@dataclass(eq=False)
class NameServer:
    """A DNS server on loopback, UDP and TCP on one port. `zone` maps a name to its addresses; else NXDOMAIN."""

    zone: Zone
    _: KW_ONLY
    ttl: int = 60
    truncate: bool = False
    udp: bool = True
    mute: threading.Event | None = None
    rcode: int | None = None
    alias: str = ""
    context: ssl.SSLContext | None = None
    asked: list[tuple[str, str]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        owner, context, udp = self, self.context, self.udp

        class Stream(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError, struct.error):
                    line = context.wrap_socket(self.request, server_side=True) if context else self.request
                    (length,) = struct.unpack("!H", line.recv(2))
                    reply = owner.reply(line.recv(length), "tls" if context else "tcp")
                    line.sendall(struct.pack("!H", len(reply)) + reply)

        class Packet(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, sock = self.request
                if udp:
                    sock.sendto(owner.reply(data, "udp"), self.client_address)

        self._tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stream, bind_and_activate=False)
        self._tcp.allow_reuse_address = self._tcp.daemon_threads = True
        self._tcp.server_bind()
        self._tcp.server_activate()
        self.port = int(self._tcp.server_address[1])
        self._udp = socketserver.ThreadingUDPServer(("127.0.0.1", self.port), Packet)
        self._udp.daemon_threads = True
        self._servers = [self._tcp, self._udp]
        self.spec = f"127.0.0.1:{self.port}"

    def __enter__(self) -> NameServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *rest: object) -> None:
        if self.mute:
            self.mute.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def reply(self, data: bytes, way: str) -> bytes:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((way, kind))
        if self.mute:
            self.mute.wait(20)
        answer = dns.message.make_response(query)
        if self.rcode is not None or name not in self.zone:
            answer.set_rcode(dns.rcode.Rcode(dns.rcode.NXDOMAIN if self.rcode is None else self.rcode))
            return answer.to_wire()
        if way == "udp" and self.truncate:
            answer.flags |= dns.flags.TC
            return answer.to_wire()
        owner = question.name
        if self.alias:
            answer.answer.append(dns.rrset.from_text(owner, self.ttl // 2, "IN", "CNAME", f"{self.alias}."))
            owner = dns.name.from_text(self.alias)
        wanted = [a for a in self.zone[name] if (":" in a) == (kind == "AAAA")]
        if wanted:
            answer.answer.append(dns.rrset.from_text(owner, self.ttl, "IN", kind, *wanted))
        return answer.to_wire()


class FaultyNameServer(socketserver.ThreadingUDPServer):
    """A name server that resolves every name below `test`.

    Names that end in `late`, `lost` or `silent` fail that way; those that end in `astray` get the address `wrong`.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Question)
        self.late = self.lost = self.silent = self.astray = "-"
        self.asked: list[str] = []
        self.seconds = 5.0
        self.wrong = "127.0.0.77"


class _Question(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        names = self.server
        assert isinstance(names, FaultyNameServer)
        data, sock = self.request
        query = dns.message.from_wire(data)
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True)
        names.asked.append(name)
        if name.endswith(names.silent):
            return
        if name.endswith(names.late):
            time.sleep(names.seconds)
        answer = dns.message.make_response(query)
        if name.endswith(names.lost) or not name.endswith(".test"):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif asked.rdtype == dns.rdatatype.A:
            address = names.wrong if name.endswith(names.astray) else "127.0.0.1"
            answer.answer.append(dns.rrset.from_text(asked.name, 1, "IN", "A", address))
        sock.sendto(answer.to_wire(), self.client_address)


@pytest.fixture
def names(tmp_path: Path) -> Iterator[FaultyNameServer]:
    """Yield a name server on port 53 of a loopback address that depends on the process id."""
    own = os.getpid()
    try:
        server = FaultyNameServer((f"127.{64 + own // 65536 % 64}.{own // 256 % 256}.{own % 256}", 53))
    except OSError as error:
        pytest.skip(f"port 53 cannot be had: {error.strerror}")
    with server:
        (tmp_path / "resolv").write_text(f"nameserver {server.server_address[0]!s}\noptions timeout:8 attempts:1\n")
        (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
        (tmp_path / "nss").write_text("hosts: files dns\n")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def with_host(name: str, url: str) -> str:
    """Replace the address of the stand-in by a host name."""
    return url.replace("127.0.0.1", name)


def start(
    user: User, hub: Hub, tmp_path: Path, *words: str, patience: str = "40s", location: str = "", **env: str
) -> subprocess.Popen[str]:
    """Start a run that resolves names only at this name server."""
    hub.location_base = location or with_host("one.test", hub.cdn.url)
    mounts = {"resolv": "/etc/resolv.conf", "hosts": "/etc/hosts", "nss": "/etc/nsswitch.conf"}
    own = " && ".join([*(f"mount --bind {tmp_path}/{ours} {theirs}" for ours, theirs in mounts.items()), 'exec "$@"'])
    fetch = ("fetch", "org/r", "--to", "out", "--json", "-j", "1", "--patience", patience, *words)
    settings = {
        "HF_ENDPOINT": with_host("hub.test", hub.url),
        "GPUARIA_RESOLVERS": "system",
        "GPUARIA_TIMEOUT": "1s",
        "GPUARIA_CONNECT_TIMEOUT": "1s",
    }
    gpuaria = (sys.executable, "-m", "gpuaria", *fetch)
    return user.spawn("unshare", "-m", "sh", "-c", own, "sh", *gpuaria, **(settings | env))
