"""Turns off Typer's conversion of option values, which imports pydantic.

Typer 0.29 and later convert every option with pydantic. Its import takes a fifth of the time of an up-to-date run.
gpuaria's options are strings, lists of strings and switches, so no conversion is needed.
"""

from collections.abc import Sequence
from typing import Any

import typer

_UNCONVERTED = (str, list[str], bool)


class _AsTyped:
    """Replaces Typer's conversion of one option."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as typed; an option that is not given is None or an empty list."""
        if param.multiple or param.nargs == -1:
            return list(value or ())
        return value


def without_conversion(command: Any, help_names: Sequence[str]) -> Any:
    """Remove the conversion of strings and switches from a Typer command or group, and return it.

    `help_names`: the names of the help option, which each command creates itself. Typer before 0.29 needs no change.
    """
    for below in getattr(command, "commands", {}).values():
        without_conversion(below, help_names)
    context = typer.Context(command, help_option_names=list(help_names))
    for param in command.get_params(context):
        described = getattr(param, "type_descriptor", None)
        if described is not None and described.annotation in _UNCONVERTED and hasattr(param, "_runtime_param"):
            param._runtime_param = _AsTyped()
    return command
