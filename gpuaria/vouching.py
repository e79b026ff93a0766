"""Who says what a repo holds: the origin if it answers, mirrors only as the policy allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from gpuaria.errors import GpuariaError, NetworkError
from gpuaria.events import Emit, Warned
from gpuaria.net import Http
from gpuaria.records import Manifest, Mirror, RepoRef
from gpuaria.settings.table import Policy
from gpuaria.sources import RepoInfo, Source

WITNESSES = 4  # mirrors that are asked at most


@dataclass(frozen=True, slots=True)
class Court:
    """What is needed to ask: the origin first among `mirrors`, and how far a mirror's word goes."""

    http: Http
    source: Source
    mirrors: Sequence[Mirror]
    policy: Policy
    emit: Emit


def commit(court: Court, ref: RepoRef) -> RepoInfo | NetworkError:
    """What the origin says the revision is; the error if it cannot be reached and mirrors may stand in for it.

    Raises NotFound and AccessDenied, which are answers, and NetworkError where the policy wants the origin alone.
    """
    try:
        return court.source.commit(ref, court.mirrors[0].base, court.http)
    except NetworkError as error:
        if court.policy == "origin" or len(court.mirrors) < 2:
            raise
        return error


def by_mirrors(court: Court, ref: RepoRef, wanted: Callable[[str], bool], reason: NetworkError) -> Manifest:
    """A listing that mirrors vouch for while the origin is away, as the policy allows; said aloud.

    `quorum`: two hosts that agree, or the one mirror that answers at all. `any`: the first that answers. Raises
    NetworkError where they disagree or none answers.
    """
    found: list[tuple[Mirror, Manifest]] = []
    problems = [reason.message]
    for mirror in court.mirrors[1:][:WITNESSES]:
        try:
            info = court.source.commit(ref, mirror.base, court.http)
            found.append((mirror, court.source.listing(ref, info, mirror.base, court.http, wanted)))
        except GpuariaError as error:
            problems.append(error.message)
            continue
        if court.policy == "any" or _agreeing(found):
            break
    if not found:
        raise NetworkError("; ".join(problems), "Check the network, or name a mirror with --mirror.")
    agreed = _agreeing(found)
    if agreed and court.policy != "any":
        names = " and ".join(mirror.name for mirror, _ in agreed)
        court.emit(Warned(f"{reason.message}; {names} agree on what {ref} holds"))
        return replace(agreed[0][1], vouched_by=names, trust="quorum")
    if len(found) > 1 and court.policy != "any":
        raise NetworkError(
            f"{reason.message}, and the mirrors disagree on what {ref} holds: "
            + ", ".join(f"{mirror.name} says {manifest.commit[:12]}" for mirror, manifest in found),
            "Name a commit with --revision, or trust one mirror alone with GPUARIA_TRUST=any.",
        )
    mirror, manifest = found[0]
    court.emit(Warned(f"{reason.message}; {mirror.name} ALONE says what {ref} holds, and nobody checks it"))
    return replace(manifest, vouched_by=mirror.base, trust="mirror only")


def _agreeing(found: Sequence[tuple[Mirror, Manifest]]) -> list[tuple[Mirror, Manifest]]:
    """Two witnesses on different hosts with the same commit and the same files."""
    for at, (mirror, manifest) in enumerate(found):
        for other, second in found[at + 1 :]:
            same = (manifest.commit, manifest.files) == (second.commit, second.files)
            if same and urlsplit(mirror.base).hostname != urlsplit(other.base).hostname:
                return [(mirror, manifest), (other, second)]
    return []
