"""One file per hub behind one small protocol; a source returns records and is done."""

from gpuaria.sources.huggingface import HuggingFace
from gpuaria.sources.protocol import RepoInfo, Source

SOURCES: dict[str, Source] = {"hf": HuggingFace()}

__all__ = ["SOURCES", "RepoInfo", "Source"]
