"""Large files through aria2: looked up just before they start, a few at a time, one poll per tick."""

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpuaria.aria2 import control
from gpuaria.aria2.options import Shape, download_options
from gpuaria.disk.layout import Layout
from gpuaria.errors import (
    AccessDenied,
    Aria2Error,
    DiskError,
    GpuariaError,
    NetworkError,
    NoSpace,
    NotFound,
    NoUsableMirror,
)
from gpuaria.events import ActiveFile
from gpuaria.formats.metalink import for_download
from gpuaria.records import Address, RemoteFile, Step, Transfer, Verdict
from gpuaria.transfer.board import Board
from gpuaria.transfer.job import Job
from gpuaria.transfer.landing import Landing
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.workers import Workers

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import

RENEW_BEFORE = 60.0  # seconds before its end at which a signed address is looked up anew
RESTARTS = 3  # of a private aria2c that dies
TICK = 0.25  # seconds between two readings of aria2
_DISK_FULL, _DISK = "9", {"15", "16", "17", "18"}


@dataclass(frozen=True, slots=True)
class Hands:
    """What a large file needs done by others, from worker threads.

    `lookup`: the address of a file at a mirror. `by_http`: take over a file that only a credential opens. `finish`:
    fill (path, size, gaps, addresses) and say whether it worked. `test`: why an address cannot be used now, and the
    seconds it asks to wait.
    """

    lookup: Callable[[str, RemoteFile], Address | None]
    by_http: Callable[[Step], None]
    finish: Callable[[Path, int, Sequence[tuple[int, int]], dict[str, Address]], bool]
    test: Callable[[Address], tuple[str, float | None]]
    daemon: "Callable[[], Daemon]"


