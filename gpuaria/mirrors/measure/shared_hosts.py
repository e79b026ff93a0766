"""The hosts that bytes finally come from: a host that serves several mirrors is one pipe, and is measured once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpuaria.dns.deadline import Deadline
from gpuaria.dns.findings import NO_TIME
from gpuaria.mirrors.measure.findings import BytesFinding, MirrorFindings


def same_pipes(found: Sequence[MirrorFindings]) -> tuple[MirrorFindings, ...]:
    """The same findings, each marked with the first mirror that has its final host. Pure."""
    first: dict[str, str] = {}
    marked = []
    for one in found:
        place = one.bytes.final_host
        owner = first.setdefault(place, one.mirror) if place else one.mirror
        marked.append(replace(one, same_pipe_as=owner if owner != one.mirror else ""))
    return tuple(marked)


class Pipes:
    """One measurement for each final host: others wait for it and take it over, unless it failed."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._good: dict[str, tuple[str, BytesFinding]] = {}

    def measured(self, name: str, place: str, work: Callable[[], BytesFinding], deadline: Deadline) -> BytesFinding:
        """`work()`, or what it gave for the same place before."""
        with self._guard:
            lock = self._locks.setdefault(place, threading.Lock())
        if not lock.acquire(timeout=deadline.remaining()):
            return BytesFinding("not measured", place, problem=NO_TIME)
        try:
            if place in self._good:
                owner, found = self._good[place]
                return replace(found, problem=f"measured once, at {owner}: the same host serves both")
            found = work()
            if found.state == "measured":
                self._good[place] = (name, found)
            return found
        finally:
            lock.release()
