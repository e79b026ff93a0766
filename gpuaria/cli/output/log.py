"""The log that -v prints on stderr."""

import logging
import sys
from typing import Any


class _Stderr(logging.StreamHandler[Any]):
    """Writes to the current sys.stderr: live bars replace it by a stream that keeps them in one piece."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr() -> None:
    """Print the log of gpuaria; requests appear without their queries, since a query may be a signature."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("gpuaria")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
