"""The tasks of one run, and the commands of the event that is being handled. Pure."""

from collections import deque

from gpuaria.errors import GpuariaError
from gpuaria.records import Step, Verdict
from gpuaria.transfer import commands
from gpuaria.transfer.commands import Command
from gpuaria.transfer.task import FileTask, State


class RunTasks:
    """The unfinished files. A task has its file's state; the lists only say which downloader has it."""

    def __init__(self) -> None:
        self.large: list[FileTask] = []  # carried by aria2
        self.small: deque[FileTask] = deque()  # carried by HTTP: queued
        self.by_http: list[FileTask] = []  # carried by HTTP: begun
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
        """All files, large ones first."""
        return [*self.large, *self.small, *self.by_http]

    def in_state(self, *states: State) -> list[FileTask]:
        """Large files in these states, in the order of the states."""
        return [task for state in states for task in self.large if task.state is state]

    def bytes_to_come(self) -> int:
        """Bytes of large files that no downloader has begun with."""
        return sum(task.file.size for task in self.in_state(State.QUEUED, State.WAITING, State.RESOLVING))

    def issue(self, *wanted: Command) -> None:
        """Add commands."""
        self.issued += wanted

    def queue(self, task: FileTask, *, first: bool = False) -> None:
        """Give a file its place among those that wait: the last, or the first."""
        self._order += 1
        task.order = -self._order if first else self._order

    def fail(self, task: FileTask, reason: str, error: GpuariaError) -> None:
        """End a file that could not be downloaded."""
        self.issue(commands.Fail(task, Verdict(task.file.path, "failed", reason), error))
        self.finish(task, State.FAILED)

    def finish(self, task: FileTask, state: State) -> None:
        """End a file: take it off the lists, and release its claim."""
        task.move(state)
        (self.by_http if task.carrier == "http" else self.large).remove(task)
        self.issue(commands.Unclaim(task))
