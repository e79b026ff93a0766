"""Plots of the speed over time of each host, with one panel for each contestant's first run."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import Result, Run, Samples

PANELS = 6
STEP = 0.5  # seconds over which a speed is averaged


def speeds(result: Result, path: Path) -> bool:
    """Write the PNG; False if there is nothing to draw or no matplotlib."""
    runs = firsts(result.runs)
    if not runs:
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("    no plot: matplotlib is not installed (pip install gpuaria[plot])")
        return False
    figure = Figure(figsize=(9, 2.4 * len(runs)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{result.scenario}: {result.title}")
    axes = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)
    for (panel,), run in zip(axes, runs, strict=True):
        for host in run.samples[-1][1]:
            at, speed = curve(run.samples, host)
            panel.plot(at, speed, label=host, linewidth=1.2)
        panel.set_title(f"{run.who} {run.work}".strip(), fontsize=9, loc="left")
        panel.set_ylabel("MB/s")
        panel.legend(loc="upper right", fontsize=8)
        panel.grid(visible=True, alpha=0.3)
    axes[-1][0].set_xlabel("s")
    figure.savefig(path, dpi=100)
    return True


def firsts(runs: Sequence[Run]) -> list[Run]:
    """Return the first run of each contestant and work that lasts long enough for a plot."""
    found: dict[tuple[str, str], Run] = {}
    for run in runs:
        if run.work not in ("tiny", "start-up") and run.samples and run.samples[-1][0] > 2 * STEP:
            found.setdefault((run.who, run.work), run)
    return list(found.values())[:PANELS]


def curve(samples: Samples, host: str) -> tuple[list[float], list[float]]:
    """Return times and MB/s of a host, averaged over STEP seconds."""
    at, speed = [0.0], [0.0]
    last_time, last_sent = 0.0, 0
    for now, sent in samples:
        if now - last_time >= STEP:
            at.append(now)
            speed.append((sent[host] - last_sent) / (now - last_time) / 1e6)
            last_time, last_sent = now, sent[host]
    return at, speed
