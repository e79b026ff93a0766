"""From the results in benchmarks/out to a table and docs/benchmarks.md: python -m benchmarks.report."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.goals import GOALS, TITLES, Goal
from benchmarks.records import Result, Row, Run, median

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out"
PAGE = ROOT / "docs" / "benchmarks.md"
REASONS = Path(__file__).parent / "reasons.yaml"
HEAD = ("#", "what", "limit", "want", "got", "met", "median of")


def save(result: Result, folder: Path = OUT) -> Path:
    """Write a result's file; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = result.date[:19].replace(":", "").replace("-", "")
    path = folder / f"{result.scenario:02d}-{stamp}.json"
    path.write_text(json.dumps(result.to_json()), encoding="utf-8")
    return path


def newest(folder: Path = OUT, *, full: bool = False, since: str = "") -> dict[int, Result]:
    """The last result of each scenario; `full`: those at full scale only; `since`: not those of an earlier date."""
    found: dict[int, Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = Result.from_json(json.loads(path.read_text(encoding="utf-8")))
        if (result.scale == 1 or not full) and result.date >= since:
            kept = found.get(result.scenario)
            if kept is None or kept.date <= result.date:
                found[result.scenario] = result
    return found


def reasons(path: Path = REASONS) -> dict[str, str]:
    """By goal: why it is not met, found by profiling, and what was tried. Written by hand, kept by every run."""
    told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    unknown = set(told) - {goal.key for goal in GOALS}
    if unknown:
        raise ValueError(f"{path.name} names goals that do not exist: {', '.join(sorted(unknown))}")
    return {key: " ".join(str(text).split()) for key, text in told.items()}


def cells(goal: Goal, row: Row | None) -> tuple[str, ...]:
    """One line of the table."""
    if row is None:
        return (goal.key, goal.work, "", goal.want, "not measured yet", "", "")
    met = {True: "yes", False: "no", None: ""}[row.met]
    got = f"{row.got}: {row.note}" if row.got == "not run" else row.got
    return (goal.key, goal.work, row.limit, goal.want, got, met, str(row.runs or ""))


def lines(results: Mapping[int, Result], scenarios: Sequence[int]) -> list[tuple[str, ...]]:
    """The table's lines, in the order of the goals."""
    known = {row.key: row for result in results.values() for row in result.rows}
    return [cells(goal, known.get(goal.key)) for goal in GOALS if goal.scenario in scenarios]


def table(results: Mapping[int, Result], scenarios: Sequence[int] = tuple(TITLES)) -> str:
    """For a terminal."""
    rows = [HEAD, *lines(results, scenarios)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a page."""
    told = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in told)


def page(results: Mapping[int, Result], why: Mapping[str, str]) -> str:
    """docs/benchmarks.md."""
    parts = [_INTRO, markdown(HEAD, lines(results, list(TITLES))), "", "## Goals that are not met", ""]
    missed = [row for _, result in sorted(results.items()) for row in result.rows if row.met is False]
    parts += [f"- **{row.key}**: {why.get(row.key, 'no reason has been found yet.')}" for row in missed]
    parts += ["" if missed else "None of those that were measured.\n" if results else "Nothing was measured yet.\n"]
    if results:
        parts += ["## The machine", "", machine(max(results.values(), key=lambda result: result.date).machine), ""]
    for number, title in TITLES.items():
        parts += [f"## {number}. {title}", "", *_details(results.get(number)), ""]
    return "\n".join(parts).rstrip() + "\n"


def machine(about: Mapping[str, Any]) -> str:
    """One paragraph."""
    versions = ", ".join(
        f"{name} {version}" if version else f"no {name}" for name, version in about["versions"].items()
    )
    told = (
        f"{about['cores']} cores of {about['cpu']}, {about['memory_gb']} GB, Linux {about['kernel']}, "
        f"TCP {about['congestion']}, Python {about['python']}, sha256 at "
        f"{about['sha256_mb_s']} MB/s per thread (the program sha256sum: {about['sha256sum_mb_s']} MB/s). {versions}."
    )
    return textwrap.fill(told, 120)


def _details(result: Result | None) -> list[str]:
    if result is None:
        return ["Not measured yet."]
    told = [f"{result.date[:16].replace('T', ' ')}."]
    told += [f"{row.key}: {row.note}." for row in result.rows if row.note]
    told += [f"{note[:1].upper()}{note[1:]}." for note in result.notes]
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in result.runs:
        groups.setdefault((run.who, run.work), []).append(run)
    if not groups:
        return told
    rate = 1e6 * result.machine["sha256sum_mb_s"]
    rows = [_contestant(who, work, runs, rate) for (who, work), runs in groups.items()]
    head = ("who", "part", "median", "with sha256sum", "runs", "own CPU", "tree CPU", "hub requests", "files right")
    commands = dict.fromkeys(run.command for run in result.runs if run.command)
    return [*told, "", markdown(head, rows), "", "```", *commands, "```"]


def _contestant(who: str, work: str, runs: Sequence[Run], rate: float) -> tuple[str, ...]:
    """`rate`: bytes per second of sha256sum, for those that prove nothing."""
    middle = median(run.seconds for run in runs)
    times = ", ".join(f"{run.seconds:.1f}" for run in runs)
    return (
        who,
        work,
        f"{middle:.2f} s",
        "proven" if runs[0].proven else f"{middle + runs[0].size / rate:.2f} s",
        times,
        f"{median(run.own_cpu for run in runs):.2f} s",
        f"{median(run.tree_cpu for run in runs):.2f} s",
        f"{median(run.hub_requests for run in runs):.0f}",
        "all" if all(run.right for run in runs) else f"{sum(run.right for run in runs)} of {len(runs)} runs",
    )


def write() -> None:
    """Write docs/benchmarks.md from what was measured at full scale."""
    PAGE.write_text(page(newest(full=True), reasons()), encoding="utf-8")


_INTRO = """# Benchmarks

`make bench` plays all of it in less than half an hour and writes this page; `make bench SCENARIO=3` plays one.
Reasons below the table are written by hand in `benchmarks/reasons.yaml`. Raw times of every run, with a plot of the
speed over time per host, are in `benchmarks/out/`.

How it is measured:

- Hub, CDN, mirrors and client are network namespaces on one machine. Large files come from a real nginx, listings and
  small files from the stand-in hub. Rates are token buckets, delay and loss a forwarder between the namespaces
  (`scripts/lab`). That needs root; elsewhere what needs no delay runs on the loopback, and the rest is named as not
  run.
- The rivals are real ones from their own packages. `hf download` runs with Xet off, since there is no chunk store
  here. Plain aria2c is the same binary that gpuaria uses; unless it says hfd.sh, it gets final addresses, and their
  look-up is not timed.
- The link of 500 Mbit/s is counted as 58 MB/s of payload; with nothing lost it carries 60. What nginx limits per
  connection comes in steps of a second, and an answer begins with one second's worth at once.
- Contestants take turns in the same minutes. A ratio is the median over the pairs of a round. Each round begins with
  an empty home, an empty target and what was written before on disk. The last column says of how many rounds: five
  of all take an hour and a quarter, `make bench ARGS="--minutes 88"`, and one or two fit into half an hour.
- gpuaria's time includes its proof. No rival checks digests over HTTP, so their times are without; "with sha256sum"
  adds what that program takes here for as many bytes (scenario 7 really runs it). After every run, outside its time,
  each file is compared byte for byte with the server's, and a run that does not match is not counted.
- curl, wget and axel, other settings of aria2c and other builds of it run once, where there is time left: no goal is
  about them. One that is not installed is named.
- A rival that would take too long gets a part of the work. It says so below, with the part's own time.
- `WORK` in a command is the folder of one run; its `aria2.input` names every file of the repo with its addresses.
- Large files are made of 4 kB of random bytes per MiB and zeros. Nothing on the way compresses.

`make bench ARGS="--scale 0.05"` shows in a few minutes that all works; its figures mean nothing and do not come here.
"""


if __name__ == "__main__":
    write()
