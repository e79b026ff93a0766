"""Standard output and error that may be closed, full or read by nobody: the run goes on, and its status says so."""

import io
import os
import sys


class Forgiving(io.TextIOWrapper):
    """Text in UTF-8; what cannot be written is dropped. `failure` is the first error, None as long as there is none."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Never raises OSError."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Never raises OSError."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """What lies in the buffer still has to go somewhere, or the interpreter complains at its end."""
        self.failure = self.failure or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def install() -> None:
    """Put forgiving streams in the place of the interpreter's own; a stream that is closed writes nowhere."""
    for name in ("stdout", "stderr"):
        own = getattr(sys, name)
        if own is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 for the whole run
        elif type(own) is io.TextIOWrapper:  # not what a test has put there
            errors = "surrogateescape" if name == "stdout" else "backslashreplace"
            lines = own.line_buffering
            stream = Forgiving(own.detach(), encoding="utf-8", errors=errors, line_buffering=lines)
            setattr(sys, name, stream)


def unwritten() -> str:
    """Why standard output could not be written, "" if it could, or if its reader went away as `| head` does."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is None or isinstance(failure, BrokenPipeError):
        return ""
    return failure.strerror or type(failure).__name__
