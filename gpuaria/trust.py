"""Who says what a repo holds: the origin if it answers, else the commit itself, else mirrors as the policy allows."""

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

WITNESSES = 4  # mirrors that are asked at most
STAGGER = 1.0  # seconds after which one more mirror is asked
STRAGGLERS = 5.0  # seconds that the other mirrors get once one has given a listing
_TICK = 0.05  # seconds
_FOREVER = 365 * 86400.0
_HINT = "Check the network, or name a mirror with --mirror."
WITHOUT_ORIGIN: tuple[Trust, ...] = ("pinned", "quorum", "mirror only", "first seen")  # what is left while it is away


@dataclass(frozen=True, slots=True)
class ListingTrust:
    """What is needed to ask: the origin first among `mirrors`, and how far a mirror's word goes.

    `others`: whether mirrors that are not among these may yet join, so that a silent origin is not waited for.
    """

    http: Http
    source: Source
    mirrors: Sequence[Mirror]
    policy: TrustPolicy
    emit: Emit
    others: bool = False

    @property
    def origin(self) -> Mirror:
        """The endpoint whose listing decides."""
        return self.mirrors[0]


Told = RepoInfo | Manifest


@dataclass(frozen=True, slots=True)
class Away:
    """The origin has given no usable response: `reason`, and its request where that is still open."""

    reason: NetworkError
    open: BackgroundCall[Told] | None = None

    def at_last(self) -> Told:
        """Wait for an open request to its end. Raises its error, or `reason`."""
        told = self.open.result(Deadline(_FOREVER)) if self.open is not None else None
        if told is None:
            raise self.reason
        return told


def ask_origin(trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool]) -> Told | Away:
    """What the origin says the revision is; why it is away if mirrors may stand in for it.

    The whole listing from a source that has no cheaper question.

    Where the policy wants the origin alone they may do so for a whole commit id, which needs nobody's word. Raises
    NotFound and AccessDenied, which are answers, and NetworkError.
    """
    if len(trusted.mirrors) < 2 and not trusted.others:
        return _ask(trusted, ref, wanted)
    before = trusted.http.response_count(trusted.origin.base)
    job = BackgroundCall(lambda: _ask(trusted, ref, wanted))
    try:
        told = job.result(Deadline(SILENCE), 0)
        while told is None:
            if trusted.http.response_count(trusted.origin.base) == before:
                policy = JoinPolicy(host_of(trusted.origin.base))
                return Away(Unreachable(policy.silent(SILENCE), _HINT), job)
            told = job.result(Deadline(_TICK), 0)
    except NetworkError as error:
        return Away(error)
    return told


def _ask(trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool]) -> Told:
    if isinstance(trusted.source, KnowsFreshness):
        return trusted.source.commit(ref, trusted.origin.base, trusted.http)
    return trusted.source.resolve(ref, trusted.origin, trusted.http, wanted)


def may_stand_in(trusted: ListingTrust, ref: RepoRef) -> bool:
    """Whether the policy lets mirrors say what `ref` holds."""
    return trusted.policy != "origin" or ref.pinned


def by_mirrors(trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool], away: Away) -> Told:
    """A listing that a mirror gives while the origin is away; said aloud. The origin's, if that comes first after all.

    Where the revision is a whole commit id: the first one that the commit itself proves. Failing that, as the policy
    allows: `quorum`: two hosts that agree, or the one mirror that answers at all. `any`: the first that answers.
    Raises NetworkError where they disagree or none is good enough.
    """
    asked = _MirrorRequests(trusted, ref, wanted)
    while asked.wait():
        if away.open is not None and (told := _late(away.open)) is not None:
            return told
        if asked.proven is not None:
            mirror, manifest = asked.proven
            reason = "; ".join((away.reason.message, *asked.problems))
            by = f"commit {manifest.version[:12]} itself"
            trusted.emit(Warned(f"{reason}; {by} proves what {mirror.name} says that it holds"))
            return replace(manifest, vouched_by=f"{by}, by way of {mirror.base}", trust="pinned")
    reason = "; ".join((away.reason.message, *asked.problems))
    if trusted.policy == "origin" or not asked.found:
        return replace(away, reason=NetworkError(reason, _HINT)).at_last()
    return _by_policy(trusted, ref, asked.found, reason)


def _late(job: BackgroundCall[Told]) -> Told | None:
    """What the origin has said meanwhile; None while it is silent, or where it failed."""
    try:
        return job.result(Deadline(0), 0)
    except NetworkError:
        return None


