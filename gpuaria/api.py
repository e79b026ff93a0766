"""The Python API, and where settings become the objects that touch the world."""

import glob
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpuaria import fetching
from gpuaria._version import __version__
from gpuaria.aria2.options import Shape
from gpuaria.audit.log import AuditLog
from gpuaria.content.policy import Screening
from gpuaria.errors import ConfigError, NotFound, SomeFilesFailed, UsageError
from gpuaria.events import Emit, Waiting, Warned
from gpuaria.fetching.verify import Checked, verify_all
from gpuaria.http.auth import credentials
from gpuaria.http.certificates import ca_file, tls_context
from gpuaria.http.client import Http, HttpOptions
from gpuaria.mirrors.candidates import Candidates
from gpuaria.mirrors.rank import rank
from gpuaria.plan import Rules
from gpuaria.records import Choice, Kind, Manifest, Mirror, Probe, Ranking, RepoRef, Report, Verdict
from gpuaria.settings import Settings, load
from gpuaria.settings.table import Policy
from gpuaria.sources import source
from gpuaria.storage.hf_cache import HfCache, repo_folder
from gpuaria.storage.layout import Layout
from gpuaria.storage.locate import find_layout, noted_commit, read_lock, read_manifest
from gpuaria.storage.plain import Folder
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.untracked import others
from gpuaria.text import printable
from gpuaria.urls import encrypted_or_local, origin

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon

USER_AGENT = f"gpuaria/{__version__}"
FAILS_OFTEN = 2.0  # recent failures from which a mirror is tried last
WORTH_NOTING = 20_000_000  # bytes from one mirror that tell something of its speed