class LargeFiles:
    """Drives one aria2c from the thread that calls `tick`."""

    def __init__(
        self,
        *,
        steps: Sequence[Step],
        hands: Hands,
        layout: Layout,
        landing: Landing,
        board: Board,
        hashers: Workers,
        shape: Shape,
        user_agent: str,
        jobs: int,
        patience: float,
        origin: str,
    ) -> None:
        self._hands, self._layout, self._landing, self._board = hands, layout, landing, board
        self._lookups, self._hashers, self._enders = Workers("look-up", 8), hashers, Workers("endgame", 4)
        self._shape, self._user_agent = shape, user_agent
        self._jobs, self._patience, self._origin = jobs, patience, origin
        self._daemon: Daemon | None = None
        self._waiting = deque(Job(step) for step in steps)
        self._looking: list[Job] = []
        self._active: dict[str, Job] = {}
        self._ending: list[Job] = []
        self._checking: list[Job] = []
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._roster = Roster(board)
        self._restarts = 0
        self.hosts: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        lists = (self._waiting, self._looking, self._active, self._ending, self._checking)
        return any(lists) or not self._inbox.empty()

    def add(self, step: Step) -> None:
        """Take one more file, from any thread."""
        self._post(lambda: self._waiting.append(Job(step)))

    @property
    def checking(self) -> int:
        """Files whose bytes are all here and are being hashed."""
        return len(self._checking)

    @property
    def checking_bytes(self) -> int:
        """Bytes of those files."""
        return sum(job.file.size for job in self._checking)

    def active(self) -> tuple[ActiveFile, ...]:
        """The files in flight, in the order in which they began."""
        return tuple(
            ActiveFile(job.file.path, job.done, job.file.size, job.speed, job.connections)
            for job in (*self._active.values(), *self._ending)
        )

    def tick(self) -> None:
        """Take in what other threads finished, start what may start, read aria2 once and act on it."""
        while True:
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                break
        self._start_lookups()
        if self._looking:
            self._aria2()  # it starts while the addresses are looked up
        if self._active:
            self._read()
            self._try_again()

    def pause(self) -> float:
        """Seconds until the next tick is due: short where a file is about to end."""
        if any(job.ending.in_sight(job.done, job.file.size) for job in self._active.values()):
            return 0.08
        return TICK if self._active else 0.05

    def close(self) -> None:
        """Leave aria2: our downloads are taken out, their control files stay, a daemon of our own is ended."""
        if self._daemon is None:
            return
        if self._daemon.own and not self._active:
            self._daemon.kill()
        if not self._daemon.own:
            for gid in self._active:
                try:
                    self._daemon.rpc.remove(gid)
                except Aria2Error:
                    break
        self._daemon.stop()
        self._daemon = None

    def _post(self, message: Callable[[], None]) -> None:
        """Hand something over to the thread that calls `tick`."""
        self._inbox.put(message)
        self._board.wake.set()

    # --- addresses -------------------------------------------------------------------------------------------

    def _start_lookups(self) -> None:
        """Keep `jobs` files running and one more looked up, so that a free place is filled at once."""
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            if len(self._active) + len(self._ending) + len(self._looking) > self._jobs:
                return
            job = self._waiting.popleft()
            if job.not_before > now:
                self._waiting.append(job)
                continue
            self._looking.append(job)
            mirrors = self._roster.usable(job.step.mirrors)
            job.addresses, job.reasons, job.awaited = {}, {}, len(mirrors)
            job.moved = job.moved or now
            for mirror in mirrors:
                self._lookups.submit(partial(self._look_up, job, mirror))

    def _look_up(self, job: Job, mirror: str) -> None:
        """On a worker thread: one look-up, its outcome handed over to the driving thread."""
        found: Address | GpuariaError | None
        try:
            found = self._hands.lookup(mirror, job.file)
        except GpuariaError as error:
            found = error
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            found = GpuariaError(f"{type(error).__name__} while looking {job.file.path} up: {error}")
        self._post(lambda: self._looked_up(job, mirror, found))

    def _looked_up(self, job: Job, mirror: str, found: Address | GpuariaError | None) -> None:
        job.awaited -= 1
        if isinstance(found, Address):
            job.addresses[mirror] = found
        elif isinstance(found, GpuariaError):
            job.reasons[mirror] = found.message
            job.cause = found
            if len(job.step.mirrors) > 1:
                self._roster.out(mirror, found.message)
        if not job.awaited:
            self._looking.remove(job)
            self._with_addresses(job)

    def _with_addresses(self, job: Job) -> None:
        """Every mirror has answered: start, or decide what the answers mean."""
        only = len(job.step.mirrors) == 1
        if job.addresses:
            self._add(job)
        elif not job.reasons:
            self._hands.by_http(job.step)
        elif isinstance(job.cause, AccessDenied) or (isinstance(job.cause, NotFound) and only):
            self._landing.failed(job.file, Verdict(job.file.path, "failed", job.cause.message), job.cause)
            if isinstance(job.cause, AccessDenied):
                self._board.fail(job.cause)
        else:
            self._later(job, "; ".join(job.reasons.values()))

    def _renew(self, job: Job) -> None:
        """Exchange signed addresses that are about to end for fresh ones, while the download goes on."""
        now = time.time()
        for mirror, address in list(job.addresses.items()):
            if address.expires is not None and address.expires - now < RENEW_BEFORE:
                job.addresses[mirror] = replace(address, expires=None)  # asked for once
                self._lookups.submit(partial(self._look_up_again, job, mirror))

    def _look_up_again(self, job: Job, mirror: str) -> None:
        """On a worker thread."""
        try:
            fresh = self._hands.lookup(mirror, job.file)
        except GpuariaError:
            return  # the old one may still do; if not, the download ends and is begun again
        if fresh is not None:
            self._post(lambda: self._exchange(job, mirror, fresh))

    def _exchange(self, job: Job, mirror: str, fresh: Address) -> None:
        """Use a fresh address instead of the one that the mirror had, or beside the others if it had none."""
        if job.gid in self._active:
            old = job.addresses.get(mirror)
            self._aria2().rpc.change_uris(job.gid, [old.url] if old else [], [fresh.url])
            job.addresses[mirror] = fresh
            job.used.add(mirror)

    # --- mirrors that fail in mid-file -----------------------------------------------------------------------

    def _drop(self, job: Job, mirror: str, reason: str) -> None:
        """Take a mirror out of a running download; its connections end and their pieces go to the others."""
        address = job.addresses.pop(mirror)
        self._aria2().rpc.change_uris(job.gid, [address.url] * 2 * self._shape.per_server, [])
        job.watch.forget(mirror)
        self._roster.out(mirror, reason)
        self._lookups.submit(partial(self._ask_why, mirror, address, reason))

    def _ask_why(self, mirror: str, address: Address, reason: str) -> None:
        """On a worker thread: aria2 does not tell which status a mirror answered, so ask it once."""
        found, wait = self._hands.test(address)
        if found:
            self._roster.out(mirror, f"{reason}: {found}", wait)

    def _try_again(self) -> None:
        """Mirrors whose pause is over get a test, and their place back if they pass."""
        for mirror in self._roster.due():
            for job in self._active.values():
                if mirror in job.step.mirrors and mirror not in job.addresses:
                    self._lookups.submit(partial(self._test, job, mirror))
                    break

    def _test(self, job: Job, mirror: str) -> None:
        """On a worker thread."""
        try:
            address = self._hands.lookup(mirror, job.file)
            found, wait = self._hands.test(address) if address else ("it needs a credential", None)
        except GpuariaError as error:
            address, found, wait = None, error.message, None
        if found or address is None:
            self._roster.out(mirror, found, wait)
            return
        self._roster.back(mirror)
        self._post(lambda: self._exchange(job, mirror, address))

    # --- aria2 -----------------------------------------------------------------------------------------------

    def _add(self, job: Job) -> None:
        """Hand the addresses over. Bytes without a control file are worth nothing: a sparse file looks complete."""
        staged = self._layout.staged(job.file)
        known = control.read(_control_path(staged))
        if known is None or known.total != job.file.size:
            self._layout.discard(job.file)
            known = None
        metalink = for_download(staged.name, job.file.size, [a.url for a in job.addresses.values()])
        options = download_options(staged.parent, self._shaped(job), self._user_agent)
        job.begin(self._aria2().rpc.add(metalink, options), known)
        self._active[job.gid] = job

    def _shaped(self, job: Job) -> Shape:
        """Where there is another mirror to turn to, none gets long to answer."""
        share = max(1, min(self._jobs, len(self._active) + len(self._waiting) + 1))
        several = len(job.addresses) > 1
        return replace(
            self._shape,
            split=min(job.step.connections, self._shape.per_server * len(job.addresses)),
            max_speed=self._shape.max_speed // share,
            connect_timeout=min(self._shape.connect_timeout, 4.0 if several else 600.0),
            timeout=min(self._shape.timeout, 8.0 if several else 600.0),
        )

    def _aria2(self) -> "Daemon":
        if self._daemon is None:
            self._daemon = self._hands.daemon()
        return self._daemon

    def _read(self) -> None:
        try:
            transfers, speeds = self._aria2().rpc.poll(list(self._active))
        except Aria2Error as error:
            self._lost(error)
            return
        self.hosts = set()
        for gid, transfer in transfers.items():
            job = self._active[gid]
            by_mirror = job.account(transfer, speeds[gid], self._board)
            self.hosts |= {mirror for mirror, rates in by_mirror.items() if rates}
            if transfer.status == "complete":
                self._complete(job)
            elif transfer.status in ("error", "removed", "gone"):
                self._broken(job, transfer)
            elif transfer.status == "active":
                self._steer(job, by_mirror)

    def _steer(self, job: Job, by_mirror: dict[str, list[int]]) -> None:
        """A running download: renew its addresses, drop mirrors that fail, take the last bytes over."""
        now = time.monotonic()
        self._renew(job)
        for mirror, reason in job.watch.judge(now, by_mirror).items():
            self._drop(job, mirror, reason)
        if job.ending.near(now, job.done, job.file.size, job.connections) and not self._shape.max_speed:
            del self._active[job.gid]
            self._aria2().rpc.stop(job.gid)
            self._ending.append(job)
            self._enders.submit(partial(self._finish, job))

    def _finish(self, job: Job) -> None:
        """On a worker thread: aria2 has let go; fetch what its control file says is missing."""
        staged = self._layout.staged(job.file)
        known = _saved(_control_path(staged), job.done)
        filled = False
        try:
            if known is not None and known.total == job.file.size:
                filled = self._hands.finish(staged, known.total, known.missing, dict(job.addresses))
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            self._board.fail(GpuariaError(f"{type(error).__name__} at the end of {job.file.path}: {error}"))
        self._post(lambda: self._finished(job, filled))

    def _finished(self, job: Job, filled: bool) -> None:
        self._ending.remove(job)
        self._aria2().rpc.forget([job.gid])
        if filled:
            self._to_check(job)
        else:
            self._waiting.appendleft(job)

    def _lost(self, error: Aria2Error) -> None:
        """aria2c is gone: start another one, the control files carry the progress over."""
        daemon = self._aria2()
        if daemon.alive() and daemon.own:
            return  # late; asked again at the next tick
        self._restarts += 1
        if self._restarts > RESTARTS or not daemon.own:
            self._board.fail(Aria2Error(f"aria2c died: {error.message}", "Run the same command again to continue."))
            return
        daemon.stop()
        self._daemon = None
        jobs, self._active = list(self._active.values()), {}
        for job in jobs:
            self._add(job)

    def _complete(self, job: Job) -> None:
        del self._active[job.gid]
        self._aria2().rpc.forget([job.gid])
        self._to_check(job)

    def _broken(self, job: Job, transfer: Transfer) -> None:
        """A download ended with an error: look its addresses up again and go on from the control file."""
        del self._active[job.gid]
        self._aria2().rpc.forget([job.gid])
        text = transfer.error or f"aria2 error {transfer.error_code}"
        if transfer.error_code == _DISK_FULL:
            hint = "Free some space and run the command again."
            self._board.fail(NoSpace(f"the disk is full at {self._layout.staging}", hint))
        elif transfer.error_code in _DISK:
            self._board.fail(DiskError(f"aria2c cannot write {job.file.path}: {text}"))
        else:
            self._stumbled(job, text, transfer.error_code)

    def _stumbled(self, job: Job, text: str, code: str) -> None:
        job.stuck += 1
        if code == "1" and job.stuck >= 2:  # an unusable control file says so for ever
            self._layout.discard(job.file)
        job.cause = NetworkError(text)
        if job.stuck == 1 and job.moved > time.monotonic() - 5:
            self._waiting.appendleft(job)
        else:
            self._later(job, text)

    def _later(self, job: Job, reason: str) -> None:
        """Wait with growing pauses, until nothing has moved for as long as the patience lasts."""
        now = time.monotonic()
        if now + job.pause > job.moved + self._patience:
            error = NoUsableMirror(f"{job.file.path}: {reason}", "Run the same command again to continue.")
            self._landing.failed(job.file, Verdict(job.file.path, "failed", error.message), error)
            return
        job.not_before = now + job.pause
        job.pause = min(60.0, job.pause * 2)
        self._waiting.append(job)

    # --- proof -----------------------------------------------------------------------------------------------

    def _to_check(self, job: Job) -> None:
        self._checking.append(job)
        self._hashers.submit(partial(self._check, job))

    def _check(self, job: Job) -> None:
        """On a hashing thread: prove the bytes and publish them."""
        verdict: Verdict | None = None
        failure: GpuariaError | None = None
        try:
            verdict = self._landing.staged(job.file, self._layout.staged(job.file))
        except GpuariaError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            failure = GpuariaError(f"{type(error).__name__} on {job.file.path}: {error}", "Please report this.")
        self._post(lambda: self._checked(job, verdict, failure))

    def _checked(self, job: Job, verdict: Verdict | None, failure: GpuariaError | None) -> None:
        self._checking.remove(job)
        if failure or verdict is None:
            self._board.fail(failure or GpuariaError(f"no verdict on {job.file.path}"))
        elif verdict.outcome in ("ok", "unverifiable"):
            for mirror in job.used:
                self._board.served(mirror)
        elif verdict.outcome == "missing":
            self._board.fail(
                Aria2Error(
                    f"aria2c says that {job.file.path} is complete, but it is not in {self._layout.staging}",
                    "An attached aria2c must run on this machine and as a user who may write there.",
                )
            )
        else:
            self._wrong(job, verdict)

    def _wrong(self, job: Job, verdict: Verdict) -> None:
        """Wrong bytes are fetched once more: from the origin alone if it is among the mirrors, or afresh."""
        self._layout.discard(job.file)
        for mirror in sorted(job.used):
            self._board.rejected(mirror, f"wrong bytes for {job.file.path}, from it or from one beside it")
        job.afresh += 1
        if job.afresh > 1:
            self._landing.failed(job.file, Verdict(job.file.path, verdict.outcome, verdict.detail))
            return
        job.start_over()
        origin = tuple(name for name in job.step.mirrors if name == self._origin)
        job.step = replace(job.step, mirrors=origin or job.step.mirrors)
        self._waiting.appendleft(job)


def _control_path(staged: Path) -> Path:
    return staged.with_name(staged.name + ".aria2")


def _saved(path: Path, done: int) -> control.Control | None:
    """The control file that aria2 writes when it lets a download go, within 0.1 s; until then an older one is there."""
    deadline = time.monotonic() + 1.0
    while True:
        known = control.read(path)
        if (known is not None and known.completed >= done) or time.monotonic() > deadline:
            return known
        time.sleep(0.01)
