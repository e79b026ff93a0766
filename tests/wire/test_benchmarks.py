"""The benchmark suite: its table, its calculations, its page, and one small real scenario. Speed is not tested."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import content, goals, headline, plot, records, report
from benchmarks.__main__ import skipped
from benchmarks.measure import Process
from benchmarks.place import Work
from benchmarks.records import Result, Row, Run
from benchmarks.rivals import Contestant
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.proof import THEN_SUM, last_growth
from benchmarks.scenarios.small import IN_FLIGHT
from benchmarks.stage import Stage, readable
from gpuaria.settings import load
from tests.support.checkout import ROOT
from tests.support.user import wait_until

MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "memory_gb": 8,
    "kernel": "6.1",
    "python": "3.11.2",
    "sha256_mb_s": 340,
    "sha256sum_mb_s": 100,
    "congestion": "cubic",
    "versions": {"gpuaria": "0.1.0", "axel": ""},
}


def sample() -> Result:
    """Return scenario 3 with one goal met and one missed."""
    curve = [
        (0.5, {"m1": 500_000, "m2": 0}),
        (1.0, {"m1": 1_500_000, "m2": 0}),
        (1.6, {"m1": 1_500_000, "m2": 600_000}),
    ]
    size = 500_000_000
    ours = Run("gpuaria", 2.0, 0, size=size, samples=curve, proven=True)
    runs = [ours, Run("aria2c -x16 -s48", 3.0, 0, size=size, right=False)]
    rows = [
        Row("3a", "58 MB/s: the link", "0.950", True, 5),
        Row("3b", "58 MB/s: the link", "1.01", False, 3, "why not"),
    ]
    return Result(
        3, goals.TITLES[3], "2026-01-02T03:04:05+00:00", 1, dict(MACHINE), rows, runs, ["axel is not installed"]
    )


def test_every_scenario_has_goals_and_can_run() -> None:
    assert sorted(SCENARIOS) == list(goals.TITLES) == list(range(1, 12))
    assert {goal.scenario for goal in goals.GOALS} == set(SCENARIOS)
    assert len(goals.GOAL) == len(goals.GOALS)
    assert [goal.key for number in SCENARIOS for goal in goals.GOALS if goal.scenario == number] == list(goals.GOAL)


@pytest.mark.parametrize(
    ("want", "got", "met"),
    [(">= 0.97", 0.97, True), (">= 12", 11.9, False), ("<= 1", 1.0, True), ("<= 0.75", 0.76, False)],
)
def test_a_goal_is_met_or_not(want: str, got: float, met: bool) -> None:
    assert goals.met(want, got) is met


def test_ratios_are_computed_from_pairs_or_from_medians_if_a_run_is_missing() -> None:
    assert records.ratio([10, 30, 8], [5, 10, 8]) == 2
    assert records.ratio([10, 30], [5, 10, 10]) == 2
    assert records.median([3, 1, 2]) == 2
    assert math.isnan(records.median([]))


def test_a_rivals_total_time_is_extrapolated_without_its_start() -> None:
    assert records.whole(tiny=2, part=12, share=0.1) == 102


def test_an_unmeasured_value_meets_no_goal(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, 1, until=0, lab=False)
    stage.row("3a", float("nan"), "nan", limit="", runs=0)
    stage.row("3a", 0.93, "0.930", limit="", runs=2)
    stage.row("11c", 5.0, "5 s/GB", limit="", runs=2)
    assert [row.met for row in stage.rows] == [None, True, None]
    assert stage.rows[0].got == "no run ended well"


def test_at_least_one_round_runs_and_no_more_than_fit(tmp_path: Path) -> None:
    assert list(Stage(tmp_path, 3, 1, until=math.inf, lab=False).rounds()) == [0, 1, 2]
    assert list(Stage(tmp_path, 3, 1, until=0, lab=False).rounds()) == [0]


def test_a_result_is_read_back_from_its_file(tmp_path: Path) -> None:
    path = report.save(sample(), tmp_path / "out")
    assert json.loads(path.read_text())["scenario"] == 3
    assert report.newest(tmp_path / "out") == {3: sample()}


def test_only_full_scale_results_are_on_the_page(tmp_path: Path) -> None:
    small = sample()
    small.scale, small.date = 0.1, "2026-01-03T00:00:00+00:00"
    report.save(sample(), tmp_path)
    report.save(small, tmp_path)
    assert report.newest(tmp_path)[3].scale == 0.1
    assert report.newest(tmp_path, full=True)[3].scale == 1
    assert report.newest(tmp_path, since="2026-01-04T00:00:00+00:00") == {}


def test_the_page_shows_every_goal_the_reasons_and_the_runs() -> None:
    page = report.page({3: sample()}, {"3b": "the slowest mirror ends last"})
    for goal in goals.GOALS:
        assert f"| {goal.key} | {goal.work} |" in page
    assert "| 3a | share of the limit | 58 MB/s: the link | >= 0.92 | 0.950 | yes | 5 |" in page
    assert "**3b**: the slowest mirror ends last" in page
    assert "| 1a | share of the limit |  | >= 0.97 | not measured yet |  |  |" in page
    assert "no axel" in " ".join(page.split())
    assert "| gpuaria |  | 2.00 s | verified | 2.0 |" in page
    assert "| aria2c -x16 -s48 |  | 3.00 s | 8.00 s | 3.0 |" in page
    assert "0 of 1 runs" in page
    assert "3b: why not." in page
    assert "Axel is not installed." in page


def test_a_missed_goal_without_a_reason_is_marked() -> None:
    assert "**3b**: no reason has been found yet." in report.page({3: sample()}, {})
    assert "Nothing was measured yet." in report.page({}, {})


def test_a_scenario_that_needs_a_lab_is_listed_with_the_reason() -> None:
    result = sample()
    result.rows, result.runs = skipped(3, "network namespaces need root"), []
    assert "not run: network namespaces need root" in report.table({3: result}, [3])
    assert "not run: network namespaces need root" in report.page({3: result}, {})


def test_reasons_refer_to_existing_goals(tmp_path: Path) -> None:
    assert set(report.reasons()) <= set(goals.GOAL)
    path = tmp_path / "reasons.yaml"
    path.write_text("99z: never\n")
    with pytest.raises(ValueError, match="99z"):
        report.reasons(path)


def test_the_page_in_docs_is_generated() -> None:
    page = headline.PAGE.read_text(encoding="utf-8")
    assert report.METHOD in page
    for goal in goals.GOALS:
        assert f"| {goal.key} | {goal.work} |" in page
    body = page[page.index(headline.BODY) :]
    assert page == headline.top(body) + body, "run python -m benchmarks.headline"
    assert headline.PICTURE.read_text(encoding="utf-8") == headline.picture(body), "run python -m benchmarks.headline"


def test_the_page_begins_with_figures_from_the_table_and_a_chart_of_the_runs() -> None:
    page = headline.PAGE.read_text(encoding="utf-8")
    got = headline.results(page)
    assert f"**{got['1b']} times as fast as `hf download`**" in page
    assert headline.bars(page, 1)[-1].computed, "hf's time for all of the work is marked as computed"
    assert {bar.name for bar in headline.bars(page, 7)} == set(headline.PANELS[7])
    assert headline.top(report.page({}, {})) == "# Benchmarks\n\n"
    assert headline.bars("", 1) == []


def test_a_curve_is_speed_over_intervals() -> None:
    (run,) = plot.firsts([sample().runs[0]])
    at, speed = plot.curve(run.samples, "m1")
    assert at == [0.0, 0.5, 1.0, 1.6]
    assert speed == pytest.approx([0, 1, 2, 0])


def test_the_last_byte_is_in_the_last_interval_with_real_traffic() -> None:
    sent = [0, 1_000_000, 2_000_000, 2_010_000, 2_020_000]
    run = Run("gpuaria", 1, 0, samples=[(i / 10, {"loopback": count}) for i, count in enumerate(sent)])
    assert last_growth(run) == 0.2


def test_commands_are_shown_without_values_of_a_single_run() -> None:
    told = readable([sys.executable, "-m", "x", "/tmp/f/run/to", "http://h/a?X-Sig=1&Key=2"], Path("/tmp/f"))
    assert told == "python -m x WORK/to http://h/a?SIGNED"


def test_files_are_compared_completely(tmp_path: Path) -> None:
    one = content.large(tmp_path / "one", 9_000_001, seed=1)
    other = tmp_path / "other"
    other.write_bytes(one.read_bytes())
    assert one.stat().st_blocks * 512 < 1_000_000
    assert content.same(one, other)
    with other.open("r+b") as out:
        out.seek(9_000_000)
        out.write(b"x")
    assert not content.same(one, other)
    assert not content.same(tmp_path / "absent", other)


def test_the_number_and_size_of_small_files_match_the_request() -> None:
    files = content.small(300, seed=1)
    assert len(files) == len(set(files.values())) == 300
    assert all(400 <= len(data) <= 40_000 for data in files.values())
    assert files == content.small(300, seed=1)


def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    used = Process(["sleep", "600"], {"PATH": os.environ["PATH"]}, tmp_path, tmp_path / "output").wait(0.2)
    assert used.late
    assert used.status == -signal.SIGTERM


def test_cpu_seconds_of_a_program_exclude_those_of_its_children(tmp_path: Path) -> None:
    burn = "import time; [0 for _ in iter(lambda: time.process_time() < 0.5, False)]"
    words = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"]
    used = Process(words, dict(os.environ), tmp_path, tmp_path / "output").wait(60)
    assert used.status == 0
    assert used.tree_cpu - used.own_cpu >= 0.45


def test_memory_of_a_program_is_its_own(tmp_path: Path) -> None:
    """Linux counts the parent's memory at the fork for the child (ru_maxrss)."""
    ours = bytearray(b"x") * 300_000_000
    used = Process(["sleep", "0.3"], dict(os.environ), tmp_path, tmp_path / "output").wait(60)
    assert 0 < used.rss < 30_000_000 < len(ours)
    eat = "import time; x = bytearray(b'x') * 200_000_000; del x; time.sleep(0.3)"
    used = Process([sys.executable, "-c", eat], dict(os.environ), tmp_path, tmp_path / "output").wait(60)
    assert 200_000_000 < used.rss < 260_000_000


