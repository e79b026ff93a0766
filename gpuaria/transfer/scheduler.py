"""The rules of a transfer: events in, commands out, without I/O, clock or thread.

`Scheduler.handle(event, now)` updates the tasks and returns commands. The loop executes them and feeds their results
back as events. `now` is in monotonic seconds.
"""

from collections.abc import Sequence
from dataclasses import replace

from gpuaria.mirrors.pool import Recovered, Refused
from gpuaria.records import Mirror, Step
from gpuaria.storage.layout import ClaimResult
from gpuaria.transfer import commands, events, ranges
from gpuaria.transfer.commands import Command
from gpuaria.transfer.delivery import Delivery, MirrorView
from gpuaria.transfer.ranges import ByteRange
from gpuaria.transfer.recovery import Recovery
from gpuaria.transfer.resolving import Resolving
from gpuaria.transfer.run_tasks import RunTasks
from gpuaria.transfer.steering import Steering, TransferLimits
from gpuaria.transfer.task import FileTask, PendingCheck, State
from gpuaria.transfer.tuning import SAVE_INTERVAL

# aria2 error codes that may mean an incompatible response: unknown, time-out, no range support, host not reachable.
AMBIGUOUS_CODES = frozenset({"1", "2", "6", "8", "19"})
HIDES_STATUS = ("No URI available", "Resource not found")  # aria2's messages without a status
STALLED = "stalled: almost no data arrives"
TAIL_INCOMPLETE = "could not download the end of the file"


