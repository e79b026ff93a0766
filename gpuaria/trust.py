"""Selection of the listing that a fetch trusts.

The origin's listing comes first. If the origin does not respond, a mirror's listing counts if the commit id verifies
it, or if the trust policy accepts mirrors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from gpuaria.dns.deadline import BackgroundCall, Deadline
from gpuaria.errors import GpuariaError, Interrupted, NetworkError, Unreachable
from gpuaria.events import Emit, Warned
from gpuaria.http.client import Http
from gpuaria.mirrors.candidates import SILENCE, JoinPolicy, host_of
from gpuaria.records import Manifest, Mirror, RepoRef, Trust
from gpuaria.settings.table import TrustPolicy
from gpuaria.sources.protocol import KnowsFreshness, ProvesListing, RepoInfo, Source

MAX_MIRRORS = 4  # mirrors to request a listing from
STAGGER = 1.0  # seconds between requests to further mirrors
STRAGGLER_SECONDS = 5.0  # for the other mirrors, once one has sent a listing
_POLL_SECONDS = 0.05
_NO_LIMIT = 365 * 86400.0  # seconds
_HINT = "Check the network, or add a mirror with --mirror."
# Trust levels of a listing that did not come from the origin in this run.
WITHOUT_ORIGIN: tuple[Trust, ...] = ("pinned", "quorum", "mirror only", "first seen")


@dataclass(frozen=True, slots=True)
class ListingTrust:
    """The source, mirrors and trust policy of one fetch; `mirrors[0]` is the origin.

    `may_join`: further mirrors may join later, so a silent origin is given up after `SILENCE` seconds.
    """

    http: Http
    source: Source
    mirrors: Sequence[Mirror]
    policy: TrustPolicy
    emit: Emit
    may_join: bool = False

    @property
    def origin(self) -> Mirror:
        """The endpoint whose listing decides."""
        return self.mirrors[0]


OriginResponse = RepoInfo | Manifest


@dataclass(frozen=True, slots=True)
class OriginUnavailable:
    """An origin without a usable response: `reason`, and its request in `pending` if that is still open."""

    reason: NetworkError
    pending: BackgroundCall[OriginResponse] | None = None

    def late_response(self) -> OriginResponse:
        """Wait for a pending request and return its result. Raises its error, or `reason`."""
        response = self.pending.result(Deadline(_NO_LIMIT)) if self.pending is not None else None
        if response is None:
            raise self.reason
        return response


def ask_origin(
    trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool]
) -> OriginResponse | OriginUnavailable:
    """Return the origin's commit or listing, or `OriginUnavailable` if it cannot be reached and mirrors may replace it.

    A source that can name the commit alone returns a `RepoInfo`; any other source returns the whole listing. Raises
    NotFound and AccessDenied, which are responses of the origin, and NetworkError if no mirror can replace it.
    """
    if len(trusted.mirrors) < 2 and not trusted.may_join:
        return _ask_origin(trusted, ref, wanted)
    before = trusted.http.response_count(trusted.origin.base)
    job = BackgroundCall(lambda: _ask_origin(trusted, ref, wanted))
    try:
        response = job.result(Deadline(SILENCE), 0)
        while response is None:
            if trusted.http.response_count(trusted.origin.base) == before:
                policy = JoinPolicy(host_of(trusted.origin.base))
                return OriginUnavailable(Unreachable(policy.silent(SILENCE), _HINT), job)
            response = job.result(Deadline(_POLL_SECONDS), 0)
    except NetworkError as error:
        return OriginUnavailable(error)
    return response


def _ask_origin(trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool]) -> OriginResponse:
    if isinstance(trusted.source, KnowsFreshness):
        return trusted.source.commit(ref, trusted.origin.base, trusted.http)
    return trusted.source.resolve(ref, trusted.origin, trusted.http, wanted)


def mirrors_allowed(trusted: ListingTrust, ref: RepoRef) -> bool:
    """True if the policy accepts a mirror's listing of `ref`; a full commit id is accepted under every policy."""
    return trusted.policy != "origin" or ref.pinned


def listing_from_mirrors(
    trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool], unavailable: OriginUnavailable
) -> OriginResponse:
    """Return a mirror's listing while the origin is unavailable, or the origin's own late response; warn the user.

    For a full commit id, the first listing that the commit id verifies. Otherwise by the policy: `quorum`: two hosts
    that agree, or the only mirror that responds; `any`: the first listing. Raises NetworkError if the mirrors disagree
    or none is acceptable.
    """
    listings = _MirrorListings(trusted, ref, wanted)
    while listings.wait():
        if unavailable.pending is not None and (response := _late_response(unavailable.pending)) is not None:
            return response
        if listings.verified is not None:
            mirror, manifest = listings.verified
            reason = "; ".join((unavailable.reason.message, *listings.problems))
            by = f"commit {manifest.version[:12]} itself"
            trusted.emit(Warned(f"{reason}; the file list from {mirror.name} is verified against {by}"))
            return replace(manifest, vouched_by=f"{by}, by way of {mirror.base}", trust="pinned")
    reason = "; ".join((unavailable.reason.message, *listings.problems))
    if trusted.policy == "origin" or not listings.found:
        return replace(unavailable, reason=NetworkError(reason, _HINT)).late_response()
    return _choose_by_policy(trusted, ref, listings.found, reason)


