"""The one place that starts, names, joins and reports the threads of a run."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from gpuaria.errors import GpuariaError, Interrupted

LOG = logging.getLogger("gpuaria.threads")
IDLE = 10.0  # seconds without a task after which a thread of a pool ends: a program may fetch many times
JOIN = 0.5  # seconds for which `close` waits for threads that still read from the network

Task = tuple[Callable[..., None], tuple[object, ...]]


class Threads:
    """All threads of one run. An error in any of them ends the run with its own message, which `error` keeps.

    `stop` is set by that error or by the user; every wait of the run ends with it.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.error: GpuariaError | None = None
        self._pools: list[Pool] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._wake: list[Callable[[], None]] = []

    def pool(self, name: str, count: int, idle: float = IDLE) -> "Pool":
        """Return a new pool of up to `count` threads, which start when there is work."""
        pool = Pool(self, name, count, idle)
        with self._lock:
            self._pools.append(pool)
        return pool

    def start(self, name: str, run: Callable[..., None], *arguments: object) -> None:
        """Start a thread that calls `run(*arguments)` once."""
        thread = threading.Thread(target=self.guard, args=(name, run, arguments), name=name, daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def on_error(self, wake: Callable[[], None]) -> None:
        """Call `wake` when an error ends the run."""
        self._wake.append(wake)

    def fail(self, error: GpuariaError) -> None:
        """End the run: it makes no sense to try the other files. The first error counts."""
        with self._lock:
            self.error = self.error or error
        self.stop.set()
        for wake in self._wake:
            wake()

    def guard(self, name: str, run: Callable[..., None], arguments: tuple[object, ...]) -> None:
        """Call `run(*arguments)`; an exception ends the run, not only the thread."""
        try:
            run(*arguments)
        except Interrupted:
            pass
        except GpuariaError as error:
            self.fail(error)
        except Exception as error:
            LOG.debug("a bug in %s", name, exc_info=True)
            self.fail(GpuariaError(f"{type(error).__name__} in {name}: {error}", "Please report this."))

    def close(self, patience: float = JOIN) -> None:
        """End and join all threads. One that is still inside a network read after `patience` seconds is left behind:
        it is a daemon thread and ends with that read.
        """
        with self._lock:
            pools, threads = list(self._pools), list(self._threads)
        for pool in pools:
            threads += pool.close()
        until = time.monotonic() + patience
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                LOG.debug("the thread %s is still in a network read", thread.name)


class Pool:
    """Runs tasks on up to `count` threads."""

    def __init__(self, threads: Threads, name: str, count: int, idle: float) -> None:
        self._home, self._name, self._count, self._idle = threads, name, count, idle
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._started = 0
        self._lock = threading.Lock()
        self._open = 0
        self._closed = False

    @property
    def pending(self) -> int:
        """Tasks that wait or run."""
        return self._open

    @property
    def busy(self) -> int:
        """Threads that run a task, or are about to."""
        return min(self._open, self._count)

    def submit(self, run: Callable[..., None], *arguments: object) -> None:
        """Queue a call of `run(*arguments)`. A closed pool drops it."""
        with self._lock:
            if self._closed:
                return
            self._open += 1
            self._tasks.put((run, arguments))
            if len(self._threads) < min(self._count, self._open):
                self._started += 1
                thread = threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> list[threading.Thread]:
        """Take no more tasks, let every thread end after the task that it runs, and return the threads."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            for _ in threads:
                self._tasks.put(None)
        return threads

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                if not self._closed:
                    self._home.guard(self._name, *task)
            finally:
                with self._lock:
                    self._open -= 1

    def _next(self) -> Task | None:
        """The next task; None after IDLE seconds without one, or when the pool is closed."""
        try:
            task = self._tasks.get(timeout=self._idle)
        except queue.Empty:
            with self._lock:
                if self._tasks.empty():  # none can come before the lock is free
                    self._threads.remove(threading.current_thread())
                    return None
            return self._next()
        if task is None:
            with self._lock:
                self._threads.remove(threading.current_thread())
        return task
