"""Sources: one module per hub, behind one small protocol. A source returns records and keeps no state.

protocol.py     the Source protocol and its optional capabilities
registry.py     finds the source of a scheme, a name or a URL, among the built-in sources and those of other packages
web.py          base class for sources whose files are URLs
plain.py        `plain:`, files on web servers: one URL, a list, a folder with SHA256SUMS, a Metalink
huggingface.py  `hf:`, the Hugging Face Hub (references.py, hub_*.py and git*.py belong to it)
"""

from gpuaria.sources.protocol import About, RepoInfo, Source
from gpuaria.sources.registry import BUILT_IN, find, names, source

__all__ = ["BUILT_IN", "About", "RepoInfo", "Source", "find", "names", "source"]
