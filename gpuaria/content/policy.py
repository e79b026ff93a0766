"""The content policy: pickles are reported or rejected, broken safetensors headers are rejected."""

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpuaria.content import signing
from gpuaria.content.names import PickleScan, has_pickle_name
from gpuaria.errors import ConfigError
from gpuaria.os_errors import explained
from gpuaria.records import Digest, PickleFile, RemoteFile, Signature, Step

_VERSION = 1  # of the stored scan results; increase it when the scan changes
_MAX_REPORTED = 20  # file names in a report
_NOT_CHECKED = "?"


@dataclass(frozen=True, slots=True)
class _ScanResult:
    """Scan result of one content. `header`: result of safetensors.header_problem, or that it was not checked."""

    pickle: PickleScan | None
    header: str | None


class ScanMemory(Protocol):
    """Remembers scan results by digest; `storage.receipts.Receipts` is one."""

    def content_notes(self, digests: Iterable[Digest]) -> dict[str, str]:
        """Return the remembered text of each known digest."""
        ...

    def note_content(self, digest: Digest, text: str) -> None:
        """Remember `text` for a digest."""
        ...


class Screening:
    """The content policy of one run, with earlier scan results and new findings. Safe for several threads.

    `no_pickle`: reject pickles. `check_headers`: reject safetensors files with an inconsistent header. `key`: public
    key for signatures; needs the package model-signing.
    """

    def __init__(
        self,
        memory: ScanMemory,
        *,
        no_pickle: bool = False,
        check_headers: bool = True,
        key: Path | None = None,
    ) -> None:
        self._memory, self._no_pickle, self._check_headers, self._key = memory, no_pickle, check_headers, key
        self._known: dict[str, _ScanResult] = {}
        self._pickles: dict[str, PickleFile] = {}
        self._misnamed: set[str] = set()
        self._guard = threading.Lock()

    def split_allowed(self, files: Sequence[RemoteFile]) -> tuple[tuple[RemoteFile, ...], tuple[Step, ...]]:
        """Split `files` into allowed files and a "refuse" step for each file rejected without a download.

        The decision uses the file name and earlier scan results. Raises ConfigError if signatures cannot be checked.
        """
        if self._key is not None:
            _check_key(self._key)
        for digest, text in self._memory.content_notes(file.digest for file in files if file.digest).items():
            if known := _from_text(text):
                self._known[digest] = known
        refused = [Step(f, "refuse", why) for f in files if (why := self._by_name(f) or self._by_memory(f))]
        paths = {step.file.path for step in refused}
        return tuple(file for file in files if file.path not in paths), tuple(refused)

    def is_known(self, file: RemoteFile) -> bool:
        """Return whether `check_file` needs no scan for this file."""
        known = self._known.get(str(file.digest))
        return known is not None and not self._header_unchecked(file, known)

    def check_file(self, file: RemoteFile, content: Callable[[RemoteFile], Path]) -> str:
        """Return why the verified bytes at `content(file)` are rejected; if accepted, return "" and record findings.

        Raises DiskError if they are unreadable.
        """
        known = self._known.get(str(file.digest)) if file.digest else None
        if known is None or self._header_unchecked(file, known):
            path = content(file)
            with explained(path):
                known = self._scan(file, path)
        why = self._refused(file, known)
        if not why:
            self._record(file, known)
        return why

    def signature(
        self, files: Sequence[RemoteFile], content: Callable[[RemoteFile], Path], *, complete: bool, locked: bool
    ) -> Signature | None:
        """Check the repo's signature among `files`, all of which are in place. Returns None if there is none.

        `complete`: `files` are the whole repo, or everything in a lock file if `locked`. A signature covers the whole
        repo, so a part cannot be checked.
        """
        file = signing.find(files, content)
        if file is None:
            return Signature(signing.NAME, "absent") if self._key and complete else None
        if self._key is None:
            extra = "" if signing.installed() else "pip install 'gpuaria[model-signing]', and "
            return Signature(file.path, "not checked", f"{extra}set signature_key to the signer's public key")
        if not complete:
            return Signature(file.path, "not checked", "it signs the whole repo, but only a part is on disk")
        return signing.check(file, files, content, self._key, locked=locked)

    @property
    def pickles(self) -> tuple[PickleFile, ...]:
        """The pickle files in place, those with suspicious imports first, then by name."""
        with self._guard:
            return tuple(sorted(self._pickles.values(), key=lambda found: (not found.imports, found.path)))

    def for_report(self) -> tuple[tuple[PickleFile, ...], tuple[str, ...]]:
        """Return some pickle files, and some files named .safetensors in another format."""
        with self._guard:
            misnamed = sorted(self._misnamed)
        return self.pickles[:_MAX_REPORTED], tuple(misnamed[:_MAX_REPORTED])

    def _scan(self, file: RemoteFile, path: Path) -> _ScanResult:
        from gpuaria.content import (  # imports zipfile, tarfile and lzma, which a second run does not need
            pickles,
            safetensors,
        )

        header = safetensors.header_problem(path) if self._wants_header(file) else _NOT_CHECKED
        known = _ScanResult(pickles.scan(path, file.path), header)
        if file.digest is not None:
            with self._guard:
                self._known[str(file.digest)] = known
            self._memory.note_content(file.digest, _to_text(known))
        return known

    def _record(self, file: RemoteFile, known: _ScanResult) -> None:
        with self._guard:
            if known.pickle:
                self._pickles[file.path] = PickleFile(file.path, known.pickle.imports, known.pickle.whole)
            if known.header is None and _is_safetensors(file):
                self._misnamed.add(file.path)

    def _wants_header(self, file: RemoteFile) -> bool:
        return self._check_headers and _is_safetensors(file)

    def _header_unchecked(self, file: RemoteFile, known: _ScanResult) -> bool:
        return self._wants_header(file) and known.header == _NOT_CHECKED

    def _by_name(self, file: RemoteFile) -> str:
        if self._no_pickle and has_pickle_name(file.path):
            return f"it has the name of a pickle file, and --no-pickle refuses these; {_LEAVE}"
        return ""

    def _by_memory(self, file: RemoteFile) -> str:
        known = self._known.get(str(file.digest)) if file.digest else None
        return self._refused(file, known) if known else ""

    def _refused(self, file: RemoteFile, known: _ScanResult) -> str:
        if self._no_pickle and known.pickle:
            what = f" that imports {', '.join(known.pickle.imports[:3])}" if known.pickle.imports else ""
            return f"it is a pickle{what}, and --no-pickle refuses these; {_LEAVE}"
        if self._wants_header(file) and known.header and known.header != _NOT_CHECKED:
            return (
                f"the checksum is right, but the safetensors header is broken: {known.header}; {_LEAVE}, or "
                "accept it with GPUARIA_CHECK_CONTENT=no"
            )
        return ""


def _check_key(key: Path) -> None:
    if not signing.installed():
        raise ConfigError(
            "signature_key is set, but the package that checks signatures is not installed",
            "pip install 'gpuaria[model-signing]'",
        )
    try:
        key.read_bytes()
    except OSError as error:
        raise ConfigError(f"signature_key {key} cannot be read: {error.strerror}", "Correct the path.") from None


_LEAVE = "leave it out with --exclude"


def _is_safetensors(file: RemoteFile) -> bool:
    return file.path.lower().endswith(".safetensors")


def _to_text(known: _ScanResult) -> str:
    pickle = [known.pickle.imports, known.pickle.whole] if known.pickle else None
    return json.dumps({"version": _VERSION, "pickle": pickle, "header": known.header})


def _from_text(text: str) -> _ScanResult | None:
    """Parse a stored scan result; None if it is damaged or from another version."""
    try:
        noted = json.loads(text)
        if noted["version"] != _VERSION:
            return None
        pickle = noted["pickle"]
        return _ScanResult(PickleScan(tuple(pickle[0]), bool(pickle[1])) if pickle else None, noted["header"])
    except (ValueError, LookupError, TypeError):
        return None
