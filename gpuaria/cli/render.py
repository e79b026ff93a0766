"""One sink for a run's events: live bars on a terminal, lines elsewhere, JSON objects, or nothing."""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from gpuaria.cli import words
from gpuaria.cli.eta import Eta
from gpuaria.errors import GpuariaError, NetworkError
from gpuaria.events import Event, FileDone, Finished, Mismatch, Planned, Progress, Waiting, Warned
from gpuaria.records import GOOD, PickleFile, Report, Signature, to_json
from gpuaria.text import harmless, printable

LINE_EVERY = 10.0  # seconds
FEW = 5  # names on a line
LARGE = 8_000_000  # bytes from which a finished file is worth a line


class Sink(Protocol):
    """Takes every event of a run; `close` gives the terminal back."""

    def __call__(self, event: Event) -> None: ...
    def close(self) -> None: ...


def choose(*, quiet: bool, as_json: bool) -> Sink:
    """The sink for the flags and for where stderr goes."""
    err = sys.stderr
    if as_json:
        return Json(sys.stdout)
    if quiet:
        return Quiet(err)
    if err.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        from gpuaria.cli.bars import Bars

        return Bars(err)
    return Lines(err)


class Quiet:
    """Warnings and failed files only."""

    def __init__(self, err: TextIO) -> None:
        self._err = err

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self._say(f"warning: {event.text}")
        elif isinstance(event, FileDone) and event.outcome not in GOOD:
            self._say(failed(event))

    def _say(self, text: str) -> None:
        print(harmless(text), file=self._err, flush=True)

    def close(self) -> None:
        """Nothing to give back."""


class Lines(Quiet):
    """For logs: a line at the start, one every ten seconds, one per finished large file, a summary."""

    def __init__(self, err: TextIO) -> None:
        super().__init__(err)
        self._eta = Eta()
        self._told = time.monotonic()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        now = time.monotonic()
        if isinstance(event, Planned):
            self._say(opening(event))
        elif isinstance(event, Mismatch):
            self._say(mismatch(event))
        elif isinstance(event, Waiting):
            self._say(f"{event.text}; waiting up to {words.duration(event.seconds)}")
        elif isinstance(event, FileDone) and event.outcome == "ok" and event.fetched and event.size >= LARGE:
            self._say(f"verified {event.path} ({words.size(event.size)})")
        elif isinstance(event, Progress):
            self._eta.read(now, event.done, event.total)
            if now - self._told >= LINE_EVERY:
                self._told = now
                self._say(state(event, self._eta))
        elif isinstance(event, Finished):
            for line in summary(event.report):
                self._say(line)


class Json:
    """One object per line on stdout; the last one is the report, with the exit status."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.write("report", {**to_json(event.report), "speed": round(event.report.speed)})
        else:
            self.write(type(event).__name__.lower(), to_json(event))

    def write(self, name: str, fields: dict[str, Any]) -> None:
        """Print one object: letters as they are, marks that a terminal would obey as \\uXXXX."""
        line = json.dumps({"event": name, **fields}, ensure_ascii=False)
        print(harmless(line, lambda mark: json.dumps(mark)[1:-1]), file=self._out, flush=True)

    def close(self) -> None:
        """Nothing to give back."""


def failed(event: FileDone) -> str:
    """A file that did not make it."""
    return f"{event.outcome}: {printable(event.path)}{f': {event.detail}' if event.detail else ''}"


def mismatch(event: Mismatch) -> str:
    """A file that was here with other bytes: an opening that speaks of nothing to fetch would be wrong without it."""
    return f"{printable(event.path)} is fetched again ({words.size(event.size)}): {event.detail}"


def opening(plan: Planned) -> str:
    """What is about to happen."""
    reuse = f", {words.size(plan.reuse_bytes)} already here" if plan.reuse_bytes else ""
    if not plan.fetch_files:
        return f"{plan.ref} ({plan.commit[:12]}): {words.files(plan.files)}, nothing to fetch{reuse}"
    return (
        f"{plan.ref} ({plan.commit[:12]}): fetching {plan.fetch_files} of {words.files(plan.files)}, "
        f"{words.size(plan.fetch_bytes)}{reuse}, from {', '.join(plan.mirrors)}"
    )


def state(now: Progress, eta: Eta) -> str:
    """The line every ten seconds."""
    percent = 100 * now.done / now.total if now.total else 100
    left = f", {words.duration(eta.left)} left" if eta.left is not None else ""
    return (
        f"{words.size(now.done)} of {words.size(now.total)} ({percent:.0f} %), {words.speed(eta.speed)}{left}, "
        f"{words.at_work(now.connections, now.mirrors, now.verified, now.files)}"
    )


def summary(report: Report) -> list[str]:
    """The last lines: what, how fast, from where, who vouched, and what went wrong."""
    lines = [
        f"{report.ref}: {came(report)}",
        f"vouched for by {report.vouched_by} ({report.trust}), {words.many(report.hub_requests, 'request')} to the hub",
    ]
    for use in report.mirrors:
        fate = f", not used: {use.rejected}" if use.rejected else ""
        lines.append(f"  {use.name}: {words.size(use.bytes)}, {words.files(use.files)}{fate}")
    if report.exit_code == NetworkError.exit_code:
        lines.append("run the same command again to continue: what has come is kept")
    return lines + content(report)


def came(report: Report) -> str:
    """What became of the files, and how fast."""
    if not report.files:
        return "the repo has no files"
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.verdicts.items()))
    return (
        f"{counts}; fetched {words.size(report.bytes_fetched)}, reused {words.size(report.bytes_reused)} "
        f"in {words.duration(report.seconds)} ({words.speed(report.speed)})"
    )


def content(report: Report) -> list[str]:
    """What the files are that are in place, where a reader should know."""
    lines = pickles(report.pickles, report.pickle_files)
    if report.misnamed:
        names = [printable(path) for path in report.misnamed]
        lines.append(f"no safetensors, whatever the name says: {named(names, len(names))}")
    if report.signature is not None:
        lines.append(signature(report.signature))
    return lines


def signature(found: Signature) -> str:
    """What came of the repo's signature."""
    if found.state == "absent":
        return f"no signature: signature_key is set, and the repo has no {found.path}"
    how = "present but not checked" if found.state == "not checked" else found.state
    return f"signature {printable(found.path)} is {how}: {found.detail}"


def pickles(count: int, files: Sequence[PickleFile]) -> list[str]:
    """A line that names some of `count` pickles, with what they bring in; none if there are none."""
    if not count:
        return []
    verb = "runs what it says when it is loaded" if count == 1 else "run what they say when they are loaded"
    return [f"{words.many(count, 'pickle')}, which {verb}: {named([pickle(file) for file in files], count)}"]


def pickle(file: PickleFile) -> str:
    """`'evil.pkl' (imports posix.system)`."""
    notes = [f"imports {', '.join(file.imports[:3])}"] if file.imports else []
    notes += [] if file.whole else ["not read to its end"]
    return printable(file.path) + (f" ({'; '.join(notes)})" if notes else "")


def named(names: Sequence[str], count: int) -> str:
    """A few of `count` names."""
    few = ", ".join(names[:FEW])
    return few if count <= FEW else f"{few} and {count - FEW} more"


def error_fields(error: GpuariaError) -> dict[str, Any]:
    """The last JSON object of a run that ended without a report."""
    return {"exit_code": error.exit_code, "error": error.message, "hint": error.hint}
