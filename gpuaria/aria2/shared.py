"""The aria2c that all fetches of a process share."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gpuaria.errors import Aria2Error

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes a third of a second to import

RESTARTS = 3  # maximum consecutive restarts of an aria2c that dies
STEADY_SECONDS = 600.0  # after which the count of restarts begins at zero again


class SharedAria2:
    """Start an aria2c on first use and restart it when it dies. Thread-safe.

    `start` starts a daemon or attaches to one; it may raise Aria2Error. A finished fetch removes its own downloads and
    leaves the aria2c running; `close` stops it.
    """

    def __init__(self, start: "Callable[[], Daemon]", clock: Callable[[], float] = time.monotonic) -> None:
        self._start, self._clock = start, clock
        self._daemon: Daemon | None = None
        self._since = 0.0
        self._restarts = 0
        self._closed = False
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def get(self) -> "Daemon":
        """Return the running aria2c, after starting it if necessary. Raises Aria2Error."""
        with self._lock:
            return self._daemon or self._start_daemon()

    def preload(self) -> None:
        """Import the modules that `get` needs in the background, while the caller waits for the network."""
        self._start_thread("aria2-import", _import)

    def warm_up(self) -> None:
        """Start the aria2c in the background; `get` raises the error if that fails."""
        if self._daemon is None:
            self._start_thread("aria2-start", self._warm)

    def replace(self, dead: "Daemon") -> "Daemon":
        """Return a replacement for `dead`, a daemon that no longer responds.

        The first caller restarts it; later callers get the new daemon. Raises Aria2Error after RESTARTS consecutive
        restarts, and for an attached daemon.
        """
        with self._lock:
            if self._daemon is not None and self._daemon is not dead:
                return self._daemon
            if not dead.owned:
                raise Aria2Error(
                    "the aria2c of the setting rpc does not respond", "Run the same command again to continue."
                )
            if self._clock() - self._since > STEADY_SECONDS:
                self._restarts = 0
            self._restarts += 1
            if self._daemon is dead:
                self._daemon = None
                dead.kill()
                dead.stop()
            if self._restarts > RESTARTS:
                raise Aria2Error(f"aria2c died {self._restarts} times", "Run the same command again to continue.")
            return self._start_daemon()

    def close(self) -> None:
        """Stop the aria2c; kill it if it has nothing to save."""
        with self._lock:
            self._closed = True
            daemon, self._daemon = self._daemon, None
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()
        if daemon is not None:
            with suppress(Aria2Error):
                if daemon.owned and daemon.rpc.is_idle():
                    daemon.kill()
            daemon.stop()

    def _start_daemon(self) -> "Daemon":
        if self._closed:
            raise Aria2Error("the runtime of this fetch is closed")
        self._daemon, self._since = self._start(), self._clock()
        return self._daemon

    def _start_thread(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread that `close` joins. A second call with the same name does nothing."""
        with self._lock:
            if not self._closed and all(thread.name != name for thread in self._threads):
                self._threads.append(threading.Thread(target=work, name=name, daemon=True))
                self._threads[-1].start()

    def _warm(self) -> None:
        with suppress(Aria2Error), self._lock:
            if self._daemon is None and not self._closed:
                self._start_daemon()


def _import() -> None:
    from gpuaria.aria2 import daemon  # noqa: F401
