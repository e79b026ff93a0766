"""The thread that drives a transfer: it passes events to the scheduler and executes the returned commands.

No other thread writes tasks. Work that may block (resolving, hashing, tests of mirrors) runs in named pools, which put
their results into the inbox.
"""

import queue
from collections.abc import Iterator, Sequence
from contextlib import suppress

from gpuaria.errors import Aria2Error, GpuariaError, Interrupted
from gpuaria.events import ActiveFile
from gpuaria.mirrors.pool import Refused
from gpuaria.os_errors import explained
from gpuaria.records import Mirror, MirrorUrl, RemoteFile
from gpuaria.storage.layout import ClaimResult
from gpuaria.transfer import commands, events
from gpuaria.transfer.by_aria2 import ByAria2
from gpuaria.transfer.by_http import ByHttp, prefix_of
from gpuaria.transfer.downloader import Inbox
from gpuaria.transfer.range_files import keep_prefix
from gpuaria.transfer.ranges import ByteRange
from gpuaria.transfer.scheduler import Scheduler
from gpuaria.transfer.services import Services
from gpuaria.transfer.tails import Tails
from gpuaria.transfer.task import FileTask, State
from gpuaria.transfer.tuning import TICK, TICK_IDLE, TICK_NEAR_END
from gpuaria.urls import authority


