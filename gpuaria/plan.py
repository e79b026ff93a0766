"""The plan: manifest + files on disk + mirrors -> steps. Pure: equal input gives an equal plan."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gpuaria.hashing import EMPTY
from gpuaria.paths import SafePath
from gpuaria.records import Action, DownloadPlan, LocalState, Manifest, Mirror, RemoteFile, Step

Identity = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PlanRules:
    """Settings that affect planning; sizes in bytes. `copies`: each duplicate file needs its own disk space."""

    small_file: int = 8_000_000
    connections: int = 16
    min_split: int = 1 << 20
    force: bool = False
    copies: bool = False
    seed: str = ""


def make(
    manifest: Manifest,
    states: Mapping[SafePath, LocalState],
    mirrors: Sequence[Mirror],
    rules: PlanRules,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> DownloadPlan:
    """Return the action for each file, the largest first; `mirrors` are in order, best first.

    `counts`: connections per mirror for a large file, if fewer than `rules.connections`.
    """
    ordered = sorted(manifest.files, key=lambda f: (-f.size, f.path))
    first = [_step(file, states.get(file.path, LocalState()), mirrors, rules, counts) for file in ordered]
    owners: dict[Identity, Step] = {}
    for step in sorted(first, key=lambda step: step.fetches):  # bytes on disk come before bytes to download
        owners.setdefault(identity(step.file), step)
    steps = [_as_copy(step, owners[identity(step.file)]) for step in first]
    wanted = [step for step in steps if step.fetches]
    copied = [step for step in steps if step.action == "copy"] if rules.copies else []
    return DownloadPlan(
        tuple(steps),
        fetch_bytes=sum(s.file.size for s in wanted),
        reuse_bytes=sum(s.file.size for s in steps if s.action in ("skip", "name", "verify")),
        space=sum(s.file.size for s in wanted + copied)
        - sum(min(s.file.size, states.get(s.file.path, LocalState()).partial) for s in wanted),
    )


def identity(file: RemoteFile) -> Identity:
    """Return the key that two files with equal bytes share: strong digest and size.

    A file without a strong digest equals only itself.
    """
    return (str(file.strong_digest) if file.strong_digest else f"path:{file.path}", file.size)


def _as_copy(step: Step, owner: Step) -> Step:
    """Return a copy step if another file of the plan provides the same bytes, else `step` itself."""
    if owner is step or not step.fetches:
        return step
    return Step(step.file, "copy", f"the same bytes as {owner.file.path}", owner=owner.file.path)


def _step(
    file: RemoteFile, state: LocalState, mirrors: Sequence[Mirror], rules: PlanRules, counts: Mapping[str, int]
) -> Step:
    if state.size is None:
        reason = "not on disk" if not state.partial else f"{state.partial} bytes on disk"
        return _download(file, "download", reason, mirrors, rules, counts)
    if rules.force:
        return _download(file, "replace", "requested with --force", mirrors, rules, counts)
    if state.size != file.size:
        return _download(
            file, "replace", f"the local file has {state.size} bytes, not {file.size}", mirrors, rules, counts
        )
    if not state.proven:
        return Step(file, "verify", "on disk, not yet verified by gpuaria")
    if not state.named:
        return Step(file, "name", "its bytes are on disk, verified before")
    return Step(file, "skip", "verified before, unchanged since")


def _download(
    file: RemoteFile,
    kind: Action,
    reason: str,
    mirrors: Sequence[Mirror],
    rules: PlanRules,
    counts: Mapping[str, int],
) -> Step:
    if file.size == 0 and file.digest and file.digest.hex in EMPTY:
        return Step(file, "create", "it is empty")
    if file.size < rules.small_file:
        return Step(file, kind, reason, "http", mirrors=_rotated(file, mirrors, rules.seed))
    each = {mirror.name: counts.get(mirror.name, rules.connections) for mirror in mirrors}
    fewer = {name: count for name, count in each.items() if count < rules.connections}
    room = sum(min(count, rules.connections) for count in each.values()) or rules.connections
    connections = max(1, min(room, -(-file.size // rules.min_split)))
    return Step(file, kind, reason, "aria2", mirrors=tuple(mirrors), connections=connections, counts=fewer)


def replacement_step(
    step: Step, mirrors: Sequence[Mirror], rules: PlanRules, counts: Mapping[str, int] = MappingProxyType({})
) -> Step:
    """Return the step for a file whose bytes on disk turned out to be wrong."""
    return _download(step.file, "replace", "the local file does not match its checksum", mirrors, rules, counts)


def _rotated(file: RemoteFile, mirrors: Sequence[Mirror], seed: str) -> tuple[Mirror, ...]:
    """Return the mirrors rotated by a hash of the path, so that small files spread over all of them."""
    if len(mirrors) < 2:
        return tuple(mirrors)
    start = int.from_bytes(hashlib.sha256(f"{seed}\0{file.path}".encode()).digest()[:4]) % len(mirrors)
    return (*mirrors[start:], *mirrors[:start])
