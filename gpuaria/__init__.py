"""Download models from the fastest mirrors with aria2, and verify every byte."""

from typing import TYPE_CHECKING

from gpuaria._version import __version__

if TYPE_CHECKING:
    from gpuaria.api import FetchFailed, Runtime, fetch, resolve, verify

__all__ = ["FetchFailed", "Runtime", "__version__", "fetch", "resolve", "verify"]


def __getattr__(name: str) -> object:
    """Import the API on first use, since `gpuaria --version` does not need it."""
    if name not in __all__:
        raise AttributeError(f"module 'gpuaria' has no attribute {name!r}")
    from gpuaria import api

    return getattr(api, name)
