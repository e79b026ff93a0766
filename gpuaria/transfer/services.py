"""The record of objects that every part of a transfer uses, instead of long argument lists."""

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
    """The objects of one run that touch the world. `patience`: seconds without progress until a file fails."""

    http: Http
    pool: MirrorPool
    layout: Layout
    publisher: Publisher
    results: Results
    threads: Threads
    clock: Clock
    bucket: TokenBucket
    patience: float

    def files(self, task: FileTask) -> RangeFiles:
        """The byte ranges of a file on disk."""
        file = task.file
        return RangeFiles(self.layout.staged(file), self.layout.windows(file), file.size, task.linked)
