"""The parts of a listing beyond names and sizes: the servers that have the files, and weak digests."""

from dataclasses import replace

from gpuaria.events import Warned
from gpuaria.fetching.request import World
from gpuaria.records import DownloadPlan, Manifest, RemoteFile, Step
from gpuaria.sources.protocol import NamesItsServers


def with_listed_servers(world: World, manifest: Manifest) -> World:
    """The world with the servers that the listing names, and the mirrors of the settings after them."""
    if not isinstance(world.source, NamesItsServers):
        return world
    named = world.source.servers(manifest)
    bases = {mirror.base for mirror in named}
    more = (m for m in world.mirrors if not m.listed and m.base not in bases)
    return replace(world, mirrors=(*named, *more))


def from_holders(plan: DownloadPlan, world: World) -> DownloadPlan:
    """The plan with each file from the mirrors that have it, where a listing says which ones those are."""
    return replace(plan, steps=tuple(from_holder(step, world) for step in plan.steps))


def from_holder(step: Step, world: World) -> Step:
    """One step of `from_holders`."""
    source = world.source
    if not isinstance(source, NamesItsServers) or not step.mirrors:
        return step
    return replace(step, mirrors=tuple(one for one in step.mirrors if source.holds(one, step.file)))


def weak(manifest: Manifest) -> list[RemoteFile]:
    """The files for which the source gives only a weak digest."""
    return [file for file in manifest.files if file.digest is not None and file.digest.weak]


def warn_of_weak(manifest: Manifest, world: World) -> None:
    """Say which digests prove little, the first time that the files are seen in this target."""
    files = [file for file in weak(manifest) if file.pinned is None]
    if files:
        kinds = ", ".join(sorted({file.digest.algorithm for file in files if file.digest}))
        count = f"{len(files)} of {len(manifest.files)} files"
        world.emit(Warned(f"{count} have only a weak digest ({kinds}); their sha256 is noted now and compared later"))
