"""The state of one run that all its threads write to: verdicts, bytes by mirror, the first fatal error."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gpuaria.audit.byte_sources import Origins
from gpuaria.errors import GpuariaError
from gpuaria.events import Emit, Event, FileDone, Mismatch
from gpuaria.records import MirrorUse, RemoteFile, Verdict


@dataclass
class Board:
    """Thread-safe. `stop` ends every wait in the run; `fatal` is why, if it was not the user. `wanted`: the paths of
    files that have to be fetched, which are what `done_bytes` counts once they have a verdict. `wake`: something
    happened that the driving thread should look at. `settled` is told each verdict, before the listener of events."""

    emit: Emit
    stop: threading.Event
    wanted: set[str]
    settled: Callable[[RemoteFile, Verdict], None] = lambda file, verdict: None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    wake: threading.Event = field(default_factory=threading.Event)
    fatal: GpuariaError | None = None
    fetched: int = 0
    done_bytes: int = 0
    causes: dict[str, GpuariaError] = field(default_factory=dict)
    _uses: dict[str, MirrorUse] = field(default_factory=dict)
    _origins: dict[str, Origins] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False

    def arrived(self, path: str, mirror: str, count: int) -> None:
        """`count` bytes of the file `path` came from `mirror`."""
        with self._lock:
            self._origins.setdefault(path, Origins()).came(mirror, count)
            self.fetched += count
            use = self._uses.get(mirror, MirrorUse(mirror))
            self._uses[mirror] = MirrorUse(mirror, use.bytes + count, use.files, use.requests, use.rejected)

    def holds(self, path: str, count: int) -> None:
        """`count` bytes of the file `path` are here: those of earlier runs too, and none that were thrown away."""
        with self._lock:
            self._origins.setdefault(path, Origins()).holds(count)

    def trouble(self, path: str, problem: str) -> None:
        """Something went wrong on the way of the file `path`, which may arrive nevertheless."""
        with self._lock:
            self._origins.setdefault(path, Origins()).note(problem)

    def origins(self, path: str) -> Origins:
        """Where the file `path` came from so far."""
        with self._lock:
            return self._origins.get(path, Origins()).copy()

    def found(self) -> tuple[Verdict, ...]:
        """The verdicts so far; others may come at any time, from threads that nobody waits for."""
        with self._lock:
            return tuple(self.verdicts.values())

    def unfinished(self) -> list[str]:
        """Paths of files of which something has come, and that have no verdict."""
        with self._lock:
            return [path for path, found in self._origins.items() if found.given and path not in self.verdicts]

    def served(self, mirror: str) -> None:
        """`mirror` had a part in one more file."""
        with self._lock:
            use = self._uses.get(mirror, MirrorUse(mirror))
            self._uses[mirror] = MirrorUse(mirror, use.bytes, use.files + 1, use.requests, use.rejected)

    def rejected(self, mirror: str, reason: str) -> None:
        """`mirror` is not used (any more), and why; the last reason stands."""
        with self._lock:
            use = self._uses.get(mirror, MirrorUse(mirror))
            self._uses[mirror] = MirrorUse(mirror, use.bytes, use.files, use.requests, reason)

    def settle(self, file: RemoteFile, verdict: Verdict, cause: GpuariaError | None = None) -> None:
        """A file has its verdict."""
        with self._lock:
            self.verdicts[file.path] = verdict
            self.done_bytes += file.size if file.path in self.wanted else 0
            if cause is not None:
                self.causes[file.path] = cause
        self.wake.set()
        self.settled(file, verdict)
        self._tell(FileDone(file.path, file.size, verdict.outcome, file.path in self.wanted, verdict.detail))

    def mismatch(self, file: RemoteFile, detail: str) -> None:
        """What was taken for `file` has other bytes, and is replaced."""
        self._tell(Mismatch(file.path, file.size, detail))

    def _tell(self, event: Event) -> None:
        with self._telling:
            if not self._over:
                self.emit(event)

    def fail(self, error: GpuariaError) -> None:
        """End the run: it makes no sense to try the other files."""
        with self._lock:
            self.fatal = self.fatal or error
        self.stop.set()
        self.wake.set()

    def close(self) -> None:
        """The run is over: what threads that nobody waits for still find is recorded, and told to nobody."""
        with self._telling:
            self._over = True

    def uses(self) -> tuple[MirrorUse, ...]:
        """What each mirror gave, the most useful first."""
        with self._lock:
            return tuple(sorted(self._uses.values(), key=lambda use: (-use.bytes, use.name)))
