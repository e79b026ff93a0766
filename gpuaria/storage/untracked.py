"""Files in a target that its manifest does not list."""

import os
from collections.abc import Collection
from pathlib import Path

from gpuaria.os_errors import explained

_KEPT = (
    (".cache", "huggingface"),
    (".git",),
    (".gpuaria",),
)  # the layouts' own folders, like huggingface_hub's DEFAULT_IGNORE_PATTERNS


def untracked_files(root: Path, known: Collection[str]) -> list[str]:
    """Return the paths below `root`, separated by `/`, that are not in `known`. Raises DiskError."""
    found = []
    with explained(root):
        for folder, folders, names in os.walk(root):
            parts = Path(folder).relative_to(root).parts
            folders[:] = [name for name in folders if (*parts, name) not in _KEPT]
            found += ["/".join((*parts, name)) for name in names]
    return sorted(set(found) - set(known))
