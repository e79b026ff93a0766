"""The provenance of a file or a folder, as `gpuaria why` prints it."""

from gpuaria.audit.record import FileLine, Part, RunLine
from gpuaria.audit.trace import Trace
from gpuaria.cli.output import figures
from gpuaria.formats.fields import one_line

MEANS = {
    "origin": "the endpoint itself listed these digests",
    "pinned": "nobody's word was needed: the commit id that was asked for proves the listing, or a lock file was it",
    "quorum": "the endpoint was away, and two mirrors on different hosts agreed on the listing",
    "mirror only": "the endpoint was away, and one mirror alone said what the repo holds: nobody checked that",
    "first seen": "nobody was asked: the endpoint had said it when it last answered, or huggingface_hub had noted it",
    "none": "nobody gave a digest",
}
_EARLIER = 5  # entries that are named
_LAST = {
    "ok": "verified, and in place then",
    "unverifiable": "in place then, and nobody gave a digest to verify it with",
    "refused": "refused, not published",
    "unfinished": "not finished: the run ended before",
}


def file_story(one: Trace) -> str:
    """Return all that is known of one file, one fact on each line."""
    entry = one.entry
    lines = [one_line(one.path)]
    if one.found_by == "digest":
        lines.append(f"  found by its digest: the name is not known, but these are the bytes of {one_line(entry.path)}")
    lines += [f"  {line}" for line in (*_entry(entry, one.run), *_bytes(entry), _state(one))]
    if one.source is not None:
        lines.append(f"  the bytes came {_when(one.source)} as {one_line(one.source.path)}")
        lines += [f"  {line}" for line in _bytes(one.source)]
    if one.others:
        lines.append("  other entries of this name, the newest first:")
        lines += [f"    {_short(other)}" for other in one.others[:_EARLIER]]
    if len(one.others) > _EARLIER:
        lines.append(f"    and {len(one.others) - _EARLIER} more; --json has them all")
    return "\n".join(lines)


def _entry(entry: FileLine, run: RunLine | None) -> list[str]:
    version = f", gpuaria {run.gpuaria}" if run else ", which left no last line: it was killed, or still runs"
    listed = f"{one_line(entry.file)} of {one_line(entry.repo)}{_at(entry.commit)}"
    asked = f", asked for as {one_line(entry.ref)}"
    why = f": {one_line(entry.detail)}" if entry.detail else ""
    return [
        f"{_LAST.get(entry.outcome, entry.outcome)}{why}",
        f"{_when(entry)}, run {entry.run} of {one_line(entry.user)} on {one_line(entry.host)}{version}",
        f"{listed}{asked}",
        f"vouched for by {one_line(entry.vouched_by)} ({entry.trust}): {MEANS.get(entry.trust, 'an unknown trust')}",
    ]


def _bytes(entry: FileLine) -> list[str]:
    """Return which mirror served which bytes, what was on disk before, and what failed."""
    lines = [f"{_part(part, about=entry.about)}" for part in entry.mirrors]
    if entry.same_as:
        lines.append(f"copied from {one_line(entry.same_as)} of the same repo, which has the same bytes")
    elif entry.action in ("name", "verify"):
        lines.append("its bytes were here before this run, which proved them and fetched nothing")
    elif entry.reused:
        lines.append(f"{figures.size(entry.reused)} had come before, in a run that did not finish it")
    return lines + [f"on the way: {one_line(problem)}" for problem in entry.problems]


def _part(part: Part, *, about: bool) -> str:
    where = "" if part.base.endswith(f"//{part.mirror}") else f" ({one_line(part.base)})"
    return f"{'about ' if about else ''}{figures.size(part.bytes)} from {one_line(part.mirror)}{where}"


def _state(one: Trace) -> str:
    entry = one.entry
    digest = f"{entry.digest or 'no digest'}, {figures.size(entry.size)}"
    if one.state == "changed":
        known = f"; they are those of {one_line(one.now.path)}, {_when(one.now)}" if one.now else ""
        return f"{digest}: CHANGED since, the bytes on the disk are others ({one.detail}){known}"
    said = {
        "same": "the bytes on the disk still are these",
        "gone": "the file is not there any more" if entry.good else "there is no such file",
        "not compared": f"the bytes on the disk cannot be compared ({one_line(one.detail)})",
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
    """Return the last run into a folder, and one line for each earlier run."""
    run, *earlier = found
    lines = [one_line(run.path), *(f"  {line}" for line in _run(run))]
    if earlier:
        lines.append("  earlier runs:")
        lines += [f"    {_when(one)} {_outcome(one)}{_at(one.commit[:12])}" for one in earlier[:_EARLIER]]
    if len(earlier) > _EARLIER:
        lines.append(f"    and {len(earlier) - _EARLIER} more; --json has them all")
    return "\n".join(lines)


def _run(run: RunLine) -> list[str]:
    asked = f" {' '.join(one_line(word) for word in (*run.asked, *run.flags))}".rstrip()
    who = f"{one_line(run.user)} on {one_line(run.host)}, gpuaria {run.gpuaria}"
    lines = [
        f"{_outcome(run)}",
        f"{_when(run)}, run {run.run} of {who}, {figures.duration(run.seconds)}",
        f"{one_line(run.repo)}{_at(run.commit)}, asked for as {one_line(run.ref)}{asked}",
        f"vouched for by {one_line(run.vouched_by)} ({run.trust}): {MEANS.get(run.trust, 'an unknown trust')}",
        f"fetched {figures.size(run.bytes_fetched)}, reused {figures.size(run.bytes_reused)}; endpoint {run.endpoint}",
    ]
    for part in run.mirrors:
        fate = f", not used: {one_line(part.rejected)}" if part.rejected else ""
        lines.append(f"{_part(part, about=False)}, {figures.files(part.files)}{fate}")
    return lines


def _outcome(run: RunLine) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(run.verdicts.items())) or "no file"
    ended = f", ended by {run.error}: {one_line(run.message)}" if run.error else ""
    return f"{counts}; exit status {run.exit_code}{ended}"


def _at(commit: str) -> str:
    """Return the commit as the end of a phrase, nothing for a source without versions."""
    return f", commit {commit}" if commit else ""
