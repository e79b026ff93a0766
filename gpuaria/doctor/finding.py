"""Findings of the checks, and the thread-safe list that collects them."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gpuaria.errors import GpuariaError

Severity = Literal["ok", "warning", "problem", "unknown"]
GROUPS = (
    ("this machine", ("settings", "gpuaria", "aria2c", "open files", "ICMP")),
    ("disk", ("cache", "locks", "links", "names", "state")),
    ("network", ("offline", "proxy", "DNS", "TLS", "clock")),
    ("hub and mirrors", ("endpoint", "mirror", "token", "quota", "repo", "room", "route")),
)
_ORDER = {topic: number for number, topic in enumerate(topic for _, topics in GROUPS for topic in topics)}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `text`: one sentence. `fix`: a command to copy; empty only if the state is "ok".

    `status`: the exit status of a fetch that fails for this reason, 0 if a fetch works nevertheless.
    """

    topic: str
    state: Severity
    text: str
    fix: str = ""
    status: int = 0


class Notes:
    """Collects findings from checks on many threads; may be read while checks run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Finding] = []

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        with self._lock:
            self._found.append(finding)

    def ok(self, topic: str, text: str) -> None:
        """Add a finding that needs no action."""
        self.add(Finding(topic, "ok", text))

    def warn(self, topic: str, text: str, fix: str) -> None:
        """Add a warning: a fetch works nevertheless."""
        self.add(Finding(topic, "warning", text, fix))

    def problem(self, topic: str, text: str, fix: str, status: int) -> None:
        """Add a problem: a fetch would end with exit status `status`."""
        self.add(Finding(topic, "problem", text, fix, status))

    def unknown(self, topic: str, text: str, fix: str, status: int = 0) -> None:
        """Add a check without a result; set `status` if a fetch depends on it."""
        self.add(Finding(topic, "unknown", text, fix, status))

    def failed(self, topic: str, error: GpuariaError, fix: str = "") -> None:
        """Add the problem that a fetch would report as `error`."""
        self.problem(topic, error.message, fix or error.hint or "gpuaria doctor --help", error.exit_code)

    def soften(self, *topics: str) -> None:
        """Turn the problems of `topics` into warnings: a fetch works in spite of them."""
        with self._lock:
            self._found = [
                replace(f, state="warning", status=0) if f.topic in topics and f.state == "problem" else f
                for f in self._found
            ]

    def snapshot(self) -> tuple[Finding, ...]:
        """Return the findings so far, in the order of GROUPS."""
        with self._lock:
            return tuple(sorted(self._found, key=lambda finding: _ORDER[finding.topic]))


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 0 if a fetch would work, else the status of the first problem, or of the first unknown finding."""
    failing: Sequence[Finding] = [finding for finding in findings if finding.status]
    ordered = sorted(failing, key=lambda finding: finding.state != "problem")
    return ordered[0].status if ordered else 0
