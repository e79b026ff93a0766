"""The objects with side effects that the parts of a transfer share."""

from dataclasses import dataclass

from gpuaria.clock import Clock
from gpuaria.http.client import Http
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.mirrors.pool import MirrorPool
from gpuaria.storage.layout import Layout
from gpuaria.threads import Threads
from gpuaria.transfer.publisher import Publisher
from gpuaria.transfer.range_files import RangeFiles
from gpuaria.transfer.results import Results
from gpuaria.transfer.task import FileTask


@dataclass(frozen=True, slots=True)
class Services:
    """The objects with side effects of one run. `patience`: seconds without progress until a file fails."""

    http: Http
    pool: MirrorPool
    layout: Layout
    publisher: Publisher
    results: Results
    threads: Threads
    clock: Clock
    bucket: TokenBucket
    patience: float

    def range_files(self, task: FileTask) -> RangeFiles:
        """Return the byte ranges of a file on disk."""
        file = task.file
        return RangeFiles(self.layout.staged_path(file), self.layout.range_links(file), file.size, task.hard_links)