def _late_response(job: BackgroundCall[OriginResponse]) -> OriginResponse | None:
    """Return the origin's response if it has arrived; None while it is silent or if it failed."""
    try:
        return job.result(Deadline(0), 0)
    except NetworkError:
        return None


class _MirrorListings:
    """Requests for listings; one more mirror is asked after each failure and every `STAGGER` seconds.

    `verified`: the first listing that the commit id verifies. `problems`: why other mirrors gave no usable listing.
    """

    def __init__(self, trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool]) -> None:
        self._trusted, self._ref, self._wanted = trusted, ref, wanted
        self._unasked = list(trusted.mirrors[1:][:MAX_MIRRORS])
        self._jobs: dict[Mirror, BackgroundCall[tuple[Manifest, str]]] = {}
        self._listings: dict[Mirror, Manifest] = {}
        self._straggler_deadline: Deadline | None = None  # set when the first listing arrives
        self.verified: tuple[Mirror, Manifest] | None = None
        self.problems: list[str] = []

    @property
    def found(self) -> list[tuple[Mirror, Manifest]]:
        """The listings so far, in the order of the mirrors."""
        return [(mirror, self._listings[mirror]) for mirror in self._trusted.mirrors if mirror in self._listings]

    def wait(self) -> bool:
        """Wait for the next result; return False if no further result can help. Raises Interrupted."""
        if self.verified is not None or self._complete():
            return False
        at_once = 1 if self._ref.pinned or self._trusted.policy == "any" else 2
        while self._unasked and len(self._jobs) < at_once:
            self._start()
        if not self._jobs:
            return False
        pause = Deadline(STAGGER)
        while not pause.expired:
            done = [mirror for mirror, job in self._jobs.items() if job.wait(_POLL_SECONDS / len(self._jobs))]
            for mirror in done:
                self._collect(mirror)
            if done:
                return True
        if self._unasked:
            self._start()
        return True

    def _start(self) -> None:
        mirror = self._unasked.pop(0)
        self._jobs[mirror] = BackgroundCall(lambda: self._list(mirror))

    def _list(self, mirror: Mirror) -> tuple[Manifest, str]:
        manifest = self._trusted.source.resolve(self._ref, mirror, self._trusted.http, self._wanted)
        return manifest, _unverified_reason(self._trusted, manifest, mirror) if self._ref.pinned else ""

    def _collect(self, mirror: Mirror) -> None:
        try:
            done = self._jobs.pop(mirror).result(Deadline(0), 0)
        except Interrupted:
            raise
        except GpuariaError as error:
            self.problems.append(error.message)
            return
        assert done is not None
        manifest, unverified = done
        if self._ref.pinned and not unverified:
            self.verified = (mirror, manifest)
            return
        self._listings[mirror] = manifest
        self._straggler_deadline = self._straggler_deadline or Deadline(STRAGGLER_SECONDS)
        if unverified:
            self.problems.append(unverified)  # keep waiting: a verified listing beats any number of unverified ones

    def _complete(self) -> bool:
        """Return True if the listings so far decide the matter, or the remaining mirrors have run out of time."""
        if not self._listings:
            return False
        if not self._ref.pinned and (self._trusted.policy == "any" or _agreeing_pair(self.found)):
            return True
        if self._straggler_deadline is None or not self._straggler_deadline.expired:
            return False
        self.problems += [f"{mirror.base} does not respond" for mirror in self._jobs]
        self._jobs.clear()
        return True


def _unverified_reason(trusted: ListingTrust, manifest: Manifest, mirror: Mirror) -> str:
    """Return why the commit id does not verify a listing, "" if it does.

    Raises BadListing if it contradicts the listing.
    """
    if isinstance(trusted.source, ProvesListing):
        return trusted.source.unproven(manifest, mirror, trusted.http)
    return f"a version of {trusted.source.about.title} cannot be verified without the origin"


def _choose_by_policy(
    trusted: ListingTrust, ref: RepoRef, found: Sequence[tuple[Mirror, Manifest]], reason: str
) -> Manifest:
    """Return the listing that the policy accepts among unverified ones. Raises NetworkError if the mirrors disagree."""
    agreed = _agreeing_pair(found)
    if agreed and trusted.policy != "any":
        names = " and ".join(mirror.name for mirror, _ in agreed)
        trusted.emit(Warned(f"{reason}; {names} agree on the files of {ref}"))
        return replace(agreed[0][1], vouched_by=names, trust="quorum")
    if len(found) > 1 and trusted.policy != "any":
        raise NetworkError(
            f"{reason}, and the mirrors disagree on the files of {ref}: "
            + ", ".join(f"{mirror.name} says {manifest.commit[:12]}" for mirror, manifest in found),
            "Pin a commit with --revision, or accept a single mirror with GPUARIA_TRUST=any.",
        )
    mirror, manifest = found[0]
    trusted.emit(Warned(f"{reason}; the file list of {ref} comes from one unverified mirror, {mirror.name}"))
    return replace(manifest, vouched_by=mirror.base, trust="mirror only")


def _agreeing_pair(found: Sequence[tuple[Mirror, Manifest]]) -> list[tuple[Mirror, Manifest]]:
    """Return two mirrors on different hosts that list the same files of the same commit.

    The list is empty if there is no such pair.
    """
    for at, (mirror, manifest) in enumerate(found):
        for other, second in found[at + 1 :]:
            same = (manifest.commit, manifest.files) == (second.commit, second.files)
            if same and urlsplit(mirror.base).hostname != urlsplit(other.base).hostname:
                return [(mirror, manifest), (other, second)]
    return []
