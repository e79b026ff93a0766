"""Driving aria2: ranges in, one poll per tick, the last bytes taken over."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpuaria.aria2.options import Shape, download_options
from gpuaria.disk.layout import Layout
from gpuaria.disk.oserrors import explained
from gpuaria.errors import Aria2Error, DiskError, GpuariaError, NoSpace
from gpuaria.formats.metalink import for_download
from gpuaria.records import Transfer
from gpuaria.transfer import windows
from gpuaria.transfer.board import Board
from gpuaria.transfer.digester import Digester
from gpuaria.transfer.endgame import Endgame
from gpuaria.transfer.flow import Flow, shares
from gpuaria.transfer.job import Hands, Job
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.serving import Serving
from gpuaria.transfer.watch import Ending
from gpuaria.transfer.windows import Window
from gpuaria.transfer.workers import Workers

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import
    from gpuaria.aria2.wire import Rpc

RESTARTS = 3  # of a private aria2c that dies
LATE = 3  # calls in a row that it may leave without an answer (of 10 s each)
KEEP = 1.0  # seconds; aria2 saves as often
TICK = 0.25  # seconds between two readings
MOST_BY_OURSELVES = 256_000_000  # bytes that are taken over from aria2
NEXT_RANGE = 0.7  # of its connections: when a range has no more than that at work, the next one begins
CRAWLS = "next to nothing comes"
AHEAD = 0.5  # seconds before its last byte that the next range begins: new connections take two round trips
TAIL = 1.2  # seconds: how much of a file's end we fetch ourselves, beginning that long before aria2 is through
HUNGRY = 0.25  # seconds of work that our connections have left when what aria2 still holds is taken from it
_DISK_FULL, _DISK = "9", {"15", "16", "17", "18"}


class Engine:
    """The downloads that are under way; all methods are for the thread that drives.

    `on_complete(job)`: every byte is here. `on_stumble(job, reason, aria2's code)`: it has to be begun again.
    `following()`: bytes of other files that nobody has begun with.
    """

    def __init__(
        self,
        *,
        start: "Callable[[], Daemon]",
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
        self._start, self._hands, self._layout, self._board = start, hands, layout, board
        self._roster = roster
        self._hashers, self._enders = hashers, Workers("endgame", 4)
        self._shape, self._user_agent, self._post = shape, user_agent, post
        self._on_complete, self._on_stumble, self._following = on_complete, on_stumble, following
        self._daemon: Daemon | None = None
        self._restarts = self._late = 0
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
            self._daemon = self._start()

    def close(self) -> None:
        """Leave aria2: our downloads are taken out, their control files stay, a daemon of our own is ended."""
        if self._daemon is None:
            return
        if self._daemon.own and not self.jobs:
            self._daemon.kill()
        if not self._daemon.own:
            with suppress(Aria2Error):
                rows = [window for job in (*self.jobs, *self.ending) for window in job.row if not window.done]
                lost = [str(window.path) for window in rows if window.asked and not window.gid]
                for gid in {*(window.gid for window in rows), *self._daemon.rpc.find(lost).values()} - {""}:
                    self._daemon.rpc.remove(gid)
        self._daemon.stop()
        self._daemon = None

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
            self._credit_last(job, done - job.done)
        self._board.holds(job.file.path, done)
        job.done = done
        job.ending, job.used, self._share = Ending(), job.used | set(job.addresses), share
        job.begun = time.monotonic()
        self.jobs.append(job)
        self._hash_on(job)
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
        self.warm_up()
        window.asked = True
        window.gid = self._rpc.add(metalink, options)

    def _shaped(self, job: Job) -> Shape:
        """Where there is another mirror to turn to, none gets long to answer. Mirrors may still join: room for all."""
        several = len(job.step.mirrors) > 1
        return replace(
            self._shape,
            split=job.step.connections,
            max_speed=self._shape.max_speed // self._share,
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
            self._late = 0
            came = [(job, job.account(transfers)) for job in self.jobs]
            self.serving.credit(self._daemon.pid if self._daemon else 0, came, speeds)
            for job in list(self.jobs):
                self._settle(job, transfers)
            self._keep()
            for job in list(self.jobs):
                if not self._shape.max_speed and job.crawls(time.monotonic(), self._shaped(job).timeout + 2):
                    self._let_go(job, CRAWLS)
                    self._on_stumble(job, CRAWLS, "")
                else:
                    self._steer(job)
        except Aria2Error as error:  # it may die between any two calls
            self._lost(error)
            return
        self.serving.try_again()

    def _keep(self) -> None:
        now = time.monotonic()
        if now - self._kept >= KEEP:
            self._kept = now
            for window in [window for job in self.jobs for window in job.running]:
                window.keep()

    def _settle(self, job: Job, transfers: dict[str, Transfer]) -> None:
        """Ranges that ended, well or not."""
        for window in job.running:
            transfer = transfers[window.gid]
            if transfer.status == "complete":
                gid, window.gid = window.gid, ""
                window.done, window.completed = True, window.end - window.start
                self._hash_on(job)
                self._rpc.forget([gid])
            elif transfer.status in ("error", "removed", "gone"):
                self._broken(job, transfer)
                return
        if job.tail is not None and not job.running:
            self._take_over(job)
        elif all(window.done for window in job.row):
            self._all_here(job)

    def _steer(self, job: Job) -> None:
        """A running file: the next range when this one has connections to spare, or the last bytes by ourselves."""
        newest = job.running[-1] if job.running else None
        near = job.ending.near(time.monotonic(), job.done, job.left, job.connections, job.widest)
        pace, others = job.ending.pace, self._following() > 0
        if job.waiting:
            last = (
                len(job.waiting) == 1 and newest is not None and not self._shape.max_speed and pace > 0 and not others
            )
            ahead = pace * (TAIL if last else AHEAD)
            if newest is None or (
                newest.completed and (job.connections <= job.widest * NEXT_RANGE or newest.left <= ahead)
            ):
                if last:
                    self._begin_tail(job, int(pace * TAIL))
                else:
                    self._begin_next(job)
            return
        if job.tail is not None:
            near = job.tail.left <= pace * HUNGRY
        job.fading = job.fading or (near and others)
        if job.fading and others and job.tail is None:  # they keep the link busy, and aria2 ends this one at less cost
            near = False
        if (near or self._held_up(job)) and not self._shape.max_speed:
            self._take_over(job)

    def _begin_tail(self, job: Job, most: int) -> None:
        """Fetch the file's last bytes ourselves: our connections have come to their speed when aria2 lets go."""
        window = windows.split(job.row, job.waiting[0], most)
        if window is not job.waiting[0]:
            self._begin_next(job)
            return
        window.ours = True
        job.tail = self._endgame(job)
        job.tail.start(window.missing())

    def _endgame(self, job: Job) -> Endgame:
        def reached(end: int) -> None:
            if job.digester is not None and not job.digester.busy:
                self._hashers.submit(partial(_hash, job.digester, end))

        each = max(1, self._shape.per_server // self.busy)
        return self._hands.endgame(job.file, self._layout.staged(job.file), dict(job.addresses), reached, each)

    def _take_over(self, job: Job) -> None:
        """Take a file out of aria2; what it misses we fetch ourselves."""
        for window in job.running:
            self._rpc.stop(window.gid)
        self.jobs.remove(job)
        self.ending.append(job)
        self._enders.submit(partial(self._finish, job))

    def _held_up(self, job: Job) -> bool:
        """Whether slow connections keep the last pieces from mirrors that have nothing to do; seen once for a file."""
        if job.stuck or job.left > MOST_BY_OURSELVES:
            return False
        hosts = {urlsplit(address.url).hostname for address in job.addresses.values()}
        few = min(job.step.connections, self._shape.per_server * len(hosts)) * 0.6
        idle = not job.spare and (job.connections <= few or not job.serving.issuperset(job.addresses))
        return job.ending.held_up(time.monotonic(), job.done, job.left, idle=idle)

    def _hash_on(self, job: Job) -> None:
        if job.digester is not None and (end := windows.prefix(job.row)):
            self._hashers.submit(partial(_hash, job.digester, end))

    def _all_here(self, job: Job) -> None:
        self.jobs.remove(job)
        self._on_complete(job)

    # --- the last bytes --------------------------------------------------------------------------------------

    def _finish(self, job: Job) -> None:
        """On a worker thread: aria2 has let go; fetch what its control files say is missing."""
        filled = False
        try:
            _wait_until_saved(job)
            base = self._layout.staged(job.file)
            for window in job.running:
                window.done = window.path != base and window.ended()  # aria2 was quicker than we
            missing = windows.gaps(job.row)
            came = job.left - sum(end - start for start, end in missing)
            self._credit_last(job, came)
            tail = job.tail or self._endgame(job)
            tail.counted(lambda ours: self._board.holds(job.file.path, job.done + came + ours))
            filled = tail.finish(missing)
            for window in job.row if filled else ():
                window.complete(base)
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            self._board.fail(GpuariaError(f"{type(error).__name__} at the end of {job.file.path}: {error}"))
        self._post(lambda: self._finished(job, filled))

    def _credit_last(self, job: Job, came: int) -> None:
        """What aria2 wrote between the last reading and its end; nobody knows any more from whom, so as before."""
        given: dict[str, float] = {**self._board.origins(job.file.path).given}
        for mirror, part in shares(max(0, came), given or dict.fromkeys(job.addresses, 1.0)).items():
            self._board.arrived(job.file.path, mirror, part)

    def _finished(self, job: Job, filled: bool) -> None:
        self.ending.remove(job)
        job.drop_tail()
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
        if daemon is None:  # it could not even be started
            self._board.fail(error)
            return
        self._late += 1
        if self._late < LATE and daemon.alive():
            return  # asked again at the next tick
        if daemon.own:
            daemon.kill()
        self._restarts += 1
        if self._restarts > RESTARTS or not daemon.own:
            self._board.fail(Aria2Error(f"aria2c died: {error.message}", "Run the same command again to continue."))
            return
        daemon.stop()
        self._daemon = None
        jobs = list(self.jobs)
        self.jobs.clear()
        for job in jobs:
            job.drop_tail()
            for window in job.running:
                window.gid = ""
            self.add(job, self._share)

    def _broken(self, job: Job, transfer: Transfer) -> None:
        """A range ended with an error: stop the others of the file too, and let it be begun again."""
        text = transfer.error or f"aria2 error {transfer.error_code}"
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
        job.drop_tail()
        for window in job.running:
            with suppress(Aria2Error):
                self._rpc.remove(window.gid)
            window.gid = ""
        if len(job.addresses) < len(job.step.mirrors):  # let the others have a turn, rather than the same ones again
            for mirror in job.addresses:
                self._roster.out(mirror, reason)


def _hash(digester: Digester, end: int) -> None:
    """On a hashing thread. A file that cannot be read is found out when it is checked."""
    with suppress(OSError):
        digester.reach(end)


def _wait_until_saved(job: Job) -> None:
    """aria2 writes the control files when it lets a download go, within 0.1 s; until then older ones are there."""
    deadline = time.monotonic() + 1.0
    for window in job.running:
        while time.monotonic() < deadline:
            left = sum(end - start for start, end in window.missing())
            if left <= window.end - window.start - window.completed or not window.control_path.exists():
                break
            time.sleep(0.01)
