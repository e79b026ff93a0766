"""Rules for failed downloads and for wrong bytes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpuaria.errors import Locked, NetworkError, NoUsableMirror
from gpuaria.events import Waiting
from gpuaria.mirrors.pool import Delivered, Incompatible, Refused, ServedWrongBytes
from gpuaria.mirrors.suitability import COMPRESSED
from gpuaria.records import Mirror, Verdict
from gpuaria.storage.layout import ProgressMark
from gpuaria.transfer import commands
from gpuaria.transfer.delivery import MirrorView
from gpuaria.transfer.events import MirrorsChecked
from gpuaria.transfer.run_tasks import RunTasks
from gpuaria.transfer.task import FileTask, PendingCheck, State
from gpuaria.transfer.tuning import FIRST_PAUSE, HELD_CHECK, HELD_PAUSE, LONGEST_PAUSE, RECENT_PROGRESS, WRONG_TRIES

_STUCK_HINT = (
    "That gpuaria process may be stopped: resume it (`fg`) or end it (`kill`), then run the same command again."
)


class Recovery:
    """Decides how to continue after failures; `origin`: the trusted mirror.

    `patience`: the stall time-out in seconds.
    """

    def __init__(self, tasks: RunTasks, mirrors: MirrorView, origin: Mirror, patience: float) -> None:
        self._tasks, self._mirrors, self._origin, self._patience = tasks, mirrors, origin, patience

    def retry(self, task: FileTask, reason: str, code: str) -> None:
        """Retry a file: at once if bytes arrived recently, else after a pause."""
        task.failures_in_a_row += 1
        # Repeated "Download aborted." means an unusable control file. Unreachable servers have code 1 but other texts.
        if code == "1" and "aborted" in reason and task.failures_in_a_row >= 2:
            self._tasks.issue(commands.Discard(task))
            task.start_over()
        task.cause = NetworkError(reason)
        self._tasks.issue(commands.NoteProblem(task, reason))
        if task.failures_in_a_row == 1 and task.last_progress > self._tasks.now - RECENT_PROGRESS:
            self.requeue(task, reason)
        else:
            self.retry_later(task, reason)

    def requeue(self, task: FileTask, why: str) -> None:
        """Queue a file for the next free slot."""
        self._tasks.queue(task, first=True)
        task.move(State.QUEUED, why)

    def retry_later(self, task: FileTask, reason: str) -> None:
        """Retry a file after growing pauses, until the stall time-out."""
        if self._tasks.now + task.pause > task.last_progress + self._patience:
            error = NoUsableMirror(f"{task.file.path}: {reason}", "Run the same command again to continue.")
            self._tasks.fail(task, reason, error)
            return
        task.not_before = self._tasks.now + task.pause
        if task.pause > FIRST_PAUSE:
            self._tasks.issue(commands.EmitEvent(Waiting(f"{task.file.path}: {reason}", task.pause)))
        task.pause = min(LONGEST_PAUSE, task.pause * 2)
        self._tasks.queue(task)
        if task.state is not State.WAITING:
            task.move(State.WAITING, reason)

    def claim(self, task: FileTask) -> commands.Claim:
        """Return the command that claims the file's bytes; once a second it also reads the progress of the holder."""
        return commands.Claim(task, read_progress=task.held and self._tasks.now >= task.held_checked + HELD_CHECK)

    def wait_for_holder(self, task: FileTask, mark: ProgressMark | None) -> None:
        """Wait for the fetch that downloads the same bytes, until it makes no progress for the stall time-out.

        Only time between two checks counts: this process may have been suspended too.
        """
        path, now = task.file.path, self._tasks.now
        if not task.held:
            text = f"{path}: another fetch on this machine is downloading it"
            self._tasks.issue(commands.EmitEvent(Waiting(text, HELD_PAUSE)))
            task.held, task.held_checked = True, now
        elif mark is not None:
            task.held_silent += min(now - task.held_checked, 2 * HELD_CHECK)
            if mark != task.held_mark:
                task.held_mark, task.held_silent = mark, 0.0
            task.held_checked = now
            if task.held_silent > self._patience:
                reason = (
                    f"another fetch on this machine downloads it, but has made no progress for {task.held_silent:.0f} s"
                )
                self._tasks.fail(task, reason, Locked(f"{path}: {reason}", _STUCK_HINT))
                return
        task.not_before, task.last_progress = now + HELD_PAUSE, now
        self._tasks.queue(task)
        task.move(State.WAITING, "another fetch is downloading it")

    def check_mirrors(self, task: FileTask, check: PendingCheck) -> None:
        """Check whether the mirrors' responses are incompatible with aria2."""
        task.pending_check = check
        task.move(State.WAITING, f"check of its mirrors: {check.reason}")
        self._tasks.issue(commands.CheckMirrors(task, tuple(task.urls.values()), refusals=check.hidden))

    def quarantine_serving(self, task: FileTask, reason: str, refused: Mapping[Mirror, str] | None = None) -> None:
        """Quarantine the mirrors that served a failed file, if it has other mirrors, so that those are used next.

        A mirror that aria2 never connected to is not quarantined: aria2 opens at most 16 connections to a host name,
        and mirrors may share one. `refused`: a mirror's response, if it is more precise than `reason`.
        """
        served = task.connected.intersection(task.urls) or task.urls
        if len(served) < len(task.step.mirrors):
            for mirror in served:
                self._tasks.issue(commands.RecordOutcome(mirror, Refused((refused or {}).get(mirror, reason))))

    def handle_check(self, event: MirrorsChecked) -> None:
        """Continue with mirrors that aria2 can use; if there is none, by HTTP over one connection."""
        task, check, found = event.task, event.task.pending_check, event.incompatible
        assert check is not None
        task.pending_check = None
        if not found:
            if check.verdict is not None:
                self._retry_wrong_bytes(task, check.verdict, check.used)
            else:
                if check.hidden:
                    self.quarantine_serving(task, check.reason, event.refused)
                self.retry(task, "; ".join(event.refused.values()) or check.reason, check.code)
            return
        candidates = task.suspects or task.step.mirrors
        excluded = self._mirrors.incompatible(candidates) | set(found) | task.guilty
        remaining = tuple(mirror for mirror in candidates if mirror not in excluded)
        self._tasks.issued += [
            commands.RecordOutcome(one, Incompatible(why, others=bool(remaining))) for one, why in found.items()
        ]
        task.step = replace(task.step, mirrors=remaining or candidates)
        if any(why.startswith(COMPRESSED) for why in found.values()):  # aria2 may have written compressed bytes
            self._tasks.issue(commands.Discard(task))
            task.start_over()
        if remaining:
            self.requeue(task, "with mirrors that aria2 can use")
        else:
            self.switch_to_http(task)

    def switch_to_http(self, task: FileTask) -> None:
        """Hand a large file to the HTTP downloader, with the contiguous bytes from its start."""
        if task.ranges:
            self._tasks.issue(commands.KeepPrefix(task, tuple(task.ranges)))
        task.start_over()
        task.carrier = "http"
        self._tasks.large.remove(task)
        self._tasks.by_http.append(task)
        task.move(State.DOWNLOADING, "by HTTP")
        self._tasks.issue(commands.Download(task))

    def handle_hashed(self, task: FileTask, verdict: Verdict, *, present: bool) -> None:
        """Finish a verified file, or check the mirrors after wrong bytes. `present`: another fetch published them."""
        if verdict.good:
            self._tasks.issued += [commands.RecordOutcome(mirror, Delivered(files=1)) for mirror in task.used]
            self._tasks.finish(task, State.DONE)
            return
        if present:
            self._claim_again(task, verdict)
            return
        self._tasks.issue(commands.Discard(task))
        used = tuple(sorted(task.used, key=lambda mirror: mirror.name))
        task.start_over()
        self.check_mirrors(task, PendingCheck(verdict.detail, verdict=verdict, used=used))

    def _claim_again(self, task: FileTask, verdict: Verdict) -> None:
        """Claim the file again: the bytes that another fetch published are wrong or gone."""
        task.wrong_count += 1
        if task.wrong_count > WRONG_TRIES:
            self._tasks.issue(commands.Fail(task, Verdict(task.file.path, verdict.outcome, verdict.detail)))
            self._tasks.finish(task, State.FAILED)
            return
        task.not_before = self._tasks.now + HELD_PAUSE
        self._tasks.queue(task)
        task.move(State.WAITING, verdict.detail)

    def _retry_wrong_bytes(self, task: FileTask, verdict: Verdict, used: Sequence[Mirror]) -> None:
        """Download wrong bytes again: from the origin alone if possible, then from the other mirrors.

        A mirror that served the whole file alone is guilty, and used again only if there is no other.
        """
        shared = " (from it or another mirror)" if len(used) > 1 else ""
        for mirror in used:
            self._tasks.issue(
                commands.RecordOutcome(mirror, ServedWrongBytes(f"{task.file.path} failed its checksum{shared}"))
            )
        servers = " or ".join(mirror.name for mirror in used)
        self._tasks.issue(
            commands.NoteProblem(task, f"{servers} served wrong bytes: {verdict.detail}" if used else verdict.detail)
        )
        task.wrong_count += 1
        task.guilty |= set(used) if len(used) == 1 else set()
        task.suspects = task.suspects or task.step.mirrors
        remaining = [mirror for mirror in task.suspects if mirror not in task.guilty]
        if task.wrong_count > WRONG_TRIES or (task.wrong_count > 1 and not remaining):
            self._tasks.issue(commands.Fail(task, Verdict(task.file.path, verdict.outcome, verdict.detail)))
            self._tasks.finish(task, State.FAILED)
            return
        origin = [mirror for mirror in remaining if mirror == self._origin]
        task.step = replace(task.step, mirrors=tuple(origin or remaining or task.suspects))
        self.requeue(task, verdict.detail)
