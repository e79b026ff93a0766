"""The plan that `fetch --dry-run` prints."""

from typing import Any

from gpuaria.cli.output import figures
from gpuaria.records import DownloadPlan, Report, to_json


def fields(plan: DownloadPlan, report: Report) -> dict[str, Any]:
    """Return the plan as one JSON object. `mirrors` are those to download from; empty if nothing is to download."""
    mirrors = dict.fromkeys(mirror.name for step in plan.steps for mirror in step.mirrors)
    found = to_json(plan)
    for row, step in zip(found["steps"], plan.steps, strict=True):
        row["mirrors"] = [mirror.name for mirror in step.mirrors]
    return {
        "ref": report.ref,
        "commit": report.commit,
        "path": report.path,
        "vouched_by": report.vouched_by,
        "trust": report.trust,
        "mirrors": list(mirrors),
        **found,
        "exit_code": report.exit_code,
    }


def plan_text(plan: DownloadPlan) -> str:
    """Return the plan as a table. The same state on disk gives the same text."""
    rows = [("action", "size", "file", "by", "from", "reason")]
    for step in plan.steps:
        by = f"{step.carrier} x{step.connections}" if step.fetches else ""
        size, mirrors = figures.size(step.file.size), ", ".join(mirror.name for mirror in step.mirrors)
        rows.append((step.action, size, step.file.path, by, mirrors, step.reason))
    sums = f"to download: {figures.size(plan.fetch_bytes)}; already on disk: {figures.size(plan.reuse_bytes)}"
    return f"{figures.table(rows)}\n{sums}"
