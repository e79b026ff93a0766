"""The fetch use case: reference -> manifest -> plan -> verified files -> report."""

from gpuaria.fetching.listed import with_listed_servers
from gpuaria.fetching.request import FetchRequest, RunLimits, World, request_for
from gpuaria.fetching.run import fetch, resolve

__all__ = ["FetchRequest", "RunLimits", "World", "fetch", "request_for", "resolve", "with_listed_servers"]
