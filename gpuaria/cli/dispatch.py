"""Runs the command on the command line, and turns every error into a message and an exit status."""

import importlib
import sys
import threading
from collections.abc import Sequence
from typing import Any

import typer

from gpuaria.cli.app import COMMANDS, HELP, app
from gpuaria.cli.arguments import asks_for_log, split_patterns
from gpuaria.cli.output.errors import error_fields, print_bug, print_error
from gpuaria.cli.plain import without_conversion
from gpuaria.errors import GpuariaError, Interrupted, UsageError


def main(words: Sequence[str], stop: threading.Event) -> int:
    """Run one command and return its exit status."""
    if asks_for_log(words):
        from gpuaria.cli.output.log import log_to_stderr

        log_to_stderr()
    try:
        status: Any = parser(words).main(
            args=split_patterns(words), prog_name="gpuaria", standalone_mode=False, obj=stop
        )
    except typer.Exit as error:
        return error.exit_code
    except _TYPER_ERROR as error:
        return _invalid_usage(error, words)
    except (typer.Abort, KeyboardInterrupt):
        return Interrupted.exit_code
    except GpuariaError as error:
        return _print_error(error, words)
    except Exception as error:  # noqa: BLE001 the last line of defence
        status = print_bug(error)
        if "--json" in words:
            _report(GpuariaError(f"internal error: {type(error).__name__}: {error}"))
    return status if isinstance(status, int) else 0


def parser(words: Sequence[str] = ()) -> Any:
    """Return the parser for `words`. If the first word is a command, import only that command's module.

    A command module registers its command in `app` when it is imported.
    """
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        importlib.import_module(f"gpuaria.cli.{name}")
    return without_conversion(typer.main.get_command(app), HELP)


# Typer 0.29 contains its own copy of click, older versions use the package: take the class from Typer's own error.
_TYPER_ERROR: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _invalid_usage(error: Any, words: Sequence[str]) -> int:
    """Print Typer's usage error in gpuaria's form, or the help text if there are no arguments."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "gpuaria"
    if context and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return UsageError.exit_code
    text = error.format_message().strip().rstrip(".")
    return _print_error(UsageError(text[:1].lower() + text[1:], f"Run {command} --help for the options."), words)


def _print_error(error: GpuariaError, words: Sequence[str]) -> int:
    """Print the error on stderr, with --json also as the last object on stdout; return its exit status."""
    print_error(error)
    if "--json" in words:
        _report(error)
    return error.exit_code


def _report(error: GpuariaError) -> None:
    from gpuaria.cli.output.json_lines import print_json

    print_json("report", error_fields(error))
