"""Which mirrors serve the files under way: judged by what comes from them, taken out, tried again, put back."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from gpuaria.errors import Aria2Error, GpuariaError
from gpuaria.records import Address
from gpuaria.transfer.board import Board
from gpuaria.transfer.flow import Flow, shares
from gpuaria.transfer.job import Hands, Job
from gpuaria.transfer.roster import Roster
from gpuaria.transfer.watch import Watch
from gpuaria.transfer.workers import Workers


class Serving:
    """All methods are for the thread that drives aria2. `jobs` is the engine's own list of files under way.

    `change(gid, drop, add)` exchanges addresses of a download; it raises Aria2Error.
    """

    def __init__(
        self,
        *,
        jobs: Sequence[Job],
        hands: Hands,
        board: Board,
        roster: Roster,
        flow: Flow,
        per_server: int,
        change: Callable[[str, Sequence[str], Sequence[str]], None],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._jobs, self._hands, self._board, self._roster = jobs, hands, board, roster
        self._flow, self._watch, self._askers = flow, Watch(), Workers("ask", 4)
        self._per_server, self._change, self._post = per_server, change, post
        self.hosts: set[str] = set()

    def credit(self, pid: int, came: Sequence[tuple[Job, int]], speeds: Mapping[str, Mapping[str, list[int]]]) -> None:
        """Share the bytes that `came` of each file over the mirrors, and judge these. `pid`: of aria2c, 0 if not ours.

        `speeds`: of each connection, by gid and address. Raises Aria2Error.
        """
        rates: dict[str, list[int]] = {}
        own: dict[str, dict[str, float]] = {}
        for job in self._jobs:
            job.serving, own[job.file.path] = set(), {}
            for mirror, address in job.addresses.items():
                each = [speed for window in job.running for speed in speeds.get(window.gid, {}).get(address.url, [])]
                rates.setdefault(mirror, []).extend(each)
                own[job.file.path][mirror] = float(sum(each))
                job.serving |= {mirror} if each else set()
        self.hosts = {mirror for mirror, each in rates.items() if each}
        sent = self._flow.read(pid)
        total = {mirror: float(sum(each)) for mirror, each in rates.items()}
        for job, count in came:
            for mirror, part in shares(count, _weights(job, own[job.file.path], total, sent)).items():
                self._board.arrived(job.file.path, mirror, part)
        # While a file ends, connections run out of work through no fault of theirs.
        if sent and not any(job.ending.in_sight(job.left) for job in self._jobs):
            counts = {mirror: len(each) for mirror, each in rates.items() if mirror not in self._excused(rates)}
            received = {mirror: self._flow.received[mirror] for mirror in counts}
            for mirror, reason in self._watch.judge(time.monotonic(), received, counts).items():
                self._drop(mirror, reason)

    def _excused(self, rates: Mapping[str, list[int]]) -> set[str]:
        """Mirrors without a connection through no fault of theirs.

        There is no piece left that nobody holds, or others have the same host name, for which aria2 allows 16.
        """
        hosts = {name: urlsplit(address.url).hostname for job in self._jobs for name, address in job.addresses.items()}
        taken = {hosts[name] for name, each in rates.items() if each}
        spare = any(job.spare for job in self._jobs)
        excused = {name for name, each in rates.items() if not each and (hosts[name] in taken or not spare)}
        for mirror in excused:
            self._watch.forget(mirror)
        return excused

    def exchange(self, job: Job, mirror: str, fresh: Address) -> None:
        """Use a fresh address instead of the one that the mirror had, or beside the others if it had none."""
        if job not in self._jobs:
            return
        old = job.addresses.get(mirror)
        job.take(fresh)
        for window in job.running:
            with suppress(Aria2Error):  # the next reading finds out, and the next range begins with it
                self._change(window.gid, self._all_of(old) if old else [], job.turns(mirror, self._per_server))

    def _drop(self, mirror: str, reason: str) -> None:
        """Take a mirror out of all downloads; its connections end and their pieces go to the others."""
        self._watch.forget(mirror)
        self._roster.out(mirror, reason)
        address = None
        for job in self._jobs:
            if mirror in job.addresses and len(job.addresses) > 1:
                self._board.trouble(job.file.path, f"{mirror}: {reason}")
                address = job.addresses.pop(mirror)
                for window in job.running:
                    self._change(window.gid, self._all_of(address), [])
        if address is not None:
            self._askers.submit(partial(self._ask_why, mirror, address, reason))

    def _all_of(self, address: Address) -> list[str]:
        """Enough to take every copy out that a download may have: those in use and those kept for later."""
        return [address.url] * 2 * self._per_server

    def _ask_why(self, mirror: str, address: Address, reason: str) -> None:
        """On a worker thread: aria2 does not tell which status a mirror answered, so ask it once."""
        found, wait = self._hands.test(address)
        if found:
            self._roster.out(mirror, f"{reason}: {found}", wait)

    def try_again(self) -> None:
        """Mirrors whose pause is over get a test, and their place back if they pass."""
        without = {name: self._without(name) for job in self._jobs for name in job.step.mirrors}
        for mirror in self._roster.due([name for name, jobs in without.items() if jobs]):
            self._askers.submit(partial(self._test, mirror, without[mirror]))

    def _without(self, mirror: str) -> list[Job]:
        return [job for job in self._jobs if mirror in job.step.mirrors and mirror not in job.addresses]

    def _test(self, mirror: str, jobs: Sequence[Job]) -> None:
        """On a worker thread: test one address, then look up what the mirror has for the other files."""
        try:
            for at, job in enumerate(jobs):
                address = self._hands.lookup(mirror, job.file)
                found, wait = ("it needs a credential", None) if address is None else ("", None)
                if address and at == 0:
                    found, wait = self._hands.test(address)
                if found or address is None:
                    self._roster.out(mirror, found, wait)
                    return
                if at == 0:
                    self._roster.back(mirror)
                self._post(partial(self._back, mirror, job, address))
        except GpuariaError as error:
            self._roster.out(mirror, error.message)

    def _back(self, mirror: str, job: Job, address: Address) -> None:
        """`address` is this file's, and no other's."""
        self._watch.forget(mirror)
        if mirror not in job.addresses:
            self.exchange(job, mirror, address)


def _weights(
    job: Job, own: Mapping[str, float], total: Mapping[str, float], sent: Mapping[str, int]
) -> Mapping[str, float]:
    """How much of one file is each mirror's: of what it `sent` to all files, the part of its speed that is this one's.

    `own`: speeds of this file, `total`: of all together. A mirror whose connections have just ended has no speed.
    """
    known = {
        mirror: count * (own.get(mirror, 0.0) / total[mirror] if total.get(mirror) else 1.0)
        for mirror, count in sent.items()
        if mirror in job.used
    }
    return known if any(known.values()) else own