class _MirrorRequests:
    """Mirrors that are asked for their listing, one more whenever one fails or takes `STAGGER` seconds.

    `found`: the listings, in the order of the mirrors. `problems`: of mirrors without one, and why the commit does not
    prove another one's.
    """

    def __init__(self, trusted: ListingTrust, ref: RepoRef, wanted: Callable[[str], bool]) -> None:
        self._trusted, self._ref, self._wanted = trusted, ref, wanted
        self._waiting = list(trusted.mirrors[1:][:WITNESSES])
        self._jobs: dict[Mirror, BackgroundCall[tuple[Manifest, str]]] = {}
        self._got: dict[Mirror, Manifest] = {}
        self._last: Deadline | None = None  # for the other mirrors, once one has answered
        self.proven: tuple[Mirror, Manifest] | None = None
        self.problems: list[str] = []

    @property
    def found(self) -> list[tuple[Mirror, Manifest]]:
        return [(mirror, self._got[mirror]) for mirror in self._trusted.mirrors if mirror in self._got]

    def wait(self) -> bool:
        """Wait for the next event; False once there is nothing more to wait for. Raises Interrupted."""
        if self.proven is not None or self._enough():
            return False
        at_once = 1 if self._ref.pinned or self._trusted.policy == "any" else 2
        while self._waiting and len(self._jobs) < at_once:
            self._start()
        if not self._jobs:
            return False
        pause = Deadline(STAGGER)
        while not pause.expired:
            done = [mirror for mirror, job in self._jobs.items() if job.wait(_TICK / len(self._jobs))]
            for mirror in done:
                self._take(mirror)
            if done:
                return True
        if self._waiting:
            self._start()
        return True

    def _start(self) -> None:
        mirror = self._waiting.pop(0)
        self._jobs[mirror] = BackgroundCall(lambda: self._list(mirror))

    def _list(self, mirror: Mirror) -> tuple[Manifest, str]:
        manifest = self._trusted.source.resolve(self._ref, mirror, self._trusted.http, self._wanted)
        return manifest, _unproven(self._trusted, manifest, mirror) if self._ref.pinned else ""

    def _take(self, mirror: Mirror) -> None:
        try:
            done = self._jobs.pop(mirror).result(Deadline(0), 0)
        except Interrupted:
            raise
        except GpuariaError as error:
            self.problems.append(error.message)
            return
        assert done is not None
        manifest, doubt = done
        if self._ref.pinned and not doubt:
            self.proven = (mirror, manifest)
            return
        self._got[mirror] = manifest
        self._last = self._last or Deadline(STRAGGLERS)
        if doubt:
            self.problems.append(doubt)  # and wait: a proof is better than any number of words

    def _enough(self) -> bool:
        if not self._got:
            return False
        if not self._ref.pinned and (self._trusted.policy == "any" or _agreeing(self.found)):
            return True
        if self._last is None or not self._last.expired:
            return False
        self.problems += [f"{mirror.base} does not answer" for mirror in self._jobs]
        self._jobs.clear()
        return True


def _unproven(trusted: ListingTrust, manifest: Manifest, mirror: Mirror) -> str:
    """Why the commit does not prove a mirror's listing, "" if it does. Raises BadListing where it disproves it."""
    if isinstance(trusted.source, ProvesListing):
        return trusted.source.unproven(manifest, mirror, trusted.http)
    return f"a version of {trusted.source.about.title} does not prove what it holds"


def _by_policy(trusted: ListingTrust, ref: RepoRef, found: Sequence[tuple[Mirror, Manifest]], reason: str) -> Manifest:
    """The listing to believe on the word of those who gave one."""
    agreed = _agreeing(found)
    if agreed and trusted.policy != "any":
        names = " and ".join(mirror.name for mirror, _ in agreed)
        trusted.emit(Warned(f"{reason}; {names} agree on what {ref} holds"))
        return replace(agreed[0][1], vouched_by=names, trust="quorum")
    if len(found) > 1 and trusted.policy != "any":
        raise NetworkError(
            f"{reason}, and the mirrors disagree on what {ref} holds: "
            + ", ".join(f"{mirror.name} says {manifest.commit[:12]}" for mirror, manifest in found),
            "Name a commit with --revision, or trust one mirror alone with GPUARIA_TRUST=any.",
        )
    mirror, manifest = found[0]
    trusted.emit(Warned(f"{reason}; {mirror.name} ALONE says what {ref} holds, and nobody checks it"))
    return replace(manifest, vouched_by=mirror.base, trust="mirror only")


def _agreeing(found: Sequence[tuple[Mirror, Manifest]]) -> list[tuple[Mirror, Manifest]]:
    """Two witnesses on different hosts with the same commit and the same files."""
    for at, (mirror, manifest) in enumerate(found):
        for other, second in found[at + 1 :]:
            same = (manifest.commit, manifest.files) == (second.commit, second.files)
            if same and urlsplit(mirror.base).hostname != urlsplit(other.base).hostname:
                return [(mirror, manifest), (other, second)]
    return []
