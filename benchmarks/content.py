"""The files to download: large ones that are created instantly, and many small ones. No content repeats."""

import math
import os
import random
from pathlib import Path

_STAMP = 4096
_EVERY = 1 << 20


def large(path: Path, size: int, seed: int) -> Path:
    """Write a sparse file; each MiB begins with 4 KiB of unique bytes.

    Servers and clients treat it as any other file: none of them compresses it or skips holes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    with path.open("wb") as out:
        for at in range(0, size, _EVERY):
            os.pwrite(out.fileno(), dice.randbytes(min(_STAMP, size - at)), at)
        out.truncate(size)
    return path


def small(count: int, seed: int, least: int = 400, most: int = 40_000) -> dict[str, bytes]:
    """Return files by name, without folders; the logarithms of their sizes are spread evenly."""
    dice = random.Random(seed)
    return {
        f"{i:06d}.json": dice.randbytes(round(math.exp(dice.uniform(math.log(least), math.log(most)))))
        for i in range(count)
    }


def same(one: Path, other: Path) -> bool:
    """Return whether two files hold the same bytes."""
    if not one.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        here, there = bytearray(4 << 20), bytearray(4 << 20)
        while count := left.readinto(here):
            if right.readinto(there) != count or here != there:  # both are whole blocks until the common end
                return False
    return True
