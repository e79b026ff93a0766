"""Options of words stay words: Typer does not convert them.

Typer from 0.29 on converts every option by pydantic, whose import takes a fifth of a run that finds all files in place.
gpuaria's commands take words, lists of words and switches, and parse the words themselves.
"""

from collections.abc import Sequence
from typing import Any

import typer

_PLAIN = (str, list[str], bool)


class _AsTyped:
    """Replaces Typer's conversion of one option."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the word or words as typed; without one, None or an empty list."""
        if param.multiple or param.nargs == -1:
            return list(value or ())
        return value


def words_only(command: Any, helping: Sequence[str]) -> Any:
    """Return a Typer command or group with the conversion of words and switches removed (older Typers have none).

    `helping`: the names of the help option, which each command creates itself.
    """
    for below in getattr(command, "commands", {}).values():
        words_only(below, helping)
    context = typer.Context(command, help_option_names=list(helping))
    for param in command.get_params(context):
        described = getattr(param, "type_descriptor", None)
        if described is not None and described.annotation in _PLAIN and hasattr(param, "_runtime_param"):
            param._runtime_param = _AsTyped()
    return command
