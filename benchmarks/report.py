"""From the results in benchmarks/out to a table and docs/benchmarks.md: python -m benchmarks.report."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import headline
from benchmarks.goals import GOALS, TITLES, Goal
from benchmarks.records import Result, Row, Run, median

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out"
PAGE = ROOT / "docs" / "benchmarks.md"
REASONS = Path(__file__).parent / "reasons.yaml"
HEAD = ("#", "what", "limit", "want", "got", "met", "median of")


def save(result: Result, folder: Path = OUT) -> Path:
    """Write a result file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = result.date[:19].replace(":", "").replace("-", "")
    path = folder / f"{result.scenario:02d}-{stamp}.json"
    path.write_text(json.dumps(result.to_json()), encoding="utf-8")
    return path


def newest(folder: Path = OUT, *, full: bool = False, since: str = "") -> dict[int, Result]:
    """Return the latest result of each scenario. `full`: only at full scale; `since`: none before that date."""
    found: dict[int, Result] = {}
    for path in sorted(folder.glob("*.json")):
        result = Result.from_json(json.loads(path.read_text(encoding="utf-8")))
        if (result.scale == 1 or not full) and result.date >= since:
            kept = found.get(result.scenario)
            if kept is None or kept.date <= result.date:
                found[result.scenario] = result
    return found


def reasons(path: Path = REASONS) -> dict[str, str]:
    """Return, by goal, why it is not met and what was tried. The file is written by hand."""
    told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    unknown = set(told) - {goal.key for goal in GOALS}
    if unknown:
        raise ValueError(f"{path.name} names goals that do not exist: {', '.join(sorted(unknown))}")
    return {key: " ".join(str(text).split()) for key, text in told.items()}


def cells(goal: Goal, row: Row | None) -> tuple[str, ...]:
    """Return one row of the table."""
    if row is None:
        return (goal.key, goal.work, "", goal.want, "not measured yet", "", "")
    met = {True: "yes", False: "no", None: ""}[row.met]
    got = f"{row.got}: {row.note}" if row.got == "not run" else row.got
    return (goal.key, goal.work, row.limit, goal.want, got, met, str(row.runs or ""))


def lines(results: Mapping[int, Result], scenarios: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the rows of the table in the order of the goals."""
    known = {row.key: row for result in results.values() for row in result.rows}
    return [cells(goal, known.get(goal.key)) for goal in GOALS if goal.scenario in scenarios]


def table(results: Mapping[int, Result], scenarios: Sequence[int] = tuple(TITLES)) -> str:
    """Return the table for a terminal."""
    rows = [HEAD, *lines(results, scenarios)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the table in Markdown."""
    told = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in told)


def page(results: Mapping[int, Result], why: Mapping[str, str]) -> str:
    """Return docs/benchmarks.md."""
    parts = [headline.BODY, "", markdown(HEAD, lines(results, list(TITLES))), "", "## Goals that are not met", ""]
    missed = [row for _, result in sorted(results.items()) for row in result.rows if row.met is False]
    parts += [f"- **{row.key}**: {why.get(row.key, 'no reason has been found yet.')}" for row in missed]
    parts += ["" if missed else "None of those that were measured.\n" if results else "Nothing was measured yet.\n"]
    parts += [METHOD]
    if results:
        parts += ["## The machine", "", machine(max(results.values(), key=lambda result: result.date).machine), ""]
    for number, title in TITLES.items():
        parts += [f"## {number}. {title}", "", *_details(results.get(number)), ""]
    body = "\n".join(parts).rstrip() + "\n"
    return headline.top(body) + body


def machine(about: Mapping[str, Any]) -> str:
    """Return one paragraph about the machine."""
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
        "verified" if runs[0].proven else f"{middle + runs[0].size / rate:.2f} s",
        times,
        f"{median(run.own_cpu for run in runs):.2f} s",
        f"{median(run.tree_cpu for run in runs):.2f} s",
        f"{median(run.hub_requests for run in runs):.0f}",
        "all" if all(run.right for run in runs) else f"{sum(run.right for run in runs)} of {len(runs)} runs",
    )


def write() -> None:
    """Write docs/benchmarks.md and its picture from what was measured at full scale."""
    text = page(newest(full=True), reasons())
    PAGE.write_text(text, encoding="utf-8")
    headline.PICTURE.write_text(headline.picture(text), encoding="utf-8")


METHOD = """## How it is measured

`make bench` runs all scenarios in less than half an hour and writes this page and the picture; `make bench
SCENARIO=3` runs one. The reasons for missed goals are written by hand in `benchmarks/reasons.yaml`. The raw times
of every run, with a plot of the speed of each host over time, are in `benchmarks/out/`.

- **Network.** The hub, the CDN, the mirrors and the client are network namespaces on one machine. A real nginx
  serves the large files, the stand-in hub the listings and small files. Token buckets set the rates; a forwarder
  between the namespaces adds delay and loss (`scripts/lab`). This needs root. Without root, scenarios that need no
  delay run on the loopback, and the page names the others as not run.
- **Rivals.** They come from their own packages. `hf download` runs with Xet off, because the lab has no chunk
  store. Plain aria2c is the same binary that gpuaria uses. Except in the row "hfd.sh" it gets final URLs, and the
  time to resolve them is not counted.
- **Link.** The link of 500 Mbit/s counts as 58 MB/s of payload; without loss it carries 60. nginx applies its limit
  per connection in steps of one second, and sends the first second's worth at once.
- **Order.** Contestants take turns within the same minutes. A ratio is the median over the pairs of a round. Each
  round starts with an empty home and an empty target, after earlier writes have reached the disk. The last column
  is the number of rounds: five rounds of everything take an hour and a quarter (`make bench ARGS="--minutes 88"`),
  half an hour is enough for one or two.
- **Verification.** gpuaria's time includes it. No rival checks digests over HTTP, so their times exclude it; the
  column "with sha256sum" adds the time that this program takes on the machine for as many bytes (scenario 7 really
  runs it). After each run, outside its time, every file is compared byte for byte with the server's. A run that
  differs does not count.
- **Extras.** curl, wget, axel, other settings of aria2c and other builds of it run once, if time is left. No goal
  depends on them. The page names those that are not installed.
- **Parts.** A rival that would take too long gets a part of the work. Its section says so, with the time for the
  part.
- **Names.** `WORK` in a command is the folder of one run; its `aria2.input` lists every file of the repo with its
  URLs.
- **Data.** Large files consist of 4 kB of random bytes per MiB, and zeros. Nothing on the route compresses.

`make bench ARGS="--scale 0.05"` checks in a few minutes that everything works. Its figures mean nothing and are not
written to this page.
"""


if __name__ == "__main__":
    write()
