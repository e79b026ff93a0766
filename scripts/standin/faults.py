"""Injected faults: the wrong behaviour of a byte server or a hub, the affected files, and how often."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

NO_FILE = frozenset({"status", "html", "expire", "redirect"})  # responses without the file
# A streamed response of the whole file: no ranges, no length, compressed or not.
STREAMED = frozenset({"flow", "flow_gzip", "flow_until_close"})
# Content-Range, body or both are of another range than requested.
WRONG_RANGES = frozenset({"wrong_range", "other_part", "wrong_part"})
BODY = frozenset(
    {"short", "flip", "ignore_range", "stall", "slow", "reset", "wrong_size", "gzip", "chunked", "changed"}
)
KINDS = NO_FILE | WRONG_RANGES | BODY | STREAMED
FaultT = TypeVar("FaultT", "Fault", "HubFault")
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in to continue.</body></html>"


@dataclass
class Fault:
    """A fault of the byte server: byte counts and offsets in bytes, seconds in seconds, rate in bytes per second.

    A streamed response breaks off after `after` bytes, unless that is 0.
    `to`: the base URL of a redirect target, put before the request's path and query; "" for the same server.
    """

    suffix: str
    kind: str
    times: int | None = None
    after: int = 0
    offset: int = 0
    status: int = 503
    retry_after: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 3600
    rate: int = 10_000
    delta: int = -1
    to: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault: {self.kind} (known: {', '.join(sorted(KINDS))})")


@dataclass
class HubFault:
    """A fault of the hub: each request whose target matches gets this response, after delay seconds."""

    target: re.Pattern[str]
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int | None = None
    delay: float = 0


class Faults(Generic[FaultT]):
    """A thread-safe list of faults. Each applies as often as its `times` allow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[FaultT] = []

    def add(self, fault: FaultT) -> None:
        """Append a fault. Earlier faults take precedence."""
        with self._lock:
            self._faults.append(fault)

    def next_matching(self, fits: Callable[[FaultT], bool]) -> FaultT | None:
        """Return the first active fault that fits, and count it down."""
        with self._lock:
            for fault in self._faults:
                if fault.times != 0 and fits(fault):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()


Piece = tuple[int, int] | bytes


def body_plan(fault: Fault | None, file: Path, start: int, end: int) -> list[Piece]:
    """Return the body for bytes start to end: spans of the file and literal bytes (zeros after its end)."""
    real = file.stat().st_size
    if fault is not None and fault.kind == "flip":
        with file.open("rb") as stream:
            stream.seek(fault.offset)
            wrong = bytes([stream.read(1)[0] ^ 0xFF])
        return [(start, fault.offset), wrong, (fault.offset + 1, end)]
    if fault is not None and fault.kind == "changed":
        return [bytes(end - start)]
    if fault is not None and fault.kind in ("short", "stall", "reset"):
        return [(start, min(end, start + fault.after))]
    return [(start, min(end, real)), bytes(max(0, end - max(start, real)))]


def shifted(fault: Fault, start: int, end: int, size: int) -> tuple[int, int]:
    """Return the range start to end shifted by delta bytes, forwards if that fits in the file, else backwards."""
    for delta in (fault.delta, -fault.delta):
        if start + delta >= 0 and end + delta <= size:
            return start + delta, end + delta
    return start, end
