"""Bytes on disk against a manifest. A digest always comes from whoever vouched, never from the server of the bytes."""

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gpuaria.hashing import hash_stream, matches
from gpuaria.records import PickleFile, RemoteFile, Verdict, outcomes


def verify_file(path: Path, file: RemoteFile) -> Verdict:
    """Read `path` and compare size, then digest. Without a digest the outcome is "unverifiable", never "ok".

    What is no regular file is not opened: a pipe would block for ever, and a device may do things when it is read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Verdict(file.path, "failed", "is not a regular file")
        with path.open("rb", buffering=0) as stream:
            size = path.stat().st_size
            if size != file.size:
                return Verdict(file.path, "wrong size", f"{size} bytes, not {file.size}")
            if file.digest is None:
                return Verdict(file.path, "unverifiable", "the source gives no digest for it")
            found, total = hash_stream(stream, file.digest.algorithm, file.size)
    except FileNotFoundError:
        return Verdict(file.path, "missing")
    except OSError as error:
        return Verdict(file.path, "failed", f"cannot be read: {error.strerror}")
    if total != file.size:
        return Verdict(file.path, "wrong size", f"{total} bytes, not {file.size}")
    if not matches(file.digest, found):
        return Verdict(file.path, "wrong digest", f"{file.digest.algorithm} {found}, not {file.digest.hex}")
    return Verdict(file.path, "ok")


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify_all` found, in the manifest's order, extra files last. `pickles`: those of the files that are ok."""

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
