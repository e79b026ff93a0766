"""`gpuaria mirrors`: measures and ranks them; `add`, `remove` and `list` are in mirrors_list.py."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.cli.arguments import known_kind
from gpuaria.cli.output.errors import complain
from gpuaria.errors import GpuariaError, NoUsableMirror, UsageError

if TYPE_CHECKING:
    from gpuaria.cli.survey import Survey

_PLOTS = (".png", ".svg")


@app.command()
def mirrors(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="The repo to measure with; or: add NAME URL, remove NAME, list."),
    ] = None,
    kind: options.Kind = "",
    revision: options.Revision = "",
    why: Annotated[bool, typer.Option("--why", help="Everything that was measured.")] = False,
    plot: Annotated[str | None, typer.Option("--plot", help="Draw it.", metavar="FILE.png|svg")] = None,
    cache_dir: options.CacheDir = None,
    token: options.Token = None,
    mirrors: options.Mirrors = None,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> int:
    """Measure the mirrors, rank them, and say why; or edit the list of them."""
    from gpuaria.cli.mirrors_list import EDITS, edit

    stop: threading.Event = context.obj
    words = words or []
    if words and words[0] in EDITS:
        return edit(words[0], words[1:], options.flags(cache_dir=cache_dir, token=token, mirrors=mirrors), as_json)
    if len(words) > 1:
        raise UsageError("mirrors are measured with one repo", f"gpuaria mirrors REF, or one of {', '.join(EDITS)}.")
    if not words and (kind or revision):
        raise UsageError("no repo is named", "gpuaria mirrors REF, or leave --type and --revision out.")
    wanted, picture = known_kind(kind), _picture(plot)
    settings = options.settings_from(cache_dir=cache_dir, token=token, mirrors=mirrors)
    if settings.offline:
        raise UsageError("mirrors cannot be measured offline", "Leave --offline and HF_HUB_OFFLINE out.")

    from gpuaria.cli.output import mirrors as tables
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.cli.output.sinks import Quiet
    from gpuaria.cli.survey import survey

    found = survey(settings, words[0] if words else "", wanted, revision, Quiet(sys.stderr), stop)
    status = _status(found)
    if as_json:
        print_json("report", tables.as_json(found, status))
    else:
        print(tables.show(found))
        if why:
            print("\n" + tables.explained(found))
    if picture:
        from gpuaria.cli.output import mirrors_plot

        mirrors_plot.write(found, picture)
    if status:
        complain(found.problem or _nothing_usable(found))
    return status


def _picture(plot: str | None) -> Path | None:
    """Return the file of --plot; fail before anything is measured. Raises UsageError."""
    if plot is None:
        return None
    path = Path(plot).expanduser()
    if path.suffix.lower() not in _PLOTS:
        raise UsageError(f"--plot {plot} is no name of a picture", f"It ends in {' or '.join(_PLOTS)}.")
    from gpuaria.cli.output import mirrors_plot

    mirrors_plot.need()
    return path


def _status(found: "Survey") -> int:
    if found.problem is not None:
        return found.problem.exit_code
    return 0 if found.ranking.accepted else NoUsableMirror.exit_code


def _nothing_usable(found: "Survey") -> GpuariaError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in found.ranking.rejected)
    return NoUsableMirror(f"no mirror can be used: {reasons}", "gpuaria mirrors REF --why shows every stage.")
