"""Live progress bars on a terminal, drawn by rich."""

import time
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gpuaria.cli.output import figures, lines
from gpuaria.cli.output.eta import Eta
from gpuaria.events import Event, FileDone, Finished, Mismatch, Planned, Progress, Waiting, Warned
from gpuaria.records import GOOD_OUTCOMES
from gpuaria.text import harmless

SHOWN = 6  # files downloading that get a bar


class Bars:
    """Draws a bar for the whole run, one for each large file downloading, and a status line below them."""

    def __init__(self, err: TextIO, *, why: bool) -> None:
        self._why = why
        self._console = Console(file=err, highlight=False, soft_wrap=False)
        self._live: Live | None = None
        self._eta = Eta()
        self._most = 0
        self._note, self._note_until = "", 0.0  # a note and the monotonic time until which it is shown

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Planned):
            for line in lines.opening(event, why=self._why):
                self._print(line)
        elif isinstance(event, Mismatch):
            self._print(lines.mismatch(event))
        elif isinstance(event, Warned):
            self._print(f"warning: {event.text}", "yellow")
        elif isinstance(event, FileDone) and event.outcome not in GOOD_OUTCOMES:
            self._print(lines.failed(event), "red")
        elif isinstance(event, Waiting):
            self._note = harmless(f"{event.text}; waiting up to {figures.duration(event.seconds)}")
            self._note_until = time.monotonic() + event.seconds
            if self._live is None:
                self._print(self._note)
        elif isinstance(event, Progress) and event.total:
            self._draw(event)
        elif isinstance(event, Finished):
            self.close()
            for line in lines.summary(event.report, why=self._why):
                self._print(line)

    def close(self) -> None:
        """Remove the bars from the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(harmless(text), style=style))

    def _draw(self, now: Progress) -> None:
        self._most = max(self._most, now.done)  # downloading a file again must not move the bar back
        self._eta.read(time.monotonic(), self._most, now.total)
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._picture(now), refresh=True)

    def _picture(self, now: Progress) -> Group:
        grid = Table.grid(padding=(0, 1), expand=False)
        width = max(10, min(40, self._console.width - 64))
        left = figures.duration(self._eta.left) if self._eta.left is not None else ""
        grid.add_row(*self._row("total", self._most, now.total, self._eta.speed, width), f"{left} left" if left else "")
        for file in now.active[:SHOWN]:
            name = file.path if len(file.path) <= 28 else "..." + file.path[-25:]
            grid.add_row(
                *self._row(name, file.done, file.size, file.speed, width), figures.many(file.connections, "connection")
            )
        hidden = (
            f", {figures.many(len(now.active) - SHOWN, 'more file')} downloading" if len(now.active) > SHOWN else ""
        )
        checking = f", verifying {now.verifying}" if now.verifying else ""
        note = f"\n{self._note}" if time.monotonic() < self._note_until else ""
        return Group(
            grid,
            Text(
                f"{figures.activity(now.connections, now.mirrors, now.verified, now.files)}{checking}{hidden}{note}",
                style="dim",
            ),
        )

    def _row(self, name: str, done: int, total: int, speed: float, width: int) -> tuple[Text, ProgressBar, str, str]:
        bar = ProgressBar(total=max(1, total), completed=done, width=width)
        return Text(name), bar, f"{figures.size(done)} of {figures.size(total)}", figures.speed(speed)
