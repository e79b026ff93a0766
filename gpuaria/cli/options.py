"""Options shared by several commands, and the settings they override."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gpuaria.settings import Settings

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="REF FILE", help="The repo, then files to select; with --repo, only files."),
]
RepoOption = Annotated[str, typer.Option("--repo", help="The repo, as an option instead of REF.", metavar="NAME")]
KindOption = Annotated[
    str, typer.Option("--type", "--repo-type", help="Repo type: model, dataset or space.", metavar="KIND")
]
RevisionOption = Annotated[str, typer.Option("--revision", help="Branch, tag or commit (default main).", metavar="REV")]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        help="Select matching files only: a glob, or folder/ for all files in it; repeatable.",
        metavar="PATTERN",
    ),
]
ExcludeOption = Annotated[
    list[str] | None, typer.Option("--exclude", help="Skip matching files; repeatable.", metavar="PATTERN")
]
CacheDirOption = Annotated[str | None, typer.Option("--cache-dir", help="Hugging Face cache directory.", metavar="DIR")]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", help="Access token. Prefer HF_TOKEN, which stays out of the shell history.", metavar="TOKEN"
    ),
]
MirrorsOption = Annotated[
    list[str] | None, typer.Option("--mirror", help="Base URL of a mirror; repeatable.", metavar="URL")
]
RpcOption = Annotated[str | None, typer.Option("--rpc", help="JSON-RPC URL of a running aria2c to use.", metavar="URL")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use local files only, without network access.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout.")]
WhyOption = Annotated[
    bool, typer.Option("--why", help="Print the measurements of each mirror and the reason for its rank.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings and errors only.")]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Log requests and decisions to stderr.")
]  # read by dispatch.py


def flags(**given: object) -> dict[str, object]:
    """Return options by their settings key; a switch that is off becomes None, like an option that is not given."""
    return {key: None if value is False else value for key, value in given.items()}


def settings_from(**given: object) -> "Settings":
    """Return the settings from these options, the environment and the current folder.

    Raises ConfigError, or UsageError for an invalid option.
    """
    from gpuaria.settings import load

    return load(flags(**given), os.environ, Path.cwd())
