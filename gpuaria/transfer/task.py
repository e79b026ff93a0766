"""One file's progress through a run. Pure; only the loop thread writes tasks."""

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

    QUEUED = "queued"  # a free place
    RESOLVING = "resolving"  # its claim on the bytes, then the first URL from any of its mirrors
    DOWNLOADING = "downloading"  # bytes, by aria2 (and the tail) or by HTTP
    FINISHING = "finishing"  # the rest of its bytes, from the tail; aria2 has released it
    HASHING = "hashing"  # its checksum, and its name
    WAITING = "waiting"  # its next try, an answer about its mirrors, or another fetch of the same bytes
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
    """A failure that may be aria2's: either it gave up with `code`, or a `verdict` went against what `used` served.

    `hidden`: aria2 does not tell the status of the response.
    """

    reason: str
    code: str = ""
    verdict: Verdict | None = None
    used: tuple[Mirror, ...] = ()
    hidden: bool = False


@dataclass(eq=False)
class FileTask:
    """One file and its progress through a run. `carrier`: the downloader that has it.

    `done` counts bytes on disk, those of earlier runs included, the tail's excluded until aria2 has released the file.
    `guilty` mirrors served wrong bytes alone; `suspects` are all mirrors that the file had then. Times are monotonic
    seconds, but `renew_at`: seconds since 1970.
    """

    step: Step
    carrier: str = "aria2"
    state: State = State.QUEUED
    order: int = 0  # of tasks that wait for a place, the lowest comes first
    # resolving
    attempt: int = 0
    urls_awaited: int = 0
    urls: dict[Mirror, MirrorUrl] = field(default_factory=dict)
    renew_at: dict[Mirror, float] = field(default_factory=dict)
    reasons: dict[Mirror, str] = field(default_factory=dict)
    cause: GpuariaError | None = None
    needs_credential: bool = False  # a mirror has it, and only a credential opens it there
    # downloading
    ranges: list[ByteRange] = field(default_factory=list)
    linked: bool = True  # the file system has hard links
    done: int = 0
    speed: float = 0.0
    connections: int = 0
    most_connections: int = 0  # connections that one range had at most
    used: set[Mirror] = field(default_factory=set)
    serving: set[Mirror] = field(default_factory=set)  # mirrors with a connection now
    connected: set[Mirror] = field(default_factory=set)  # mirrors that had a connection since `begun`
    pace: Pace = field(default_factory=Pace)
    ending: bool = False  # only its last connections are active: there is room for another file
    # the tail
    tail: bool = False
    tail_bytes: int = 0
    tail_unclaimed: int = 0
    tail_connections: int = 0
    hashed: int = 0  # bytes from the start that the publisher was asked to hash
    # another try
    last_progress: float = 0.0  # when bytes last came, in more than a trickle
    started: float = 0.0  # when aria2 was given it
    trickled: int = 0  # bytes since `moved`
    failures_in_a_row: int = 0
    pause: float = FIRST_PAUSE
    not_before: float = 0.0
    held: bool = False  # another fetch downloads the same bytes
    held_mark: ProgressMark | None = None  # what was seen last of the bytes that it stores
    held_checked: float = 0.0  # when that was
    held_silent: float = 0.0  # seconds for which it was seen to store none
    pending_check: PendingCheck | None = None  # why its mirrors are being checked
    wrong_count: int = 0
    guilty: set[Mirror] = field(default_factory=set)
    suspects: tuple[Mirror, ...] = ()

    @property
    def file(self) -> RemoteFile:
        """The file."""
        return self.step.file

    def move(self, state: State, why: str = "") -> None:
        """Enter another state."""
        assert state in TRANSITIONS[self.state], f"{self.file.path}: {self.state.value} -> {state.value}"
        LOG.debug("%s: %s -> %s%s", self.file.path, self.state.value, state.value, f" ({why})" if why else "")
        self.state = state

    @property
    def running(self) -> list[ByteRange]:
        """Ranges that aria2 downloads."""
        return [one for one in self.ranges if one.running]

    @property
    def waiting(self) -> list[ByteRange]:
        """Ranges that no downloader has yet."""
        return [one for one in self.ranges if one.waiting]

    @property
    def remaining(self) -> int:
        """Bytes that aria2 still has to download."""
        return self.file.size - self.done - sum(one.remaining for one in self.ranges if one.in_tail)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the file that are on disk."""
        return self.done + self.tail_bytes

    @property
    def connection_count(self) -> int:
        """Active connections, aria2's and the tail's."""
        return self.connections + self.tail_connections

    @property
    def has_free_piece(self) -> bool:
        """True if there is a piece that no connection can be downloading: each holds one at a time."""
        pieces = sum(one.remaining // PIECE for one in self.running)
        return bool(self.waiting) or pieces > self.connections

    def record_completed(self, completed: Mapping[ByteRange, int], now: float) -> int:
        """Take over how many bytes of each range are complete; return the bytes that came since the last reading."""
        for one, count in completed.items():
            one.completed = max(0, count)
        done = sum(one.completed for one in self.ranges)
        came = max(0, done - self.done)
        if came:
            self.done, self.trickled = done, self.trickled + came
            if is_flow(self.trickled, now - self.last_progress):
                self.last_progress, self.pause, self.failures_in_a_row, self.trickled = now, FIRST_PAUSE, 0, 0
        return came

    def stalled(self, now: float, timeout: float) -> bool:
        """True if next to nothing came for `timeout` seconds, which aria2, given a byte a second, does not mind."""
        return now - max(self.last_progress, self.started) > timeout

    def use_url(self, url: MirrorUrl, now: float) -> None:
        """Use a URL, at `now` (seconds since 1970). It is resolved again after two thirds of its life at the earliest:
        some live for seconds.
        """
        self.urls[url.mirror] = url
        self.used.add(url.mirror)
        if url.expires is not None:
            self.renew_at[url.mirror] = now + max(1.0, (url.expires - now) * 2 / 3)

    def drop_tail(self) -> None:
        """Note that the tail has ended without all bytes: aria2 gets its ranges."""
        self.tail = self.ending = False
        self.tail_bytes = self.tail_unclaimed = self.tail_connections = 0
        for one in self.ranges:
            one.in_tail = False

    def leave_aria2(self) -> None:
        """Note that aria2 downloads nothing of the file any more."""
        self.connections, self.speed, self.serving = 0, 0.0, set()
        for one in self.ranges:
            one.running = False

    def start_over(self) -> None:
        """Note that the file's staged bytes were discarded."""
        self.done, self.hashed, self.ranges, self.used = 0, 0, [], set()
