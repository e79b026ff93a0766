"""The end of a large file by gpuaria's own connections alone: python -m lab.last SIZE FILE ADDRESS... prints seconds
and seconds of processor time."""

import os
import sys
import threading
import time
from pathlib import Path

from gpuaria.http.client import Http
from gpuaria.records import Address
from gpuaria.transfer.endgame import Endgame


def main(size: str, name: str, *urls: str) -> None:
    """Fetch the file as one gap."""
    path = Path(name)
    path.touch()
    os.truncate(path, int(size))
    addresses = {str(number): Address(str(number), url) for number, url in enumerate(urls)}
    end = Endgame(path, int(size), addresses, Http(), lambda mirror, count: None, threading.Event())
    began, used = time.monotonic(), time.process_time()
    if not end.finish([(0, int(size))]):
        sys.exit(str(end.reasons))
    print(time.monotonic() - began, time.process_time() - used)


if __name__ == "__main__":
    main(*sys.argv[1:])
