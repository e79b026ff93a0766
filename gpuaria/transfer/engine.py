"""Driving aria2: ranges in, one poll per tick, the last bytes taken over."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpuaria.aria2.options import Shape, download_options
from gpuaria.aria2.shared import SharedAria2
from gpuaria.errors import Aria2Error, DiskError, NoSpace
from gpuaria.formats.metalink import for_download
from gpuaria.os_errors import explained
from gpuaria.records import Transfer
from gpuaria.storage.layout import Layout
from gpuaria.transfer import windows
from gpuaria.transfer.board import Board
from gpuaria.transfer.digester import Digester
from gpuaria.transfer.flow import Flow
from gpuaria.transfer.job import Hands, Job
from gpuaria.transfer.lastbytes import LastBytes
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.serving import Serving
from gpuaria.transfer.watch import TRICKLE, Ending
from gpuaria.transfer.windows import Window
from gpuaria.transfer.workers import Workers
from gpuaria.urls import authority

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import
    from gpuaria.aria2.wire import Rpc

LATE = 3  # calls in a row that it may leave without an answer (of 10 s each)
KEEP = 1.0  # seconds; aria2 saves as often
TICK = 0.25  # seconds between two readings
MOST_BY_OURSELVES = 256_000_000  # bytes that are taken over from aria2
NEXT_RANGE = 0.7  # of its connections: when a range has no more than that at work, the next one begins
CRAWLS = "next to nothing comes"
AHEAD = 0.5  # seconds before its last byte that the next range begins: new connections take two round trips
TAIL = 1.2  # seconds: how much of a file's end we fetch ourselves, beginning that long before aria2 is through
WORTH = 0.5  # seconds that it must take at the least: an end that comes quicker aria2 makes as well, with less CPU
SLOW = 80e6  # bytes/s: half of what hashing brings at its slowest, so that it is never far behind
HUNGRY = 0.25  # seconds of work that our connections, or aria2's, have left when what aria2 holds is taken from it
_DISK_FULL, _DISK = "9", {"15", "16", "17", "18"}


class Engine:
    """The downloads that are under way; all methods are for the thread that drives.

    `on_complete(job)`: every byte is here. `on_stumble(job, reason, aria2's code)`: it has to be begun again.
    `following()`: bytes of other files that nobody has begun with.
    """

    def __init__(
        self,
        *,
        aria2: SharedAria2,
        hands: Hands,
        layout: Layout,
        board: Board,
        roster: Roster,
        flow: Flow,
        hashers: Workers,
        shape: Shape,
        user_agent: str,
        post: Callable[[Callable[[], None]], None],
        on_complete: Callable[[Job], None],
        on_stumble: Callable[[Job, str, str], None],
        following: Callable[[], int],
    ) -> None:
        self._aria2, self._layout, self._board, self._path = aria2, layout, board, hands.path
        self._roster = roster
        self._last = LastBytes(
            hands=hands,
            layout=layout,
            board=board,
            hashers=hashers,
            per_server=shape.per_server,
            done=lambda job, filled: post(lambda: self._finished(job, filled)),
        )
        self._shape, self._user_agent = shape, user_agent
        self._on_complete, self._on_stumble, self._following = on_complete, on_stumble, following
        self._daemon: Daemon | None = None
        self._late = 0
        self._kept = 0.0
        self._share = 1
        self.jobs: list[Job] = []
        self.ending: list[Job] = []
        self.serving = Serving(
            jobs=self.jobs,
            hands=hands,
            board=board,
            roster=roster,
            flow=flow,
            per_server=shape.per_server,
            change=lambda gid, drop, add: self._rpc.change_uris(gid, drop, add),
            post=post,
        )

    @property
    def busy(self) -> int:
        """Files under way."""
        return len(self.jobs) + len(self.ending)

    @property
    def taken(self) -> int:
        """How many of them leave no room for another."""
        return sum(not job.fading for job in (*self.jobs, *self.ending))

    def warm_up(self) -> None:
        """Start aria2c, if it does not run yet."""
        if self._daemon is None:
            self._daemon = self._aria2.get()

    def close(self) -> None:
        """Leave aria2: our downloads are taken out, and their control files stay."""
        for job in (*self.jobs, *self.ending):
            self._last.leave(job, alone=job in self.ending)
        daemon, self._daemon = self._daemon, None
        rows = [window for job in (*self.jobs, *self.ending) for window in job.row if not window.done]
        if daemon is None or not rows:
            return
        with suppress(Aria2Error):
            lost = [str(window.path) for window in rows if window.asked and not window.gid]
            for gid in {*(window.gid for window in rows), *daemon.rpc.find(lost).values()} - {""}:
                daemon.rpc.remove(gid)

    def pause(self) -> float:
        """Seconds until the next tick is due: short where a file is about to end."""
        if any(job.ending.in_sight(job.left) for job in self.jobs):
            return 0.08
        return TICK if self.jobs else 0.05

    # --- begin -----------------------------------------------------------------------------------------------

    def add(self, job: Job, share: int) -> None:
        """Begin a file, or go on with it; `share` files divide a speed limit among them. Raises DiskError."""
        base, folder = self._layout.staged(job.file), self._layout.windows(job.file)
        anew = not job.row
        with explained(base):
            if not job.row or any(not window.done for window in job.row):
                job.row = self._recover(job, windows.recover(base, folder, job.file.size, self._following()))
        job.digester = job.digester or Digester(base, job.file)
        done = sum(window.completed for window in job.row)
        if not anew:
            self._last.credit(job, done - job.done)
        self._board.holds(job.file.path, done)
        job.done = done
        job.ending, job.used, self._share = Ending(), job.used | set(job.addresses), share
        job.begun = time.monotonic()
        self.jobs.append(job)
        self._last.hash_on(job)
        if not job.waiting:
            self._all_here(job)
            return
        try:
            self._begin_next(job)
        except Aria2Error as error:
            self._lost(error)  # if it is only late, the next tick begins it

    def _recover(self, job: Job, row: list[Window]) -> list[Window]:
        """The row; of one range where the file system has no hard links."""
        base = self._layout.staged(job.file)
        try:
            for window in row:
                if not window.done:
                    window.open(base)
                    break
        except OSError:
            return windows.single(base, job.file.size)
        return row

    def _begin_next(self, job: Job) -> None:
        """Give aria2 the next range. Its name is ours, and its size declared, so that another length is refused."""
        window = job.waiting[0]
        if window.asked:  # it may have been begun, and only the answer lost
            window.gid = self._rpc.find([str(window.path)]).get(str(window.path), "")
            if window.gid:
                return
        with explained(window.path):
            window.open(self._layout.staged(job.file))
        turns = zip_longest(*(job.turns(mirror, self._shape.per_server) for mirror in job.addresses))
        urls = [url for turn in turns for url in turn if url]
        metalink = for_download(window.path.name, job.file.size, urls)
        options = download_options(window.path.parent, self._shaped(job), self._user_agent)
        options |= self._path([address.url for address in job.addresses.values()])
        self.warm_up()
        window.asked = True
        window.gid, self._late = self._rpc.add(metalink, options), 0

    def _shaped(self, job: Job) -> Shape:
        """Where there is another mirror to turn to, none gets long to answer. Mirrors may still join: room for all."""
        several = len(job.step.mirrors) > 1
        return replace(
            self._shape,
            split=job.step.connections,
            max_speed=-(-self._shape.max_speed // self._share),
            connect_timeout=min(self._shape.connect_timeout, 4.0 if several else 600.0),
            timeout=min(self._shape.timeout, 8.0 if several else 600.0),
        )

    @property
    def _rpc(self) -> "Rpc":
        self.warm_up()
        assert self._daemon is not None
        return self._daemon.rpc

    # --- read ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Read aria2 once and act on it."""
        if not self.jobs:
            return
        try:
            gids = [window.gid for job in self.jobs for window in job.running]
            transfers, speeds = self._rpc.poll(gids)
            if gids:  # without one it was not asked anything
                self._late = 0
            came = [(job, job.account(transfers)) for job in self.jobs]
            self.serving.credit(self._daemon.pid if self._daemon else 0, came, speeds)
            for job in list(self.jobs):
                self._settle(job, transfers)
            self._keep()
            others = self._following() > 0  # once for all: there may be ten thousand
            for job in list(self.jobs):
                if self._crawls(job):
                    self._let_go(job, CRAWLS)
                    self._on_stumble(job, CRAWLS, "")
                else:
                    self._steer(job, others=others)
        except Aria2Error as error:  # it may die between any two calls
            self._lost(error)
            return
        self.serving.try_again()

    def _crawls(self, job: Job) -> bool:
        """Whether next to nothing comes, though more may."""
        shape = self._shaped(job)
        slow = 0 < shape.max_speed < 4 * TRICKLE
        return not slow and job.crawls(time.monotonic(), shape.timeout + 2)

    def _keep(self) -> None:
        now = time.monotonic()
        if now - self._kept >= KEEP:
            self._kept = now
            for window in [window for job in self.jobs for window in job.running]:
                window.keep()
            for job in self.jobs:
                self._last.keep(job)

    def _settle(self, job: Job, transfers: dict[str, Transfer]) -> None:
        """Ranges that ended, well or not."""
        for window in job.running:
            transfer = transfers[window.gid]
            if transfer.status == "complete":
                gid, window.gid = window.gid, ""
                window.done, window.completed = True, window.end - window.start
                self._last.hash_on(job)
                self._rpc.forget([gid])
            elif transfer.status in ("error", "removed", "gone"):
                self._broken(job, transfer)
                return
        if job.tail is not None and not job.running:
            self._take_over(job)
        elif all(window.done for window in job.row):
            self._all_here(job)

    def _steer(self, job: Job, *, others: bool) -> None:
        """A running file: the next range when this one has connections to spare, or the last bytes by ourselves.

        `others`: whether another file is to follow.
        """
        newest = job.running[-1] if job.running else None
        near = job.ending.near(time.monotonic(), job.done, job.left, job.connections, job.widest)
        pace = job.ending.pace
        if job.waiting:
            last = newest is not None and not others and self._ours(job)
            ahead = pace * (TAIL if last else AHEAD)
            early = newest is not None and newest.completed and not self._shape.max_speed  # each range has the limit
            if newest is None or (early and (job.connections <= job.widest * NEXT_RANGE or newest.left <= ahead)):
                if last:
                    self._begin_tail(job, int(pace * TAIL))
                else:
                    if 0 < pace < SLOW and not others:
                        windows.lengthen(job.row)
                    self._begin_next(job)
            return
        if job.tail is not None:
            near = job.tail.left <= pace * HUNGRY and (near or job.left <= pace * HUNGRY)
        job.fading = job.fading or (near and others)
        if job.fading and others and job.tail is None:  # they keep the link busy, and aria2 ends this one at less cost
            near = False
        if (near or self._held_up(job)) and not self._shape.max_speed:
            self._take_over(job)

    def _ours(self, job: Job) -> bool:
        """Whether the range that waits is the last one, and on a way on which its end takes time."""
        pace = job.ending.pace
        return len(job.waiting) == 1 and not self._shape.max_speed and 0 < pace * WORTH <= job.waiting[0].left

    def _begin_tail(self, job: Job, most: int) -> None:
        """Fetch the file's last bytes ourselves: our connections have come to their speed when aria2 lets go."""
        window = windows.split(job.row, job.waiting[0], most)
        if window is not job.waiting[0] or window.left > 2 * max(most, windows.PIECE):
            self._begin_next(job)  # what is before that; or what is too much for us
            return
        self._last.begin(job, window, self.busy)

    def _take_over(self, job: Job) -> None:
        """Take a file out of aria2; what it misses we fetch ourselves."""
        for window in job.running:
            self._rpc.stop(window.gid)
        job.connections = 0
        self.jobs.remove(job)
        self.ending.append(job)
        self._last.finish(job, self.busy)

    def _held_up(self, job: Job) -> bool:
        """Whether slow connections keep the last pieces from mirrors that have nothing to do; seen once for a file."""
        if job.stuck or job.left > MOST_BY_OURSELVES:
            return False
        hosts = {urlsplit(address.url).hostname for address in job.addresses.values()}
        few = min(job.step.connections, self._shape.per_server * len(hosts)) * 0.6
        idle = not job.spare and (job.connections <= few or not job.serving.issuperset(job.addresses))
        return job.ending.held_up(time.monotonic(), job.done, job.left, idle=idle)

    def _all_here(self, job: Job) -> None:
        self.jobs.remove(job)
        self._on_complete(job)

    def _finished(self, job: Job, filled: bool) -> None:
        self.ending.remove(job)
        self._last.leave(job, alone=True)
        for window in job.running:
            with suppress(Aria2Error):
                self._rpc.forget([window.gid])
            window.gid = ""
        if filled:
            self._on_complete(job)
        else:
            self._on_stumble(job, "the last bytes cannot be had", "")

    # --- trouble ---------------------------------------------------------------------------------------------

    def _lost(self, error: Aria2Error) -> None:
        """aria2c is gone: start another one, the control files carry the progress over."""
        daemon = self._daemon
        if daemon is None or error.retry == "never":  # it could not even be started, or it refuses
            self._board.fail(error)
            return
        self._late += 1
        if self._late < LATE and daemon.alive():
            return  # asked again at the next tick
        try:
            self._daemon = self._aria2.replace(daemon)
        except Aria2Error:
            self._board.fail(Aria2Error(f"aria2c died: {error.message}", "Run the same command again to continue."))
            return
        jobs = list(self.jobs)
        self.jobs.clear()
        for job in jobs:
            self._last.leave(job, alone=False)
            for window in job.running:
                window.gid = ""
            self.add(job, self._share)

    def _broken(self, job: Job, transfer: Transfer) -> None:
        """A range ended with an error: stop the others of the file too, and let it be begun again."""
        hosts = sorted({authority(address.url) for address in job.addresses.values()})
        text = f"{' or '.join(hosts)}: {transfer.error or f'aria2 error {transfer.error_code}'}"
        self._let_go(job, text)
        if transfer.error_code == _DISK_FULL:
            hint = "Free some space and run the command again."
            self._board.fail(NoSpace(f"the disk is full at {self._layout.staging}", hint))
        elif transfer.error_code in _DISK:
            self._board.fail(DiskError(f"aria2c cannot write {job.file.path}: {text}"))
        else:
            self._on_stumble(job, text, transfer.error_code)

    def _let_go(self, job: Job, reason: str) -> None:
        """Take a file out of aria2; its control files stay."""
        self.jobs.remove(job)
        self._last.leave(job, alone=False)
        for window in job.running:
            with suppress(Aria2Error):
                self._rpc.remove(window.gid)
            window.gid = ""
        if len(job.addresses) < len(job.step.mirrors):  # let the others have a turn, rather than the same ones again
            for mirror in job.addresses:
                self._roster.out(mirror, reason)
