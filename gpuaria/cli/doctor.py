"""`gpuaria doctor`."""

import os
import sys
import threading
from typing import Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.cli.arguments import known_kind
from gpuaria.errors import ConfigError, Interrupted, UsageError


@app.command()
def doctor(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="REF", help="Repo to check access to.")] = None,
    kind: options.KindOption = "",
    revision: options.RevisionOption = "",
    trace: Annotated[bool, typer.Option("--trace", help="Also trace the network route to the worst mirror.")] = False,
    cache_dir: options.CacheDirOption = None,
    token: options.TokenOption = None,
    mirrors: options.MirrorsOption = None,
    rpc: options.RpcOption = None,
    verbose: options.VerboseOption = False,
    as_json: options.JsonOption = False,
) -> int:
    """Check whether a fetch would work, and suggest fixes."""
    from gpuaria.cli.output import findings
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.doctor import Checkup, Finding, examine
    from gpuaria.records import to_json

    stop: threading.Event = context.obj
    if words and len(words) > 1:
        raise UsageError("gpuaria doctor takes one repo", "For example: gpuaria doctor gpt2-medium")
    wanted = known_kind(kind)
    try:
        settings = options.settings_from(cache_dir=cache_dir, token=token, mirrors=mirrors, rpc=rpc)
    except ConfigError as error:
        fix = error.hint or "gpuaria config"
        found = Checkup("", (Finding("settings", "problem", error.message, fix, error.exit_code),))
    else:
        found = examine(settings, dict(os.environ), words[0] if words else "", wanted, revision, with_trace=trace)
    if stop.is_set():
        raise Interrupted("interrupted", "Run the same command again.")
    if as_json:
        print_json("report", {"exit_code": found.exit_code, **to_json(found)})
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print("\n".join(findings.lines(found, colours=colours)))
    return found.exit_code