class Scheduler:
    """All files of a run that need a download. `origin`: the mirror that is trusted over the others."""

    def __init__(self, limits: TransferLimits, mirrors: MirrorView, origin: Mirror) -> None:
        self._limits, self._mirrors, self._tasks = limits, mirrors, RunTasks()
        self._steering, self._delivery = Steering(limits), Delivery(mirrors)
        self._recovery = Recovery(self._tasks, mirrors, origin, limits.patience)
        self._resolving = Resolving(self._tasks, self._recovery)
        self._saved = 0.0

    def add(self, step: Step) -> FileTask:
        """Queue a file."""
        return self._tasks.add(step)

    def handle(self, event: events.TransferEvent, now: float) -> Sequence[Command]:
        """Update the tasks for an event, and return the resulting commands in order."""
        self._tasks.issued, self._tasks.now = [], now
        match event:
            case events.Tick():
                self._tick(event.wall)
            case events.Added():
                self._tasks.add(event.step)
            case events.Claimed():
                self._claimed(event)
            case events.Resolved():
                self._resolving.handle_resolved(event)
            case events.Replaced():
                self._resolving.handle_replaced(event)
            case events.Prepared():
                self._prepared(event)
            case events.Downloaded():
                self._downloaded(event.task, event.complete)
            case events.Hashed():
                self._recovery.handle_hashed(event.task, event.verdict, present=event.present)
            case events.Settled():
                self._settled(event.task, event.good)
            case events.SpeedLimited():
                self._speed_limited(event.rate)
            case _:
                self._handle_delivery(event)
        return self._tasks.issued

    def _handle_delivery(self, event: events.TransferEvent) -> None:
        """Handle the events of aria2, the tail and the mirrors."""
        match event:
            case events.Progressed():
                self._delivery.handle_progress(event, self._tasks.now)
            case events.ReadingDone():
                self._tasks.issued += self._delivery.handle_reading(event.received, self._tasks.now)
            case events.RangeDone():
                self._range_done(event.task, event.range)
            case events.RangeFailed():
                self._failed(event.task, event.reason, event.code)
            case events.EngineRestarted():
                self._restarted()
            case events.Released():
                self._released(event)
            case events.TailProgressed():
                self._tail_progressed(event)
            case events.MirrorsChecked():
                self._recovery.handle_check(event)
            case events.MirrorFailed():
                self._tasks.issue(commands.RecordOutcome(event.mirror, Refused(event.reason, event.wait)))
            case events.MirrorRecovered():
                self._tasks.issue(commands.RecordOutcome(event.mirror, Recovered()))
            case events.MirrorsJoined():  # pragma: no branch
                self._joined(event.mirrors)

    # --- state for the loop --------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """True if every file is done or failed."""
        return self._tasks.idle

    def in_state(self, *states: State) -> list[FileTask]:
        """Return the large files in these states, in the order of the states."""
        return self._tasks.in_state(*states)

    @property
    def needs_bytes(self) -> tuple[bool, bool]:
        """(large, any): whether such files still need bytes that no other fetch downloads."""
        needed = [task for task in self._tasks.unfinished if task.state is not State.HASHING and not task.held]
        return any(task.carrier == "aria2" for task in needed), bool(needed)

    @property
    def serving_count(self) -> int:
        """Number of mirrors with a connection."""
        return len(self._delivery.serving)

    def near_end(self) -> bool | None:
        """Return None if aria2 downloads nothing, else whether a file is near its end, for more frequent readings."""
        tasks = self._tasks.in_state(State.DOWNLOADING)
        return any(task.pace.end_in_sight(task.remaining) for task in tasks) if tasks else None

    # --- the tick ------------------------------------------------------------------------------------------------

    def _tick(self, wall: float) -> None:
        for task in (*self._tasks.in_state(State.WAITING), *self._tasks.by_http):
            if task.state is State.WAITING and task.pending_check is None and task.not_before <= self._tasks.now:
                task.move(State.QUEUED)
                if task.carrier == "http":
                    self._tasks.by_http.remove(task)
                    self._tasks.small.append(task)
        self._steer()
        self._start_small()
        self._start_large()
        if self._tasks.in_state(State.RESOLVING):
            self._tasks.issue(commands.WarmUp())  # aria2c starts while the URLs are resolved
        for task in self._tasks.in_state(State.DOWNLOADING):
            self._resolving.renew_expiring(task, wall)

    def _steer(self) -> None:
        """Decide the next step of every file that aria2 downloads, and save their progress."""
        downloading = self._tasks.in_state(State.DOWNLOADING)
        others = self._tasks.bytes_to_come() > 0  # computed once: there may be ten thousand files
        if self._tasks.now - self._saved >= SAVE_INTERVAL:
            self._saved = self._tasks.now
            released = [task for task in self._tasks.in_state(State.FINISHING) if task.tail]
            self._tasks.issue(*(commands.SaveProgress(task, alone=False) for task in downloading))
            self._tasks.issue(*(commands.SaveProgress(task, alone=True) for task in released))
        for task in downloading:
            if task.tail and not task.running:
                self._tasks.issued += self._steering.take_over(task)
            elif all(one.done for one in task.ranges):
                self._publish_complete(task)
            elif self._steering.stalled(task, self._tasks.now):
                self._failed(task, STALLED, "")
            else:
                self._tasks.issued += self._steering.steer(task, self._tasks.now, others, self._busy())
        self._tasks.issued += self._delivery.due_tests(self._tasks.in_state(State.DOWNLOADING))

    def _busy(self) -> int:
        return len(self._tasks.in_state(State.DOWNLOADING, State.FINISHING))

    def _start_small(self) -> None:
        """Keep every HTTP worker busy, with the same number of files resolved in advance."""
        active = sum(task.state is not State.WAITING for task in self._tasks.by_http)
        while self._tasks.small and active < 2 * self._limits.http_jobs:
            task = self._tasks.small.popleft()
            self._tasks.by_http.append(task)
            task.move(State.RESOLVING)
            self._tasks.issue(self._recovery.claim(task))
            active += 1

    def _start_large(self) -> None:
        """Keep `jobs` files in flight, not counting files with only their last connections active."""
        in_flight = self._tasks.in_state(State.DOWNLOADING, State.FINISHING)
        taken, busy = sum(not task.ending for task in in_flight), len(in_flight)
        resolving = len(self._tasks.in_state(State.RESOLVING))
        for task in sorted(self._tasks.in_state(State.QUEUED), key=lambda task: task.order):
            room = self._limits.jobs - resolving
            if taken >= room or busy >= 2 * room:
                return
            resolving += 1
            task.move(State.RESOLVING)
            self._tasks.issue(self._recovery.claim(task))

    def _claimed(self, event: events.Claimed) -> None:
        task, claim = event.task, event.claim
        if claim is ClaimResult.HELD:
            self._recovery.wait_for_holder(task, event.mark)
            return
        task.held, task.held_mark, task.held_silent = False, None, 0.0
        if claim is ClaimResult.PRESENT:
            task.move(State.HASHING, "another fetch published it")
            self._tasks.issue(commands.Publish(task, present=True))
            return
        if task.carrier == "http":
            task.move(State.DOWNLOADING)
            self._tasks.issue(commands.Download(task))
            return
        mirrors = self._mirrors.usable(task.step.mirrors)
        if self._mirrors.incompatible(mirrors).issuperset(mirrors):
            self._recovery.switch_to_http(task)
            return
        task.urls, task.reasons, task.urls_awaited, task.needs_credential = {}, {}, len(mirrors), False
        task.attempt, task.last_progress = task.attempt + 1, task.last_progress or self._tasks.now
        self._tasks.issued += [commands.Resolve(task, one, task.attempt, fresh=task.attempt > 1) for one in mirrors]

    # --- downloading ---------------------------------------------------------------------------------------------

    def _prepared(self, event: events.Prepared) -> None:
        """Start a file's ranges, or continue after aria2 released the file."""
        task, again = event.task, bool(event.task.ranges)
        task.ranges, task.hard_links = event.ranges, event.hard_links
        done = sum(one.completed for one in task.ranges)
        if again and done > task.done:
            self._tasks.issue(commands.Credit(task, None, done - task.done))
        self._tasks.issue(commands.SetBytesOnDisk(task, done))
        self._tasks.issued += [commands.AnnounceBytes(task, one.start, one.end) for one in task.ranges if one.done]
        task.done, task.started, task.connected = done, self._tasks.now, set()
        task.pace = type(task.pace)()
        self._hash(task, ranges.prefix(task.ranges))
        if task.waiting:
            self._tasks.issued += self._steering.next_range(task)
        else:
            self._publish_complete(task)

    def _range_done(self, task: FileTask, one: ByteRange) -> None:
        one.finish()
        self._tasks.issue(commands.AnnounceBytes(task, one.start, one.end))
        self._hash(task, ranges.prefix(task.ranges))

    def _hash(self, task: FileTask, end: int) -> None:
        if end > task.hashed:
            task.hashed = end
            self._tasks.issue(commands.Hash(task, end))

    def _restarted(self) -> None:
        """Continue every download from its control files in a new aria2c."""
        for task in self._tasks.in_state(State.DOWNLOADING):
            self._leave(task, alone=False)
            self._tasks.issue(commands.Prepare(task, self._tasks.bytes_to_come()))

    def _leave(self, task: FileTask, *, alone: bool) -> None:
        """Record that neither aria2 nor the tail is downloading the file."""
        if task.tail:
            self._tasks.issue(commands.StopTail(task, alone))
        task.done += task.tail_bytes
        task.drop_tail()
        task.leave_aria2()

    def _released(self, event: events.Released) -> None:
        """Count the bytes that aria2 wrote before it released a file, and give the rest to the tail."""
        task = event.task
        if task.state is not State.FINISHING:
            return
        for one in event.ended:
            one.finish()
        new_bytes = max(0, task.remaining - sum(end - start for start, end in event.missing))
        task.done += new_bytes
        self._tasks.issue(commands.Credit(task, None, new_bytes), commands.SetBytesOnDisk(task, task.done))
        task.tail = True
        self._tasks.issue(commands.FillTail(task, event.missing, self._steering.tail_connections(self._busy())))

    def _tail_progressed(self, event: events.TailProgressed) -> None:
        task = event.task
        if task.tail:
            task.tail_bytes, task.tail_unclaimed, task.tail_connections = (
                event.bytes_written,
                event.unclaimed_bytes,
                event.connections,
            )
            if task.state is State.FINISHING and event.complete_to > task.hashed:
                self._tasks.issue(commands.AnnounceBytes(task, 0, event.complete_to))
                self._hash(task, event.complete_to)

    def _downloaded(self, task: FileTask, complete: bool) -> None:
        """Publish a file whose tail has downloaded every byte, else retry it."""
        if task.state is not State.FINISHING:
            return
        if complete:
            for one in task.ranges:
                one.finish()
            self._tasks.issue(commands.MarkComplete(task), commands.AnnounceBytes(task, 0, task.file.size))
        self._tasks.issue(commands.StopTail(task, alone=True), commands.Stop(task))
        task.drop_tail()
        if complete:
            self._publish_complete(task)
        else:
            self._recovery.retry(task, TAIL_INCOMPLETE, "")

    def _publish_complete(self, task: FileTask) -> None:
        task.done = task.file.size
        task.move(State.HASHING)
        self._tasks.issue(commands.Publish(task))

    def _joined(self, mirrors: Sequence[Mirror]) -> None:
        """Let more mirrors serve every unfinished file.

        Downloads in aria2 restart with them: aria2 never opens more connections than a download started with.
        """
        room = self._limits.per_server * len(mirrors)
        for task in self._tasks.unfinished:
            step = task.step
            task.step = replace(step, mirrors=(*step.mirrors, *mirrors), connections=step.connections + room)
            if task.state is State.DOWNLOADING and task.carrier == "aria2":
                self._restart(task, "more mirrors joined")
            elif task.state is State.RESOLVING and task.urls_awaited:
                task.urls_awaited += len(mirrors)
                self._tasks.issue(*(commands.Resolve(task, one, task.attempt, fresh=False) for one in mirrors))

    def _speed_limited(self, rate: int) -> None:
        """Apply a new limit. Downloads that started without one restart through the relay, which enforces it."""
        begun = rate > 0 and not self._limits.max_speed
        self._limits = replace(self._limits, max_speed=rate)
        self._steering = Steering(self._limits)
        for task in self._tasks.in_state(State.DOWNLOADING) if begun else ():
            self._restart(task, "a speed limit was set")

    def _restart(self, task: FileTask, why: str) -> None:
        """Restart a download from its control files."""
        self._tasks.issue(commands.Stop(task))
        self._leave(task, alone=False)
        self._recovery.requeue(task, why)

    # --- retry ---------------------------------------------------------------------------------------------------

    def _failed(self, task: FileTask, reason: str, code: str) -> None:
        """Take a file out of aria2 after a range failed, and retry it or check its mirrors."""
        if task.state is not State.DOWNLOADING:
            return
        self._tasks.issue(commands.Stop(task))
        self._leave(task, alone=False)
        hidden = any(text in reason for text in HIDES_STATUS)
        if not hidden:
            self._recovery.quarantine_serving(task, reason)
        if hidden or code in AMBIGUOUS_CODES:
            self._recovery.check_mirrors(task, PendingCheck(reason, code, hidden=hidden))
        else:
            self._recovery.retry(task, reason, code)

    # --- the end -------------------------------------------------------------------------------------------------

    def _settled(self, task: FileTask, good: bool) -> None:
        self._tasks.finish(task, State.DONE if good else State.FAILED)
        self._start_small()
