"""Where the bytes of one file come from, kept while it arrives."""

from dataclasses import dataclass, field

_MOST = 10  # problems that are kept of one file
_BEFORE = ""  # stands for bytes that were here before the run


@dataclass
class ByteSources:
    """`problems`: what went wrong on the way, the first few. Not thread-safe by itself."""

    problems: list[str] = field(default_factory=list)
    _given: dict[str, int] = field(default_factory=dict)  # by mirror, the one that gave last at the end

    def came(self, mirror: str, count: int) -> None:
        """`count` more bytes came from `mirror`."""
        self._given[mirror] = self._given.pop(mirror, 0) + count

    def holds(self, count: int) -> None:
        """Set how many bytes of the file are on disk.

        If the mirrors delivered more, the latest bytes no longer count. Bytes that no mirror delivered were on disk
        before the run.
        """
        surplus = sum(self._given.values()) - count
        if surplus < 0:
            self._given = {_BEFORE: self._given.pop(_BEFORE, 0) - surplus, **self._given}
        for mirror in reversed(list(self._given)):
            less = min(max(surplus, 0), self._given[mirror])
            surplus -= less
            self._given[mirror] -= less

    def note(self, problem: str) -> None:
        """Something went wrong; what was said before is not said again."""
        if problem not in self.problems and len(self.problems) < _MOST:
            self.problems.append(problem)

    def copy(self) -> "ByteSources":
        """As it is at this moment."""
        return ByteSources(list(self.problems), dict(self._given))

    @property
    def before(self) -> int:
        """Bytes that were here before."""
        return self._given.get(_BEFORE, 0)

    @property
    def given(self) -> dict[str, int]:
        """Bytes by mirror, the most first."""
        rows = [(name, count) for name, count in self._given.items() if name != _BEFORE and count]
        return dict(sorted(rows, key=lambda row: (-row[1], row[0])))
