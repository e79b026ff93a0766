"""TCP sockets of a process with the bytes that each has received, from the kernel (sock_diag(7), Linux).

aria2 reports a connection's speed as a ten-second average that restarts with each segment, too coarse to detect a
stalled server in time. The kernel's byte counts are exact.
"""

import contextlib
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_INFO = 2  # INET_DIAG_INFO: struct tcp_info
_LISTEN = 1 << 10
_ALL_BUT_LISTEN = 0xFFF & ~_LISTEN
_INODE = 68  # its offset in struct inet_diag_msg
_BYTES_RECEIVED = 128  # its offset in struct tcp_info, since Linux 4.1


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket: its inode, local and remote (address, port), and the bytes received so far."""

    inode: int
    local: tuple[str, int]
    remote: tuple[str, int]
    received: int


def connections(pid: int) -> list[Socket]:
    """Return the connections of process `pid`, loopback included; empty if the kernel does not report them."""
    with contextlib.suppress(OSError, struct.error):
        inodes = _inodes(pid)
        if inodes:
            return [*_dump(socket.AF_INET, inodes), *_dump(socket.AF_INET6, inodes)]
    return []


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the (address, port) pairs on which process `pid` listens; empty if the kernel does not report them."""
    with contextlib.suppress(OSError, struct.error):
        inodes = _inodes(pid)
        both = (*_dump(socket.AF_INET, inodes, _LISTEN), *_dump(socket.AF_INET6, inodes, _LISTEN))
        return {found.local for found in both}
    return set()


def _inodes(pid: int) -> set[int]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed since listdir
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def _dump(family: int, inodes: set[int], states: int = _ALL_BUT_LISTEN) -> list[Socket]:
    """Return the sockets with these `inodes`. The kernel lists all sockets; a busy machine has thousands."""
    request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), states)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    sockets: list[Socket] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(1.0)
        link.send(header + request)
        while True:
            data = link.recv(1 << 18)
            at = 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind in (_DONE, _ERROR) or length < 16:
                    return sockets
                if struct.unpack_from("=I", data, at + 16 + _INODE)[0] in inodes:
                    sockets.append(_parse(data[at + 16 : at + length]))
                at += (length + 3) & ~3


def _parse(message: bytes) -> Socket:
    """Parse a struct inet_diag_msg and the attributes after it."""
    family = message[0]
    width = 4 if family == socket.AF_INET else 16
    local_port, remote_port = struct.unpack_from("!HH", message, 4)
    local, remote = _format_address(message[8 : 8 + width]), _format_address(message[24 : 24 + width])
    (inode,) = struct.unpack_from("=I", message, _INODE)
    at, received = 72, 0
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if length < 4:
            break
        if kind == _INFO and length >= 4 + _BYTES_RECEIVED + 8:
            (received,) = struct.unpack_from("=Q", message, at + 4 + _BYTES_RECEIVED)
        at += (length + 3) & ~3
    return Socket(inode, (local, local_port), (remote, remote_port), received)


def _format_address(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
