"""What lies in a target beside the files of its manifest."""

import os
from collections.abc import Collection
from pathlib import Path

from gpuaria.os_errors import explained

_KEPT = (
    (".cache", "huggingface"),
    (".git",),
    (".gpuaria",),
)  # the layouts' own folders, as huggingface_hub's DEFAULT_IGNORE_PATTERNS


def untracked_files(root: Path, known: Collection[str]) -> list[str]:
    """Paths below `root`, with `/` between their parts, that are not in `known`. Raises DiskError."""
    found = []
    with explained(root):
        for folder, folders, names in os.walk(root):
            parts = Path(folder).relative_to(root).parts
            folders[:] = [name for name in folders if (*parts, name) not in _KEPT]
            found += ["/".join((*parts, name)) for name in names]
    return sorted(set(found) - set(known))
