"""Options that several commands have, each declared once, and the settings that options change."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gpuaria.settings import Settings

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
Mirrors = Annotated[
    list[str] | None, typer.Option("--mirror", help="A mirror's base address; repeat it.", metavar="URL")
]
Rpc = Annotated[str | None, typer.Option("--rpc", help="Attach to a running aria2c.", metavar="URL")]
Offline = Annotated[bool, typer.Option("--offline", help="Use what is on this disk, no network.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what is sent where.")]  # read by dispatch.py


def flags(**given: object) -> dict[str, object]:
    """Return options by their settings key; a switch that was not given is None, as other options are."""
    return {key: None if value is False else value for key, value in given.items()}


def settings_from(**given: object) -> "Settings":
    """Return the settings for these options by key, this environment and this folder.

    Raises ConfigError, and UsageError for an option.
    """
    from gpuaria.settings import load

    return load(flags(**given), os.environ, Path.cwd())
