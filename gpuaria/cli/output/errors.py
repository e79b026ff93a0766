"""Errors as text on stderr and as fields of the last JSON object."""

import sys
from typing import Any

from gpuaria.errors import GpuariaError
from gpuaria.text import harmless


def print_error(error: GpuariaError) -> None:
    """Print the error message and its hint on stderr."""
    print(f"gpuaria: {harmless(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  {harmless(error.hint)}", file=sys.stderr)


def print_bug(error: Exception) -> int:
    """Print an unexpected error, log its traceback for -v, and return the exit status 1."""
    import logging

    logging.getLogger("gpuaria").debug("traceback", exc_info=error)
    print(f"gpuaria: internal error: {type(error).__name__}: {harmless(str(error))}", file=sys.stderr)
    print("  This is a bug in gpuaria. Please report it with the output of -v.", file=sys.stderr)
    return GpuariaError.exit_code


def error_fields(error: GpuariaError) -> dict[str, Any]:
    """Return the fields of the last JSON object of a run that ends without a report."""
    return {"exit_code": error.exit_code, "error": error.message, "hint": error.hint}
