"""Models from any mirror to your disk: measured mirrors, aria2's segmented downloads, every byte verified."""

from typing import TYPE_CHECKING

from gpuaria._version import __version__

if TYPE_CHECKING:
    from gpuaria.api import FetchFailed, Runtime, fetch, resolve, verify

__all__ = ["FetchFailed", "Runtime", "__version__", "fetch", "resolve", "verify"]


def __getattr__(name: str) -> object:
    """Import the API when it is first used: `gpuaria --version` has no need of it."""
    if name not in __all__:
        raise AttributeError(f"module 'gpuaria' has no attribute {name!r}")
    from gpuaria import api

    return getattr(api, name)
