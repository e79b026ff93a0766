"""Delivery by each mirror: credits its bytes, and drops it if it stalls."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from gpuaria.mirrors.pool import Stalled
from gpuaria.mirrors.traffic import shares
from gpuaria.records import Mirror
from gpuaria.transfer.commands import ChangeUrls, Command, Credit, FindRefusal, NoteProblem, RecordOutcome, TestMirror
from gpuaria.transfer.events import Progressed
from gpuaria.transfer.task import FileTask


class MirrorView(Protocol):
    """The scheduler's view of the mirror pool, without I/O."""

    def usable(self, mirrors: Sequence[Mirror]) -> list[Mirror]:
        """Return the mirrors that are not quarantined, or all of them if every one is."""

    def incompatible(self, mirrors: Sequence[Mirror]) -> set[Mirror]:
        """Return the mirrors whose responses aria2 cannot use."""

    def due_for_test(self, wanted: Collection[Mirror]) -> list[Mirror]:
        """Return the mirrors whose quarantine is over, each once."""

    def stalled_mirrors(self, now: float, connections: Mapping[Mirror, int]) -> dict[Mirror, str]:
        """Return the mirrors that should be dropped, with reasons."""

    def forget_speed(self, mirror: Mirror) -> None:
        """Discard the speed readings of a mirror."""


class Delivery:
    """The readings of one turn, of all files in flight."""

    def __init__(self, mirrors: MirrorView) -> None:
        self._mirrors = mirrors
        self._readings: list[tuple[FileTask, int, Mapping[Mirror, Sequence[int]]]] = []
        self.serving: set[Mirror] = set()  # mirrors with a connection

    def handle_progress(self, event: Progressed, now: float) -> None:
        """Record the reading of one file."""
        task = event.task
        for one, count in event.connections.items():
            one.connections = count
        new_bytes = task.record_completed(event.completed, now)
        task.speed = event.speed
        task.connections = sum(event.connections.values())
        task.most_connections = max([task.most_connections, *event.connections.values()])
        task.serving = {mirror for mirror, speeds in event.speeds.items() if speeds}
        task.connected |= task.serving
        self._readings.append((task, new_bytes, event.speeds))

    def handle_reading(self, received: Mapping[Mirror, int], now: float) -> list[Command]:
        """Credit the bytes of this turn, and drop mirrors that stall. `received`: by the kernel's counters."""
        readings, self._readings = self._readings, []
        rates: dict[Mirror, list[int]] = {}
        for _, _, speeds in readings:
            for mirror, each in speeds.items():
                rates.setdefault(mirror, []).extend(each)
        self.serving = {mirror for mirror, each in rates.items() if each}
        total = {mirror: float(sum(each)) for mirror, each in rates.items()}
        commands: list[Command] = []
        for task, new_bytes, speeds in readings:
            own = {mirror: float(sum(each)) for mirror, each in speeds.items()}
            for mirror, count in shares(new_bytes, _weights(task, own, total, received)).items():
                if count:
                    commands.append(Credit(task, mirror, count))
        tasks = [task for task, _, _ in readings]
        # Near a file's end, connections run out of work, which does not mean that their mirrors stall.
        if received and not any(task.pace.end_in_sight(task.remaining) for task in tasks):
            excused = self._excused(tasks, rates)
            counts = {mirror: len(each) for mirror, each in rates.items() if mirror not in excused}
            for mirror, reason in self._mirrors.stalled_mirrors(now, counts).items():
                commands += _drop(tasks, mirror, reason)
        return commands

    def due_tests(self, tasks: Sequence[FileTask]) -> list[Command]:
        """Return tests of mirrors whose quarantine is over, for the files that they do not serve."""
        without: dict[Mirror, list[FileTask]] = {}
        for task in tasks:
            for mirror in task.step.mirrors:
                if mirror not in task.urls:
                    without.setdefault(mirror, []).append(task)
        return [TestMirror(mirror, without[mirror]) for mirror in self._mirrors.due_for_test(list(without))]

    def _excused(self, tasks: Sequence[FileTask], rates: Mapping[Mirror, Sequence[int]]) -> set[Mirror]:
        """Return the mirrors that have no connection for a reason outside their control.

        Either no free piece is left, or other mirrors share their host name, for which aria2 allows 16 connections.
        """
        hosts = {mirror: urlsplit(url.url).hostname for task in tasks for mirror, url in task.urls.items()}
        taken = {hosts.get(mirror) for mirror, each in rates.items() if each}
        spare = any(task.has_free_piece for task in tasks)
        excused = {one for one, each in rates.items() if not each and (hosts.get(one) in taken or not spare)}
        for mirror in excused:
            self._mirrors.forget_speed(mirror)
        return excused


def _drop(tasks: Sequence[FileTask], mirror: Mirror, reason: str) -> list[Command]:
    """Remove a mirror from all downloads; its connections end and their pieces go to the others."""
    commands: list[Command] = [RecordOutcome(mirror, Stalled(reason))]
    url = None
    for task in tasks:
        if mirror in task.urls and len(task.urls) > 1:
            url = task.urls.pop(mirror)
            commands += [NoteProblem(task, f"{mirror.name}: {reason}"), ChangeUrls(task, url, None)]
    return [*commands, FindRefusal(url, reason)] if url is not None else commands


def _weights(
    task: FileTask, own: Mapping[Mirror, float], total: Mapping[Mirror, float], received: Mapping[Mirror, int]
) -> Mapping[Mirror, float]:
    """Return each mirror's weight in one file: its received bytes times the share of its speed that went to this file.

    `own`: speeds of this file, `total`: of all files. A mirror whose connections have just ended has no speed.
    """
    known = {
        mirror: count * (own.get(mirror, 0.0) / total[mirror] if total.get(mirror) else 1.0)
        for mirror, count in received.items()
        if mirror in task.used
    }
    return known if any(known.values()) else own
