"""The use case: reference -> manifest -> plan -> verified files -> report. Effects come in as objects."""

from gpuaria.fetching.run import fetch, resolve
from gpuaria.fetching.world import Limits, Request, World

__all__ = ["Limits", "Request", "World", "fetch", "resolve"]
