"""Who says what a repo holds: the origin if it answers, else the commit itself, else mirrors as the policy allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from gpuaria.errors import GpuariaError, Interrupted, NetworkError
from gpuaria.events import Emit, Warned
from gpuaria.http.client import Http
from gpuaria.records import Manifest, Mirror, RepoRef, Trust
from gpuaria.settings.table import Policy
from gpuaria.sources.protocol import KnowsFreshness, ProvesListing, RepoInfo, Source

WITNESSES = 4  # mirrors that are asked at most
WITHOUT_ORIGIN: tuple[Trust, ...] = ("pinned", "quorum", "mirror only", "first seen")  # what is left while it is away


@dataclass(frozen=True, slots=True)
class Court:
    """What is needed to ask: the origin first among `mirrors`, and how far a mirror's word goes."""

    http: Http
    source: Source
    mirrors: Sequence[Mirror]
    policy: Policy
    emit: Emit


def ask_origin(court: Court, ref: RepoRef, wanted: Callable[[str], bool]) -> RepoInfo | Manifest | NetworkError:
    """What the origin says the revision is; the error if it cannot be reached and mirrors may stand in for it.

    The whole listing from a source that has no cheaper question.

    Where the policy wants the origin alone they may do so for a whole commit id, which needs nobody's word. Raises
    NotFound and AccessDenied, which are answers, and NetworkError.
    """
    origin = court.mirrors[0]
    try:
        if isinstance(court.source, KnowsFreshness):
            return court.source.commit(ref, origin.base, court.http)
        return court.source.resolve(ref, origin, court.http, wanted)
    except NetworkError as error:
        if len(court.mirrors) < 2 or (court.policy == "origin" and not ref.pinned):
            raise
        return error


def by_mirrors(court: Court, ref: RepoRef, wanted: Callable[[str], bool], reason: NetworkError) -> Manifest:
    """A listing that a mirror gives while the origin is away; said aloud.

    Where the revision is a whole commit id: the first one that the commit itself proves. Failing that, as the policy
    allows: `quorum`: two hosts that agree, or the one mirror that answers at all. `any`: the first that answers.
    Raises NetworkError where they disagree or none is good enough.
    """
    found: list[tuple[Mirror, Manifest]] = []
    problems, doubts = [reason.message], list[str]()
    for mirror in court.mirrors[1:][:WITNESSES]:
        try:
            manifest = court.source.resolve(ref, mirror, court.http, wanted)
            doubt = _unproven(court, manifest, mirror) if ref.pinned else ""
        except Interrupted:
            raise
        except GpuariaError as error:
            problems.append(error.message)
            continue
        if ref.pinned and not doubt:
            by = f"commit {manifest.commit[:12]} itself"
            court.emit(Warned(f"{'; '.join((*problems, *doubts))}; {by} proves what {mirror.name} says that it holds"))
            return replace(manifest, vouched_by=f"{by}, by way of {mirror.base}", trust="pinned")
        found.append((mirror, manifest))
        if doubt:
            doubts.append(doubt)  # and go on: a proof is better than any number of words
        elif court.policy == "any" or _agreeing(found):
            break
    if court.policy == "origin" or not found:
        raise NetworkError("; ".join((*problems, *doubts)), "Check the network, or name a mirror with --mirror.")
    return _by_policy(court, ref, found, "; ".join((*problems, *doubts)))


def _unproven(court: Court, manifest: Manifest, mirror: Mirror) -> str:
    """Why the commit does not prove a mirror's listing, "" if it does. Raises BadListing where it disproves it."""
    if isinstance(court.source, ProvesListing):
        return court.source.unproven(manifest, mirror, court.http)
    return f"a version of {court.source.about.title} does not prove what it holds"


def _by_policy(court: Court, ref: RepoRef, found: Sequence[tuple[Mirror, Manifest]], reason: str) -> Manifest:
    """The listing to believe on the word of those who gave one."""
    agreed = _agreeing(found)
    if agreed and court.policy != "any":
        names = " and ".join(mirror.name for mirror, _ in agreed)
        court.emit(Warned(f"{reason}; {names} agree on what {ref} holds"))
        return replace(agreed[0][1], vouched_by=names, trust="quorum")
    if len(found) > 1 and court.policy != "any":
        raise NetworkError(
            f"{reason}, and the mirrors disagree on what {ref} holds: "
            + ", ".join(f"{mirror.name} says {manifest.commit[:12]}" for mirror, manifest in found),
            "Name a commit with --revision, or trust one mirror alone with GPUARIA_TRUST=any.",
        )
    mirror, manifest = found[0]
    court.emit(Warned(f"{reason}; {mirror.name} ALONE says what {ref} holds, and nobody checks it"))
    return replace(manifest, vouched_by=mirror.base, trust="mirror only")


def _agreeing(found: Sequence[tuple[Mirror, Manifest]]) -> list[tuple[Mirror, Manifest]]:
    """Two witnesses on different hosts with the same commit and the same files."""
    for at, (mirror, manifest) in enumerate(found):
        for other, second in found[at + 1 :]:
            same = (manifest.commit, manifest.files) == (second.commit, second.files)
            if same and urlsplit(mirror.base).hostname != urlsplit(other.base).hostname:
                return [(mirror, manifest), (other, second)]
    return []