def test_a_small_real_scenario(tmp_path: Path) -> None:
    """Download 20 MB over loopback with gpuaria and with a rival; compare both with the server's bytes."""
    stage = Stage(tmp_path, 1, 0.001, until=0, lab=False)
    SCENARIOS[7].play(stage)
    assert [(run.who, run.right, run.status) for run in stage.runs] == [
        ("gpuaria", True, 0),
        ("aria2c -x16", True, 0),
        (THEN_SUM, True, 0),
    ]
    ours, plain, _ = stage.runs
    assert ours.size == 20_000_000
    assert ours.sent >= ours.size
    assert plain.sent >= ours.size
    assert ours.tree_cpu > ours.own_cpu > 0, "the time of its aria2c is counted, and apart from its own"
    assert ours.hub_requests > 0
    assert plain.hub_requests == 0
    assert [row.key for row in stage.rows] == ["7a", "7b"]
    assert all(row.runs == 1 for row in stage.rows)


def test_a_rival_with_wrong_bytes_does_not_count(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, 1, until=0, lab=False)
    repo = stage.repo("one", {"a.json": b"right"})

    def words(work: Work, target: Path) -> list[object]:
        return ["sh", "-c", f"mkdir -p {target} && printf %s wrong > {target}/a.json"]

    liar = Contestant("liar", words, ["sh"])
    with stage.loopback([repo]) as served:
        assert not stage.fetch(liar, Work(repo, served)).right
    assert stage.seconds("liar") == []


