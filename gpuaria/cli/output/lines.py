"""Events and reports as lines of text for people."""

from collections.abc import Sequence

from gpuaria.cli.output import figures
from gpuaria.cli.output.eta import Eta
from gpuaria.errors import NetworkError
from gpuaria.events import FileDone, Mismatch, Planned, Progress
from gpuaria.records import GOOD_OUTCOMES, MirrorUse, PickleFile, Report, Signature
from gpuaria.text import printable

FEW = 5  # most names on one line


def failed(event: FileDone) -> str:
    """Return the outcome of a file that was not published, with the reason."""
    return f"{event.outcome}: {printable(event.path)}{f': {event.detail}' if event.detail else ''}"


def mismatch(event: Mismatch) -> str:
    """Return why a local file is downloaded again, which the opening line could not know."""
    return f"downloading {printable(event.path)} again ({figures.size(event.size)}): {event.detail}"


def opening(plan: Planned, *, why: bool) -> list[str]:
    """Return the first lines: what will be downloaded, and with `why` the order of the mirrors."""
    return [_plan(plan), *(_order(plan) if why else ())]


def _plan(plan: Planned) -> str:
    """Return what will be downloaded, from which mirrors, and how much is on disk already."""
    at = f" ({plan.commit[:12]})" if plan.commit else ""
    if not plan.fetch_files:
        on_disk = f" ({figures.size(plan.reuse_bytes)} on disk)" if plan.reuse_bytes else ""
        return f"{plan.ref}{at}: {figures.files(plan.files)}, nothing to download{on_disk}"
    on_disk = f"; {figures.size(plan.reuse_bytes)} already on disk" if plan.reuse_bytes else ""
    return (
        f"{plan.ref}{at}: downloading {plan.fetch_files} of {figures.files(plan.files)}, "
        f"{figures.size(plan.fetch_bytes)}, from {', '.join(plan.mirrors)}{on_disk}"
    )


def _order(plan: Planned) -> list[str]:
    """Return a line for each mirror, in the order of use, with the reason for its rank."""
    return [
        f"  mirror {number}: {name}, {plan.reasons.get(name, 'no other mirror to compare with')}"
        for number, name in enumerate(plan.mirrors, 1)
    ]


def _probes(use: MirrorUse) -> str:
    """Return the probes of a mirror, and the reason for its rank."""
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
    """Return the last lines: the result and speed, whose checksums, each mirror's share, and warnings.

    `why`: include the probes of each mirror.
    """
    requests = figures.many(report.hub_requests, "request")
    lines = [
        f"{report.ref}: {_outcome(report)}",
        f"  checksums from {report.vouched_by} ({report.trust}); {requests} to the hub",
    ]
    for use in report.mirrors:
        measured = _probes(use) if why else ""
        if use.rejected and not use.bytes:
            lines.append(f"  {use.name}: not used: {use.rejected}{measured}")
        else:
            dropped = f"; dropped: {use.rejected}" if use.rejected else ""
            lines.append(f"  {use.name}: {figures.size(use.bytes)}, {figures.files(use.files)}{dropped}{measured}")
    if report.exit_code == NetworkError.exit_code:
        lines.append("run the same command again to continue; downloaded data is kept")
    return lines + _content(report)


def _outcome(report: Report) -> str:
    """Return whether all files are in place, and what was downloaded at which speed."""
    if not report.files:
        return "the repo has no files"
    took = figures.duration(report.seconds)
    others = "".join(f", {count} {outcome}" for outcome, count in sorted(report.verdicts.items()) if outcome != "ok")
    if report.verdicts and not report.bytes_fetched and set(report.verdicts) <= set(GOOD_OUTCOMES):
        return f"up to date: {figures.files(report.files)}, {figures.size(report.bytes_reused)} ({took}){others}"
    verified = report.verdicts.get("ok", 0)
    counts = figures.files(verified) if verified == report.files else f"{verified} of {figures.files(report.files)}"
    reused = f"; {figures.size(report.bytes_reused)} already on disk" if report.bytes_reused else ""
    return (
        f"{counts} verified{others}; downloaded {figures.size(report.bytes_fetched)} in {took} "
        f"({figures.speed(report.speed)}){reused}"
    )


def _content(report: Report) -> list[str]:
    """Return a line for each kind of risky content, and the state of the repo's signature."""
    lines = pickles(report.pickles, report.pickle_files)
    if report.misnamed:
        names = [printable(path) for path in report.misnamed]
        lines.append(f"named .safetensors but not in that format: {named(names, len(names))}")
    if report.signature is not None:
        lines.append(_signature(report.signature))
    return lines


def _signature(found: Signature) -> str:
    """Return the state of the repo's signature."""
    if found.state == "absent":
        return f"no signature: signature_key is set, but the repo has no {found.path}"
    state = "present, not checked" if found.state == "not checked" else found.state
    return f"signature {printable(found.path)} is {state}: {found.detail}"


def pickles(count: int, files: Sequence[PickleFile]) -> list[str]:
    """Return a warning that names some of `count` pickles and what they import; nothing if there are none."""
    if not count:
        return []
    warning = "loading it can run any code" if count == 1 else "loading them can run any code"
    return [f"{figures.many(count, 'pickle')} ({warning}): {named([_pickle(file) for file in files], count)}"]


def _pickle(file: PickleFile) -> str:
    """Return `'evil.pkl' (imports posix.system)`."""
    notes = [f"imports {', '.join(file.imports[:3])}"] if file.imports else []
    notes += [] if file.whole else ["only partly read"]
    return printable(file.path) + (f" ({'; '.join(notes)})" if notes else "")


def named(names: Sequence[str], count: int) -> str:
    """Return the first few names, and how many of `count` are left out."""
    few = ", ".join(names[:FEW])
    return few if count <= FEW else f"{few} and {count - FEW} more"
