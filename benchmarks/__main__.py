"""Run scenarios, write their results and plots, print the table: python -m benchmarks [--scenario N].

Each scenario gets a share of the minutes and runs as many rounds as fit, at least one.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

from benchmarks import machine, plot, report
from benchmarks.goals import GOALS, TITLES
from benchmarks.records import Result, Row
from benchmarks.scenarios import SCENARIOS
from benchmarks.stage import Stage
from lab import unavailable_reason

OVERTIME = 100  # seconds: how much longer than expected the last round may take


def main() -> int:
    """Return exit status 0 if every scenario that this machine can run was run; a missed goal is not an error."""
    words = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    words.add_argument("--scenario", type=int, action="append", choices=sorted(SCENARIOS), help="only this one")
    words.add_argument("--runs", type=int, default=5, help="rounds of each scenario, if the time permits")
    words.add_argument("--minutes", type=float, default=28, help="for all scenarios together")
    words.add_argument("--scale", type=float, default=1.0, help="factor for sizes and counts; 0.05 for a quick check")
    words.add_argument("--folder", type=Path, help="folder for the files, up to 25 GB (default: TMPDIR)")
    words.add_argument("--out", type=Path, default=report.OUT, help="folder for results and plots")
    options = words.parse_args()
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    signal.alarm(round(60 * options.minutes + OVERTIME))
    chosen, since = sorted(set(options.scenario or SCENARIOS)), _now()
    try:
        failed = play(chosen, options)
    except KeyboardInterrupt:
        print("interrupted; python -m benchmarks.report writes the page from the complete results", file=sys.stderr)
        return 130
    finally:
        print(f"\n{report.table(report.newest(options.out, since=since), chosen)}")
    if options.scale == 1 and options.out == report.OUT:
        report.write()
        print(f"\nwritten: {report.PAGE.relative_to(report.ROOT)}")
    return 1 if failed else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def play(chosen: Sequence[int], options: argparse.Namespace) -> list[int]:
    """Run scenarios one after the other; return those that ended with an error."""
    until, reason, failed = time.monotonic() + options.minutes * 60, unavailable_reason(), list[int]()
    about, scale = machine.describe(), options.scale
    for at, number in enumerate(chosen):
        scenario = SCENARIOS[number]
        began = time.monotonic()
        print(f"{number:2d}  {TITLES[number]}", flush=True)
        if scenario.lab and reason:
            print(f"    not run: {reason}", flush=True)
            report.save(Result(number, TITLES[number], _now(), scale, about, skipped(number, reason), []), options.out)
            continue
        left = sum(SCENARIOS[n].weight for n in chosen[at:] if not (SCENARIOS[n].lab and reason))
        share = (until - began) * scenario.weight / left
        with tempfile.TemporaryDirectory(prefix="gpuaria-bench-", dir=options.folder) as place:
            stage = Stage(Path(place), options.runs, scale, began + share, lab=not reason)
            try:
                scenario.play(stage)
            except Exception as error:  # noqa: BLE001 the other scenarios still run
                failed.append(number)
                stage.note(f"ended by {type(error).__name__}: {error}")
        result = Result(number, TITLES[number], _now(), scale, about, stage.rows, stage.runs, stage.notes)
        plot.speeds(result, report.save(result, options.out).with_suffix(".png"))
        print(f"    {time.monotonic() - began:.0f} s", flush=True)
    return failed


def skipped(number: int, reason: str) -> list[Row]:
    """Return the rows of a scenario that this machine cannot run."""
    return [Row(goal.key, "", "not run", None, 0, reason) for goal in GOALS if goal.scenario == number]


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
