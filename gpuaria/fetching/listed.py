"""Listing features beyond names and sizes: the servers that hold the files, and weak digests."""

from dataclasses import replace

from gpuaria.events import Warned
from gpuaria.fetching.request import World
from gpuaria.records import DownloadPlan, Manifest, RemoteFile, Step
from gpuaria.sources.protocol import NamesItsServers


def with_listed_servers(world: World, manifest: Manifest) -> World:
    """Return the world with the servers that the listing names, followed by the mirrors of the settings."""
    if not isinstance(world.source, NamesItsServers):
        return world
    named = world.source.servers(manifest)
    bases = {mirror.base for mirror in named}
    more = (m for m in world.mirrors if not m.listed and m.base not in bases)
    return replace(world, mirrors=(*named, *more))


def only_holding_mirrors(plan: DownloadPlan, world: World) -> DownloadPlan:
    """Return the plan with each file's mirrors limited to those that hold it, if the listing says which do."""
    return replace(plan, steps=tuple(only_holding_mirrors_of(step, world) for step in plan.steps))


def only_holding_mirrors_of(step: Step, world: World) -> Step:
    """Apply `only_holding_mirrors` to one step."""
    source = world.source
    if not isinstance(source, NamesItsServers) or not step.mirrors:
        return step
    return replace(step, mirrors=tuple(one for one in step.mirrors if source.holds(one, step.file)))


def weakly_hashed(manifest: Manifest) -> list[RemoteFile]:
    """Return the files for which the source gives only a weak digest."""
    return [file for file in manifest.files if file.digest is not None and file.digest.weak]


def warn_about_weak_digests(manifest: Manifest, world: World) -> None:
    """Warn about weak digests the first time that the target sees the files."""
    files = [file for file in weakly_hashed(manifest) if file.pinned is None]
    if files:
        kinds = ", ".join(sorted({file.digest.algorithm for file in files if file.digest}))
        count = f"{len(files)} of {len(manifest.files)} files"
        world.emit(
            Warned(f"{count} have only a weak digest ({kinds}); gpuaria saves their sha256 now and compares it later")
        )
