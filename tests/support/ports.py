"""Loopback ports: free ones, and ports that refuse connections during the whole test run."""

import itertools
import os
import random
import socket

LOWEST, HIGHEST = 10_000, 32_767  # below the ephemeral ports of Linux (ip_local_port_range)
_order = itertools.cycle(random.Random(os.getpid()).sample(range(LOWEST, HIGHEST + 1), 5000))
_refusing: list[socket.socket] = []


def free_port() -> int:
    """Return a free port that other sockets do not take before the program listens on it."""
    for port in _order:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def closed_port() -> int:
    """Return a port that refuses connections: it stays bound, and nothing listens."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    _refusing.append(sock)
    return int(sock.getsockname()[1])


def closed_url() -> str:
    """Return the URL of a server that refuses every connection."""
    return f"http://127.0.0.1:{closed_port()}"
