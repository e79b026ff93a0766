"""The tasks of one run, and the commands for the current event. Pure."""

from collections import deque

from gpuaria.errors import GpuariaError
from gpuaria.records import Step, Verdict
from gpuaria.transfer import commands
from gpuaria.transfer.commands import Command
from gpuaria.transfer.task import FileTask, State


class RunTasks:
    """The unfinished files. Each task holds its state; the lists only record which downloader has it."""

    def __init__(self) -> None:
        self.large: list[FileTask] = []  # by aria2
        self.small: deque[FileTask] = deque()  # by HTTP, queued
        self.by_http: list[FileTask] = []  # by HTTP, started
        self.issued: list[Command] = []
        self.now = 0.0
        self._order = 0

    def add(self, step: Step) -> FileTask:
        """Queue a file."""
        task = FileTask(step, step.carrier)
        if step.carrier == "http":
            self.small.append(task)
        else:
            self.queue(task)
            self.large.append(task)
        return task

    @property
    def idle(self) -> bool:
        """True if every file is done or failed."""
        return not (self.large or self.small or self.by_http)

    @property
    def unfinished(self) -> list[FileTask]:
        """All unfinished files, large ones first."""
        return [*self.large, *self.small, *self.by_http]

    def in_state(self, *states: State) -> list[FileTask]:
        """Return the large files in these states, in the order of the states."""
        return [task for state in states for task in self.large if task.state is state]

    def bytes_to_come(self) -> int:
        """Return the bytes of large files that no downloader has started."""
        return sum(task.file.size for task in self.in_state(State.QUEUED, State.WAITING, State.RESOLVING))

    def issue(self, *wanted: Command) -> None:
        """Add commands for the loop."""
        self.issued += wanted

    def queue(self, task: FileTask, *, first: bool = False) -> None:
        """Put a file at the end of the queue, or at its front."""
        self._order += 1
        task.order = -self._order if first else self._order

    def fail(self, task: FileTask, reason: str, error: GpuariaError) -> None:
        """End a file that could not be downloaded."""
        self.issue(commands.Fail(task, Verdict(task.file.path, "failed", reason), error))
        self.finish(task, State.FAILED)

    def finish(self, task: FileTask, state: State) -> None:
        """End a file: remove it from the lists and release its claim."""
        task.move(state)
        (self.by_http if task.carrier == "http" else self.large).remove(task)
        self.issue(commands.Unclaim(task))
