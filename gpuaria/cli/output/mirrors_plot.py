"""The chart of `gpuaria mirrors --plot`, drawn by matplotlib, an optional dependency."""

import importlib
from pathlib import Path
from typing import Any

from gpuaria.cli.survey import Survey
from gpuaria.errors import DiskError, UsageError
from gpuaria.mirrors.survey import stages

SHOWN = ("DNS", "TCP", "TLS", "look-up", "first byte")


def matplotlib_figure() -> Any:
    """Return the module matplotlib.figure. Raises UsageError if matplotlib is not installed."""
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError:
        raise UsageError(
            "--plot needs matplotlib, which is not installed", "Run: pip install 'gpuaria[plot]'"
        ) from None


def write(found: Survey, path: Path) -> None:
    """Draw the expected speed and the time of each stage for every mirror, best on top. Raises DiskError."""
    expected = {choice.mirror: (choice.rate or 0.0) / 1e6 for choice in found.ranking.accepted}
    names = [*expected, *(name for name, _ in found.ranking.rejected)][::-1]
    times = {one.mirror: stages(one) for one in found.findings}
    figure = matplotlib_figure().Figure(figsize=(11, 1.8 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(range(len(names)), [expected.get(name, 0.0) for name in names], color="tab:blue")
    for place, name in enumerate(names):
        if name not in expected:
            left.text(0, place, " rejected", va="center", color="tab:red")
    left.set_yticks(range(len(names)), names)
    left.set_xlabel("expected MB/s")
    starts = [0.0] * len(names)
    for stage in SHOWN:
        widths = [1e3 * (times[name][stage] or 0.0) for name in names]
        right.barh(range(len(names)), widths, left=starts, label=stage)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    right.set_xlabel("ms to the first byte, by stage")
    right.legend(fontsize="small")
    if found.subject:
        figure.suptitle(str(found.subject.manifest.ref).replace("$", r"\$"))
    try:
        figure.savefig(path, format=path.suffix[1:].lower())
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}", "Choose another file.") from None
