"""The downloader by aria2c for large files: one aria2 download per byte range, one reading of all of them per turn."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

from gpuaria.aria2.options import DownloadLimits, download_options
from gpuaria.errors import Aria2Error, DiskError, NoSpace
from gpuaria.formats.metalink import for_download
from gpuaria.os_errors import explained
from gpuaria.records import Aria2Status, Mirror, MirrorUrl, RemoteFile
from gpuaria.transfer.aria2_path import Aria2Path
from gpuaria.transfer.downloader import Inbox
from gpuaria.transfer.events import (
    EngineRestarted,
    Progressed,
    RangeDone,
    RangeFailed,
    ReadingDone,
    Released,
    TransferEvent,
)
from gpuaria.transfer.range_files import RangeFiles
from gpuaria.transfer.ranges import ByteRange
from gpuaria.transfer.services import Services
from gpuaria.transfer.task import FileTask
from gpuaria.transfer.tuning import LATE_CALLS, NO_TIMEOUT, SEVERAL_CONNECT, SEVERAL_TIMEOUT
from gpuaria.urls import authority

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon  # aria2p takes long to import
    from gpuaria.aria2.rpc import Rpc

SAVED = 1.0  # seconds for aria2 to write the control files of a download that it releases
_DISK_FULL, _DISK = "9", frozenset({"15", "16", "17", "18"})


class Aria2(Protocol):
    """The aria2c that fetches share; see gpuaria.aria2.shared. Every method may raise Aria2Error."""

    def get(self) -> "Daemon":
        """Return the running aria2c; start it if there is none."""

    def replace(self, dead: "Daemon") -> "Daemon":
        """Return a new aria2c in place of `dead`."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The aria2c of this process, with options and routes of its downloads."""

    shared: Aria2
    shape: DownloadLimits
    user_agent: str
    path: Aria2Path


