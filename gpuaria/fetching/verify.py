"""Verification of every file of a manifest on disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gpuaria.records import PickleFile, RemoteFile, Verdict, count_outcomes
from gpuaria.verification import verify_file


@dataclass(frozen=True, slots=True)
class Checked:
    """The verdicts of `verify_all` in the manifest's order, extra files last.

    `pickles`: those in the verified files.
    """

    verdicts: tuple[Verdict, ...]
    pickles: tuple[PickleFile, ...] = ()

    def count(self) -> dict[str, int]:
        """Return the number of files per outcome."""
        return count_outcomes(self.verdicts)


def verify_all(
    files: Iterable[RemoteFile],
    where: Callable[[RemoteFile], Path],
    extra: Iterable[str],
    each: Callable[[Verdict], None] = lambda verdict: None,
) -> Checked:
    """Verify every file of a manifest at `where(file)`; `extra`: names on disk that the manifest does not contain.

    `each` is called with every verdict of a manifest file.
    """
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
    from gpuaria.content import pickles  # imported late: a fetch verifies too and often needs no pickle scan

    try:
        scanned = pickles.scan(path, file.path)
    except OSError:
        return None  # optional information: the file itself has been verified
    return PickleFile(file.path, scanned.imports, scanned.whole) if scanned else None
