"""One thing that was looked at, how it is, and the line that fixes it."""

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
    """`text`: one sentence of what was seen. `fix`: one line to copy, empty only with "ok".

    `status`: the exit status with which a fetch would end because of it, 0 if it would work nevertheless.
    """

    topic: str
    state: Severity
    text: str
    fix: str = ""
    status: int = 0


class Notes:
    """Where checks on many threads put what they found; may be read while they are at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Finding] = []

    def add(self, finding: Finding) -> None:
        """Keep one more."""
        with self._lock:
            self._found.append(finding)

    def ok(self, topic: str, text: str) -> None:
        """Nothing to do."""
        self.add(Finding(topic, "ok", text))

    def warn(self, topic: str, text: str, fix: str) -> None:
        """A fetch works, but."""
        self.add(Finding(topic, "warning", text, fix))

    def problem(self, topic: str, text: str, fix: str, status: int) -> None:
        """A fetch would end with `status`."""
        self.add(Finding(topic, "problem", text, fix, status))

    def unknown(self, topic: str, text: str, fix: str, status: int = 0) -> None:
        """It was not found out; `status` where a fetch hangs on it."""
        self.add(Finding(topic, "unknown", text, fix, status))

    def failed(self, topic: str, error: GpuariaError, fix: str = "") -> None:
        """The problem that a fetch would meet as `error`."""
        self.problem(topic, error.message, fix or error.hint or "gpuaria doctor --help", error.exit_code)

    def soften(self, *topics: str) -> None:
        """Make the problems of `topics` warnings: a fetch works without what they are about."""
        with self._lock:
            self._found = [
                replace(f, state="warning", status=0) if f.topic in topics and f.state == "problem" else f
                for f in self._found
            ]

    def snapshot(self) -> tuple[Finding, ...]:
        """What is known by now, in the order of GROUPS."""
        with self._lock:
            return tuple(sorted(self._found, key=lambda finding: _ORDER[finding.topic]))


def exit_status(findings: Iterable[Finding]) -> int:
    """0 if a fetch would work, else the status of the first problem; of the first unknown thing if there is none."""
    failing: Sequence[Finding] = [finding for finding in findings if finding.status]
    ordered = sorted(failing, key=lambda finding: finding.state != "problem")
    return ordered[0].status if ordered else 0
