"""Process-wide objects with side effects, built from settings, for any number of fetches."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpuaria import fetching
from gpuaria._version import __version__
from gpuaria.aria2.options import DownloadLimits
from gpuaria.aria2.shared import SharedAria2
from gpuaria.audit.log import AuditLog
from gpuaria.content.policy import Screening
from gpuaria.errors import ConfigError, SomeFilesFailed, UsageError
from gpuaria.events import Emit, Event, Waiting, Warned
from gpuaria.fetching.hub import Hub, open_hub, reference, server_of
from gpuaria.fetching.listings import Listings
from gpuaria.fetching.request import request_for
from gpuaria.http.auth import credentials
from gpuaria.http.certificates import ca_file, tls_context
from gpuaria.http.client import Http, HttpOptions
from gpuaria.http.ratelimit import TokenBucket
from gpuaria.mirrors import configured
from gpuaria.mirrors.probing import Probing
from gpuaria.plan import PlanRules
from gpuaria.records import DownloadPlan, Manifest, RepoKind, RepoRef, Report
from gpuaria.settings import Settings, check_keywords, load
from gpuaria.settings.table import TrustPolicy
from gpuaria.sources import source
from gpuaria.storage.locate import folder_name, read_lock
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.target import Target
from gpuaria.text import printable
from gpuaria.urls import encrypted_or_local

if TYPE_CHECKING:
    from gpuaria.aria2.daemon import Daemon

USER_AGENT = f"gpuaria/{__version__}"
_CLOSE_SECONDS = 30.0  # for fetches of other threads to end when the runtime is closed


class FetchFailed(SomeFilesFailed):
    """Some files failed or had wrong bytes; `report` lists them. All other files are in place."""

    def __init__(self, report: Report) -> None:
        first = report.problems[0]
        super().__init__(f"{len(report.problems)} of {report.files} files failed; {first.path}: {first.detail}")
        self.report = report


def _ignore(event: Event) -> None:
    """Discard an event, for a caller without a listener."""


class Runtime:
    """One aria2c, speed limit, receipt store, and HTTP client per source, shared by any number of fetches.

    Fetches may run in several threads at once: a file that two of them need is downloaded once. `emit` receives the
    events that belong to no single fetch. Close the runtime or use it in a `with` block: that ends its fetches, threads
    and aria2c.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        emit: Emit = _ignore,
        stop: threading.Event | None = None,
        **named: object,
    ) -> None:
        """Use `settings`, or load them from environment and files; `named` ones take precedence (`connections=8`).

        `stop` interrupts work that belongs to no single fetch, such as a credential helper. Raises ConfigError.
        """
        check_keywords(named)
        self.settings = s = settings or load(named, os.environ, Path.cwd())
        self._emit, self._stop = emit, stop or threading.Event()
        self._fetches: dict[object, tuple[Emit, threading.Event]] = {}
        self._condition, self._closed = threading.Condition(), False
        self.receipts = Receipts(s.state_dir / "receipts.sqlite")
        self.audit = AuditLog(s.state_dir)
        self._hubs: dict[tuple[str, str], Hub] = {}
        self.aria2 = SharedAria2(self._daemon)
        self.bucket = TokenBucket(s.max_speed)
        self._listings = Listings()
        self._mirror_ranking = configured.MirrorRanking(s.state_dir, s.connections)

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Interrupt the fetches of other threads, wait for them, then stop aria2c and close every connection."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._stop.set()
            for _, stop in self._fetches.values():
                stop.set()
            self._condition.wait_for(lambda: not self._fetches, _CLOSE_SECONDS)
        self.aria2.close()
        self.receipts.close()
        self.audit.close()
        for hub in self._hubs.values():
            hub.http.close()

    @property
    def limit(self) -> int:
        """The speed limit of all fetches together, in bytes per second; 0 for none. May be changed at any time."""
        return self.bucket.rate

    @limit.setter
    def limit(self, rate: int) -> None:
        self.bucket.rate = rate

    def fetch(
        self,
        what: str | fetching.FetchRequest,
        to: str | Path | None = None,
        emit: Emit = _ignore,
        stop: threading.Event | None = None,
    ) -> Report:
        """Fetch a repo by name or URL, or the files that a request selects, into the folder `to` or the cache.

        Setting `stop` interrupts this fetch. Raises subclasses of GpuariaError; FetchFailed, which holds the report, if
        some files failed.
        """
        report, _ = self.run(self._request(what), to, emit, stop)
        if report.exit_code:
            raise FetchFailed(report)
        return report

    def resolve(
        self, what: str | fetching.FetchRequest, emit: Emit = _ignore, stop: threading.Event | None = None
    ) -> Manifest:
        """Return the manifest of a repo, or of the files that a request selects, at one commit, with sizes and digests.

        Raises subclasses of GpuariaError.
        """
        request = self._request(what)
        with self.world(None, emit, stop, request.ref) as world:
            return request.selected(fetching.resolve(request, world)[0])

    def run(
        self,
        request: fetching.FetchRequest,
        to: str | Path | None = None,
        emit: Emit = _ignore,
        stop: threading.Event | None = None,
    ) -> tuple[Report, DownloadPlan]:
        """Execute a request, or only plan it; if files failed, the report has an exit code."""
        with self.world(to, emit, stop, request.ref) as world:
            return fetching.fetch(request, world, self._limits(request, world))

    def ref(self, text: str, kind: RepoKind | None = None, revision: str = "", default: str = "") -> RepoRef:
        """Parse a reference; a pasted URL may be of an endpoint or of any mirror. Raises UsageError.

        `default`: the revision to use if neither `text` nor `revision` names one.
        """
        return reference(self.settings, text, kind, revision, default)

    def hub(self, ref: RepoRef | None = None) -> Hub:
        """Return the hub of a reference, the default one without a reference.

        Raises UsageError for an unknown source.
        """
        opened = source(ref.source if ref else "hf")
        server = server_of(opened, ref)
        key = (opened.about.name, server.base if server else "")
        with self._condition:
            if key not in self._hubs:
                self._hubs[key] = open_hub(
                    self.settings, opened, ref, self._client, lambda text: self._emit(Warned(text))
                )
            return self._hubs[key]

    def lock(self, path: Path, name: str = "", kind: RepoKind | None = None, revision: str = "") -> Manifest:
        """Read a lock file as a trusted manifest; a repo named together with it must be the locked one.

        Raises ConfigError for the file, UsageError for another repo, kind or revision.
        """
        manifest = read_lock(path.expanduser())
        ref = manifest.ref
        source(ref.source)
        own = ref.name if ref.source == "hf" else f"{ref.source}:{ref.name}"
        requested = self.ref(name or own, kind or (None if name else ref.kind), revision, ref.revision)
        names, revisions = (ref.name, manifest.name), (ref.revision, manifest.commit)
        same = (requested.source, requested.kind) == (ref.source, ref.kind)
        if not same or requested.name not in names or requested.revision not in revisions:
            raise UsageError(
                f"{printable(str(path))} is the lock file of {ref}, not of {requested}",
                "Leave out the repo and its revision; the lock file contains them.",
            )
        return replace(manifest, ref=replace(ref, path=requested.path), vouched_by=f"lock file {printable(path.name)}")

    def target(self, to: str | Path | None = None, ref: RepoRef | None = None) -> Target:
        """Return the folder `to`, or the default target of the source of `ref`: the HF cache, or a plain folder."""
        folder = Path(to).expanduser() if to is not None else None
        if folder is None and ref is not None and source(ref.source).about.layout == "folder":
            folder = Path.cwd() / folder_name(ref)
        folder_path = self.settings.cache_dir if folder is None else folder
        return Target(folder_path, self.receipts, cache=folder is None, symlinks=self.settings.symlinks)

    @contextmanager
    def world(
        self,
        to: str | Path | None = None,
        emit: Emit | None = None,
        stop: threading.Event | None = None,
        ref: RepoRef | None = None,
    ) -> Iterator[fetching.World]:
        """Yield the objects that one fetch of `ref` uses, with its own target, listener and stop event."""
        listener, stop_event = emit or self._emit, stop or threading.Event()
        hub, target = self.hub(ref), self.target(to, ref)
        s = hub.settings
        http = hub.http.for_fetch(stop_event, lambda text, seconds: listener(Waiting(text, seconds)))
        with self._registered(listener, stop_event), closing(Probing.from_settings(s, http, USER_AGENT)) as probing:
            yield fetching.World(
                http=http,
                source=hub.source,
                mirrors=hub.mirrors,
                target=target,
                aria2=self.aria2,
                listings=self._listings,
                bucket=self.bucket,
                policy=_trust_policy(s),
                mirror_ranking=self._mirror_ranking,
                emit=listener,
                stop=stop_event,
                screening=Screening(
                    self.receipts, no_pickle=s.no_pickle, check_headers=s.check_content, key=s.signature_key
                ),
                audit=self.audit,
                candidates=hub.candidates,
                probing=probing,
            )

    @contextmanager
    def _registered(self, emit: Emit, stop: threading.Event) -> Iterator[None]:
        """Register a fetch so that `close` and its stop event interrupt it.

        Raises UsageError if the runtime is closed.
        """
        key = object()
        with self._condition:
            if self._closed:
                raise UsageError("this runtime is closed", "Create another Runtime.")
            self._fetches[key] = emit, stop
        try:
            yield
        finally:
            with self._condition:
                del self._fetches[key]
                self._condition.notify_all()

    def _request(self, what: str | fetching.FetchRequest) -> fetching.FetchRequest:
        request = request_for(self.ref(what)) if isinstance(what, str) else what
        return replace(request, offline=request.offline or self.settings.offline)

    def _limits(self, request: fetching.FetchRequest, world: fetching.World) -> fetching.RunLimits:
        """Return the numeric settings of a request."""
        s = self.settings
        rules = PlanRules(
            s.small_file, s.connections, s.min_split, request.force, copies=world.target.folder is not None
        )
        shape = DownloadLimits(
            per_server=s.connections,
            min_split=s.min_split,
            connect_timeout=s.connect_timeout,
            timeout=s.timeout,
            max_speed=self.limit,
        )
        return fetching.RunLimits(rules, shape, s.jobs, s.small_jobs, s.verify_jobs, s.patience, USER_AGENT)

    def _client(self, s: Settings) -> Http:
        from gpuaria.dns.fallback import FallbackResolver

        bundle = str(s.ca_bundle or "")
        options = HttpOptions(
            USER_AGENT, s.connect_timeout, s.timeout, s.patience, bundle, tuple(s.send_token_in_clear_text_to)
        )
        return Http(
            options,
            credentials=credentials(s, self._stop),
            names=FallbackResolver(s.resolvers, lambda: tls_context(bundle), self._warn),
            stop=self._stop,
        )

    def _warn(self, text: str) -> None:
        """Warn every running fetch; without one, the runtime's own listener."""
        with self._condition:
            listeners: list[Callable[[Event], None]] = [emit for emit, _ in self._fetches.values()]
        for emit in dict.fromkeys(listeners or [self._emit]):
            emit(Warned(text))

    def _daemon(self) -> "Daemon":
        from gpuaria.aria2 import binary, daemon

        s = self.settings
        if s.rpc:
            return attach_configured(s)
        secret = s.secret_variables.union(*(hub.settings.secret_variables for hub in list(self._hubs.values())))
        found = binary.find_binary(s.aria2c, secret)
        return daemon.start(found, ca_file(str(s.ca_bundle or "")), secret)


def attach_configured(settings: Settings) -> "Daemon":
    """Attach to the aria2c of the setting `rpc`. Raises ConfigError if its secret would be sent unencrypted."""
    from gpuaria.aria2 import daemon

    if settings.rpc_secret and not encrypted_or_local(settings.rpc):
        raise ConfigError(
            f"the aria2c secret is not sent to {settings.rpc}: the connection is not encrypted",
            "Use an aria2c on this machine (127.0.0.1); it must write to this machine's disks anyway.",
        )
    return daemon.attach(settings.rpc, settings.rpc_secret.reveal())


def _trust_policy(settings: Settings) -> TrustPolicy:
    """Return the trust policy.

    Mirrors from a project's settings file may serve bytes, but do not count for a quorum.
    """
    if settings.trust == "quorum" and settings.setting_source("mirrors").layer == "project":
        return "origin"
    return settings.trust
