"""Rules for the next byte range of a file in flight, for aria2 or for the tail. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from gpuaria.transfer import ranges
from gpuaria.transfer.commands import Command, Release, StartRange, StartTail
from gpuaria.transfer.ranges import PIECE, ByteRange
from gpuaria.transfer.task import FileTask, State
from gpuaria.transfer.tuning import (
    AHEAD_SECONDS,
    FEW_CONNECTIONS,
    GRACE,
    LARGEST_TAIL,
    NEXT_RANGE,
    SEVERAL_TIMEOUT,
    SHORTEST_TAIL_SECONDS,
    SLOW_RATE,
    TAIL_SECONDS,
    TAKEOVER_SECONDS,
    TRICKLE,
)


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Limits from the settings: concurrent files and HTTP requests, aria2's connections per server and its time-out.

    `timeout` in seconds; `max_speed` in bytes/s, 0 for none; `patience`: the stall time-out in seconds.
    """

    jobs: int = 4
    http_jobs: int = 32
    per_server: int = 16
    timeout: float = 30.0
    max_speed: int = 0
    patience: float = 600.0


@dataclass(frozen=True, slots=True)
class Steering:
    """Decides the next step of one file at a time."""

    limits: TransferLimits

    @property
    def limited(self) -> bool:
        """True if there is a speed limit; then the tail is not used."""
        return self.limits.max_speed > 0

    def stalled(self, task: FileTask, now: float) -> bool:
        """Return True if at most a trickle arrives although the speed limit allows more."""
        slow = 0 < self.limits.max_speed < 4 * TRICKLE
        several = len(task.step.mirrors) > 1
        timeout = min(self.limits.timeout, SEVERAL_TIMEOUT) if several else self.limits.timeout
        return not slow and task.stalled(now, timeout + GRACE)

    def tail_connections(self, busy: int) -> int:
        """Return the tail's connections to each mirror, with `busy` files in flight."""
        return max(1, self.limits.per_server // max(1, busy))

    def next_range(self, task: FileTask) -> list[Command]:
        """Start the next range in aria2."""
        one = task.waiting[0]
        one.running = one.on_disk = True
        return [StartRange(task, one)]

    def steer(self, task: FileTask, now: float, others: bool, busy: int) -> list[Command]:
        """Start the next range if the newest one has idle connections, or let the tail download the rest of the file.

        `others`: another file is to follow; `busy`: files in flight.
        """
        newest = task.running[-1] if task.running else None
        near = task.pace.near_end(now, task.done, task.remaining, task.connections, task.most_connections)
        rate = task.pace.rate
        if task.waiting:
            last = newest is not None and not others and self._worth_a_tail(task)
            ahead = rate * (TAIL_SECONDS if last else AHEAD_SECONDS)
            early = newest is not None and newest.completed and not self.limited
            idle = newest is not None and (
                task.connections <= task.most_connections * NEXT_RANGE or newest.remaining <= ahead
            )
            if newest is not None and not (early and idle):
                return []
            if last:
                return self._begin_tail(task, int(rate * TAIL_SECONDS), busy)
            if 0 < rate < SLOW_RATE and not others:
                ranges.merge_untouched(task.ranges)
            return self.next_range(task)
        if task.tail:
            near = task.tail_unclaimed <= rate * TAKEOVER_SECONDS and (
                near or task.remaining <= rate * TAKEOVER_SECONDS
            )
        task.ending = task.ending or (near and others)
        if task.ending and others and not task.tail:  # other files use the link; aria2 needs less CPU here
            near = False
        if (near or self._blocked_by_slow(task, now)) and not self.limited:
            return self.take_over(task)
        return []

    def take_over(self, task: FileTask) -> list[Command]:
        """Take a file out of aria2; the tail downloads the rest."""
        task.move(State.FINISHING)
        task.connections = 0
        for one in task.ranges:
            one.running = False
        return [Release(task)]

    def _worth_a_tail(self, task: FileTask) -> bool:
        """Return True if the waiting range is the last one and long enough for a tail to pay off."""
        rate = task.pace.rate
        return (
            len(task.waiting) == 1
            and not self.limited
            and 0 < rate * SHORTEST_TAIL_SECONDS <= task.waiting[0].remaining
        )

    def _begin_tail(self, task: FileTask, most: int, busy: int) -> list[Command]:
        """Let the tail download the end: its connections have reached their speed when aria2 finishes."""
        one = ranges.split_end(task.ranges, task.waiting[0], most)
        if one is not task.waiting[0] or one.remaining > 2 * max(most, PIECE):
            return self.next_range(task)  # the range before the end, or one too long for the tail
        self._assign_to_tail(task, one)
        return [StartTail(task, one, self.tail_connections(busy))]

    def _assign_to_tail(self, task: FileTask, one: ByteRange) -> None:
        one.in_tail = one.on_disk = task.tail = True
        task.tail_unclaimed = one.remaining

    def _blocked_by_slow(self, task: FileTask, now: float) -> bool:
        """Return True if slow connections hold the last pieces while mirrors are idle; used once per file."""
        if task.failures_in_a_row or task.remaining > LARGEST_TAIL:
            return False
        hosts = {urlsplit(url.url).hostname for url in task.urls.values()}
        few = min(task.step.connections, self.limits.per_server * len(hosts)) * FEW_CONNECTIONS
        idle = not task.has_free_piece and (task.connections <= few or not task.serving.issuperset(task.urls))
        return task.pace.blocked_by_slow(now, task.done, task.remaining, idle=idle)
