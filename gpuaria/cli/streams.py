"""Standard output and error may be closed, full or without a reader: the run continues, its exit status reports it."""

import io
import os
import sys


class Forgiving(io.TextIOWrapper):
    """Writes text in UTF-8 and drops what cannot be written. `failure` is the first error, or None."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write, or drop, the text; never raise OSError."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Write, or drop, the buffer; never raise OSError."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Redirect to /dev/null: the interpreter reports an error at its end if the buffer cannot be written."""
        self.failure = self.failure or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def install() -> None:
    """Replace the interpreter's streams by forgiving ones; a closed stream writes to /dev/null."""
    for name in ("stdout", "stderr"):
        own = getattr(sys, name)
        if own is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 for the whole run
        elif type(own) is io.TextIOWrapper:  # not a stream of a test
            errors = "surrogateescape" if name == "stdout" else "backslashreplace"
            lines = own.line_buffering
            stream = Forgiving(own.detach(), encoding="utf-8", errors=errors, line_buffering=lines)
            setattr(sys, name, stream)


def unwritten() -> str:
    """Return why standard output could not be written; "" if it could, or if its reader closed it, as `| head` does."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is None or isinstance(failure, BrokenPipeError):
        return ""
    return failure.strerror or type(failure).__name__
