"""Check every file of a manifest on disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gpuaria.records import PickleFile, RemoteFile, Verdict, outcomes
from gpuaria.verification import verify_file


@dataclass(frozen=True, slots=True)
class Checked:
    """The verdicts of `verify_all`, in the manifest's order, extra files last. `pickles`: those in the good files."""

    verdicts: tuple[Verdict, ...]
    pickles: tuple[PickleFile, ...] = ()

    def count(self) -> dict[str, int]:
        """How many files have each outcome."""
        return outcomes(self.verdicts)


def verify_all(
    files: Iterable[RemoteFile],
    where: Callable[[RemoteFile], Path],
    extra: Iterable[str],
    each: Callable[[Verdict], None] = lambda verdict: None,
) -> Checked:
    """Check every file of a manifest at `where(file)`; `extra` are names that the manifest does not know."""
    verdicts, found = [], []
    for file in files:
        verdict = verify_file(where(file), file)
        pickle = _pickle(where(file), file) if verdict.outcome == "ok" else None
        found += [pickle] if pickle else []
        each(verdict)
        verdicts.append(verdict)
    verdicts += [Verdict(name, "extra", "not in the manifest") for name in sorted(extra)]
    return Checked(tuple(verdicts), tuple(sorted(found, key=lambda pickle: (not pickle.imports, pickle.path))))


def _pickle(path: Path, file: RemoteFile) -> PickleFile | None:
    from gpuaria.content import pickles  # a fetch verifies too, and does without this half of the time

    try:
        scanned = pickles.scan(path, file.path)
    except OSError:
        return None  # it was read a moment ago; to name it is a courtesy
    return PickleFile(file.path, scanned.imports, scanned.whole) if scanned else None
