"""`gpuaria resolve`."""

import sys
import threading
from typing import Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.cli.arguments import known_kind, patterns, split
from gpuaria.errors import UsageError

_FORMS = ("table", "json", "metalink", "aria2", "sha256sums", "manifest")


@app.command()
def resolve(
    context: typer.Context,
    words: options.WordsArgument = None,
    repo: options.RepoOption = "",
    kind: options.KindOption = "",
    revision: options.RevisionOption = "",
    include: options.IncludeOption = None,
    exclude: options.ExcludeOption = None,
    form: Annotated[
        str,
        typer.Option("--format", help="Output: table, json, metalink, aria2, sha256sums or manifest.", metavar="FORM"),
    ] = "table",
    cache_dir: options.CacheDirOption = None,
    token: options.TokenOption = None,
    mirrors: options.MirrorsOption = None,
    offline: options.OfflineOption = False,
    verbose: options.VerboseOption = False,
    as_json: options.JsonOption = False,
) -> int:
    """List a repo's files, or export them for other tools.

    Formats: metalink (aria2c -M), aria2 (aria2c -i), sha256sums (sha256sum -c), manifest (gpuaria fetch --lock).
    """
    from gpuaria.cli.output import manifests, sinks
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.fetching import request_for, with_listed_servers
    from gpuaria.records import to_json
    from gpuaria.runtime import Runtime

    stop: threading.Event = context.obj
    form = "json" if as_json else form
    if form not in _FORMS:
        raise UsageError(f"unknown --format {form}", f"Choose one of: {', '.join(_FORMS)}.")
    name, files = split(words or [], repo)
    settings = options.settings_from(cache_dir=cache_dir, token=token, mirrors=mirrors, offline=offline)
    sink = sinks.choose(quiet=True, as_json=False)
    with Runtime(settings, emit=sink, stop=stop) as runtime:
        ref = runtime.ref(name, known_kind(kind), revision)
        request = request_for(ref, files, patterns(include or []), patterns(exclude or []))
        chosen = runtime.resolve(request, sink, stop)
        if chosen.restricted and form in ("metalink", "aria2"):
            print("warning: these files need an access token; the output does not contain it", file=sys.stderr)
        if form == "json":
            print_json("manifest", {**to_json(chosen), "exit_code": 0})
        else:
            with runtime.world(None, sink, stop, ref) as world:
                servers = with_listed_servers(world, chosen).mirrors
            sys.stdout.write(manifests.written(form, chosen, world.source, servers))
    return 0
