"""Rules for resolved URLs: the first one starts a download, others are added, signed ones are renewed. Pure."""

from dataclasses import replace

from gpuaria.errors import AccessDenied, NotAHub, NotFound
from gpuaria.mirrors.pool import RENEW_BEFORE, Refused
from gpuaria.records import MirrorUrl
from gpuaria.transfer import commands
from gpuaria.transfer.events import Replaced, Resolved
from gpuaria.transfer.recovery import Recovery
from gpuaria.transfer.run_tasks import RunTasks
from gpuaria.transfer.task import FileTask, State
from gpuaria.transfer.tuning import PORTAL_RESPONSES


class Resolving:
    """Handles the mirrors' responses to requests for a file's URL."""

    def __init__(self, tasks: RunTasks, recovery: Recovery) -> None:
        self._tasks, self._recovery = tasks, recovery

    def handle_resolved(self, event: Resolved) -> None:
        """Start a download with its first URL, add a further one, or note why a mirror gave none."""
        task, mirror, found = event.task, event.mirror, event.found
        if task.attempt != event.attempt or task.carrier == "http":
            return
        task.urls_awaited -= 1
        if isinstance(found, MirrorUrl):
            if task.state is State.RESOLVING:  # start with the first URL: a distant mirror must not delay the near ones
                task.use_url(found, event.wall)
                task.move(State.DOWNLOADING)
                self._tasks.issue(commands.Prepare(task, self._tasks.bytes_to_come()))
            else:
                self._exchange(task, found, event.wall)
            return
        if found is None:
            task.needs_credential = True
        else:
            task.reasons[mirror] = found.message
            task.cause = found
            self._tasks.issue(commands.NoteProblem(task, found.message))
            if len(task.step.mirrors) > 1:
                self._tasks.issue(commands.RecordOutcome(mirror, Refused(found.message)))
        if not task.urls_awaited and task.state is State.RESOLVING:
            self._without_url(task)

    def _without_url(self, task: FileTask) -> None:
        """Decide how to continue if no mirror has a URL that aria2 can use."""
        only, cause = len(task.step.mirrors) == 1, task.cause
        if task.needs_credential or not task.reasons:
            self._recovery.switch_to_http(task)
        elif isinstance(cause, NotAHub) and only and task.attempt > PORTAL_RESPONSES:
            self._tasks.fail(task, cause.message, cause)
            self._tasks.issue(commands.Abort(cause))
        elif isinstance(cause, AccessDenied) or (isinstance(cause, NotFound) and only):
            self._tasks.fail(task, cause.message, cause)
            if isinstance(cause, AccessDenied):
                self._tasks.issue(commands.Abort(cause))
        else:
            self._recovery.retry_later(task, "; ".join(task.reasons.values()))

    def renew_expiring(self, task: FileTask, wall: float) -> None:
        """Renew signed URLs that are about to expire, while the download continues."""
        for mirror, url in list(task.urls.items()):
            if url.expires is not None and url.expires - wall < RENEW_BEFORE and wall >= task.renew_at[mirror]:
                task.urls[mirror] = replace(url, expires=None)  # renew once
                self._tasks.issue(commands.Renew(task, mirror))

    def handle_replaced(self, event: Replaced) -> None:
        """Use a mirror's new URL in a running download."""
        if event.renewed == (event.url.mirror in event.task.urls):
            self._exchange(event.task, event.url, event.wall)

    def _exchange(self, task: FileTask, url: MirrorUrl, wall: float) -> None:
        """Add a URL, or replace its mirror's old one."""
        if task.state is State.DOWNLOADING and task.carrier == "aria2":
            old = task.urls.get(url.mirror)
            task.use_url(url, wall)
            self._tasks.issue(commands.ChangeUrls(task, old, url))
