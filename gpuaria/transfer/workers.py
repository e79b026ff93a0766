"""A few daemon threads and a queue. Unlike concurrent.futures, nothing waits for them when the process must end."""

import queue
import threading
from collections.abc import Callable

IDLE = 10.0  # seconds without a task after which a thread ends: a program may fetch many times


class Workers:
    """Runs `task()`s on up to `count` threads, which start when there is work."""

    def __init__(self, name: str, count: int, idle: float = IDLE) -> None:
        self._name, self._count, self._idle = name, count, idle
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()
        self._open = 0

    @property
    def pending(self) -> int:
        """Tasks that wait or run."""
        with self._lock:
            return self._open

    @property
    def busy(self) -> int:
        """Threads at work, or about to be."""
        return min(self.pending, self._count)

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task; it must deal with its own errors."""
        with self._lock:
            self._open += 1
            self._tasks.put(task)
            if self._threads < min(self._count, self._open):
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            finally:
                with self._lock:
                    self._open -= 1

    def _next(self) -> Callable[[], None] | None:
        """The next task; None after a while without one."""
        try:
            return self._tasks.get(timeout=self._idle)
        except queue.Empty:
            with self._lock:
                if self._tasks.empty():  # none can come before the lock is free
                    self._threads -= 1
                    return None
            return self._next()
