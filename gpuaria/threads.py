"""Threads of a run: they are started, named, joined and reported here only."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from gpuaria.errors import GpuariaError, Interrupted

LOG = logging.getLogger("gpuaria.threads")
IDLE = 10.0  # seconds without a task after which a pool thread ends: a program may fetch many times
JOIN = 0.5  # seconds that `close` waits for threads in a network read

Task = tuple[Callable[..., None], tuple[object, ...]]


class Threads:
    """All threads of one run. An exception in any of them ends the run; `error` keeps the first one.

    `stop` is set by that error or by the user, and ends every wait of the run.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.error: GpuariaError | None = None
        self._pools: list[Pool] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._wake: list[Callable[[], None]] = []

    def pool(self, name: str, count: int, idle: float = IDLE) -> "Pool":
        """Return a new pool of up to `count` threads, which start on demand."""
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
        """Register a function to call when an error ends the run."""
        self._wake.append(wake)

    def end_with_error(self, error: GpuariaError) -> None:
        """End the run with an error that affects all files. The first error counts."""
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
            self.end_with_error(error)
        except Exception as error:
            LOG.debug("unexpected exception in %s", name, exc_info=True)
            self.end_with_error(GpuariaError(f"{type(error).__name__} in {name}: {error}", "Please report this."))

    def close(self, patience: float = JOIN) -> None:
        """End and join all threads, waiting at most `patience` seconds.

        A thread that is still in a network read is left running: it is a daemon thread and ends with that read.
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
                LOG.debug("thread %s is still blocked in a network read", thread.name)


class Pool:
    """Runs tasks on up to `count` threads."""

    def __init__(self, threads: Threads, name: str, count: int, idle: float) -> None:
        self._owner, self._name, self._count, self._idle = threads, name, count, idle
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._started = 0
        self._lock = threading.Lock()
        self._open = 0
        self._closed = False

    @property
    def pending(self) -> int:
        """Number of queued and running tasks."""
        return self._open

    @property
    def busy(self) -> int:
        """Number of threads that run a task or are about to."""
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
        """Accept no more tasks, let each thread end after its current one, and return the threads."""
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
                    self._owner.guard(self._name, *task)
            finally:
                with self._lock:
                    self._open -= 1

    def _next(self) -> Task | None:
        """Return the next task; None after `idle` seconds without one, or if the pool is closed."""
        try:
            task = self._tasks.get(timeout=self._idle)
        except queue.Empty:
            with self._lock:
                if self._tasks.empty():  # `submit` needs the lock, so no task can arrive now
                    self._threads.remove(threading.current_thread())
                    return None
            return self._next()
        if task is None:
            with self._lock:
                self._threads.remove(threading.current_thread())
        return task
