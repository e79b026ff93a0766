"""Logging to stderr for -v."""

import logging
import sys
from typing import Any


class _Stderr(logging.StreamHandler[Any]):
    """Writes to the current sys.stderr, which live bars replace while they are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr() -> None:
    """Send the log of gpuaria to stderr. Logged URLs have no query, since a query may contain a signature."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("gpuaria")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