class ByAria2:
    """The downloader by aria2, for the loop's thread.

    `_gids`: aria2's id of each range; empty before its first response.
    """

    name = "aria2"

    def __init__(self, services: Services, engine: Engine, inbox: Inbox) -> None:
        self._services, self._engine, self._inbox = services, engine, inbox
        self._gids: dict[FileTask, dict[ByteRange, str]] = {}
        self._urls: dict[FileTask, list[MirrorUrl]] = {}
        self._daemon: Daemon | None = None
        self._late_calls = 0
        self._pending_error: Aria2Error | None = None
        self._savers = services.threads.pool("save", 4)

    def can_take(self, file: RemoteFile, urls: Sequence[MirrorUrl]) -> bool:
        """Return True if there is a URL that aria2 can use."""
        return bool(urls) and not self._services.pool.incompatible(url.mirror for url in urls)

    def warm_up(self) -> None:
        """Start aria2c if it is not running. Raises Aria2Error."""
        if self._daemon is None:
            self._daemon = self._engine.shared.get()

    def start(self, task: FileTask, ranges: Sequence[ByteRange], urls: Sequence[MirrorUrl]) -> None:
        """Start ranges of a file in aria2. Raises DiskError; errors of aria2 are handled at the next `poll`."""
        self._urls[task] = list(urls)
        for one in ranges:
            with explained(self._services.layout.staged_path(task.file)):
                self._services.range_files(task).prepare(one)
            self._gids.setdefault(task, {})[one] = ""
            try:
                self._add_download(task, one)
            except Aria2Error as error:
                self._pending_error = error

    def change_urls(self, task: FileTask, old: MirrorUrl | None, new: MirrorUrl | None) -> None:
        """Replace a mirror's URL in the downloads of a file, with all its copies, used and unused."""
        urls = self._urls.get(task, [])
        self._urls[task] = [url for url in urls if url != old] + ([new] if new else [])
        drop = [old.url] * 2 * self._engine.shape.per_server if old else []
        for gid in self._gids.get(task, {}).values():
            with suppress(Aria2Error):  # the next reading notices a dead aria2c; the next range uses the new URL
                if gid:
                    self._rpc.change_uris(gid, drop, self._copies(task, new) if new else [])

    def stop(self, task: FileTask) -> None:
        """Take a file out of aria2; its control files stay."""
        for gid in self._gids.pop(task, {}).values():
            with suppress(Aria2Error):
                if gid:
                    self._rpc.remove_download(gid)
        self._urls.pop(task, None)

    def release(self, task: FileTask) -> None:
        """Let aria2 save and release a file; the event `Released` reports what is on disk."""
        running = self._gids.get(task, {})
        try:
            for gid in running.values():
                if gid:
                    self._rpc.stop_download(gid)
        except Aria2Error as error:
            self._pending_error = error
        self._savers.submit(_await_saved, task, self._services.range_files(task), list(running), self._inbox)

    def poll(self, now: float) -> list[TransferEvent]:
        """Return a reading of all downloads, then the ranges that ended. Raises GpuariaError if the run must end."""
        reading = {task: ranges for task, ranges in self._gids.items() if not _released(task)}
        if not reading and self._pending_error is None:
            return []
        try:
            if trouble := self._pending_error:
                self._pending_error = None
                raise trouble
            self._restart_lost()
            return self._read(reading)
        except Aria2Error as error:  # aria2c may die between any two calls
            return self._replace_daemon(error)

    def close(self) -> None:
        """Take this fetch's downloads out of aria2; their control files stay."""
        daemon = self._daemon
        if daemon is None or not self._gids:
            return
        lost = [
            str(self._services.range_files(task).path(one))
            for task, ranges in self._gids.items()
            for one, gid in ranges.items()
            if not gid
        ]
        gids = [gid for ranges in self._gids.values() for gid in ranges.values() if gid]
        with suppress(Aria2Error):
            for gid in (*gids, *daemon.rpc.find_gids(lost).values()):
                daemon.rpc.remove_download(gid)
        self._gids.clear()

    # --- start ---------------------------------------------------------------------------------------------------

    @property
    def _rpc(self) -> "Rpc":
        self.warm_up()
        assert self._daemon is not None
        return self._daemon.rpc

    def _add_download(self, task: FileTask, one: ByteRange) -> None:
        """Add one download with its file name and size, so that aria2 rejects a response of another length."""
        path = self._services.range_files(task).path(one)
        turns = zip_longest(*(self._copies(task, url) for url in self._urls[task]))
        urls = [url for turn in turns for url in turn if url]
        options = download_options(path.parent, self._options_for(task), self._engine.user_agent)
        options |= self._engine.path.options([url.url for url in self._urls[task]])
        gid = self._rpc.add_download(for_download(path.name, task.file.size, urls), options)
        self._gids[task][one], self._late_calls = gid, 0

    def _restart_lost(self) -> None:
        """Start ranges whose response was lost, unless aria2 has started them."""
        for task, ranges in self._gids.items():
            for one, gid in ranges.items():
                if not gid and not _released(task):
                    path = str(self._services.range_files(task).path(one))
                    found = self._rpc.find_gids([path]).get(path, "")
                    if found:
                        ranges[one] = found
                    else:
                        self._add_download(task, one)

    def _copies(self, task: FileTask, url: MirrorUrl) -> list[str]:
        """Return a URL once for each connection that its mirror gets."""
        return [url.url] * task.step.counts.get(url.mirror.name, self._engine.shape.per_server)

    def _options_for(self, task: FileTask) -> DownloadLimits:
        """Return a download's options: short time-outs if another mirror can take over."""
        several, shape = len(task.step.mirrors) > 1, self._engine.shape
        return replace(
            shape,
            split=task.step.connections,
            max_speed=0,  # see Aria2Path
            connect_timeout=min(shape.connect_timeout, SEVERAL_CONNECT if several else NO_TIMEOUT),
            timeout=min(shape.timeout, SEVERAL_TIMEOUT if several else NO_TIMEOUT),
        )

    # --- read ----------------------------------------------------------------------------------------------------

    def _read(self, reading: dict[FileTask, dict[ByteRange, str]]) -> list[TransferEvent]:
        gids = [gid for ranges in reading.values() for gid in ranges.values()]
        transfers, speeds = self._rpc.poll(gids)
        if gids:  # without downloads there was no call
            self._late_calls = 0
        found: list[TransferEvent] = [
            self._progressed(task, ranges, transfers, speeds) for task, ranges in reading.items()
        ]
        assert self._daemon is not None
        found.append(ReadingDone(self._services.pool.traffic.read(self._daemon.pid)))
        for task, ranges in reading.items():
            found += self._ended_ranges(task, ranges, transfers)
        return found

    def _progressed(
        self,
        task: FileTask,
        ranges: dict[ByteRange, str],
        transfers: dict[str, Aria2Status],
        speeds: dict[str, dict[str, list[int]]],
    ) -> Progressed:
        size = task.file.size
        by_mirror: dict[Mirror, list[int]] = {
            url.mirror: [speed for gid in ranges.values() for speed in speeds.get(gid, {}).get(url.url, [])]
            for url in self._urls[task]
        }
        return Progressed(
            task,
            completed={one: transfers[gid].completed - (size - one.size) for one, gid in ranges.items()},
            connections={one: transfers[gid].connections for one, gid in ranges.items()},
            speed=float(sum(transfers[gid].speed for gid in ranges.values())),
            speeds=by_mirror,
        )

    def _ended_ranges(
        self, task: FileTask, ranges: dict[ByteRange, str], transfers: dict[str, Aria2Status]
    ) -> list[TransferEvent]:
        """Return the events of ranges that are complete or failed. Raises DiskError if aria2 cannot write."""
        found: list[TransferEvent] = []
        for one, gid in list(ranges.items()):
            transfer = transfers[gid]
            if transfer.status == "complete":
                del ranges[one]
                self._rpc.forget_results([gid])
                found.append(RangeDone(task, one))
            elif transfer.status in ("error", "removed", "gone"):
                reason = self._failure_reason(task, transfer)
                if transfer.error_code == _DISK_FULL:
                    place = self._services.layout.staging
                    raise NoSpace(f"the disk is full at {place}", "Free some space and run the same command again.")
                if transfer.error_code in _DISK:
                    raise DiskError(
                        f"aria2c cannot write {task.file.path}: {reason}", "Check the permissions of the target."
                    )
                return [*found, RangeFailed(task, reason, transfer.error_code)]
        return found

    def _failure_reason(self, task: FileTask, transfer: Aria2Status) -> str:
        hosts = sorted({authority(url.url) for url in self._urls[task]})
        return f"{' or '.join(hosts)}: {transfer.error or f'aria2 error {transfer.error_code}'}"

    def _replace_daemon(self, error: Aria2Error) -> list[TransferEvent]:
        """Wait for an aria2c that does not respond, then replace it. Raises Aria2Error if that is impossible."""
        daemon = self._daemon
        if daemon is None or error.retry == "never":  # aria2c could not be started, or rejects the request
            raise error
        self._late_calls += 1
        if self._late_calls < LATE_CALLS and daemon.alive():
            return []  # poll again at the next turn
        self._daemon, self._late_calls = self._engine.shared.replace(daemon), 0
        for task in list(self._gids):
            if not _released(task):
                del self._gids[task]
        return [EngineRestarted()]


def _released(task: FileTask) -> bool:
    return task.state.value == "finishing"


def _await_saved(task: FileTask, files: RangeFiles, running: list[ByteRange], inbox: Inbox) -> None:
    """Wait until aria2 has saved a released download: within 0.1 s it replaces the older control files."""
    deadline = time.monotonic() + SAVED
    for one in running:
        while time.monotonic() < deadline and not files.saved_by_aria2(one):
            time.sleep(0.01)
    ended = [one for one in running if files.completed_by_aria2(one)]  # completed before the release
    missing = files.gaps([one for one in task.ranges if one not in ended])
    inbox.put(Released(task, ended, missing))
