"""What Typer sees: each command hands its words to a function of its own module."""

import logging
import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuaria._version import __version__
from gpuaria.cli.main import bug, complain
from gpuaria.cli.plain import words_only
from gpuaria.errors import GpuariaError, Interrupted, UsageError

_HELP = ["-h", "--help"]

app = typer.Typer(
    name="gpuaria",
    help="Models from any mirror to your disk: aria2's segmented downloads, every byte verified.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": _HELP},
)

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="REF FILE", help="The repo, then files of it; only files after --repo."),
]
Repo = Annotated[str, typer.Option("--repo", help="The repo, instead of REF.", metavar="NAME")]
Kind = Annotated[str, typer.Option("--type", "--repo-type", help="model, dataset or space.", metavar="KIND")]
Revision = Annotated[str, typer.Option("--revision", help="Branch, tag or commit.", metavar="REV")]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", help="Only these: a pattern, or folder/ for all below.", metavar="PATTERN"),
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="Not these.", metavar="PATTERN")]
CacheDir = Annotated[str | None, typer.Option("--cache-dir", help="The Hugging Face cache to use.", metavar="DIR")]
Token = Annotated[
    str | None,
    typer.Option("--token", help="Access token; better in HF_TOKEN, out of the shell's history.", metavar="TOKEN"),
]
MirrorUrl = Annotated[
    list[str] | None, typer.Option("--mirror", help="A mirror's base address; repeat it.", metavar="URL")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use what is on this disk, no network.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what is sent where.")]


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False
) -> None:
    """Set nothing up; commands do."""
    if version:
        print(f"gpuaria {__version__}")
        raise typer.Exit


