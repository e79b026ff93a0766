"""The Typer app that every command module registers with, and the options of `gpuaria` itself."""

from typing import Annotated

import typer
from typer.core import TyperGroup

from gpuaria._version import __version__

COMMANDS = ("fetch", "resolve", "verify", "why", "mirrors", "doctor", "config")  # as --help lists them
HELP = ["-h", "--help"]


class _InOrder(TyperGroup):
    """The group of all commands."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # its click differs by version
        """Return the names in the order of COMMANDS, whichever module was imported first."""
        return [name for name in COMMANDS if name in self.commands]


app = typer.Typer(
    cls=_InOrder,
    name="gpuaria",
    help="Models from any mirror to your disk: aria2's segmented downloads, every byte verified.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP},
)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False) -> None:
    """Print the version, if asked; set-up is left to the commands."""
    if version:
        print(f"gpuaria {__version__}")
        raise typer.Exit
