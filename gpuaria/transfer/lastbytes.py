"""The last bytes of a file: fetched by ourselves beside aria2, then instead of it, and hashed as they come."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from gpuaria.errors import GpuariaError
from gpuaria.storage.layout import Layout
from gpuaria.transfer import windows
from gpuaria.transfer.board import Board
from gpuaria.transfer.digester import Digester
from gpuaria.transfer.endgame import Endgame
from gpuaria.transfer.flow import shares
from gpuaria.transfer.job import Hands, Job
from gpuaria.transfer.windows import Window
from gpuaria.transfer.workers import Workers


class LastBytes:
    """For the thread that drives aria2. `done(job, filled)` is called on another one, when `finish` has ended.

    `per_server`: connections to each server, of all files that are `busy` at the same time.
    """

    def __init__(
        self,
        *,
        hands: Hands,
        layout: Layout,
        board: Board,
        hashers: Workers,
        per_server: int,
        done: Callable[[Job, bool], None],
    ) -> None:
        self._hands, self._layout, self._board = hands, layout, board
        self._hashers, self._enders = hashers, Workers("endgame", 4)
        self._per_server, self._done = per_server, done

    def begin(self, job: Job, window: Window, busy: int) -> None:
        """Fetch a range that aria2 does not get, while it is still at work on those before."""
        window.ours = True
        job.tail = self._endgame(job, busy)
        job.tail.start(window.missing())

    def finish(self, job: Job, busy: int) -> None:
        """Fetch the rest, once aria2 has let go."""
        self._enders.submit(partial(self._finish, job, busy))

    def leave(self, job: Job, *, alone: bool) -> None:
        """End our own connections, note what they have brought, and leave the rest to aria2 after all."""
        if job.tail is not None:
            job.tail.call_off()
            self.keep(job, alone=alone)
        job.drop_tail()

    def keep(self, job: Job, *, alone: bool = False) -> None:
        """Note what our own connections have brought, so that a later run goes on from there.

        `alone`: aria2 has let go of the file, and its ranges are ours too.
        """
        if job.tail is None:
            return
        base, filled = self._layout.staged(job.file), job.tail.filled()
        for window in job.row:
            if not window.done and (alone or window.ours):
                with suppress(OSError):  # a full disk: then it is fetched again
                    window.note(base, filled)

    def hash_on(self, job: Job) -> None:
        """Hash what is there without a gap, as whole ranges."""
        self._hash_to(job, windows.prefix(job.row))

    def _hash_to(self, job: Job, end: int) -> None:
        if job.digester is not None and end:
            self._hashers.submit(partial(_hash, job.digester, end))

    def credit(self, job: Job, came: int) -> None:
        """What aria2 wrote between the last reading and its end; nobody knows any more from whom, so as before."""
        given: dict[str, float] = {**self._board.origins(job.file.path).given}
        for mirror, part in shares(max(0, came), given or dict.fromkeys(job.addresses, 1.0)).items():
            self._board.arrived(job.file.path, mirror, part)

    def _endgame(self, job: Job, busy: int) -> Endgame:
        def reached(end: int) -> None:
            if job.digester is not None and not job.digester.busy:
                self._hash_to(job, end)

        each = max(1, self._per_server // max(1, busy))
        return self._hands.endgame(job.file, self._layout.staged(job.file), dict(job.addresses), reached, each)

    def _finish(self, job: Job, busy: int) -> None:
        """On a worker thread: what the control files say is missing."""
        filled = False
        try:
            _wait_until_saved(job)
            base = self._layout.staged(job.file)
            for window in job.running:
                window.done = window.path != base and window.ended()  # aria2 was quicker than we
            missing = windows.gaps(job.row)
            came = job.left - sum(end - start for start, end in missing)
            self.credit(job, came)
            tail = job.tail = job.tail or self._endgame(job, busy)
            tail.counted(lambda ours: self._board.holds(job.file.path, job.done + came + ours))
            filled = tail.finish(missing)
            for window in job.row if filled else ():
                window.complete(base)
        except Exception as error:  # noqa: BLE001 a bug must end the run, not a thread
            self._board.fail(GpuariaError(f"{type(error).__name__} at the end of {job.file.path}: {error}"))
        self._done(job, filled)


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
