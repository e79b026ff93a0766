"""The history of a file or a folder, as `gpuaria why` prints it."""

from gpuaria.audit.record import FileLine, MirrorShare, RunLine
from gpuaria.audit.trace import Trace
from gpuaria.cli.output import figures
from gpuaria.formats.fields import one_line

MEANS = {
    "origin": "the hub listed these checksums",
    "pinned": "verified against the pinned commit or the lock file",
    "quorum": "the hub was unreachable; mirrors on different hosts agreed on the file list",
    "mirror only": "the hub was unreachable; the file list comes from one unverified mirror",
    "first seen": "saved by an earlier run or by huggingface_hub, and not checked with the hub",
    "none": "the source gave no checksums",
}
_EARLIER = 5  # most earlier entries to print
_LAST = {
    "ok": "verified and in place at that time",
    "unverifiable": "in place at that time; the source gave no digest to verify it with",
    "refused": "refused, not published",
    "unfinished": "unfinished: the run ended before the file was complete",
}


def file_story(one: Trace) -> str:
    """Return the history of one file, one fact per line."""
    entry = one.entry
    lines = [one_line(one.path)]
    if one.found_by == "digest":
        lines.append(f"  found by digest: this path is not in the log; the bytes are those of {one_line(entry.path)}")
    lines += [f"  {line}" for line in (*_entry(entry, one.run), *_bytes(entry), _state(one))]
    if one.source is not None:
        lines.append(f"  downloaded {_when(one.source)} as {one_line(one.source.path)}")
        lines += [f"  {line}" for line in _bytes(one.source)]
    if one.others:
        lines.append("  other log entries for this path, newest first:")
        lines += [f"    {_short(other)}" for other in one.others[:_EARLIER]]
    if len(one.others) > _EARLIER:
        lines.append(f"    and {len(one.others) - _EARLIER} more (all with --json)")
    return "\n".join(lines)


def _entry(entry: FileLine, run: RunLine | None) -> list[str]:
    version = f", gpuaria {run.gpuaria}" if run else " (still running, or killed)"
    listed = f"{one_line(entry.file)} of {one_line(entry.repo)}{_at(entry.commit)}"
    asked = f", requested as {one_line(entry.ref)}"
    why = f": {one_line(entry.detail)}" if entry.detail else ""
    return [
        f"{_LAST.get(entry.outcome, entry.outcome)}{why}",
        f"{_when(entry)}, run {entry.run} by {one_line(entry.user)} on {one_line(entry.host)}{version}",
        f"{listed}{asked}",
        f"checksums from {one_line(entry.vouched_by)} ({entry.trust}): {MEANS.get(entry.trust, 'unknown')}",
    ]


def _bytes(entry: FileLine) -> list[str]:
    """Return what each mirror delivered, what was on disk before, and what failed."""
    lines = [f"{_part(part, about=entry.about)}" for part in entry.mirrors]
    if entry.same_as:
        lines.append(f"copied from {one_line(entry.same_as)} in the same repo, which has the same digest")
    elif entry.action in ("name", "verify"):
        lines.append("already on disk before this run, which verified it and downloaded nothing")
    elif entry.reused:
        lines.append(f"{figures.size(entry.reused)} left by an earlier, interrupted run")
    return lines + [f"problem: {one_line(problem)}" for problem in entry.problems]


def _part(part: MirrorShare, *, about: bool) -> str:
    where = "" if part.base.endswith(f"//{part.mirror}") else f" ({one_line(part.base)})"
    return f"{'about ' if about else ''}{figures.size(part.bytes)} from {one_line(part.mirror)}{where}"


def _state(one: Trace) -> str:
    entry = one.entry
    digest = f"{entry.digest or 'no digest'}, {figures.size(entry.size)}"
    if one.state == "changed":
        known = f"; it now holds the bytes of {one_line(one.now.path)}, {_when(one.now)}" if one.now else ""
        return f"{digest}: CHANGED since then ({one.detail}){known}"
    said = {
        "same": "unchanged on disk",
        "gone": "no longer on disk" if entry.good else "there is no such file",
        "not compared": f"cannot be compared with the file on disk ({one_line(one.detail)})",
    }
    return f"{digest}: {said[one.state]}"


def _short(entry: FileLine) -> str:
    given = ", ".join(_part(part, about=entry.about) for part in entry.mirrors)
    why = f": {one_line(entry.detail)}" if entry.detail and not entry.good else ""
    rest = f"; {given}" if given else ""
    return f"{_when(entry)} {entry.outcome}{why}, {entry.digest[:19]}...{_at(entry.commit[:12])}{rest}"


def _when(line: FileLine | RunLine) -> str:
    return f"{line.at[:19].replace('T', ' ')} UTC"


def folder_story(found: tuple[RunLine, ...]) -> str:
    """Return the last run into a folder, and one line per earlier run."""
    run, *earlier = found
    lines = [one_line(run.path), *(f"  {line}" for line in _run(run))]
    if earlier:
        lines.append("  earlier runs:")
        lines += [f"    {_when(one)} {_outcome(one)}{_at(one.commit[:12])}" for one in earlier[:_EARLIER]]
    if len(earlier) > _EARLIER:
        lines.append(f"    and {len(earlier) - _EARLIER} more (all with --json)")
    return "\n".join(lines)


def _run(run: RunLine) -> list[str]:
    asked = f" {' '.join(one_line(word) for word in (*run.asked, *run.flags))}".rstrip()
    who = f"{one_line(run.user)} on {one_line(run.host)}, gpuaria {run.gpuaria}"
    lines = [
        f"{_outcome(run)}",
        f"{_when(run)}, run {run.run} by {who}, {figures.duration(run.seconds)}",
        f"{one_line(run.repo)}{_at(run.commit)}, requested as {one_line(run.ref)}{asked}",
        f"checksums from {one_line(run.vouched_by)} ({run.trust}): {MEANS.get(run.trust, 'unknown')}",
        f"downloaded {figures.size(run.bytes_fetched)}, reused {figures.size(run.bytes_reused)}; hub {run.endpoint}",
    ]
    for part in run.mirrors:
        dropped = f"; dropped: {one_line(part.rejected)}" if part.rejected else ""
        lines.append(f"{_part(part, about=False)}, {figures.files(part.files)}{dropped}")
    return lines


def _outcome(run: RunLine) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(run.verdicts.items())) or "no files"
    ended = f", ended by {run.error}: {one_line(run.message)}" if run.error else ""
    return f"{counts}; exit status {run.exit_code}{ended}"


def _at(commit: str) -> str:
    """Return `, commit ...`, or nothing for a source without versions."""
    return f", commit {commit}" if commit else ""
