"""A few daemon threads and a queue. Unlike concurrent.futures, nothing waits for them when the process must end."""

import queue
import threading
from collections.abc import Callable


class Workers:
    """Runs `task()`s on up to `count` threads, which start when there is work."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
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
            if len(self._threads) < min(self._count, self._open):
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                task()
            finally:
                with self._lock:
                    self._open -= 1