class Session:
    """The world as the settings describe it, for one run. Close it, or use it in a `with`."""

    def __init__(
        self, settings: Settings, *, to: Path | None = None, emit: Emit = lambda event: None, stop: threading.Event
    ) -> None:
        self.settings, self._to, self._emit = settings, to, emit
        self.receipts = Receipts(settings.state_dir / "receipts.sqlite")
        self.audit = AuditLog(settings.state_dir)
        self.http = self._client(stop)
        self.world = fetching.World(
            http=self.http,
            source=source("hf"),
            mirrors=tuple(self._with_token(mirror) for mirror in mirrors_of(settings)),
            layout=self.layout,
            local_commit=self._local_commit,
            daemon=self._daemon,
            expect_download=lambda: threading.Thread(target=_import_aria2, daemon=True).start(),
            policy=_policy(settings),
            remembered=self._remembered,
            remember=self._remember,
            emit=emit,
            stop=stop,
            screening=Screening(
                self.receipts,
                no_pickle=settings.no_pickle,
                check_headers=settings.check_content,
                key=settings.signature_key,
            ),
            audit=self.audit,
            candidates=Candidates(settings, credential=self.http.has_credential(settings.endpoint)),
        )

        for mirror in self.world.mirrors:
            self.http.budget.declare(mirror.base, self.world.source.about.bucket)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: object) -> None:
        self.world.stop.set()  # for threads that an error left at work
        self.receipts.close()
        self.audit.close()
        self.http.close()

    def ref(self, text: str, kind: Kind | None = None, revision: str = "", default: str = "main") -> RepoRef:
        """Read a reference; pasted addresses may be of the endpoint or of any mirror. Raises UsageError.

        `default`: the revision that is meant where neither `text` nor `revision` names one.
        """
        bases = [mirror.base for mirror in self.world.mirrors]
        return self.world.source.parse(text, kind, revision, bases, default)

    def lock(self, path: Path, name: str = "", kind: Kind | None = None, revision: str = "") -> Manifest:
        """The manifest of a lock file, as its own witness; what is named beside it must be what it locks.

        Raises ConfigError for the file, UsageError for another repo, kind or revision.
        """
        manifest = read_lock(path.expanduser())
        ref = manifest.ref
        asked = self.ref(name or ref.name, kind or (None if name else ref.kind), revision, ref.revision)
        names, revisions = (ref.name, manifest.name), (ref.revision, manifest.commit)
        if ref.source != "hf" or asked.kind != ref.kind or asked.name not in names or asked.revision not in revisions:
            raise UsageError(
                f"{printable(str(path))} locks {ref}, not {asked}",
                "Leave the repo and its revision out: the lock says them.",
            )
        return replace(manifest, ref=replace(ref, path=asked.path), vouched_by=f"the lock {printable(path.name)}")

    def layout(self, ref: RepoRef, commit: str) -> Layout:
        """The target: the folder of --to, else the Hugging Face cache."""
        if self._to is not None:
            return Folder(self._to, ref, commit, self.receipts)
        return HfCache(self.settings.cache_dir, ref, commit, self.receipts, symlinks=self.settings.symlinks)

    def limits(self, *, force: bool = False) -> fetching.Limits:
        """The numbers of the settings."""
        s = self.settings
        rules = Rules(s.small_file, s.connections, s.min_split, force, copies=self._to is not None)
        shape = Shape(
            per_server=s.connections,
            min_split=s.min_split,
            connect_timeout=s.connect_timeout,
            timeout=s.timeout,
            max_speed=s.max_speed,
        )
        return fetching.Limits(rules, shape, s.jobs, s.small_jobs, s.verify_jobs, s.patience, USER_AGENT)

    def _client(self, stop: threading.Event) -> Http:
        from gpuaria.dns.names import Names

        s = self.settings
        return Http(
            HttpOptions(
                USER_AGENT,
                s.connect_timeout,
                s.timeout,
                s.patience,
                str(s.ca_bundle or ""),
                tuple(s.send_token_in_clear_text_to),
            ),
            credentials=credentials(s, stop),
            on_wait=lambda text, seconds: self._emit(Waiting(text, seconds)),
            names=Names(
                s.resolvers, lambda: tls_context(str(s.ca_bundle or "")), lambda text: self._emit(Warned(text))
            ),
            stop=stop,
        )

    def _with_token(self, mirror: Mirror) -> Mirror:
        """Noted where a mirror is sent a token of its own; a token that would go out in the clear is told instead.

        One that shares the endpoint's host stays without: the hub's token is for the hub.
        """
        why = self.http.withheld(mirror.base)
        own = not mirror.origin and origin(mirror.base) != origin(self.settings.endpoint)
        if why and (own or mirror.origin):
            self._emit(Warned(f"the token for {mirror.base} is not sent: {why}; {_anyway(mirror.base)}"))
        return replace(mirror, own_token=own and self.http.has_credential(mirror.base))

    def _daemon(self) -> "Daemon":
        from gpuaria.aria2 import binary, daemon

        s = self.settings
        if s.rpc:
            return visit(s)
        found = binary.find(s.aria2c, s.secret_variables)
        return daemon.start(found, ca_file(str(s.ca_bundle or "")), s.secret_variables)

    def _remembered(self, mirrors: Sequence[Mirror], size: int) -> Ranking:
        """Mirrors in the order of what they gave before on this network; one that often failed comes last."""
        from gpuaria.mirrors.history import History

        history = History.here(self.settings.state_dir)
        known = {mirror.name: history.expect(mirror) for mirror in mirrors}
        history.close()
        probes = [Probe(name, past=past.rate, confidence=past.confidence) for name, past in known.items()]
        ranking = rank(probes, size, connections=self.settings.connections, seed=socket.gethostname())
        accepted = [*ranking.accepted, *(Choice(name, None, None, 2, why) for name, why in ranking.rejected)]
        return Ranking(tuple(sorted(accepted, key=lambda choice: known[choice.mirror].failures >= FAILS_OFTEN)))

    def _remember(self, report: Report, mirrors: Sequence[Mirror]) -> None:
        """Note what each of several mirrors gave."""
        if len(mirrors) < 2 or not report.mirrors:
            return
        from gpuaria.mirrors.history import History, Outcome

        history = History.here(self.settings.state_dir)
        bases = {mirror.name: mirror for mirror in mirrors}
        for use in report.mirrors:
            rate = use.bytes / report.seconds if use.bytes > WORTH_NOTING and report.seconds else None
            if rate or use.rejected:
                history.add(bases[use.name], Outcome("transfer", rate=rate, reason=use.rejected))
        history.close()

    def _local_commit(self, ref: RepoRef) -> str:
        """The commit that a revision stood for when the cache last heard of it."""
        if ref.pinned:
            return ref.revision
        if self._to is not None and self._to.exists():
            layout = find_layout(self._to, self.receipts)
            _check_holds(layout, ref)
            return layout.commit_id
        place = self._to or self.settings.cache_dir
        commit = noted_commit(place / repo_folder(ref) / "refs" / ref.revision)
        if not commit:
            raise NotFound(f"{ref} is not in {place}", "Leave --offline and HF_HUB_OFFLINE out to fetch it.")
        return commit


def _check_holds(layout: Layout, ref: RepoRef) -> None:
    """Raise NotFound where a folder says that it holds another repo or revision; one made by hf tells no name."""
    kept = layout.saved()
    if kept is None or (layout.ref.name, layout.ref.revision) == (layout.root.name, layout.commit_id):
        return
    names = {kept.ref.name.lower(), kept.name.lower()}
    same = kept.ref.kind == ref.kind and ref.name.lower() in names
    if not same or ref.revision not in (kept.ref.revision, kept.commit):
        raise NotFound(
            f"{layout.root} holds {kept.ref}, not {ref}, and we are offline",
            "Leave --offline and HF_HUB_OFFLINE out to fetch it, or name another folder.",
        )


def visit(settings: Settings) -> "Daemon":
    """The running aria2c that the setting rpc names. Raises ConfigError where its secret would go out in the clear."""
    from gpuaria.aria2 import daemon

    if settings.rpc_secret and not encrypted_or_local(settings.rpc):
        raise ConfigError(
            f"the secret of aria2c is not sent to {settings.rpc}: it is not encrypted",
            "Use an aria2c of this machine, on 127.0.0.1: it writes to this machine's disks anyway.",
        )
    return daemon.attach(settings.rpc, settings.rpc_secret.reveal())


