"""The state of all mirrors during a run, with one owner."""

import logging
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpuaria.clock import SYSTEM, Clock
from gpuaria.mirrors import suitability
from gpuaria.mirrors.cached_redirects import CachedRedirects
from gpuaria.mirrors.health import Health
from gpuaria.mirrors.hub_files import HubFiles
from gpuaria.mirrors.traffic import Judge, Traffic, endpoints
from gpuaria.records import Mirror, MirrorUrl, MirrorUse, RemoteFile

LOG = logging.getLogger("gpuaria.transfer")
INCOMPATIBLE_FOR = 600.0  # seconds for which a mirror that aria2 cannot use is quarantined while there are others
RENEW_BEFORE = 60.0  # seconds before its end from which a signed URL is not handed out again


@dataclass(frozen=True, slots=True)
class Delivered:
    """`count` bytes came from a mirror; `files` more files of which it served a part were verified."""

    count: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A mirror gave an error instead of bytes; `wait`: the seconds that it asks for."""

    reason: str
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Stalled:
    """A mirror holds downloads up: it is silent, or much slower than before or than the others."""

    reason: str


@dataclass(frozen=True, slots=True)
class ServedWrongBytes:
    """A file failed its checksum while a mirror was serving it; `small`: by one request, maybe by a cached redirect."""

    reason: str
    small: bool = False


@dataclass(frozen=True, slots=True)
class Incompatible:
    """A mirror gives bytes in a form that aria2 cannot use; `others`: whether another mirror can serve the file."""

    reason: str
    others: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """A mirror that was quarantined gives bytes again."""


MirrorEvent = Delivered | Refused | Stalled | ServedWrongBytes | Incompatible | Recovered


@dataclass
class _Use:
    bytes: int = 0
    files: int = 0
    rejected: str = ""


@dataclass
class MirrorPool:
    """Health, traffic, incompatibility, cached redirects and final URLs of the mirrors of one run. Thread-safe, except
    for `traffic` and `judge`, which belong to the thread that drives the downloads.
    """

    files: HubFiles
    mirrors: Sequence[Mirror]
    clock: Clock = SYSTEM
    traffic: Traffic = field(default_factory=Traffic)
    judge: Judge = field(default_factory=Judge)
    redirects: CachedRedirects = field(init=False)
    _health: Health = field(init=False)
    _incompatible: set[Mirror] = field(default_factory=set)
    _urls: dict[tuple[Mirror, str], MirrorUrl] = field(default_factory=dict)
    _uses: dict[Mirror, _Use] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        presumed = frozenset(one for one in self.mirrors if self.files.redirects_small_files(one))
        self.redirects, self._health = CachedRedirects(presumed), Health(self.clock)

    # --- which mirror --------------------------------------------------------------------------------------------

    def usable(self, mirrors: Sequence[Mirror]) -> list[Mirror]:
        """Return the mirrors that are not quarantined; if every one is, all of them: a try costs nothing."""
        return self._health.usable(mirrors)

    def due(self, wanted: Collection[Mirror]) -> list[Mirror]:
        """Mirrors of `wanted` whose quarantine is over, each once: they should be tested."""
        return self._health.due(wanted)

    def incompatible(self, mirrors: Iterable[Mirror]) -> set[Mirror]:
        """Mirrors of `mirrors` whose responses aria2 cannot use."""
        with self._lock:
            return self._incompatible.intersection(mirrors)

    def named(self, name: str) -> Mirror:
        """Return the mirror of that name."""
        return next(mirror for mirror in self.mirrors if mirror.name == name)

    def join(self, mirrors: Sequence[Mirror]) -> None:
        """Let more mirrors serve this run."""
        with self._lock:
            self.mirrors = (*self.mirrors, *mirrors)

    # --- where ---------------------------------------------------------------------------------------------------

    def url(self, mirror: Mirror, file: RemoteFile, *, fresh: bool = False) -> MirrorUrl | None:
        """Return the final URL of a file at a mirror; None if its bytes need a credential. Raises GpuariaError.

        A URL that was resolved before is used again until a minute before it expires, unless it has to be `fresh`.
        """
        key, now = (mirror, str(file.path)), self.clock.time()
        known = self._urls.get(key)
        if known is not None and not fresh and (known.expires is None or known.expires - now > RENEW_BEFORE):
            return known
        found = self.files.locate(mirror, file)
        with self._lock:
            if found is None:
                self._urls.pop(key, None)
            else:
                self._urls[key] = found
        return found

    def learn(self, url: MirrorUrl) -> None:
        """Find out at which addresses aria2 reaches a URL, so that its bytes can be told from other mirrors'."""
        self.traffic.learn(url.mirror, endpoints(self.files.http.routes, url))

    def refusal(self, url: MirrorUrl) -> tuple[str, float | None]:
        """Return why a URL gives aria2 no bytes, and the seconds that it asks to wait; ("", None) if it does."""
        return suitability.refusal(self.files.http, url)

    def why_incompatible(self, url: MirrorUrl) -> str:
        """Return why aria2 cannot use a URL's response; empty if it can, or if there is no response."""
        return suitability.incompatible(self.files.http, url)

    # --- what happened -------------------------------------------------------------------------------------------

    def record(self, mirror: Mirror, what: MirrorEvent) -> None:
        """Take in what happened with a mirror. Everything but delivered bytes is logged."""
        if isinstance(what, Delivered):
            with self._lock:
                use = self._use(mirror)
                use.bytes += what.count
                use.files += what.files
            return
        LOG.debug("mirror %s: %s", mirror.name, what)
        if isinstance(what, Recovered):
            self.judge.forget(mirror)
            self._health.release(mirror)
            self.reject(mirror, "")
            return
        if isinstance(what, Refused):
            self._health.quarantine(mirror, what.reason, what.wait)
        elif isinstance(what, Stalled):
            self.judge.forget(mirror)
            self._health.quarantine(mirror, what.reason)
        elif isinstance(what, ServedWrongBytes):
            if what.small:
                self.redirects.mistrust(mirror)
        else:
            with self._lock:
                self._incompatible.add(mirror)
            if not what.others:
                return
            self._health.quarantine(mirror, what.reason, INCOMPATIBLE_FOR)
        self.reject(mirror, what.reason)

    def reject(self, mirror: Mirror, reason: str) -> None:
        """Note why a mirror is not used; the last reason stands, and an empty one says that it is used."""
        with self._lock:
            self._use(mirror).rejected = reason
            if reason:
                self._urls = {key: url for key, url in self._urls.items() if key[0] != mirror}

    def _use(self, mirror: Mirror) -> _Use:
        return self._uses.setdefault(mirror, _Use())

    def judged(self, now: float, connections: Mapping[Mirror, int]) -> dict[Mirror, str]:
        """Mirrors that should be dropped, with the reason, by what aria2's sockets received of each so far."""
        return self.judge.judge(now, {one: self.traffic.received[one] for one in connections}, connections)

    def forget(self, mirror: Mirror) -> None:
        """Forget how a mirror did: it was dropped, or has no part in what is downloaded now."""
        self.judge.forget(mirror)

    def summary(self) -> tuple[MirrorUse, ...]:
        """Return the use of each mirror, by bytes, the most first."""
        with self._lock:
            uses = [MirrorUse(one.name, use.bytes, use.files, 0, use.rejected) for one, use in self._uses.items()]
        return tuple(sorted(uses, key=lambda use: (-use.bytes, use.name)))
