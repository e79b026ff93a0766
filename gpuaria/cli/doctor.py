"""`gpuaria doctor`."""

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from gpuaria.cli.app import settings_from
from gpuaria.cli.fetch import known_kind
from gpuaria.cli.render import Json
from gpuaria.doctor import GROUPS, Checkup, Finding, State, examine
from gpuaria.errors import ConfigError, Interrupted, UsageError
from gpuaria.records import to_json
from gpuaria.text import harmless

_MARKS: Mapping[State, tuple[str, str]] = {  # the mark, and its colour as SGR (ECMA-48 8.3.117)
    "ok": ("ok", "32"),
    "warning": ("warn", "33"),
    "problem": ("FAIL", "31;1"),
    "unknown": ("?", "35"),
}


def command(
    words: list[str],
    kind: str,
    revision: str,
    flags: dict[str, Any],
    *,
    trace: bool,
    as_json: bool,
    stop: threading.Event,
) -> int:
    """Print what is wrong and the line that fixes it; 0 only if a fetch would work."""
    if len(words) > 1:
        raise UsageError("doctor looks at one repo", "gpuaria doctor gpt2-medium")
    wanted = known_kind(kind)
    try:
        settings = settings_from(flags)
    except ConfigError as error:
        fix = error.hint or "gpuaria config"
        found = Checkup("", (Finding("settings", "problem", error.message, fix, error.exit_code),))
    else:
        text = words[0] if words else ""
        found = examine(settings, dict(os.environ), text, wanted, revision, with_trace=trace)
    if stop.is_set():
        raise Interrupted("interrupted", "Run the same command again.")
    if as_json:
        Json(sys.stdout).write("report", {"exit_code": found.exit_code, **to_json(found)})
    else:
        print("\n".join(_lines(found, colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))))
    return found.exit_code


def _lines(found: Checkup, *, colours: bool) -> list[str]:
    """The groups that have findings, one line each and one for its fix, and the sum."""
    lines: list[str] = []
    for title, topics in GROUPS:
        rows = [finding for finding in found.findings if finding.topic in topics]
        if rows:
            lines += [title, *(line for row in rows for line in _row(row, colours=colours)), ""]
    return [*lines, _sum(found)]


def _row(finding: Finding, *, colours: bool) -> list[str]:
    mark, colour = _MARKS[finding.state]
    shown = f"\x1b[{colour}m{mark:<4}\x1b[0m" if colours else f"{mark:<4}"
    lines = [f"  {shown}  {finding.topic:<10}  {harmless(finding.text)}"]
    return [*lines, f"{'':20}fix: {harmless(finding.fix)}"] if finding.fix else lines


def _sum(found: Checkup) -> str:
    what = f"a fetch of {found.ref}" if found.ref else "a fetch"
    if not found.exit_code:
        return f"{what} would work"
    return f"{what} would not work, or it is not known: exit status {found.exit_code}"