def _anyway(base: str) -> str:
    """What to do where a token is withheld."""
    host = urlsplit(base).hostname
    if encrypted_or_local(base):  # a proxy stands between us and ourselves
        return f"set no_proxy={host}"
    return f"GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO={host} sends it for all on the way to read"


def _policy(settings: Settings) -> Policy:
    """A checked-out folder may bring mirrors, but not witnesses."""
    if settings.trust == "quorum" and settings.origin("mirrors").layer == "project":
        return "origin"
    return settings.trust


def _import_aria2() -> None:
    """aria2p takes a third of a second to import, and the network answers meanwhile."""
    from gpuaria.aria2 import daemon  # noqa: F401


def mirrors_of(settings: Settings) -> tuple[Mirror, ...]:
    """The endpoint first, which vouches, then the mirrors of the settings; an address counts once."""
    first = Mirror(urlsplit(settings.endpoint).netloc, settings.endpoint, origin=True)
    named = {first.name}
    rows = [first]
    for mirror in settings.mirrors:
        if origin(mirror.base) == origin(first.base) and mirror.base == first.base:
            continue
        name = mirror.name if mirror.name not in named else mirror.base
        named.add(name)
        rows.append(replace(mirror, name=name))
    return tuple(rows)


def fetch(
    repo: str = "",
    *,
    lock: str | Path | None = None,
    files: Sequence[str] = (),
    kind: Kind | None = None,
    revision: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    to: str | Path | None = None,
    force: bool = False,
    emit: Emit = lambda event: None,
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> Report:
    """Fetch a repo and give the report; `settings` are those of `gpuaria config` by name (`connections=8`).

    Of a pasted address of a folder or a file, only that. With a `lock` file the repo need not be named, and nobody is
    asked what it holds.
    Raises GpuariaError's children; FetchFailed, which has the report, when some files failed.
    """
    with session(settings, to, emit, environ) as it:
        locked = it.lock(Path(lock), repo, kind, revision) if lock is not None else None
        ref = locked.ref if locked else it.ref(repo, kind, revision)
        request = request_for(ref, files, include, exclude, force=force, offline=it.settings.offline, lock=locked)
        report, _ = fetching.fetch(request, it.world, it.limits(force=force))
    if report.exit_code:
        raise FetchFailed(report)
    return report


def resolve(
    repo: str,
    *,
    kind: Kind | None = None,
    revision: str = "",
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> Manifest:
    """The files of a repo, or of a pasted address's part of it, at one commit, with sizes and digests.

    Raises GpuariaError's children.
    """
    with session(settings, None, lambda event: None, environ) as it:
        request = request_for(it.ref(repo, kind, revision), offline=it.settings.offline)
        return request.selected(fetching.resolve(request, it.world)[0])


def session(
    flags: Mapping[str, object], to: str | Path | None, emit: Emit, environ: Mapping[str, str] | None
) -> Session:
    """A session from settings by name over the environment and the files."""
    settings = load(flags, os.environ if environ is None else environ, Path.cwd())
    return Session(settings, to=Path(to).expanduser() if to else None, emit=emit, stop=threading.Event())


def request_for(
    ref: RepoRef,
    names: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    force: bool = False,
    dry_run: bool = False,
    offline: bool = False,
    lock: Manifest | None = None,
) -> fetching.Request:
    """A request; the folder or file that a pasted address named limits it like a name given beside it."""
    if any(not text for text in (*names, *include, *exclude)):
        raise UsageError("an empty file name or pattern selects nothing", "Leave it out.")
    if ref.path:
        exact = glob.escape(ref.path)  # an address is no pattern
        names = (*names, exact)
        include = (*include, *([] if exact.endswith("/") else [f"{exact}/"]))
    return fetching.Request(ref, tuple(names), tuple(include), tuple(exclude), force, dry_run, offline, lock)


class FetchFailed(SomeFilesFailed):
    """Some files could not be had, or had wrong bytes; `report` says which, the others are in place."""

    def __init__(self, report: Report) -> None:
        first = report.problems[0]
        super().__init__(f"{len(report.problems)} of {report.files} files failed; {first.path}: {first.detail}")
        self.report = report


def verify(path: str | Path, *, each: Callable[[Verdict], None] = lambda verdict: None) -> Checked:
    """Check a folder, a snapshot or a cached repo against its saved manifest, without any network.

    Raises DiskError where there is nothing to compare with.
    """
    receipts = Receipts(None)
    layout = find_layout(Path(path).expanduser(), receipts)
    return check(layout, read_manifest(layout), each)


def check(
    layout: Layout,
    manifest: Manifest,
    each: Callable[[Verdict], None] = lambda verdict: None,
    chosen: Callable[[str], bool] = lambda path: True,
) -> Checked:
    """Check what is in place for every chosen file of `manifest`, and name files that it does not know."""
    known = {str(file.path) for file in manifest.files}
    files = [file for file in manifest.files if chosen(file.path)]
    extra = filter(chosen, others(layout.root, known))
    return verify_all(files, lambda file: file.path.under(layout.root), extra, each)
