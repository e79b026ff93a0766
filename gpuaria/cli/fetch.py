"""`gpuaria fetch`."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.cli.arguments import known_kind, patterns, split
from gpuaria.errors import UsageError


@app.command()
def fetch(
    context: typer.Context,
    words: options.WordsArgument = None,
    repo: options.RepoOption = "",
    kind: options.KindOption = "",
    revision: options.RevisionOption = "",
    include: options.IncludeOption = None,
    exclude: options.ExcludeOption = None,
    lock: Annotated[
        str | None,
        typer.Option("--lock", help="Download exactly the files in this lock file, from any source.", metavar="FILE"),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", "--local-dir", help="Download into this folder instead of the Hugging Face cache.", metavar="DIR"
        ),
    ] = None,
    cache_dir: options.CacheDirOption = None,
    token: options.TokenOption = None,
    mirrors: options.MirrorsOption = None,
    connections: Annotated[
        str | None, typer.Option("-x", "--connections", help="Connections per server (1-16, default 16).", metavar="N")
    ] = None,
    jobs: Annotated[
        str | None, typer.Option("-j", "--jobs", help="Large files downloaded at once (default 4).", metavar="N")
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(
            "--patience", help="Longest wait for data, a rate limit or a lock (default 10 min).", metavar="TIME"
        ),
    ] = None,
    rpc: options.RpcOption = None,
    rpc_secret: Annotated[
        str | None,
        typer.Option("--rpc-secret", help="Secret of that aria2c. Prefer GPUARIA_RPC_SECRET.", metavar="WORD"),
    ] = None,
    no_pickle: Annotated[
        bool, typer.Option("--no-pickle", help="Refuse pickle files: loading one can run any code.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "--force-download", help="Download all files again, also those on disk.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without downloading.")] = False,
    why: options.WhyOption = False,
    offline: options.OfflineOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    as_json: options.JsonOption = False,
) -> int:
    """Download a repo, verify every byte, and print its path.

    Without --to, files go into the Hugging Face cache, where from_pretrained finds them.
    """
    from gpuaria.cli.output import plans, sinks
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.fetching import request_for
    from gpuaria.runtime import Runtime

    stop: threading.Event = context.obj
    name, files = (repo, words or []) if lock is not None else split(words or [], repo)
    if to is not None and cache_dir is not None:
        raise UsageError("--to and --cache-dir exclude each other", "Leave one of them out.")
    if why and dry_run:
        raise UsageError("--why and --dry-run exclude each other", "To probe mirrors only: gpuaria mirrors REF --why.")
    if to == "":
        raise UsageError("--to is empty", "Name a folder, or leave it out for the Hugging Face cache.")
    settings = options.settings_from(
        cache_dir=cache_dir,
        token=token,
        mirrors=mirrors,
        connections=connections,
        jobs=jobs,
        patience=patience,
        rpc=rpc,
        rpc_secret=rpc_secret,
        no_pickle=no_pickle,
        offline=offline,
    )
    sink = sinks.choose(quiet=quiet or dry_run, as_json=as_json, why=why)
    try:
        with Runtime(settings, emit=sink, stop=stop) as runtime:
            locked = runtime.lock(Path(lock), name, known_kind(kind), revision) if lock is not None else None
            ref = locked.ref if locked else runtime.ref(name, known_kind(kind), revision)
            request = replace(
                request_for(ref, files, patterns(include or []), patterns(exclude or [])),
                force=force,
                dry_run=dry_run,
                offline=settings.offline,
                lock=locked,
            )
            report, plan = runtime.run(request, to, sink, stop)
    finally:
        sink.close()
    if dry_run and as_json:
        print_json("plan", plans.fields(plan, report))
    elif dry_run:
        print(plans.plan_text(plan))
    elif not as_json and report.exit_code == 0:
        print(report.path)
    return report.exit_code
