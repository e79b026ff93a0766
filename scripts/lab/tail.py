"""Download a file with the tail's connections alone.

python -m lab.tail SIZE FILE URL... prints elapsed seconds and CPU seconds.
"""

import os
import sys
import threading
import time
from pathlib import Path

from gpuaria.http.client import Http
from gpuaria.records import Mirror, MirrorUrl
from gpuaria.threads import Threads
from gpuaria.transfer.tail import Tail


class _NoListener:
    """A listener that ignores all events."""

    def arrived(self, mirror: Mirror, count: int) -> None:
        """Ignore the event."""

    def ended(self) -> None:
        """Ignore the event."""


def main(size: str, name: str, *urls: str) -> None:
    """Download the whole file as one missing range."""
    path = Path(name)
    path.touch()
    os.truncate(path, int(size))
    mirrors = {Mirror(str(number), url): url for number, url in enumerate(urls)}
    known = {mirror: MirrorUrl(mirror, url) for mirror, url in mirrors.items()}
    tail = Tail(path, int(size), known, Http(), Threads(threading.Event()), _NoListener())
    began, used = time.monotonic(), time.process_time()
    tail.fill([(0, int(size))])
    while (outcome := tail.outcome()) is None:
        time.sleep(0.001)
    if not outcome:
        sys.exit(str(tail.reasons))
    print(time.monotonic() - began, time.process_time() - used)


if __name__ == "__main__":
    main(*sys.argv[1:])
