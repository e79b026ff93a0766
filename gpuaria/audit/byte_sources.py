"""Counts which mirror delivered the bytes of one file."""

from dataclasses import dataclass, field

_MOST = 10  # problems kept per file
_ON_DISK = ""  # key for bytes that were on disk before the run


@dataclass
class ByteSources:
    """Bytes of one file by mirror, and the first few problems of its download. Not thread-safe."""

    problems: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)  # by mirror, the one that delivered last at the end

    def add_bytes(self, mirror: str, count: int) -> None:
        """Add `count` bytes delivered by `mirror`."""
        self._counts[mirror] = self._counts.pop(mirror, 0) + count

    def set_size_on_disk(self, count: int) -> None:
        """Set how many bytes of the file are on disk.

        If the mirrors delivered more, the latest bytes no longer count. Bytes that no mirror delivered were on disk
        before the run.
        """
        surplus = sum(self._counts.values()) - count
        if surplus < 0:
            self._counts = {_ON_DISK: self._counts.pop(_ON_DISK, 0) - surplus, **self._counts}
        for mirror in reversed(list(self._counts)):
            less = min(max(surplus, 0), self._counts[mirror])
            surplus -= less
            self._counts[mirror] -= less

    def add_problem(self, problem: str) -> None:
        """Add a problem, unless it is known already or there are enough."""
        if problem not in self.problems and len(self.problems) < _MOST:
            self.problems.append(problem)

    def copy(self) -> "ByteSources":
        """Return a copy of the current state."""
        return ByteSources(list(self.problems), dict(self._counts))

    @property
    def on_disk_before(self) -> int:
        """Bytes that were on disk before the run."""
        return self._counts.get(_ON_DISK, 0)

    @property
    def by_mirror(self) -> dict[str, int]:
        """Bytes by mirror, largest first."""
        rows = [(name, count) for name, count in self._counts.items() if name != _ON_DISK and count]
        return dict(sorted(rows, key=lambda row: (-row[1], row[0])))
