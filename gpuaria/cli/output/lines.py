"""Events and reports as lines for people."""

from collections.abc import Sequence

from gpuaria.cli.output import figures
from gpuaria.cli.output.eta import Eta
from gpuaria.errors import NetworkError
from gpuaria.events import FileDone, Mismatch, Planned, Progress
from gpuaria.records import MirrorUse, PickleFile, Report, Signature
from gpuaria.text import printable

FEW = 5  # names on a line


def failed(event: FileDone) -> str:
    """Return the outcome of a file that was not published, and why."""
    return f"{event.outcome}: {printable(event.path)}{f': {event.detail}' if event.detail else ''}"


def mismatch(event: Mismatch) -> str:
    """Return why a local file is downloaded again; without this line an opening with nothing to fetch would mislead."""
    return f"{printable(event.path)} is fetched again ({figures.size(event.size)}): {event.detail}"


def opening(plan: Planned) -> str:
    """Return what the plan will fetch, from where, and what is on disk already."""
    reuse = f", {figures.size(plan.reuse_bytes)} already here" if plan.reuse_bytes else ""
    at = f" ({plan.commit[:12]})" if plan.commit else ""
    if not plan.fetch_files:
        return f"{plan.ref}{at}: {figures.files(plan.files)}, nothing to fetch{reuse}"
    return (
        f"{plan.ref}{at}: fetching {plan.fetch_files} of {figures.files(plan.files)}, "
        f"{figures.size(plan.fetch_bytes)}{reuse}, from {', '.join(plan.mirrors)}"
    )


def order(plan: Planned) -> list[str]:
    """Return a line for each mirror, in the order in which they are used, with the reason for its place."""
    return [
        f"  mirror {number}: {name}, {plan.reasons.get(name, 'not compared with another one')}"
        for number, name in enumerate(plan.mirrors, 1)
    ]


def probes(use: MirrorUse) -> str:
    """Return what was measured of a mirror, and why it has its place in the order."""
    connects = "" if use.rtt is None else f", connects in {use.rtt * 1e3:.0f} ms"
    ping = "" if use.ping is None else f", ping {use.ping * 1e3:.0f} ms"
    return f"{connects}{ping}{f', {use.rank_reason}' if use.rank_reason else ''}"


def state(now: Progress, eta: Eta) -> str:
    """Return the progress of the whole run."""
    percent = 100 * now.done / now.total if now.total else 100
    left = f", {figures.duration(eta.left)} left" if eta.left is not None else ""
    return (
        f"{figures.size(now.done)} of {figures.size(now.total)} ({percent:.0f} %), {figures.speed(eta.speed)}{left}, "
        f"{figures.activity(now.connections, now.mirrors, now.verified, now.files)}"
    )


def summary(report: Report, *, why: bool = False) -> list[str]:
    """Return the last lines: what was fetched, how fast, from which mirrors, whose digests, and what failed.

    `why`: with what was measured of each mirror.
    """
    requests = figures.many(report.hub_requests, "request")
    lines = [
        f"{report.ref}: {_outcome(report)}",
        f"vouched for by {report.vouched_by} ({report.trust}), {requests} to the hub",
    ]
    for use in report.mirrors:
        fate = f", not used: {use.rejected}" if use.rejected else ""
        measured = probes(use) if why else ""
        lines.append(f"  {use.name}: {figures.size(use.bytes)}, {figures.files(use.files)}{fate}{measured}")
    if report.exit_code == NetworkError.exit_code:
        lines.append("run the same command again to continue: what has come is kept")
    return lines + _content(report)


def _outcome(report: Report) -> str:
    """Return how many files ended how, and the speed."""
    if not report.files:
        return "the repo has no files"
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.verdicts.items()))
    return (
        f"{counts}; fetched {figures.size(report.bytes_fetched)}, reused {figures.size(report.bytes_reused)} "
        f"in {figures.duration(report.seconds)} ({figures.speed(report.speed)})"
    )


def _content(report: Report) -> list[str]:
    """Return a warning for each kind of risky content, and the state of the repo's signature."""
    lines = pickles(report.pickles, report.pickle_files)
    if report.misnamed:
        names = [printable(path) for path in report.misnamed]
        lines.append(f"no safetensors, whatever the name says: {named(names, len(names))}")
    if report.signature is not None:
        lines.append(_signature(report.signature))
    return lines


def _signature(found: Signature) -> str:
    """Return the state of the repo's signature."""
    if found.state == "absent":
        return f"no signature: signature_key is set, and the repo has no {found.path}"
    how = "present but not checked" if found.state == "not checked" else found.state
    return f"signature {printable(found.path)} is {how}: {found.detail}"


def pickles(count: int, files: Sequence[PickleFile]) -> list[str]:
    """Return a line that names some of `count` pickles and what they import; no line if there are none."""
    if not count:
        return []
    verb = "runs what it says when it is loaded" if count == 1 else "run what they say when they are loaded"
    return [f"{figures.many(count, 'pickle')}, which {verb}: {named([_pickle(file) for file in files], count)}"]


def _pickle(file: PickleFile) -> str:
    """Return `'evil.pkl' (imports posix.system)`."""
    notes = [f"imports {', '.join(file.imports[:3])}"] if file.imports else []
    notes += [] if file.whole else ["not read to its end"]
    return printable(file.path) + (f" ({'; '.join(notes)})" if notes else "")


def named(names: Sequence[str], count: int) -> str:
    """Return the first few of `count` names."""
    few = ", ".join(names[:FEW])
    return few if count <= FEW else f"{few} and {count - FEW} more"
