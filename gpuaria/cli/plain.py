"""Options that are words stay words.

Typer from 0.29 on has pydantic convert every option, and to import that takes a fifth of a run that finds all in place.
Our commands take words, lists of words and switches, and read the words themselves.
"""

from collections.abc import Sequence
from typing import Any

import typer

_PLAIN = (str, list[str], bool)


class _AsTyped:
    """What stands in for Typer's conversion."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of one option: what was typed, a list of it, or None (an empty list) where nothing was."""
        if param.multiple or param.nargs == -1:
            return list(value or ())
        return value


def words_only(command: Any, helping: Sequence[str]) -> Any:
    """A Typer command or group whose words and switches are left as they are; one of an older Typer unchanged.

    `helping`: the switches that ask for help, which a command makes for itself.
    """
    for below in getattr(command, "commands", {}).values():
        words_only(below, helping)
    context = typer.Context(command, help_option_names=list(helping))
    for param in command.get_params(context):
        described = getattr(param, "type_descriptor", None)
        if described is not None and described.annotation in _PLAIN and hasattr(param, "_runtime_param"):
            param._runtime_param = _AsTyped()
    return command
