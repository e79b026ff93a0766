"""Detection of mirrors whose bytes come from the same host, which is measured once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpuaria.dns.deadline import Deadline
from gpuaria.dns.findings import NO_TIME
from gpuaria.mirrors.measure.findings import BytesFinding, MirrorFindings


def mark_shared_hosts(found: Sequence[MirrorFindings]) -> tuple[MirrorFindings, ...]:
    """Return the findings, each marked with the first mirror that has the same final host. Pure."""
    first: dict[str, str] = {}
    marked = []
    for one in found:
        host = one.bytes.final_host
        owner = first.setdefault(host, one.mirror) if host else one.mirror
        marked.append(replace(one, same_pipe_as=owner if owner != one.mirror else ""))
    return tuple(marked)


class SharedHosts:
    """One measurement per final host: other mirrors wait for it and reuse it, unless it failed."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._measured: dict[str, tuple[str, BytesFinding]] = {}

    def measure_once(self, name: str, host: str, work: Callable[[], BytesFinding], deadline: Deadline) -> BytesFinding:
        """Return `work()`, or its earlier result for the same host."""
        with self._guard:
            lock = self._locks.setdefault(host, threading.Lock())
        if not lock.acquire(timeout=deadline.remaining()):
            return BytesFinding("not measured", host, problem=NO_TIME)
        try:
            if host in self._measured:
                owner, found = self._measured[host]
                return replace(found, problem=f"measured once, at {owner}: the same host serves both")
            found = work()
            if found.state == "measured":
                self._measured[host] = (name, found)
            return found
        finally:
            lock.release()
