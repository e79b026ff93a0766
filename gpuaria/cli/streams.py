"""Output streams that never fail: with stdout or stderr closed or full, the run continues and reports it at the end."""

import io
import os
import sys


class TolerantStream(io.TextIOWrapper):
    """Writes UTF-8 text and drops it on an error. `failure` is the first error, or None."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write the text, or drop it on an OSError."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush the buffer, or drop it on an OSError."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Redirect the stream to /dev/null, so that the interpreter's flush at exit does not fail as well."""
        self.failure = self.failure or error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def install() -> None:
    """Replace sys.stdout and sys.stderr; a closed stream writes to /dev/null."""
    for name in ("stdout", "stderr"):
        own = getattr(sys, name)
        if own is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 for the whole run
        elif type(own) is io.TextIOWrapper:  # not a stream that a test has installed
            errors = "surrogateescape" if name == "stdout" else "backslashreplace"
            lines = own.line_buffering
            stream = TolerantStream(own.detach(), encoding="utf-8", errors=errors, line_buffering=lines)
            setattr(sys, name, stream)


def write_failure() -> str:
    """Return why stdout could not be written; "" if it could, or if the reader closed the pipe (`| head`)."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is None or isinstance(failure, BrokenPipeError):
        return ""
    return failure.strerror or type(failure).__name__
