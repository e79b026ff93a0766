"""The Typer app in which command modules register, and the options of `gpuaria` itself."""

from typing import Annotated

import typer
from typer.core import TyperGroup

from gpuaria._version import __version__

COMMANDS = ("fetch", "resolve", "verify", "why", "mirrors", "doctor", "config")  # in the order of --help
HELP = ["-h", "--help"]


class _InOrder(TyperGroup):
    """The command group, listed in the order of COMMANDS."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # its click differs by version
        """Return the registered commands in the order of COMMANDS."""
        return [name for name in COMMANDS if name in self.commands]


app = typer.Typer(
    cls=_InOrder,
    name="gpuaria",
    help="Download models from the fastest mirrors with aria2, and verify every byte.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP},
)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")] = False) -> None:
    """Print the version if --version is given; commands do their own set-up."""
    if version:
        print(f"gpuaria {__version__}")
        raise typer.Exit
