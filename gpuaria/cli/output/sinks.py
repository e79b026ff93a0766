"""Sinks for a run's events: live bars on a terminal, plain lines otherwise, JSON objects, or warnings only."""

import os
import sys
import time
from typing import Protocol, TextIO

from gpuaria.cli.output import figures, lines
from gpuaria.cli.output.eta import Eta
from gpuaria.cli.output.json_lines import print_json
from gpuaria.events import Event, FileDone, Finished, Mismatch, Planned, Progress, Waiting, Warned
from gpuaria.records import GOOD_OUTCOMES, to_json
from gpuaria.text import harmless

LINE_EVERY = 10.0  # seconds
LARGE = 8_000_000  # bytes; a finished file of this size or more gets a line


class Sink(Protocol):
    """Receives every event of a run; `close` restores the terminal."""

    def __call__(self, event: Event) -> None:
        """Handle one event."""

    def close(self) -> None:
        """Restore the terminal."""


def choose(*, quiet: bool, as_json: bool, why: bool = False) -> Sink:
    """Return the sink for these flags and this stderr. `why`: print why each mirror is ranked where it is."""
    err = sys.stderr
    if as_json:
        return Json()
    if quiet:
        return Quiet(err)
    if err.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        from gpuaria.cli.output.bars import Bars

        return Bars(err, why=why)
    return Lines(err, why=why)


class Quiet:
    """Prints only warnings and failed files."""

    def __init__(self, err: TextIO) -> None:
        self._err = err

    def __call__(self, event: Event) -> None:
        """Print a warning or a failed file."""
        if isinstance(event, Warned):
            self._print(f"warning: {event.text}")
        elif isinstance(event, FileDone) and event.outcome not in GOOD_OUTCOMES:
            self._print(lines.failed(event))

    def _print(self, text: str) -> None:
        print(harmless(text), file=self._err, flush=True)

    def close(self) -> None:
        """Do nothing: this sink does not change the terminal."""


class Lines(Quiet):
    """Prints lines for a log: an opening, the state every ten seconds, each finished large file, a summary."""

    def __init__(self, err: TextIO, *, why: bool) -> None:
        super().__init__(err)
        self._why = why
        self._eta = Eta()
        self._printed = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Print what belongs in a log."""
        super().__call__(event)
        now = time.monotonic()
        if isinstance(event, Planned):
            for line in lines.opening(event, why=self._why):
                self._print(line)
        elif isinstance(event, Mismatch):
            self._print(lines.mismatch(event))
        elif isinstance(event, Waiting):
            self._print(f"{event.text}; waiting up to {figures.duration(event.seconds)}")
        elif isinstance(event, FileDone) and event.outcome == "ok" and event.fetched and event.size >= LARGE:
            self._print(f"verified {event.path} ({figures.size(event.size)})")
        elif isinstance(event, Progress):
            self._eta.read(now, event.done, event.total)
            if now - self._printed >= LINE_EVERY:
                self._printed = now
                self._print(lines.state(event, self._eta))
        elif isinstance(event, Finished):
            for line in lines.summary(event.report, why=self._why):
                self._print(line)


class Json:
    """Prints each event as a JSON object; the last one is the report with the exit status."""

    def __call__(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Finished):
            print_json("report", {**to_json(event.report), "speed": round(event.report.speed)})
        else:
            print_json(type(event).__name__.lower(), to_json(event))

    def close(self) -> None:
        """Do nothing: this sink does not change the terminal."""
