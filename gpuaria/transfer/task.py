"""One file's progress through a run. Pure; only the loop's thread writes tasks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gpuaria.errors import GpuariaError
from gpuaria.records import Mirror, MirrorUrl, RemoteFile, Step, Verdict
from gpuaria.storage.layout import ProgressMark
from gpuaria.transfer.pace import Pace
from gpuaria.transfer.ranges import PIECE, ByteRange
from gpuaria.transfer.tuning import FIRST_PAUSE, is_flow

LOG = logging.getLogger("gpuaria.transfer")


class State(Enum):
    """A file's progress, named by what the file waits for. Every file of a run is in exactly one state."""

    QUEUED = "queued"  # a free slot
    RESOLVING = "resolving"  # the claim on its bytes, then the first URL from any of its mirrors
    DOWNLOADING = "downloading"  # bytes, by aria2 (and the tail) or by HTTP
    FINISHING = "finishing"  # the rest of its bytes from the tail; aria2 has released it
    HASHING = "hashing"  # verification and publication
    WAITING = "waiting"  # its next try, a check of its mirrors, or another fetch of the same bytes
    DONE = "done"
    FAILED = "failed"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RESOLVING}),
    State.RESOLVING: frozenset({State.DOWNLOADING, State.HASHING, State.QUEUED, State.WAITING, State.FAILED}),
    State.DOWNLOADING: frozenset(
        {State.FINISHING, State.HASHING, State.QUEUED, State.WAITING, State.DONE, State.FAILED}
    ),
    State.FINISHING: frozenset({State.HASHING, State.QUEUED, State.WAITING, State.FAILED}),
    State.HASHING: frozenset({State.DONE, State.FAILED, State.WAITING}),
    State.WAITING: frozenset({State.QUEUED, State.DOWNLOADING, State.FAILED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class PendingCheck:
    """A failure that may be caused by aria2, for which the mirrors are being checked.

    Either aria2 gave up with `code`, or the bytes that `used` served got a bad `verdict`. `hidden`: aria2 does not
    report the status of the response.
    """

    reason: str
    code: str = ""
    verdict: Verdict | None = None
    used: tuple[Mirror, ...] = ()
    hidden: bool = False


@dataclass(eq=False)
class FileTask:
    """One file and its progress through a run. `carrier`: the downloader that handles it.

    `done` counts bytes on disk, including those of earlier runs, but not the tail's until aria2 has released the file.
    `guilty`: mirrors that served wrong bytes on their own; `suspects`: the file's mirrors when its bytes were first
    wrong. Times are monotonic seconds, except `renew_at`: seconds since 1970.
    """

    step: Step
    carrier: str = "aria2"
    state: State = State.QUEUED
    order: int = 0  # among queued tasks, the lowest comes first
    # resolving
    attempt: int = 0
    urls_awaited: int = 0
    urls: dict[Mirror, MirrorUrl] = field(default_factory=dict)
    renew_at: dict[Mirror, float] = field(default_factory=dict)
    reasons: dict[Mirror, str] = field(default_factory=dict)
    cause: GpuariaError | None = None
    needs_credential: bool = False  # a mirror serves the file only with a credential
    # downloading
    ranges: list[ByteRange] = field(default_factory=list)
    hard_links: bool = True  # the file system has hard links
    done: int = 0
    speed: float = 0.0
    connections: int = 0
    most_connections: int = 0  # highest number of connections of one range
    used: set[Mirror] = field(default_factory=set)
    serving: set[Mirror] = field(default_factory=set)  # mirrors with a connection now
    connected: set[Mirror] = field(default_factory=set)  # mirrors that had a connection since `started`
    pace: Pace = field(default_factory=Pace)
    ending: bool = False  # only its last connections are active, so another file may start
    # the tail
    tail: bool = False
    tail_bytes: int = 0
    tail_unclaimed: int = 0
    tail_connections: int = 0
    hashed: int = 0  # bytes from the start that have been submitted for hashing
    # another try
    last_progress: float = 0.0  # last arrival of more than a trickle
    started: float = 0.0  # when aria2 got the file
    trickled: int = 0  # bytes since `last_progress`
    failures_in_a_row: int = 0
    pause: float = FIRST_PAUSE
    not_before: float = 0.0
    held: bool = False  # another fetch downloads the same bytes
    held_mark: ProgressMark | None = None  # the other fetch's progress at the last check
    held_checked: float = 0.0  # time of the last check
    held_silent: float = 0.0  # seconds without progress of the other fetch
    pending_check: PendingCheck | None = None  # the reason for a check of its mirrors
    wrong_count: int = 0
    guilty: set[Mirror] = field(default_factory=set)
    suspects: tuple[Mirror, ...] = ()

    @property
    def file(self) -> RemoteFile:
        """The file to download."""
        return self.step.file

    def move(self, state: State, why: str = "") -> None:
        """Change the state; `why` is logged. Only TRANSITIONS are allowed."""
        assert state in TRANSITIONS[self.state], f"{self.file.path}: {self.state.value} -> {state.value}"
        LOG.debug("%s: %s -> %s%s", self.file.path, self.state.value, state.value, f" ({why})" if why else "")
        self.state = state

    @property
    def running(self) -> list[ByteRange]:
        """Ranges that aria2 is downloading."""
        return [one for one in self.ranges if one.running]

    @property
    def waiting(self) -> list[ByteRange]:
        """Ranges that no downloader has started."""
        return [one for one in self.ranges if one.waiting]

    @property
    def remaining(self) -> int:
        """Bytes that aria2 still has to download."""
        return self.file.size - self.done - sum(one.remaining for one in self.ranges if one.in_tail)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the file on disk, the tail's included."""
        return self.done + self.tail_bytes

    @property
    def connection_count(self) -> int:
        """Active connections of aria2 and of the tail."""
        return self.connections + self.tail_connections

    @property
    def has_free_piece(self) -> bool:
        """True if there is a piece that no connection is downloading: each connection holds one at a time."""
        pieces = sum(one.remaining // PIECE for one in self.running)
        return bool(self.waiting) or pieces > self.connections

    def record_completed(self, completed: Mapping[ByteRange, int], now: float) -> int:
        """Record the completed bytes of each range; return the bytes that arrived since the last reading."""
        for one, count in completed.items():
            one.completed = max(0, count)
        done = sum(one.completed for one in self.ranges)
        new_bytes = max(0, done - self.done)
        if new_bytes:
            self.done, self.trickled = done, self.trickled + new_bytes
            if is_flow(self.trickled, now - self.last_progress):
                self.last_progress, self.pause, self.failures_in_a_row, self.trickled = now, FIRST_PAUSE, 0, 0
        return new_bytes

    def stalled(self, now: float, timeout: float) -> bool:
        """True if at most a trickle arrived for `timeout` seconds; aria2 itself accepts one byte per second."""
        return now - max(self.last_progress, self.started) > timeout

    def use_url(self, url: MirrorUrl, now: float) -> None:
        """Use a URL, at `now` (seconds since 1970).

        It is resolved again after two thirds of its lifetime at the earliest: some URLs live for seconds only.
        """
        self.urls[url.mirror] = url
        self.used.add(url.mirror)
        if url.expires is not None:
            self.renew_at[url.mirror] = now + max(1.0, (url.expires - now) * 2 / 3)

    def drop_tail(self) -> None:
        """Record that the tail ended without all bytes: its ranges go back to aria2."""
        self.tail = self.ending = False
        self.tail_bytes = self.tail_unclaimed = self.tail_connections = 0
        for one in self.ranges:
            one.in_tail = False

    def leave_aria2(self) -> None:
        """Record that aria2 no longer downloads any range of the file."""
        self.connections, self.speed, self.serving = 0, 0.0, set()
        for one in self.ranges:
            one.running = False

    def start_over(self) -> None:
        """Record that the file's staged bytes were discarded."""
        self.done, self.hashed, self.ranges, self.used = 0, 0, [], set()