class Loop:
    """Executes the scheduler's commands with three downloaders.

    `turns` is for one thread, which may be the caller's.
    """

    def __init__(self, services: Services, scheduler: Scheduler, aria2: ByAria2, http: ByHttp, inbox: Inbox) -> None:
        self._services, self._scheduler, self._inbox = services, scheduler, inbox
        self._aria2, self._http, self._tails = aria2, http, Tails(services, inbox)
        self._resolvers = services.threads.pool("resolve", 8)
        self._testers = services.threads.pool("test-mirror", 4)
        services.threads.on_error(inbox.wake)
        self._next_turn, self._rate = 0.0, services.bucket.rate

    # --- the turns -----------------------------------------------------------------------------------------------

    def turns(self) -> Iterator[None]:
        """Drive the transfer, yielding after each turn, until every file has a verdict or the run is stopped.

        Raises GpuariaError if the run has to end.
        """
        while not self._services.threads.stop.is_set():
            self._turn()
            # In this order: hashing may queue files to download.
            if not self._services.publisher.pending and self._scheduler.idle and self._inbox.empty:
                return
            yield
            self._drain()

    def close(self) -> None:
        """Stop the downloaders; control files stay for a later run."""
        for task in self._scheduler.in_state(State.DOWNLOADING, State.FINISHING):
            self._tails.stop(task, alone=task.state is State.FINISHING)
        self._aria2.close()

    def _turn(self) -> None:
        """Poll aria2 and the tails, and let the scheduler decide."""
        clock = self._services.clock
        now = clock.monotonic()
        if (rate := self._services.bucket.rate) != self._rate:
            self._rate = rate
            self._handle(events.SpeedLimited(rate))
        for event in (*self._tails.poll(now), *self._aria2.poll(now), events.Tick(clock.time())):
            self._handle(event)
        quick = self._scheduler.near_end()
        pause = TICK_IDLE if quick is None else TICK_NEAR_END if quick else TICK
        if self._tails.active:
            pause = min(pause, TICK_NEAR_END)
        self._next_turn = clock.monotonic() + pause

    def _drain(self) -> None:
        """Handle events until the next turn is due, or an event makes it due."""
        while not self._services.threads.stop.is_set():
            try:
                event = self._inbox.get(self._next_turn - self._services.clock.monotonic())
            except queue.Empty:
                return
            if event is not None:
                self._handle(event)
            if not isinstance(event, events.Settled) or self._scheduler.idle:
                self._drain_pending()
                return

    def _drain_pending(self) -> None:
        """Handle the events that are already queued."""
        with suppress(queue.Empty):
            while True:
                if (event := self._inbox.get(0)) is not None:
                    self._handle(event)

    def _handle(self, event: events.TransferEvent) -> None:
        waiting = [event]
        while waiting:
            for command in self._scheduler.handle(waiting.pop(0), self._services.clock.monotonic()):
                if (result := self._execute(command)) is not None:
                    waiting.append(result)

    def join(self, mirrors: Sequence[Mirror]) -> None:
        """Let more mirrors serve every unfinished file; for the thread of `turns`."""
        self._services.pool.join(mirrors)
        self._handle(events.MirrorsJoined(tuple(mirrors)))

    # --- state for progress reports ------------------------------------------------------------------------------

    def active(self) -> tuple[ActiveFile, ...]:
        """Return the large files in flight."""
        tasks = self._scheduler.in_state(State.DOWNLOADING, State.FINISHING)
        return tuple(ActiveFile(t.file.path, t.bytes_on_disk, t.file.size, t.speed, t.connection_count) for t in tasks)

    @property
    def hashing(self) -> list[RemoteFile]:
        """Large files that are complete on disk and being verified."""
        return [task.file for task in self._scheduler.in_state(State.HASHING)]

    @property
    def bytes_awaiting_retry(self) -> int:
        """Bytes on disk of files that wait for a slot or a retry."""
        tasks = self._scheduler.in_state(State.QUEUED, State.WAITING, State.RESOLVING)
        return sum(task.done for task in tasks)

    @property
    def http_requests(self) -> int:
        """Number of HTTP requests for small files in flight."""
        return self._http.busy

    @property
    def needs_bytes(self) -> tuple[bool, bool]:
        """(large, any): whether such files still need bytes that no other fetch downloads."""
        return self._scheduler.needs_bytes

    @property
    def serving_count(self) -> int:
        """Number of mirrors with a connection."""
        return max(self._scheduler.serving_count, 1 if self.http_requests else 0)

    # --- commands ------------------------------------------------------------------------------------------------

    def _execute(self, command: commands.Command) -> events.TransferEvent | None:
        """Execute one command; return its immediate result as an event. Raises GpuariaError."""
        s = self._services
        match command:
            case commands.Claim(task, look):
                claim = s.layout.claim(task.file)
                mark = s.layout.progress_mark(task.file) if look and claim is ClaimResult.HELD else None
                return events.Claimed(task, claim, mark)
            case commands.Unclaim(task):
                s.layout.release_claim(task.file)
            case commands.Prepare(task, behind):
                return self._prepare(task, behind)
            case commands.WarmUp():
                self._aria2.warm_up()
            case commands.StartRange(task, one):
                self._aria2.start(task, [one], tuple(task.urls.values()))
            case commands.ChangeUrls(task, old, new):
                self._aria2.change_urls(task, old, new)
            case commands.Stop(task):
                self._aria2.stop(task)
            case commands.Release(task):
                self._aria2.release(task)
            case commands.Download(task):
                self._http.start(task, (), ())
            case _:
                self._submit(command)
        return None

    def _submit(self, command: commands.Command) -> None:
        """Execute a command on a worker thread."""
        s = self._services
        match command:
            case commands.Resolve(task, mirror, attempt, fresh):
                self._resolvers.submit(self._resolve, task, mirror, attempt, fresh)
            case commands.Renew(task, mirror):
                self._resolvers.submit(self._renew, task, mirror)
            case commands.CheckMirrors(task, urls, refusals):
                self._resolvers.submit(self._check, task, urls, refusals)
            case commands.TestMirror(mirror, tasks):
                self._testers.submit(self._test, mirror, tasks)
            case commands.FindRefusal(url, reason):
                self._testers.submit(self._ask_why, url, reason)
            case commands.Publish(task, present):
                s.publisher.submit(self._publish, task, present)
            case commands.Hash(task, end):
                s.publisher.hash_to(task.file, end)
            case commands.Discard(task):
                s.publisher.discard(task.file)
            case _:
                self._drive_tail(command)

    def _drive_tail(self, command: commands.Command) -> None:
        """Execute a command for the tail or for bytes on disk."""
        s = self._services
        match command:
            case commands.StartTail(task, one, connections):
                self._tails.connections = connections
                self._tails.start(task, [one], tuple(task.urls.values()))
            case commands.FillTail(task, gaps, connections):
                self._tails.connections = connections
                self._tails.fill(task, gaps, tuple(task.urls.values()))
            case commands.StopTail(task, alone):
                self._tails.stop(task, alone=alone)
            case commands.SetBytesOnDisk(task, count):
                self._tails.set_bytes_on_disk(task, count)
            case commands.SaveProgress(task, alone):
                self._save(task, alone=alone)
            case commands.MarkComplete(task):
                for one in task.ranges:
                    with explained(s.layout.staged_path(task.file)):
                        s.range_files(task).mark_complete(one)
            case commands.KeepPrefix(task, ranges):
                self._keep_prefix(task, list(ranges))
            case _:
                self._record(command)

    def _record(self, command: commands.Command) -> None:
        """Execute a command that only records or reports something."""
        s = self._services
        match command:
            case commands.AnnounceBytes(task, start, end):
                s.results.arrivals.record_range(task.file, start, end)
            case commands.Credit(task, mirror, count):
                s.results.credit(task.file.path, mirror, count, tuple(task.urls))
            case commands.RecordOutcome(mirror, what):
                s.pool.record(mirror, what)
            case commands.NoteProblem(task, problem):
                s.results.note_problem(task.file.path, problem)
            case commands.Fail(task, verdict, cause):
                s.publisher.fail(task.file, verdict, cause)
            case commands.EmitEvent(event):
                s.results.emit(event)
            case commands.Abort(error):
                s.threads.end_with_error(error)
            case _:
                raise AssertionError(f"no such command: {command}")

    def _prepare(self, task: FileTask, behind: int) -> events.TransferEvent:
        """Find the file's ranges on disk; one range if the file system has no hard links. Raises DiskError."""
        files = self._services.range_files(task)
        with explained(files.base):
            ranges = files.recover(behind)
        try:
            for one in ranges:
                if not one.done:
                    files.prepare(one)
                    one.on_disk = True
                    break
        except OSError:
            task.hard_links = False
            return events.Prepared(task, self._services.range_files(task).single(), hard_links=False)
        return events.Prepared(task, ranges, hard_links=True)

    def _save(self, task: FileTask, *, alone: bool) -> None:
        files = self._services.range_files(task)
        for one in task.running:
            with suppress(OSError):
                files.back_up_control(one)
        self._tails.save(task, alone=alone)

    def _keep_prefix(self, task: FileTask, ranges: list[ByteRange]) -> None:
        files = self._services.range_files(task)
        with explained(files.base):
            keep_prefix(files, ranges, prefix_of(files.base))
        self._services.publisher.discard(task.file)

    # --- on worker threads ---------------------------------------------------------------------------------------

    def _resolve(self, task: FileTask, mirror: Mirror, attempt: int, fresh: bool) -> None:
        found: MirrorUrl | GpuariaError | None
        try:
            found = self._services.pool.url(mirror, task.file, fresh=fresh)
            if found is not None:
                self._services.pool.register_endpoints(found)
        except Interrupted:
            return
        except GpuariaError as error:
            found = error
        self._inbox.put(events.Resolved(task, attempt, mirror, found, self._services.clock.time()))

    def _renew(self, task: FileTask, mirror: Mirror) -> None:
        """Resolve a mirror's URL again. On failure the old URL stays until the download fails and is retried."""
        with suppress(GpuariaError):
            if url := self._services.pool.url(mirror, task.file, fresh=True):
                self._inbox.put(events.Replaced(task, url, self._services.clock.time(), renewed=True))

    def _publish(self, task: FileTask, present: bool) -> None:
        file, s = task.file, self._services
        verdict = s.publisher.verify_present(file) if present else s.publisher.publish(file)
        if verdict.outcome == "missing" and not present:
            raise Aria2Error(
                f"aria2c reports {file.path} as complete, but it is not in {s.layout.staging}",
                "The aria2c of the setting rpc must run on this machine, as a user who may write there.",
            )
        self._inbox.put(events.Hashed(task, verdict, present))

    def _check(self, task: FileTask, urls: tuple[MirrorUrl, ...], refusals: bool) -> None:
        found = {url.mirror: why for url in urls if (why := self._services.pool.why_incompatible(url))}
        refused = {}
        for url in urls if refusals and not found else ():
            if why := self._services.pool.refusal(url)[0]:
                host = authority(url.url)
                refused[url.mirror] = why if host in why else f"{host}: {why}"
        self._inbox.put(events.MirrorsChecked(task, found, refused))

    def _test(self, mirror: Mirror, tasks: list[FileTask]) -> None:
        """Test one URL of a mirror, then resolve its URLs for the other files."""
        try:
            for at, task in enumerate(tasks):
                url = self._services.pool.url(mirror, task.file, fresh=True)
                found, wait = ("it requires a token", None) if url is None else ("", None)
                if url and at == 0:
                    found, wait = self._services.pool.refusal(url)
                if found or url is None:
                    self._inbox.put(events.MirrorFailed(mirror, found, wait))
                    return
                if at == 0:
                    self._inbox.put(events.MirrorRecovered(mirror))
                self._inbox.put(events.Replaced(task, url, self._services.clock.time()))
        except Interrupted:
            return
        except GpuariaError as error:
            self._inbox.put(events.MirrorFailed(mirror, error.message))

    def _ask_why(self, url: MirrorUrl, reason: str) -> None:
        found, wait = self._services.pool.refusal(url)
        if found:
            self._services.pool.record(url.mirror, Refused(f"{reason}: {found}", wait))
