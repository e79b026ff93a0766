"""Large files: a few at a time, looked up just before they start, proven when they are here."""

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gpuaria.aria2.options import Shape
from gpuaria.aria2.shared import SharedAria2
from gpuaria.errors import AccessDenied, Aria2Error, GpuariaError, NetworkError, NotAHub, NotFound, NoUsableMirror
from gpuaria.events import ActiveFile, Waiting
from gpuaria.os_errors import explained
from gpuaria.records import Address, Step, Verdict
from gpuaria.storage.layout import Layout
from gpuaria.transfer.board import Board
from gpuaria.transfer.engine import Engine
from gpuaria.transfer.flow import Endpoint, Flow
from gpuaria.transfer.job import Hands, Job
from gpuaria.transfer.landing import Landing
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.small import PORTAL, prefix_of
from gpuaria.transfer.unfit import DOUBTFUL, PACKED, keep_prefix
from gpuaria.transfer.workers import Workers

UNFIT_FOR = 600.0  # seconds for which a mirror that aria2 cannot use is left out while there are others
RENEW_BEFORE = 60.0  # seconds before its end at which a signed address is looked up anew


class LargeFiles:
    """Everything but `add` is for the thread that calls `tick`."""

    def __init__(
        self,
        *,
        steps: Sequence[Step],
        aria2: SharedAria2,
        hands: Hands,
        layout: Layout,
        landing: Landing,
        board: Board,
        roster: Roster,
        hashers: Workers,
        shape: Shape,
        user_agent: str,
        jobs: int,
        patience: float,
        origin: str,
    ) -> None:
        self._hands, self._layout, self._landing, self._board = hands, layout, landing, board
        self._lookups, self._hashers = Workers("look-up", 8), hashers
        self._jobs, self._patience, self._origin = jobs, patience, origin
        self._waiting = deque(Job(step) for step in steps)
        self._looking: list[Job] = []
        self._checking: list[Job] = []
        self._asking: list[Job] = []
        self._unfit: set[str] = set()  # mirrors that have bytes which aria2 cannot take
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._roster, self._flow = roster, Flow()
        self._engine = Engine(
            aria2=aria2,
            hands=hands,
            layout=layout,
            board=board,
            roster=self._roster,
            flow=self._flow,
            hashers=hashers,
            shape=shape,
            user_agent=user_agent,
            post=self._post,
            on_complete=self._to_check,
            on_stumble=self._stumbled,
            following=lambda: sum(job.file.size for job in (*self._waiting, *self._looking)),
        )

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        lists = (self._waiting, self._looking, self._checking, self._asking)
        return any(lists) or self._engine.busy > 0 or not self._inbox.empty()

    @property
    def checking(self) -> Sequence[Job]:
        """Files whose bytes are all here and are being proven."""
        return self._checking

    @property
    def resting(self) -> int:
        """Bytes that are here of files that wait for another try."""
        return sum(job.done for job in (*self._waiting, *self._looking, *self._asking))

    @property
    def hosts(self) -> int:
        """Mirrors with a connection."""
        return len(self._engine.serving.hosts)

    def add(self, step: Step) -> None:
        """Take one more file, from any thread."""
        self._post(lambda: self._waiting.append(Job(step)))

    def active(self) -> tuple[ActiveFile, ...]:
        """The files in flight, in the order in which they began."""
        return tuple(
            ActiveFile(job.file.path, job.here, job.file.size, job.speed, job.busy)
            for job in (*self._engine.jobs, *self._engine.ending)
        )

    def tick(self) -> None:
        """Take in what other threads finished, start what may start, let aria2 be read."""
        while True:
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                break
        self._start_lookups()
        if self._looking:
            self._engine.warm_up()  # it starts while the addresses are looked up
        self._engine.tick()
        for job in self._engine.jobs:
            self._renew(job)

    def pause(self) -> float:
        """Seconds until the next tick is due."""
        return self._engine.pause()

    def close(self) -> None:
        """Leave aria2; control files stay."""
        self._engine.close()

    def _post(self, message: Callable[[], None]) -> None:
        """Hand something over to the thread that calls `tick`."""
        self._inbox.put(message)
        self._board.wake.set()

    # --- addresses -------------------------------------------------------------------------------------------

    def _start_lookups(self) -> None:
        """Keep `jobs` files at work; one that has only its last connections left does not count."""
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            room = self._jobs - len(self._looking)
            if self._engine.taken >= room or self._engine.busy >= 2 * room:
                return
            job = self._waiting.popleft()
            if job.not_before > now:
                self._waiting.append(job)
                continue
            mirrors = self._roster.usable(job.step.mirrors)
            if self._unfit.issuperset(mirrors):
                self._hands.by_http(job.step)
                continue
            self._looking.append(job)
            job.addresses, job.reasons, job.awaited, job.sealed = {}, {}, len(mirrors), False
            job.attempt, job.moved = job.attempt + 1, job.moved or now
            for mirror in mirrors:
                self._lookups.submit(partial(self._look_up, job, mirror, job.attempt))

    def _look_up(self, job: Job, mirror: str, attempt: int) -> None:
        """On a worker thread: one look-up, its outcome handed over to the driving thread."""
        found: Address | GpuariaError | None
        places: list[Endpoint] = []
        try:
            found = self._hands.lookup(mirror, job.file)
            places = self._hands.places(found) if found else []
        except GpuariaError as error:
            found = error
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            found = GpuariaError(f"{type(error).__name__} while looking {job.file.path} up: {error}")
        self._post(lambda: self._looked_up(job, mirror, found, places) if job.attempt == attempt else None)

    def _looked_up(self, job: Job, mirror: str, found: Address | GpuariaError | None, places: list[Endpoint]) -> None:
        job.awaited -= 1
        self._flow.learn(mirror, places)
        if isinstance(found, Address):
            if job in self._looking:  # start with the first that answers; a far one must not hold the near ones up
                job.take(found)
                self._looking.remove(job)
                self._start(job)
            else:
                self._engine.serving.exchange(job, mirror, found)
            return
        if found is None:
            job.sealed = True
        if isinstance(found, GpuariaError):
            job.reasons[mirror] = found.message
            job.cause = found
            self._board.trouble(job.file.path, found.message)
            if len(job.step.mirrors) > 1:
                self._roster.out(mirror, found.message)
        if not job.awaited and job in self._looking:
            self._looking.remove(job)
            self._without_address(job)

    def _start(self, job: Job) -> None:
        self._engine.add(job, max(1, min(self._jobs, self._engine.busy + len(self._waiting) + 1)))

    def _without_address(self, job: Job) -> None:
        """No mirror has an address that aria2 could use: decide what the answers mean."""
        only = len(job.step.mirrors) == 1
        if job.sealed or not job.reasons:
            self._hands.by_http(job.step)
        elif isinstance(job.cause, NotAHub) and only and job.attempt > PORTAL:
            self._landing.failed(job.file, Verdict(job.file.path, "failed", job.cause.message), job.cause)
            self._board.fail(job.cause)
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
            if address.expires is not None and address.expires - now < RENEW_BEFORE and now >= job.renew_at[mirror]:
                job.addresses[mirror] = replace(address, expires=None)  # asked for once
                self._lookups.submit(partial(self._look_up_again, job, mirror))

    def _look_up_again(self, job: Job, mirror: str) -> None:
        """On a worker thread."""
        try:
            fresh = self._hands.lookup(mirror, job.file)
        except GpuariaError:
            return  # the old one may still do; if not, the download ends and is begun again
        if fresh is not None:
            self._post(lambda: self._renewed(job, mirror, fresh))

    def _renewed(self, job: Job, mirror: str, fresh: Address) -> None:
        if mirror in job.addresses:
            self._engine.serving.exchange(job, mirror, fresh)

    # --- another try -----------------------------------------------------------------------------------------

    def _stumbled(self, job: Job, text: str, code: str) -> None:
        """A download ended with an error, which may be that aria2 cannot use what it gets."""
        if code in DOUBTFUL:
            self._ask(job, partial(self._go_on, job, text, code))
        else:
            self._go_on(job, text, code)

    def _go_on(self, job: Job, text: str, code: str) -> None:
        """Go on at once if it had moved just now, else after a pause."""
        job.stuck += 1
        # "Download aborted." for ever: an unusable control file. Servers that are away are code 1 too, in other words.
        if code == "1" and "aborted" in text and job.stuck >= 2:
            self._layout.discard(job.file)
            job.start_over()
        job.cause = NetworkError(text)
        self._board.trouble(job.file.path, text)
        if job.stuck == 1 and job.moved > time.monotonic() - 5:
            self._waiting.appendleft(job)
        else:
            self._later(job, text)

    def _later(self, job: Job, reason: str) -> None:
        """Wait with growing pauses, until nothing has moved for as long as the patience lasts."""
        now = time.monotonic()
        if now + job.pause > job.moved + self._patience:
            error = NoUsableMirror(f"{job.file.path}: {reason}", "Run the same command again to continue.")
            self._landing.failed(job.file, Verdict(job.file.path, "failed", reason), error)
            return
        job.not_before = now + job.pause
        if job.pause > 1:
            self._board.emit(Waiting(f"{job.file.path}: {reason}", job.pause))
        job.pause = min(60.0, job.pause * 2)
        self._waiting.append(job)

    # --- what aria2 cannot carry -----------------------------------------------------------------------------

    def _ask(self, job: Job, otherwise: Callable[[], None]) -> None:
        """Find out whether the servers' answers are ones that aria2 cannot use; `otherwise` goes on if they are not."""
        self._asking.append(job)
        self._lookups.submit(partial(self._ask_all, job, dict(job.addresses), otherwise))

    def _ask_all(self, job: Job, addresses: dict[str, Address], otherwise: Callable[[], None]) -> None:
        """On a worker thread."""
        found: dict[str, str] = {}
        try:
            found = {mirror: why for mirror, address in addresses.items() if (why := self._hands.unfit(address))}
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            self._board.fail(GpuariaError(f"{type(error).__name__} while asking for {job.file.path}: {error}"))
        self._post(lambda: self._asked(job, found, otherwise))

    def _asked(self, job: Job, unfit: dict[str, str], otherwise: Callable[[], None]) -> None:
        """Go on with the mirrors that aria2 can use; if there is none, by our own client and over one connection."""
        self._asking.remove(job)
        if not unfit:
            otherwise()
            return
        self._unfit |= set(unfit)
        everyone = job.suspects or job.step.mirrors
        left = tuple(name for name in everyone if name not in self._unfit | job.guilty)
        for mirror, why in unfit.items() if left else ():
            self._roster.out(mirror, why, UNFIT_FOR)
        job.step = replace(job.step, mirrors=left or everyone)
        if any(why.startswith(PACKED) for why in unfit.values()):  # aria2 may have written that
            self._layout.discard(job.file)
            job.start_over()
        if left:
            self._waiting.appendleft(job)
            return
        base = self._layout.staged(job.file)
        with explained(base):
            keep_prefix(base, job.row, prefix_of(base))
        self._layout.discard(job.file)
        self._hands.by_http(job.step)

    # --- proof -----------------------------------------------------------------------------------------------

    def _to_check(self, job: Job) -> None:
        self._checking.append(job)
        self._hashers.submit(partial(self._check, job))

    def _check(self, job: Job) -> None:
        """On a hashing thread: prove the bytes and publish them."""
        verdict: Verdict | None = None
        failure: GpuariaError | None = None
        try:
            digest = job.digester.finish() if job.digester else ""
            verdict = self._landing.staged(job.file, self._layout.staged(job.file), digest)
        except GpuariaError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            failure = GpuariaError(f"{type(error).__name__} on {job.file.path}: {error}", "Please report this.")
        self._post(lambda: self._checked(job, verdict, failure))

    def _checked(self, job: Job, verdict: Verdict | None, failure: GpuariaError | None) -> None:
        self._checking.remove(job)
        if failure or verdict is None:
            self._board.fail(failure or GpuariaError(f"no verdict on {job.file.path}"))
        elif verdict.good:
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
            self._layout.discard(job.file)
            used = set(job.used)
            job.start_over()
            self._ask(job, partial(self._wrong, job, verdict, used))

    def _wrong(self, job: Job, verdict: Verdict, names: set[str]) -> None:
        """Wrong bytes are fetched afresh: from the origin alone if it had a part, then from those beside it.

        A mirror that was alone is guilty, and asked again only if there is no other.
        """
        used, several = sorted(names), len(names) > 1
        for mirror in used:
            words = ", from it or from one beside it" if several else ""
            self._board.rejected(mirror, f"wrong bytes for {job.file.path}{words}")
        whose = " or ".join(used)
        self._board.trouble(job.file.path, f"{whose} served wrong bytes: {verdict.detail}" if used else verdict.detail)
        job.afresh += 1
        job.guilty |= set() if several else set(used)
        job.suspects = job.suspects or job.step.mirrors
        left = [name for name in job.suspects if name not in job.guilty]
        if job.afresh > 2 or (job.afresh > 1 and not left):
            self._landing.failed(job.file, Verdict(job.file.path, verdict.outcome, verdict.detail))
            return
        origin = [name for name in left if name == self._origin]
        job.step = replace(job.step, mirrors=tuple(origin or left or job.suspects))
        self._waiting.appendleft(job)
