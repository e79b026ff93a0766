"""Errors as sentences on stderr and as fields of the last JSON object."""

import sys
from typing import Any

from gpuaria.errors import GpuariaError
from gpuaria.text import harmless


def complain(error: GpuariaError) -> None:
    """Print one sentence on stderr, and one that says what to do."""
    print(f"gpuaria: {harmless(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  {harmless(error.hint)}", file=sys.stderr)


def bug(error: Exception) -> int:
    """Print an unforeseen error as one sentence, log its traceback for -v, and return the exit status 1."""
    import logging

    logging.getLogger("gpuaria").debug("traceback", exc_info=error)
    print(f"gpuaria: a bug: {type(error).__name__}: {harmless(str(error))}", file=sys.stderr)
    print("  Please report it, with what -v prints.", file=sys.stderr)
    return GpuariaError.exit_code


def error_fields(error: GpuariaError) -> dict[str, Any]:
    """Return the last JSON object of a run that ended without a report."""
    return {"exit_code": error.exit_code, "error": error.message, "hint": error.hint}
