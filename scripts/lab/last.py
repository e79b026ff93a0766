"""Download the end of a large file by gpuaria's own connections alone.

`python -m lab.last SIZE FILE URL...` prints seconds and seconds of CPU time.
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


class _Deaf:
    """Listens to no tail."""

    def arrived(self, mirror: Mirror, count: int) -> None:
        """Not needed."""

    def ended(self) -> None:
        """Not needed."""


def main(size: str, name: str, *urls: str) -> None:
    """Fetch the file as one gap."""
    path = Path(name)
    path.touch()
    os.truncate(path, int(size))
    mirrors = {Mirror(str(number), url): url for number, url in enumerate(urls)}
    known = {mirror: MirrorUrl(mirror, url) for mirror, url in mirrors.items()}
    tail = Tail(path, int(size), known, Http(), Threads(threading.Event()), _Deaf())
    began, used = time.monotonic(), time.process_time()
    tail.fill([(0, int(size))])
    while (outcome := tail.outcome()) is None:
        time.sleep(0.001)
    if not outcome:
        sys.exit(str(tail.reasons))
    print(time.monotonic() - began, time.process_time() - used)


if __name__ == "__main__":
    main(*sys.argv[1:])
