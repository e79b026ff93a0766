"""One file per hub behind one small protocol; a source returns records and is done.

protocol.py     what a source can do
registry.py     from a scheme, a name or a URL to the source: the built-in ones, and those of other packages
web.py          what most sources share: a file is a URL, its size comes by HEAD
plain.py        `plain:`, files on web servers: one URL, a list, a folder with SHA256SUMS, a Metalink
huggingface.py  `hf:`, the Hugging Face Hub (references.py, git*.py belong to it)
"""

from gpuaria.sources.protocol import About, RepoInfo, Source
from gpuaria.sources.registry import BUILT_IN, find, names, source

__all__ = ["BUILT_IN", "About", "RepoInfo", "Source", "find", "names", "source"]
