"""One large file on its way: what is known of its addresses, and how its bytes are shared out over mirrors."""

import time
from dataclasses import dataclass, field

from gpuaria.aria2.control import Control
from gpuaria.errors import GpuariaError
from gpuaria.records import Address, RemoteFile, Step, Transfer
from gpuaria.transfer.board import Board
from gpuaria.transfer.watch import Ending, Watch


@dataclass
class Job:
    """Belongs to the thread that drives aria2. `done` counts bytes on disk, those of earlier runs included."""

    step: Step
    addresses: dict[str, Address] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    cause: GpuariaError | None = None
    awaited: int = 0
    gid: str = ""
    done: int = 0
    speed: float = 0.0
    connections: int = 0
    used: set[str] = field(default_factory=set)
    watch: Watch = field(default_factory=Watch)
    ending: Ending = field(default_factory=Ending)
    afresh: int = 0
    pause: float = 1.0
    not_before: float = 0.0
    moved: float = 0.0
    stuck: int = 0

    @property
    def file(self) -> RemoteFile:
        """The file."""
        return self.step.file

    def begin(self, gid: str, known: Control | None) -> None:
        """aria2 has taken it over, from what the control file says is there."""
        self.gid = gid
        self.done = known.completed if known else 0
        self.used |= set(self.addresses)
        self.watch, self.ending = Watch(), Ending()

    def account(self, transfer: Transfer, speeds: dict[str, list[int]], board: Board) -> dict[str, list[int]]:
        """Take a reading over, share the bytes that came since the last one out, and give the speeds by mirror."""
        by_mirror = {mirror: speeds.get(address.url, []) for mirror, address in self.addresses.items()}
        came = transfer.completed - self.done
        self.speed, self.connections = float(transfer.speed), transfer.connections
        if came > 0:
            self.done = transfer.completed
            self.moved, self.pause, self.stuck = time.monotonic(), 1.0, 0
            share_out(came, {mirror: float(sum(rates)) for mirror, rates in by_mirror.items()}, board)
        return by_mirror

    def start_over(self) -> None:
        """Its bytes were thrown away."""
        self.done, self.used = 0, set()


def share_out(came: int, rates: dict[str, float], board: Board) -> None:
    """Credit `came` bytes to the mirrors in proportion to their speeds; evenly where none is known."""
    total = sum(rates.values())
    weights = {name: rate / total if total else 1 / len(rates) for name, rate in sorted(rates.items())}
    left = came
    for name, weight in weights.items():
        part = min(left, round(came * weight))
        board.arrived(name, part)
        left -= part
    if left and weights:
        board.arrived(max(weights, key=lambda name: weights[name]), left)