@pytest.mark.parametrize("number", [15, 2])
def test_an_interrupted_benchmark_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    """After an interrupt in mid-run, no process, no namespace and no file remains."""
    options = ["--scenario", "8", "--scale", "0.05", "--folder", tmp_path, "--out", tmp_path / "out"]
    words = [sys.executable, "-m", "benchmarks", *map(str, options)]
    bench = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until_it_runs(tmp_path, bench)
        bench.send_signal(number)
        assert "interrupted" in bench.communicate(timeout=60)[1]
    finally:
        bench.kill()
        bench.communicate()
    assert bench.returncode == 130
    assert not list(tmp_path.glob("gpuaria-bench-*"))
    assert not running(str(tmp_path))
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    assert f"gq{bench.pid % 10000}-" not in spaces


def until_it_runs(folder: Path, bench: subprocess.Popen[str]) -> None:
    """Wait until the target has a first byte."""

    def arrived() -> bool:
        assert bench.poll() is None, bench.communicate()[1]
        return any(
            path.stat().st_blocks for path in folder.glob("gpuaria-bench-*/run/to/**/sha256-*") if path.is_file()
        )

    wait_until(arrived, 90)


def running(word: str) -> list[str]:
    """Return command lines of processes that name a folder, or of an aria2c that works in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            descriptors = [os.readlink(link) for link in (path / "fd").iterdir()]
        except OSError:
            continue
        if path.name != str(os.getpid()) and (word in line or any(word in name for name in descriptors)):
            found.append(line)
    return found


def test_the_small_file_limit_counts_parallel_downloads(tmp_path: Path) -> None:
    assert load({}, {}, tmp_path, site=tmp_path / "none").small_jobs == IN_FLIGHT
