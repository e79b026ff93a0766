"""`gpuaria mirrors`: measures and ranks mirrors; `add`, `remove` and `list` are in mirrors_list.py."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.cli.arguments import known_kind
from gpuaria.cli.output.errors import print_error
from gpuaria.errors import GpuariaError, NoUsableMirror, UsageError

if TYPE_CHECKING:
    from gpuaria.cli.survey import Survey

_PLOTS = (".png", ".svg")


@app.command()
def mirrors(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="Repo to measure with; or: add NAME URL, remove NAME, list."),
    ] = None,
    kind: options.KindOption = "",
    revision: options.RevisionOption = "",
    why: options.WhyOption = False,
    plot: Annotated[
        str | None, typer.Option("--plot", help="Draw the result to this file.", metavar="FILE.png|svg")
    ] = None,
    cache_dir: options.CacheDirOption = None,
    token: options.TokenOption = None,
    mirrors: options.MirrorsOption = None,
    verbose: options.VerboseOption = False,
    as_json: options.JsonOption = False,
) -> int:
    """Measure and rank mirrors, or edit the list of mirrors."""
    from gpuaria.cli.mirrors_list import EDITS, edit

    stop: threading.Event = context.obj
    words = words or []
    if words and words[0] in EDITS:
        return edit(words[0], words[1:], options.flags(cache_dir=cache_dir, token=token, mirrors=mirrors), as_json)
    if len(words) > 1:
        raise UsageError("gpuaria mirrors takes one repo", f"Run gpuaria mirrors REF, or one of: {', '.join(EDITS)}.")
    if not words and (kind or revision):
        raise UsageError("--type and --revision need a repo", "Add the repo, or leave these options out.")
    wanted, picture = known_kind(kind), _picture(plot)
    settings = options.settings_from(cache_dir=cache_dir, token=token, mirrors=mirrors)
    if settings.offline:
        raise UsageError("mirrors cannot be measured offline", "Unset HF_HUB_OFFLINE and GPUARIA_OFFLINE.")

    from gpuaria.cli.output import mirrors as tables
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.cli.output.sinks import Quiet
    from gpuaria.cli.survey import survey

    found = survey(settings, words[0] if words else "", wanted, revision, Quiet(sys.stderr), stop)
    status = _status(found)
    if as_json:
        print_json("report", tables.as_json(found, status))
    else:
        print(tables.table(found))
        if why:
            print("\n" + tables.details(found))
    if picture:
        from gpuaria.cli.output import mirrors_plot

        mirrors_plot.write(found, picture)
    if status:
        print_error(found.problem or _nothing_usable(found))
    return status


def _picture(plot: str | None) -> Path | None:
    """Return the file of --plot, checked before anything is measured. Raises UsageError."""
    if plot is None:
        return None
    path = Path(plot).expanduser()
    if path.suffix.lower() not in _PLOTS:
        raise UsageError(
            f"--plot {plot} is not a .png or .svg file", f"Use a file name that ends in {' or '.join(_PLOTS)}."
        )
    from gpuaria.cli.output import mirrors_plot

    mirrors_plot.matplotlib_figure()
    return path


def _status(found: "Survey") -> int:
    if found.problem is not None:
        return found.problem.exit_code
    return 0 if found.ranking.accepted else NoUsableMirror.exit_code


def _nothing_usable(found: "Survey") -> GpuariaError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in found.ranking.rejected)
    return NoUsableMirror(f"no usable mirror: {reasons}", "Run gpuaria mirrors REF --why to see every stage.")
