"""Large files through aria2: looked up just before they start, a few at a time, one poll per tick."""

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from gpuaria.transfer.landing import Landing
from gpuaria.transfer.workers import Workers

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import

RENEW_BEFORE = 60.0  # seconds before its end at which a signed address is looked up anew
RESTARTS = 3  # of a private aria2c that dies
Lookup = Callable[[str, RemoteFile], Address | None]
_DISK_FULL, _DISK = "9", {"15", "16", "17", "18"}


@dataclass
class _Job:
    step: Step
    addresses: dict[str, Address] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    awaited: int = 0
    gid: str = ""
    base: int = 0
    done: int = 0
    counted: int = 0
    speed: float = 0.0
    connections: int = 0
    afresh: int = 0
    pause: float = 1.0
    not_before: float = 0.0
    moved: float = 0.0
    stuck: int = 0
    used: set[str] = field(default_factory=set)
    cause: GpuariaError | None = None

    @property
    def file(self) -> RemoteFile:
        return self.step.file


class LargeFiles:
    """Drives one aria2c from the thread that calls `tick`. `by_http` takes a file that only a credential opens."""

    def __init__(
        self,
        *,
        steps: Sequence[Step],
        daemon: "Callable[[], Daemon]",
        lookup: Lookup,
        by_http: Callable[[Step], None],
        layout: Layout,
        landing: Landing,
        board: Board,
        lookups: Workers,
        hashers: Workers,
        shape: Shape,
        user_agent: str,
        jobs: int,
        patience: float,
        origin: str,
    ) -> None:
        self._start_daemon = daemon
        self._daemon: Daemon | None = None
        self._lookup, self._by_http = lookup, by_http
        self._layout, self._landing, self._board = layout, landing, board
        self._lookups, self._hashers = lookups, hashers
        self._shape, self._user_agent = shape, user_agent
        self._jobs, self._patience, self._origin = jobs, patience, origin
        self._waiting = deque(_Job(step) for step in steps)
        self._looking: list[_Job] = []
        self._active: dict[str, _Job] = {}
        self._checking: list[_Job] = []
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._restarts = 0
        self.hosts: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._waiting or self._looking or self._active or self._checking) or not self._inbox.empty()

    def add(self, step: Step) -> None:
        """Take one more file, from any thread."""
        self._post(lambda: self._waiting.append(_Job(step)))

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
            for job in self._active.values()
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

    def pause(self) -> float:
        """Seconds until the next tick is due: as long as the file that ends first will take, within reason."""
        ends = [(job.file.size - job.done) / job.speed for job in self._active.values() if job.speed > 0]
        return min(0.25, max(0.02, min(ends))) if ends else 0.05

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
            if len(self._active) + len(self._looking) > self._jobs:
                return
            job = self._waiting.popleft()
            if job.not_before > now:
                self._waiting.append(job)
                continue
            self._looking.append(job)
            job.addresses, job.reasons = {}, {}
            job.awaited = len(job.step.mirrors)
            job.moved = job.moved or now
            for mirror in job.step.mirrors:
                self._lookups.submit(partial(self._look_up, job, mirror))

    def _look_up(self, job: _Job, mirror: str) -> None:
        """On a worker thread: one look-up, its outcome handed over to the driving thread."""
        found: Address | GpuariaError | None
        try:
            found = self._lookup(mirror, job.file)
        except GpuariaError as error:
            found = error
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            found = GpuariaError(f"{type(error).__name__} while looking {job.file.path} up: {error}")
        self._post(lambda: self._looked_up(job, mirror, found))

    def _looked_up(self, job: _Job, mirror: str, found: Address | GpuariaError | None) -> None:
        job.awaited -= 1
        if isinstance(found, Address):
            job.addresses[mirror] = found
        elif isinstance(found, GpuariaError):
            job.reasons[mirror] = found.message
            job.cause = found
            if len(job.step.mirrors) > 1:
                self._board.rejected(mirror, found.message)
        if job.awaited:
            return
        self._looking.remove(job)
        if job.addresses:
            self._add(job)
        elif len(job.reasons) < len(job.step.mirrors):
            self._by_http(job.step)
        elif isinstance(job.cause, AccessDenied):
            self._landing.failed(job.file, Verdict(job.file.path, "failed", job.cause.message), job.cause)
            self._board.fail(job.cause)
        elif isinstance(job.cause, NotFound) and len(job.step.mirrors) == 1:
            self._landing.failed(job.file, Verdict(job.file.path, "failed", job.cause.message), job.cause)
        else:
            self._later(job, "; ".join(job.reasons.values()))

    # --- aria2 -----------------------------------------------------------------------------------------------

    def _add(self, job: _Job) -> None:
        """Hand the addresses over. Bytes without a control file are worth nothing: a sparse file looks complete."""
        staged = self._layout.staged(job.file)
        known = control.read(_control_path(staged))
        if known is None or known.total != job.file.size:
            self._layout.discard(job.file)
            known = None
        job.base = job.done = job.counted = known.completed if known else 0
        shape = self._shaped(job)
        metalink = for_download(staged.name, job.file.size, [a.url for a in job.addresses.values()])
        options = download_options(staged.parent, shape, self._user_agent)
        job.gid = self._aria2().rpc.add(metalink, options)
        job.used |= set(job.addresses)
        self._active[job.gid] = job

    def _shaped(self, job: _Job) -> Shape:
        share = max(1, min(self._jobs, len(self._active) + len(self._waiting) + 1))
        return replace(
            self._shape,
            split=min(job.step.connections, self._shape.per_server * max(1, len(job.addresses))),
            max_speed=self._shape.max_speed // share,
        )

    def _aria2(self) -> "Daemon":
        if self._daemon is None:
            self._daemon = self._start_daemon()
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
            self._account(job, transfer, speeds[gid])
            if transfer.status == "complete":
                self._complete(job)
            elif transfer.status in ("error", "removed", "gone"):
                self._broken(job, transfer)
            else:
                self._renew(job)

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

    def _account(self, job: _Job, transfer: Transfer, speeds: dict[str, list[int]]) -> None:
        """Share the bytes that came since the last reading out over the mirrors, by their measured speeds."""
        now, done = time.monotonic(), max(transfer.completed, job.base)
        came = done - job.counted
        job.speed, job.connections = float(transfer.speed), transfer.connections
        by_mirror = {
            mirror: sum(speeds.get(address.url, ())) + len(speeds.get(address.url, ()))
            for mirror, address in job.addresses.items()
        }
        self.hosts |= {mirror for mirror, speed in by_mirror.items() if speed}
        if came <= 0:
            return
        job.done = job.counted = done
        job.moved, job.pause, job.stuck = now, 1.0, 0
        total = sum(by_mirror.values()) or len(by_mirror)
        left = came
        for mirror, speed in sorted(by_mirror.items()):
            part = min(left, round(came * ((speed or 0) if sum(by_mirror.values()) else 1) / total))
            self._board.arrived(mirror, part)
            left -= part
        if left:
            self._board.arrived(max(by_mirror, key=lambda mirror: by_mirror[mirror]), left)

    def _complete(self, job: _Job) -> None:
        del self._active[job.gid]
        self._aria2().rpc.forget([job.gid])
        self._checking.append(job)
        self._hashers.submit(lambda: self._check(job))

    def _check(self, job: _Job) -> None:
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

    def _checked(self, job: _Job, verdict: Verdict | None, failure: GpuariaError | None) -> None:
        self._checking.remove(job)
        if failure or verdict is None:
            self._board.fail(failure or GpuariaError(f"no verdict on {job.file.path}"))
        elif verdict.outcome in ("ok", "unverifiable"):
            for mirror in job.used:
                self._board.served(mirror)
        else:
            self._wrong(job, verdict)

    def _wrong(self, job: _Job, verdict: Verdict) -> None:
        """Wrong bytes are fetched once more: from the origin alone if a mirror had a part in them, or afresh."""
        self._layout.discard(job.file)
        if verdict.outcome == "missing":
            self._board.fail(
                Aria2Error(
                    f"aria2c says that {job.file.path} is complete, but it is not in {self._layout.staging}",
                    "An attached aria2c must run on this machine and as a user who may write there.",
                )
            )
            return
        blamed = sorted(job.used)
        for mirror in blamed:
            self._board.rejected(mirror, f"wrong bytes for {job.file.path}, from it or from one beside it")
        job.afresh += 1
        if job.afresh > 1:
            self._landing.failed(job.file, Verdict(job.file.path, verdict.outcome, verdict.detail))
            return
        job.base = job.done = job.counted = 0
        job.used = set()
        origin = tuple(name for name in job.step.mirrors if name == self._origin)
        job.step = replace(job.step, mirrors=origin or job.step.mirrors)
        self._waiting.appendleft(job)

    def _broken(self, job: _Job, transfer: Transfer) -> None:
        """A download ended with an error: look its addresses up again and go on from the control file."""
        del self._active[job.gid]
        self._aria2().rpc.forget([job.gid])
        if transfer.error_code == _DISK_FULL:
            self._board.fail(
                NoSpace(f"the disk is full at {self._layout.staging}", "Free some space and run the command again.")
            )
            return
        if transfer.error_code in _DISK:
            self._board.fail(DiskError(f"aria2c cannot write {job.file.path}: {transfer.error}"))
            return
        job.stuck += 1
        if transfer.error_code == "1" and job.stuck >= 2:  # an unusable control file says so for ever
            self._layout.discard(job.file)
        job.cause = NetworkError(transfer.error or f"aria2 error {transfer.error_code}")
        if job.stuck == 1 and job.moved > time.monotonic() - 5:
            self._waiting.appendleft(job)
        else:
            self._later(job, transfer.error or f"aria2 error {transfer.error_code}")

    def _later(self, job: _Job, reason: str) -> None:
        """Wait with growing pauses, until nothing has moved for as long as the patience lasts."""
        now = time.monotonic()
        if now + job.pause > job.moved + self._patience:
            error = NoUsableMirror(f"{job.file.path}: {reason}", "Run the same command again to continue.")
            self._landing.failed(job.file, Verdict(job.file.path, "failed", error.message), error)
            return
        job.not_before = now + job.pause
        job.pause = min(60.0, job.pause * 2)
        self._waiting.append(job)

    def _renew(self, job: _Job) -> None:
        """Exchange signed addresses that are about to end for fresh ones, while the download goes on."""
        now = time.time()
        for mirror, address in list(job.addresses.items()):
            if address.expires is not None and address.expires - now < RENEW_BEFORE:
                job.addresses[mirror] = Address(mirror, address.url, None)  # asked for once
                self._lookups.submit(partial(self._look_up_again, job, mirror))

    def _look_up_again(self, job: _Job, mirror: str) -> None:
        try:
            found = self._lookup(mirror, job.file)
        except GpuariaError:
            return  # the old one may still do; if not, the download ends and is begun again
        if found is not None:
            self._post(lambda: self._exchange(job, mirror, found))

    def _exchange(self, job: _Job, mirror: str, fresh: Address) -> None:
        old = job.addresses.get(mirror)
        if job.gid in self._active and old is not None and self._daemon is not None:
            self._daemon.rpc.change_uris(job.gid, [old.url], [fresh.url])
            job.addresses[mirror] = fresh


def _control_path(staged: Path) -> Path:
    return staged.with_name(staged.name + ".aria2")
