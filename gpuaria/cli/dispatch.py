"""Runs the command that the command line names; every error becomes a sentence and an exit status."""

import importlib
import sys
import threading
from collections.abc import Sequence
from typing import Any

import typer

from gpuaria.cli.app import COMMANDS, HELP, app
from gpuaria.cli.arguments import asks_for_log, spread
from gpuaria.cli.output.errors import bug, complain, error_fields
from gpuaria.cli.plain import words_only
from gpuaria.errors import GpuariaError, Interrupted, UsageError


def main(words: Sequence[str], stop: threading.Event) -> int:
    """Run one command and return its exit status."""
    if asks_for_log(words):
        from gpuaria.cli.output.log import log_to_stderr

        log_to_stderr()
    try:
        status: Any = parser(words).main(args=spread(words), prog_name="gpuaria", standalone_mode=False, obj=stop)
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


def parser(words: Sequence[str] = ()) -> Any:
    """Return the parser for `words`; where a command comes first, only its module is imported, the others are left out.

    Each command module registers its command with `app` when it is imported.
    """
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        importlib.import_module(f"gpuaria.cli.{name}")
    return words_only(typer.main.get_command(app), HELP)


# Typer 0.29 brings its own copy of click, older ones use the package: the class is taken from where Typer has it.
_MISUSED: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _misused(error: Any, words: Sequence[str]) -> int:
    """Print Typer's complaint about the command line in gpuaria's form, or the help text if no word was given."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "gpuaria"
    if context and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return UsageError.exit_code
    text = error.format_message().strip().rstrip(".")
    return _refused(UsageError(text[:1].lower() + text[1:], f"See {command} --help."), words)


def _refused(error: GpuariaError, words: Sequence[str]) -> int:
    """Print the error on stderr, and with --json also as the last object; return its exit status."""
    complain(error)
    if "--json" in words:
        _report(error)
    return error.exit_code


def _report(error: GpuariaError) -> None:
    from gpuaria.cli.output.json_lines import print_json

    print_json("report", error_fields(error))
