"""One large file on its way: its addresses, its ranges, how far it is, and when to try again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpuaria.errors import GpuariaError
from gpuaria.records import Address, RemoteFile, Step, Transfer
from gpuaria.transfer.digester import Digester
from gpuaria.transfer.endgame import Endgame
from gpuaria.transfer.flow import Endpoint
from gpuaria.transfer.watch import Ending, in_earnest
from gpuaria.transfer.windows import PIECE, Window


@dataclass(frozen=True, slots=True)
class Hands:
    """What a large file needs done by others, from worker threads.

    `lookup`: the address of a file at a mirror. `by_http`: take over a file that aria2 cannot have. `endgame`: what
    fills the last gaps of (file, its staged path) from these addresses, tells how far from its start the file is there,
    and uses so many connections to each mirror. `test`: why an address cannot be used now, and the seconds it asks to
    wait. `unfit`: why aria2 could not use it though it gives bytes. `places`: where aria2 connects to for an address.
    `path`: the aria2 options by which it reaches URLs; this one does not block.
    """

    lookup: Callable[[str, RemoteFile], Address | None]
    by_http: Callable[[Step], None]
    endgame: Callable[[RemoteFile, Path, Mapping[str, Address], Callable[[int], None], int], Endgame]
    test: Callable[[Address], tuple[str, float | None]]
    unfit: Callable[[Address], str]
    places: Callable[[Address], list[Endpoint]]
    path: Callable[[Sequence[str]], Mapping[str, str]]


@dataclass
class Job:
    """Belongs to the thread that drives aria2. `done` counts bytes on disk, those of earlier runs included.

    `sealed`: some mirror has it, and only a credential opens it there. `guilty` mirrors served wrong bytes alone;
    `suspects` are all that there were then. `renew_at`: seconds since 1970.
    """

    step: Step
    addresses: dict[str, Address] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    cause: GpuariaError | None = None
    attempt: int = 0
    awaited: int = 0
    sealed: bool = False
    row: list[Window] = field(default_factory=list)
    digester: Digester | None = None
    done: int = 0
    speed: float = 0.0
    connections: int = 0
    widest: int = 0  # connections that one range had at most
    used: set[str] = field(default_factory=set)
    serving: set[str] = field(default_factory=set)  # mirrors with a connection now
    ending: Ending = field(default_factory=Ending)
    tail: Endgame | None = None  # at work on a range that aria2 does not get
    fading: bool = False  # its last connections are at work, and leave room for another file
    afresh: int = 0
    guilty: set[str] = field(default_factory=set)
    suspects: tuple[str, ...] = ()
    renew_at: dict[str, float] = field(default_factory=dict)
    pause: float = 1.0
    not_before: float = 0.0
    moved: float = 0.0  # monotonic seconds at which bytes had come in earnest
    begun: float = 0.0  # monotonic seconds at which aria2 was given it
    trickled: int = 0  # bytes since `moved`
    stuck: int = 0

    @property
    def file(self) -> RemoteFile:
        """The file."""
        return self.step.file

    @property
    def running(self) -> list[Window]:
        """Ranges that aria2 works at."""
        return [window for window in self.row if window.gid]

    @property
    def waiting(self) -> list[Window]:
        """Ranges that nobody has begun in this run."""
        return [window for window in self.row if not window.done and not window.gid and not window.ours]

    @property
    def left(self) -> int:
        """Bytes that aria2 has still to fetch."""
        return self.file.size - self.done - sum(window.left for window in self.row if window.ours)

    @property
    def busy(self) -> int:
        """Connections at work, aria2's and ours."""
        return self.connections + (self.tail.working if self.tail else 0)

    @property
    def here(self) -> int:
        """Bytes of the file that are on disk, whoever fetched them."""
        return self.done + (self.tail.came if self.tail else 0)

    @property
    def spare(self) -> bool:
        """Whether there is a piece that no connection can be at work on: it holds one at a time."""
        pieces = sum(w.left // PIECE for w in self.running)
        return bool(self.waiting) or pieces > self.connections

    def account(self, transfers: dict[str, Transfer]) -> int:
        """Take the readings of its ranges over; returns the bytes that came since the last ones."""
        for window in self.running:
            outside = window.size - (window.end - window.start)
            window.completed = max(0, transfers[window.gid].completed - outside)
        self.speed = float(sum(transfers[window.gid].speed for window in self.running))
        for window in self.running:
            window.connections = transfers[window.gid].connections
        self.connections = sum(window.connections for window in self.running)
        self.widest = max([self.widest, *(window.connections for window in self.running)])
        done = sum(window.completed for window in self.row)
        came = max(0, done - self.done)
        if came:
            self.done, self.trickled, now = done, self.trickled + came, time.monotonic()
            if in_earnest(self.trickled, now - self.moved):
                self.moved, self.pause, self.stuck, self.trickled = now, 1.0, 0, 0
        return came

    def crawls(self, now: float, timeout: float) -> bool:
        """Whether next to nothing has come for `timeout` seconds, which aria2, given a byte a second, does not mind."""
        return now - max(self.moved, self.begun) > timeout

    def turns(self, mirror: str, most: int) -> list[str]:
        """The mirror's address, once for each connection that it gets; `most` is what aria2 may open to one server."""
        return [self.addresses[mirror].url] * self.step.counts.get(mirror, most)

    def take(self, address: Address) -> None:
        """Use an address; it is looked up again after two thirds of its life at the earliest: some live for seconds."""
        self.addresses[address.mirror] = address
        self.used.add(address.mirror)
        if address.expires is not None:
            now = time.time()
            self.renew_at[address.mirror] = now + max(1.0, (address.expires - now) * 2 / 3)

    def drop_tail(self) -> None:
        """Nothing of it is ours any more."""
        self.fading, self.tail = False, None
        for window in self.row:
            window.ours = False

    def start_over(self) -> None:
        """Its bytes were thrown away."""
        self.done, self.row, self.digester = 0, [], None
        self.used = set()