@app.command()
def fetch(
    context: typer.Context,
    words: Words = None,
    repo: Repo = "",
    kind: Kind = "",
    revision: Revision = "",
    include: Include = None,
    exclude: Exclude = None,
    lock: Annotated[
        str | None, typer.Option("--lock", help="What this manifest file says, from anywhere.", metavar="FILE")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", "--local-dir", help="A plain folder.", metavar="DIR")] = None,
    cache_dir: CacheDir = None,
    token: Token = None,
    mirror: MirrorUrl = None,
    connections: Annotated[
        str | None, typer.Option("-x", "--connections", help="Per server, 1 to 16.", metavar="N")
    ] = None,
    jobs: Annotated[str | None, typer.Option("-j", "--jobs", help="Large files at once.", metavar="N")] = None,
    patience: Annotated[
        str | None, typer.Option("--patience", help="How long to wait for a network.", metavar="TIME")
    ] = None,
    rpc: Annotated[str | None, typer.Option("--rpc", help="Attach to a running aria2c.", metavar="URL")] = None,
    rpc_secret: Annotated[
        str | None, typer.Option("--rpc-secret", help="Better: GPUARIA_RPC_SECRET.", metavar="WORD")
    ] = None,
    no_pickle: Annotated[bool, typer.Option("--no-pickle", help="Refuse pickles.")] = False,
    force: Annotated[bool, typer.Option("--force", "--force-download", help="Fetch again what is here.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a repo, verify every byte, print the resulting path.

    Without --to, it goes into the Hugging Face cache, where from_pretrained finds it.
    """
    from gpuaria.cli.fetch import command

    flags = {
        "cache_dir": cache_dir,
        "token": token,
        "mirrors": mirror or None,
        "connections": connections,
        "jobs": jobs,
        "patience": patience,
        "rpc": rpc,
        "rpc_secret": rpc_secret,
        "no_pickle": no_pickle or None,
        "offline": offline or None,
    }
    context.exit(
        command(
            words or [],
            repo,
            kind,
            revision,
            include or [],
            exclude or [],
            flags,
            lock=lock,
            to=to,
            force=force,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
            stop=context.obj,
        )
    )


@app.command()
def resolve(
    context: typer.Context,
    words: Words = None,
    repo: Repo = "",
    kind: Kind = "",
    revision: Revision = "",
    include: Include = None,
    exclude: Exclude = None,
    form: Annotated[
        str, typer.Option("--format", help="table, json, metalink, aria2, sha256sums or manifest.", metavar="FORM")
    ] = "table",
    cache_dir: CacheDir = None,
    token: Token = None,
    mirror: MirrorUrl = None,
    offline: Offline = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Print a repo's manifest, or what aria2c -M, aria2c -i or sha256sum -c read."""
    from gpuaria.cli.resolve import command

    flags = {"cache_dir": cache_dir, "token": token, "mirrors": mirror or None, "offline": offline or None}
    context.exit(
        command(
            words or [],
            repo,
            kind,
            revision,
            include or [],
            exclude or [],
            flags,
            form="json" if as_json else form,
            stop=context.obj,
        )
    )


@app.command()
def verify(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="PATH|REPO", help="A folder, or a repo in the cache.")],
    kind: Kind = "",
    revision: Revision = "",
    lock: Annotated[str | None, typer.Option("--lock", help="Compare with this manifest file.", metavar="FILE")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Unverifiable files fail too.")] = False,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Check a folder or a cached repo against its manifest, without any network."""
    from gpuaria.cli.verify import command

    context.exit(
        command(target, kind, revision, lock, {"cache_dir": cache_dir}, strict=strict, quiet=quiet, as_json=as_json)
    )


@app.command()
def why(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file that gpuaria fetched, or a folder it filled.")],
    as_json: AsJson = False,
) -> None:
    """Say where a file came from, who vouched for it, and whether it still is what it was."""
    from gpuaria.cli.why import command

    context.exit(command(path, as_json=as_json))


@app.command()
def mirrors(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="The repo to measure with; or: add NAME URL, remove NAME, list."),
    ] = None,
    kind: Kind = "",
    revision: Revision = "",
    why: Annotated[bool, typer.Option("--why", help="Everything that was measured.")] = False,
    plot: Annotated[str | None, typer.Option("--plot", help="Draw it.", metavar="FILE.png|svg")] = None,
    cache_dir: CacheDir = None,
    token: Token = None,
    mirror: MirrorUrl = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Measure the mirrors, rank them, and say why; or edit the list of them."""
    from gpuaria.cli.mirrors import command

    flags = {"cache_dir": cache_dir, "token": token, "mirrors": mirror or None}
    context.exit(command(words or [], kind, revision, flags, why=why, plot=plot, as_json=as_json, stop=context.obj))


@app.command()
def doctor(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="REF", help="A repo that should be fetchable.")] = None,
    kind: Kind = "",
    revision: Revision = "",
    trace: Annotated[bool, typer.Option("--trace", help="Trace the route to the worst mirror.")] = False,
    cache_dir: CacheDir = None,
    token: Token = None,
    mirror: MirrorUrl = None,
    rpc: Annotated[str | None, typer.Option("--rpc", help="Attach to a running aria2c.", metavar="URL")] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a fetch would work here, and what to do if not."""
    from gpuaria.cli.doctor import command

    flags = {"cache_dir": cache_dir, "token": token, "mirrors": mirror or None, "rpc": rpc}
    context.exit(command(words or [], kind, revision, flags, trace=trace, as_json=as_json, stop=context.obj))


@app.command()
def config(context: typer.Context, as_json: AsJson = False) -> None:
    """Print every effective setting, and where it comes from."""
    from gpuaria.cli.config import command

    context.exit(command(as_json=as_json))


def main(words: Sequence[str], stop: threading.Event) -> int:
    """Run one command and give its exit status; every error becomes a sentence."""
    if any(_verbose(word) for word in words):
        _log_to_stderr()
    try:
        status: Any = words_only(typer.main.get_command(app), _HELP).main(
            args=spread(words), prog_name="gpuaria", standalone_mode=False, obj=stop
        )
    except typer.Exit as error:
        return error.exit_code
    except _MISUSED as error:
        return _misused(error, words)
    except (typer.Abort, KeyboardInterrupt):
        return Interrupted.exit_code
    except GpuariaError as error:
        return _refused(error, words)
    except Exception as error:  # noqa: BLE001 the last line of defence
        status = bug(error)
        if "--json" in words:
            _report(GpuariaError(f"a bug: {type(error).__name__}: {error}"))
    return status if isinstance(status, int) else 0


# Typer 0.29 brings its own copy of click, older ones use the package: the class is taken from where Typer has it.
_MISUSED: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _misused(error: Any, words: Sequence[str]) -> int:
    """What Typer says of the command line, in our form; the help text where no word was given."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "gpuaria"
    if context and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return UsageError.exit_code
    text = error.format_message().strip().rstrip(".")
    return _refused(UsageError(text[:1].lower() + text[1:], f"See {command} --help."), words)


def _refused(error: GpuariaError, words: Sequence[str]) -> int:
    """Say it on stderr, and with --json also in the last object."""
    complain(error)
    if "--json" in words:
        _report(error)
    return error.exit_code


def _report(error: GpuariaError) -> None:
    from gpuaria.cli.render import Json, error_fields

    Json(sys.stdout).write("report", error_fields(error))


def spread(words: Sequence[str]) -> list[str]:
    """`--include a b c` as `--include a --include b --include c`, once the repo is known from the words before.

    hfd.sh takes patterns with spaces between them, `hf` repeats the option.
    """
    out: list[str] = []
    named = ("--repo", "--lock")  # with one of these every plain word is a file
    known, option, first = any(word.partition("=")[0] in named for word in words), "", False
    skip = True  # the command's own name
    for word in words:
        if word.startswith("-") and len(word) > 1:
            option, first = (word, True) if word in ("--include", "--exclude") else ("", False)
            skip = _takes_next(word) and not option
            out.append(word)
        elif option:
            if first:
                out.append(word)
                first = False
            elif known:
                out += [option, word]
            else:
                out.append(word)
                known, option = True, ""
        else:
            out.append(word)
            known = known or not skip
            skip = False
    return out


_SWITCHES = {
    *("--force", "--force-download", "--no-pickle", "--dry-run", "--offline", "--quiet", "--verbose", "--json"),
    *("--strict", "--why", "--trace", "--help", "--version"),
}
_BUNDLE = re.compile(r"-(?P<switches>[qvhV]*)(?P<option>[^-].*)?", re.DOTALL)  # of short options: -q, -x, -x8, -qvx8


def _takes_next(word: str) -> bool:
    """Whether the next word is this option's value: `-x8` has brought its own, and `-qv` are two that have none."""
    if bundle := _BUNDLE.fullmatch(word):
        return len(bundle["option"] or "") == 1
    return word not in _SWITCHES and "=" not in word


def _verbose(word: str) -> bool:
    bundle = _BUNDLE.fullmatch(word)
    return "v" in bundle["switches"] if bundle else word == "--verbose"


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what stderr is at that moment: live bars put something there that keeps them in one piece."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log_to_stderr() -> None:
    """-v: requests without their queries, since a query may be a signature."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("gpuaria")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)


def settings_from(flags: dict[str, Any]) -> Any:
    """The settings for these flags, this environment and this folder."""
    from gpuaria.settings import load

    return load(flags, os.environ, Path.cwd())
