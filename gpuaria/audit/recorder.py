"""What one run leaves in the audit log: a line for each file that it published, proved or refused, and its own."""

import os
import pwd
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpuaria._version import __version__
from gpuaria.audit.byte_sources import ByteSources
from gpuaria.audit.log import AuditLog
from gpuaria.audit.record import FileLine, MirrorShare, RunLine, clean, dump, name
from gpuaria.errors import GpuariaError, NetworkError, Unreachable
from gpuaria.paths import SafePath
from gpuaria.records import (
    GOOD_OUTCOMES,
    DownloadPlan,
    Manifest,
    Mirror,
    MirrorUse,
    RemoteFile,
    Step,
    Verdict,
    count_outcomes,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run was asked for: the reference, file names and patterns, other flags, and the endpoint in use."""

    ref: str
    selection: tuple[str, ...]
    flags: tuple[str, ...]
    endpoint: str


class RunTarget(Protocol):
    """Where a run puts files."""

    @property
    def root(self) -> Path:
        """The folder that the user gets."""

    def content_path(self, file: RemoteFile) -> Path:
        """Where the bytes of a file are."""


class Outcomes(Protocol):
    """What came of a run so far."""

    @property
    def fetched(self) -> int:
        """Bytes that came over the network."""

    @property
    def mirrors(self) -> Sequence[Mirror]:
        """The mirrors of the run, those that joined included."""

    def byte_sources(self, path: str) -> ByteSources:
        """Where the bytes of a file came from."""

    def unfinished(self) -> list[str]:
        """Paths of files of which bytes came, and that have no verdict."""

    def mirror_uses(self) -> tuple[MirrorUse, ...]:
        """What each mirror delivered."""

    def verdicts_so_far(self) -> tuple[Verdict, ...]:
        """The verdicts."""


class Recorder:
    """The entries of one run in the audit log. `settled` is for any thread.

    A file's line is written at the moment of its verdict, so that a run that is killed has told of what it published.
    """

    def __init__(self, log: AuditLog, asked: Asked, mirrors: Sequence[Mirror]) -> None:
        self._log, self._asked = log, asked
        self._run, self._at, self._began = secrets.token_hex(6), _now(), time.monotonic()
        self._user, self._host = _user(), socket.gethostname()
        self._mirrors: Sequence[Mirror] = mirrors
        self._manifest: Manifest | None = None
        self._results: Outcomes | None = None
        self._place: RunTarget | None = None
        self._root = ""
        self._steps: Mapping[SafePath, Step] = {}

    def uses(self, mirrors: Sequence[Mirror]) -> None:
        """The mirrors that may serve this run."""
        self._mirrors = mirrors

    def begins(self, manifest: Manifest, place: RunTarget, plan: DownloadPlan, results: Outcomes) -> None:
        """The plan is made and about to be carried out."""
        self._manifest, self._results, self._place = manifest, results, place
        self._root = os.path.realpath(place.root)
        self._steps = {step.file.path: step for step in plan.steps}

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        """A file has its verdict. One that is in place and was proven before gets no line, nor one that never came."""
        action = self._steps[file.path].action
        if action == "skip" and verdict.outcome in GOOD_OUTCOMES:
            return
        assert self._results is not None
        origins = self._results.byte_sources(file.path)
        if verdict.outcome in ("failed", "missing") and not origins.given:
            return
        self._append(file, verdict.outcome, verdict.detail, origins)

    def ended(self, exit_code: int) -> None:
        """The run came to its end."""
        self._close(exit_code, "", "")

    def broke(self, error: BaseException) -> None:
        """An error ended the run. What came of files without a verdict is told too: the next run goes on with it."""
        for path in self._results.unfinished() if self._results else ():
            assert self._results is not None
            self._append(self._steps[SafePath(path)].file, "unfinished", "", self._results.byte_sources(path))
        code = error.exit_code if isinstance(error, GpuariaError) else GpuariaError.exit_code
        # The log's readers know this word, and not the kinds of it.
        word = NetworkError.__name__ if isinstance(error, Unreachable) else type(error).__name__
        self._close(code, word, str(error))

    def _append(self, file: RemoteFile, outcome: str, detail: str, origins: ByteSources) -> None:
        assert self._manifest is not None
        assert self._place is not None
        manifest, step = self._manifest, self._steps[file.path]
        path, content = f"{self._root}/{file.path}", ""
        with suppress(OSError, GpuariaError):  # to have no line would be worse
            content = os.path.realpath(self._place.content_path(file))
        copied = step.action == "copy" and outcome in GOOD_OUTCOMES
        here = step.action in ("name", "verify", "skip") and not origins.given
        line = FileLine(
            run=self._run,
            at=_now(),
            user=self._user,
            host=self._host,
            ref=clean(self._asked.ref),
            repo=manifest.name,
            commit=manifest.commit,
            vouched_by=clean(manifest.vouched_by),
            trust=manifest.trust,
            path=path,
            content="" if content == path else content,
            file=file.path,
            size=file.size,
            digest=str(file.digest or ""),
            outcome=outcome,
            detail=clean(detail),
            action="replace" if step.action in ("name", "verify") and origins.given else step.action,
            mirrors=tuple(self._part(MirrorUse(mirror, count)) for mirror, count in origins.given.items()),
            about=step.carrier != "http" and (len(origins.given) > 1 or outcome == "unfinished"),
            reused=file.size if copied or (here and outcome in GOOD_OUTCOMES) else origins.before,
            same_as=step.owner or "" if copied else "",
            problems=tuple(map(clean, origins.problems)),
        )
        self._log.append(dump(line))

    def _part(self, use: MirrorUse) -> MirrorShare:
        mirrors = self._results.mirrors if self._results else self._mirrors
        base = next((mirror.base for mirror in mirrors if mirror.name == use.name), "")
        return MirrorShare(name(use.name), clean(base), use.bytes, use.files, clean(use.rejected))

    def _close(self, exit_code: int, error: str, message: str) -> None:
        """Write the run's own line."""
        asked, manifest, results = self._asked, self._manifest, self._results
        line = RunLine(
            run=self._run,
            at=self._at,
            seconds=round(time.monotonic() - self._began, 3),
            user=self._user,
            host=self._host,
            gpuaria=__version__,
            ref=clean(asked.ref),
            asked=tuple(map(clean, asked.selection)),
            flags=asked.flags,
            repo=manifest.name if manifest else "",
            commit=manifest.commit if manifest else "",
            vouched_by=clean(manifest.vouched_by) if manifest else "",
            trust=manifest.trust if manifest else "",
            path=self._root,
            endpoint=clean(asked.endpoint),
            mirrors=tuple(map(self._part, results.mirror_uses() if results else ())),
            verdicts=count_outcomes(results.verdicts_so_far()) if results else {},
            bytes_fetched=results.fetched if results else 0,
            bytes_reused=_reused(manifest, results) if manifest and results else 0,
            exit_code=exit_code,
            error=error,
            message=clean(message),
        )
        self._log.append(dump(line))


def _reused(manifest: Manifest, results: Outcomes) -> int:
    """Bytes of files in place that did not come in this run."""
    good = {verdict.path for verdict in results.verdicts_so_far() if verdict.good}
    return max(0, sum(file.size for file in manifest.files if file.path in good) - results.fetched)


def _now() -> str:
    """This moment in UTC, as RFC 3339 has it."""
    now = time.time_ns() // 10**6
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 1000))}.{now % 1000:03d}Z"


def _user() -> str:
    """Who runs this: what the system says, since variables can say anything."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
