"""Which contents may be published, whatever their digests say: pickles are named, or refused; so are broken headers."""

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpuaria.content import signing
from gpuaria.content.names import Scanned, named
from gpuaria.errors import ConfigError
from gpuaria.os_errors import explained
from gpuaria.records import Digest, PickleFile, RemoteFile, Signature, Step

_VERSION = 1  # of what the receipts keep; raise it when the scan learns something
_TOLD = 20  # names of files in a report
_NOT_LOOKED = "?"


@dataclass(frozen=True, slots=True)
class _Known:
    """What a content is. `header`: as safetensors.problem has it, or that nobody has looked."""

    pickle: Scanned | None
    header: str | None


class Memory(Protocol):
    """Remembers scan results by digest; `storage.receipts.Receipts` is one."""

    def content_notes(self, digests: Iterable[Digest]) -> dict[str, str]:
        """Return the remembered text of each known digest."""
        ...

    def note_content(self, digest: Digest, text: str) -> None:
        """Remember `text` for a digest."""
        ...


class Screening:
    """The rules of one run, what is known from before, and what it finds. Safe for several threads.

    `no_pickle`: refuse pickles. `check_headers`: refuse safetensors files that contradict themselves. `key`: the public
    key that signatures are checked with; it needs the package model-signing.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        no_pickle: bool = False,
        check_headers: bool = True,
        key: Path | None = None,
    ) -> None:
        self._memory, self._no_pickle, self._check_headers, self._key = memory, no_pickle, check_headers, key
        self._known: dict[str, _Known] = {}
        self._pickles: dict[str, PickleFile] = {}
        self._misnamed: set[str] = set()
        self._guard = threading.Lock()

    def beforehand(self, files: Sequence[RemoteFile]) -> tuple[tuple[RemoteFile, ...], tuple[Step, ...]]:
        """Those of `files` that may be fetched, and a step for each that is refused before a byte of it moves: by its
        name, or by what its content was before.

        Raises ConfigError where signatures are to be checked and cannot be.
        """
        if self._key is not None:
            _usable(self._key)
        for digest, text in self._memory.content_notes(file.digest for file in files if file.digest).items():
            if known := _read(text):
                self._known[digest] = known
        refused = [Step(f, "refuse", why) for f in files if (why := self._by_name(f) or self._by_memory(f))]
        paths = {step.file.path for step in refused}
        return tuple(file for file in files if file.path not in paths), tuple(refused)

    def knows(self, file: RemoteFile) -> bool:
        """Whether `judge` needs no look at the file."""
        known = self._known.get(str(file.digest))
        return known is not None and not self._lacks_header(file, known)

    def judge(self, file: RemoteFile, content: Callable[[RemoteFile], Path]) -> str:
        """Why the bytes at `content(file)`, which have its digest, are refused; if "", they are in place from now on.

        Raises DiskError where they cannot be read.
        """
        known = self._known.get(str(file.digest)) if file.digest else None
        if known is None or self._lacks_header(file, known):
            path = content(file)
            with explained(path):
                known = self._look(file, path)
        why = self._refused(file, known)
        if not why:
            self._note(file, known)
        return why

    def signature(
        self, files: Sequence[RemoteFile], content: Callable[[RemoteFile], Path], *, complete: bool, locked: bool
    ) -> Signature | None:
        """What the signature is worth that lies among `files`, all of which are in place; None without one.

        `complete`: they are the whole repo, or all that a lock names if they are `locked`. A signature speaks of the
        whole repo, and a part cannot be compared.
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
        """The pickles in place: those that import something ahead, then by name."""
        with self._guard:
            return tuple(sorted(self._pickles.values(), key=lambda found: (not found.imports, found.path)))

    def told(self) -> tuple[tuple[PickleFile, ...], tuple[str, ...]]:
        """Some pickles, and some files that are no safetensors, for a report."""
        with self._guard:
            misnamed = sorted(self._misnamed)
        return self.pickles[:_TOLD], tuple(misnamed[:_TOLD])

    def _look(self, file: RemoteFile, path: Path) -> _Known:
        from gpuaria.content import pickles, safetensors  # zipfile, tarfile and lzma, which a second run does not need

        header = safetensors.problem(path) if self._wants_header(file) else _NOT_LOOKED
        known = _Known(pickles.scan(path, file.path), header)
        if file.digest is not None:
            with self._guard:
                self._known[str(file.digest)] = known
            self._memory.note_content(file.digest, _written(known))
        return known

    def _note(self, file: RemoteFile, known: _Known) -> None:
        with self._guard:
            if known.pickle:
                self._pickles[file.path] = PickleFile(file.path, known.pickle.imports, known.pickle.whole)
            if known.header is None and _is_safetensors(file):
                self._misnamed.add(file.path)

    def _wants_header(self, file: RemoteFile) -> bool:
        return self._check_headers and _is_safetensors(file)

    def _lacks_header(self, file: RemoteFile, known: _Known) -> bool:
        return self._wants_header(file) and known.header == _NOT_LOOKED

    def _by_name(self, file: RemoteFile) -> str:
        if self._no_pickle and named(file.path):
            return f"it has the name of a pickle file, and --no-pickle refuses these; {_LEAVE}"
        return ""

    def _by_memory(self, file: RemoteFile) -> str:
        known = self._known.get(str(file.digest)) if file.digest else None
        return self._refused(file, known) if known else ""

    def _refused(self, file: RemoteFile, known: _Known) -> str:
        if self._no_pickle and known.pickle:
            what = f" that imports {', '.join(known.pickle.imports[:3])}" if known.pickle.imports else ""
            return f"it is a pickle{what}, and --no-pickle refuses these; {_LEAVE}"
        if self._wants_header(file) and known.header and known.header != _NOT_LOOKED:
            return (
                f"the checksum is right, but the safetensors header is broken: {known.header}; {_LEAVE}, or "
                "accept it with GPUARIA_CHECK_CONTENT=no"
            )
        return ""


def _usable(key: Path) -> None:
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


def _written(known: _Known) -> str:
    pickle = [known.pickle.imports, known.pickle.whole] if known.pickle else None
    return json.dumps({"version": _VERSION, "pickle": pickle, "header": known.header})


def _read(text: str) -> _Known | None:
    """What was noted; None for what another version noted, or for damage."""
    try:
        noted = json.loads(text)
        if noted["version"] != _VERSION:
            return None
        pickle = noted["pickle"]
        return _Known(Scanned(tuple(pickle[0]), bool(pickle[1])) if pickle else None, noted["header"])
    except (ValueError, LookupError, TypeError):
        return None
