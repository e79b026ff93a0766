"""The findings of `gpuaria doctor` as text for people."""

from collections.abc import Mapping

from gpuaria.doctor import GROUPS, Checkup, Finding, Severity
from gpuaria.text import harmless

_MARKS: Mapping[Severity, tuple[str, str]] = {  # mark and colour, as SGR codes (ECMA-48 8.3.117)
    "ok": ("ok", "32"),
    "warning": ("warn", "33"),
    "problem": ("FAIL", "31;1"),
    "unknown": ("?", "35"),
}


def lines(found: Checkup, *, colours: bool) -> list[str]:
    """Return the findings by group, each with its fix on a second line, and a conclusion."""
    out: list[str] = []
    for title, topics in GROUPS:
        rows = [finding for finding in found.findings if finding.topic in topics]
        if rows:
            out += [title, *(text for row in rows for text in finding_lines(row, colours=colours)), ""]
    return [*out, _conclusion(found)]


def finding_lines(finding: Finding, *, colours: bool) -> list[str]:
    """Return a finding with its mark, and its fix on a second line."""
    mark, colour = _MARKS[finding.state]
    shown = f"\x1b[{colour}m{mark:<4}\x1b[0m" if colours else f"{mark:<4}"
    first = f"  {shown}  {finding.topic:<10}  {harmless(finding.text)}"
    return [first, f"{'':20}fix: {harmless(finding.fix)}"] if finding.fix else [first]


def _conclusion(found: Checkup) -> str:
    what = f"a fetch of {found.ref}" if found.ref else "a fetch"
    if not found.exit_code:
        return f"{what} would work"
    return f"{what} would fail, or could not be checked (exit status {found.exit_code})"
