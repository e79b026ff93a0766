"""Writes the audit lines of one run: one for each file published, verified or refused, and one for the run."""

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
    """The request of a run: reference, file names and patterns, other options, and the endpoint."""

    ref: str
    selection: tuple[str, ...]
    flags: tuple[str, ...]
    endpoint: str


class RunTarget(Protocol):
    """The target of a run."""

    @property
    def root(self) -> Path:
        """The folder that is printed at the end."""

    def content_path(self, file: RemoteFile) -> Path:
        """Return the path of a file's bytes."""


class Outcomes(Protocol):
    """The results of a run so far."""

    @property
    def fetched(self) -> int:
        """Bytes downloaded."""

    @property
    def mirrors(self) -> Sequence[Mirror]:
        """The mirrors of the run, including those that joined."""

    def byte_sources(self, path: str) -> ByteSources:
        """Return which mirrors delivered the bytes of a file."""

    def unfinished(self) -> list[str]:
        """Return the paths of files with downloaded bytes but without a verdict."""

    def mirror_uses(self) -> tuple[MirrorUse, ...]:
        """Return what each mirror delivered."""

    def verdicts_so_far(self) -> tuple[Verdict, ...]:
        """Return the verdicts so far."""


class Recorder:
    """Writes the audit lines of one run. Any thread may call `record_file`.

    A file's line is written with its verdict, so a killed run leaves lines for the files that it published.
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

    def set_mirrors(self, mirrors: Sequence[Mirror]) -> None:
        """Set the mirrors that may be used in this run."""
        self._mirrors = mirrors

    def start(self, manifest: Manifest, place: RunTarget, plan: DownloadPlan, results: Outcomes) -> None:
        """Start recording files: the plan is complete."""
        self._manifest, self._results, self._place = manifest, results, place
        self._root = os.path.realpath(place.root)
        self._steps = {step.file.path: step for step in plan.steps}

    def record_file(self, file: RemoteFile, verdict: Verdict) -> None:
        """Write the line of a file with its verdict; none if it was verified before or if no bytes of it arrived."""
        action = self._steps[file.path].action
        if action == "skip" and verdict.outcome in GOOD_OUTCOMES:
            return
        assert self._results is not None
        byte_sources = self._results.byte_sources(file.path)
        if verdict.outcome in ("failed", "missing") and not byte_sources.by_mirror:
            return
        self._append(file, verdict.outcome, verdict.detail, byte_sources)

    def finish(self, exit_code: int) -> None:
        """Write the line of a run that ended with a report."""
        self._close(exit_code, "", "")

    def fail(self, error: BaseException) -> None:
        """Write the lines of a run that an error ended, and of its unfinished files, which the next run resumes."""
        for path in self._results.unfinished() if self._results else ():
            assert self._results is not None
            self._append(self._steps[SafePath(path)].file, "unfinished", "", self._results.byte_sources(path))
        code = error.exit_code if isinstance(error, GpuariaError) else GpuariaError.exit_code
        # Readers of the log know this class, not its subclasses.
        word = NetworkError.__name__ if isinstance(error, Unreachable) else type(error).__name__
        self._close(code, word, str(error))

    def _append(self, file: RemoteFile, outcome: str, detail: str, byte_sources: ByteSources) -> None:
        assert self._manifest is not None
        assert self._place is not None
        manifest, step = self._manifest, self._steps[file.path]
        path, content = f"{self._root}/{file.path}", ""
        with suppress(OSError, GpuariaError):  # a line without `content` is better than none
            content = os.path.realpath(self._place.content_path(file))
        copied = step.action == "copy" and outcome in GOOD_OUTCOMES
        on_disk = step.action in ("name", "verify", "skip") and not byte_sources.by_mirror
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
            action="replace" if step.action in ("name", "verify") and byte_sources.by_mirror else step.action,
            mirrors=tuple(self._part(MirrorUse(mirror, count)) for mirror, count in byte_sources.by_mirror.items()),
            about=step.carrier != "http" and (len(byte_sources.by_mirror) > 1 or outcome == "unfinished"),
            reused=file.size if copied or (on_disk and outcome in GOOD_OUTCOMES) else byte_sources.on_disk_before,
            same_as=step.owner or "" if copied else "",
            problems=tuple(map(clean, byte_sources.problems)),
        )
        self._log.append(dump(line))

    def _part(self, use: MirrorUse) -> MirrorShare:
        mirrors = self._results.mirrors if self._results else self._mirrors
        base = next((mirror.base for mirror in mirrors if mirror.name == use.name), "")
        return MirrorShare(name(use.name), clean(base), use.bytes, use.files, clean(use.rejected))

    def _close(self, exit_code: int, error: str, message: str) -> None:
        """Write the line of the run."""
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
    """Return the bytes of files in place that this run did not download."""
    good = {verdict.path for verdict in results.verdicts_so_far() if verdict.good}
    return max(0, sum(file.size for file in manifest.files if file.path in good) - results.fetched)


def _now() -> str:
    """Return the current UTC time in RFC 3339 format."""
    now = time.time_ns() // 10**6
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 1000))}.{now % 1000:03d}Z"


def _user() -> str:
    """Return the user name from the system, not from environment variables."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
