"""The state of all mirrors during a run, in one object."""

import logging
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpuaria.clock import SYSTEM, Clock
from gpuaria.mirrors import suitability
from gpuaria.mirrors.cached_redirects import CachedRedirects
from gpuaria.mirrors.health import Health
from gpuaria.mirrors.hub_files import HubFiles
from gpuaria.mirrors.traffic import StallDetector, Traffic, socket_addresses
from gpuaria.records import Mirror, MirrorUrl, MirrorUse, RemoteFile

LOG = logging.getLogger("gpuaria.transfer")
INCOMPATIBLE_FOR = 600.0  # seconds of quarantine for an incompatible mirror, if there are other mirrors
RENEW_BEFORE = 60.0  # seconds before its expiry from which a signed URL is not used again


@dataclass(frozen=True, slots=True)
class Delivered:
    """A mirror delivered `count` bytes; `files`: verified files to which it contributed."""

    count: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A mirror returned an error instead of bytes; `wait`: the seconds that it asks to wait, None if it does not."""

    reason: str
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Stalled:
    """A mirror holds up downloads: silent, or much slower than before or than the other mirrors."""

    reason: str


@dataclass(frozen=True, slots=True)
class ServedWrongBytes:
    """A file failed its checksum while a mirror was serving it.

    `small`: in one request, perhaps by a cached redirect.
    """

    reason: str
    small: bool = False


@dataclass(frozen=True, slots=True)
class Incompatible:
    """A mirror sends bytes in a form that aria2 cannot use; `others`: another mirror can serve the file."""

    reason: str
    others: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """A quarantined mirror delivers bytes again."""


MirrorEvent = Delivered | Refused | Stalled | ServedWrongBytes | Incompatible | Recovered


@dataclass
class _Use:
    bytes: int = 0
    files: int = 0
    rejected: str = ""


@dataclass
class MirrorPool:
    """Health, traffic, compatibility, cached redirects and resolved URLs of the mirrors of one run.

    Thread-safe, except for `traffic` and `stall_detector`, which belong to the thread that drives the downloads.
    """

    files: HubFiles
    mirrors: Sequence[Mirror]
    clock: Clock = SYSTEM
    traffic: Traffic = field(default_factory=Traffic)
    stall_detector: StallDetector = field(default_factory=StallDetector)
    redirects: CachedRedirects = field(init=False)
    _health: Health = field(init=False)
    _incompatible: set[Mirror] = field(default_factory=set)
    _urls: dict[tuple[Mirror, str], MirrorUrl] = field(default_factory=dict)
    _uses: dict[Mirror, _Use] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        presumed = frozenset(one for one in self.mirrors if self.files.redirects_small_files(one))
        self.redirects, self._health = CachedRedirects(presumed), Health(self.clock)

    # --- selection -----------------------------------------------------------------------------------------------

    def usable(self, mirrors: Sequence[Mirror]) -> list[Mirror]:
        """Return the mirrors that are not quarantined; if every one is, return all of them: a try costs nothing."""
        return self._health.usable(mirrors)

    def due_for_test(self, wanted: Collection[Mirror]) -> list[Mirror]:
        """Return the mirrors of `wanted` whose quarantine is over, each once."""
        return self._health.due(wanted)

    def incompatible(self, mirrors: Iterable[Mirror]) -> set[Mirror]:
        """Return the mirrors of `mirrors` whose responses aria2 cannot use."""
        with self._lock:
            return self._incompatible.intersection(mirrors)

    def by_name(self, name: str) -> Mirror:
        """Return the mirror with that name."""
        return next(mirror for mirror in self.mirrors if mirror.name == name)

    def join(self, mirrors: Sequence[Mirror]) -> None:
        """Add mirrors to this run."""
        with self._lock:
            self.mirrors = (*self.mirrors, *mirrors)

    # --- URLs ----------------------------------------------------------------------------------------------------

    def url(self, mirror: Mirror, file: RemoteFile, *, fresh: bool = False) -> MirrorUrl | None:
        """Return the final URL of a file at a mirror; None if its bytes need a credential. Raises GpuariaError.

        A resolved URL is used again until a minute before it expires, unless `fresh` is set.
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

    def register_endpoints(self, url: MirrorUrl) -> None:
        """Register the socket addresses of a URL, so that its traffic can be assigned to its mirror."""
        self.traffic.register_endpoints(url.mirror, socket_addresses(self.files.http.routes, url))

    def refusal(self, url: MirrorUrl) -> tuple[str, float | None]:
        """Return why a URL gives aria2 no bytes, and the seconds that the server asks to wait.

        ("", None) if it works.
        """
        return suitability.refusal(self.files.http, url)

    def why_incompatible(self, url: MirrorUrl) -> str:
        """Return why aria2 cannot use a URL's response; empty if it can, or if there is no response."""
        return suitability.incompatible(self.files.http, url)

    # --- outcomes ------------------------------------------------------------------------------------------------

    def record(self, mirror: Mirror, what: MirrorEvent) -> None:
        """Record an outcome of a mirror. All outcomes except delivered bytes are logged."""
        if isinstance(what, Delivered):
            with self._lock:
                use = self._use(mirror)
                use.bytes += what.count
                use.files += what.files
            return
        LOG.debug("mirror %s: %s", mirror.name, what)
        if isinstance(what, Recovered):
            self.stall_detector.forget(mirror)
            self._health.release(mirror)
            self.note_rejection(mirror, "")
            return
        if isinstance(what, Refused):
            self._health.quarantine(mirror, what.reason, what.wait)
        elif isinstance(what, Stalled):
            self.stall_detector.forget(mirror)
            self._health.quarantine(mirror, what.reason)
        elif isinstance(what, ServedWrongBytes):
            if what.small:
                self.redirects.disable(mirror)
        else:
            with self._lock:
                self._incompatible.add(mirror)
            if not what.others:
                return
            self._health.quarantine(mirror, what.reason, INCOMPATIBLE_FOR)
        self.note_rejection(mirror, what.reason)

    def note_rejection(self, mirror: Mirror, reason: str) -> None:
        """Note why a mirror is not used; the last reason counts, and an empty one means that it is used."""
        with self._lock:
            self._use(mirror).rejected = reason
            if reason:
                self._urls = {key: url for key, url in self._urls.items() if key[0] != mirror}

    def _use(self, mirror: Mirror) -> _Use:
        return self._uses.setdefault(mirror, _Use())

    def stalled_mirrors(self, now: float, connections: Mapping[Mirror, int]) -> dict[Mirror, str]:
        """Return the mirrors to drop, with reasons, from the bytes that aria2's sockets received from each."""
        return self.stall_detector.find_stalled(
            now, {one: self.traffic.received[one] for one in connections}, connections
        )

    def forget_speed(self, mirror: Mirror) -> None:
        """Discard the speed readings of a mirror that was dropped or takes no part in the current downloads."""
        self.stall_detector.forget(mirror)

    def mirror_uses(self) -> tuple[MirrorUse, ...]:
        """Return the use of each mirror, the one with the most bytes first."""
        with self._lock:
            uses = [MirrorUse(one.name, use.bytes, use.files, 0, use.rejected) for one, use in self._uses.items()]
        return tuple(sorted(uses, key=lambda use: (-use.bytes, use.name)))
