"""OpenSSF model signing: a bundle in the repo that signs the digests of all its other files.

The package model-signing checks the signature with a public key. The digests are those that were proven on the way, so
that nothing large is hashed a second time.
"""

import base64
import hashlib
import importlib.util
import io
import json
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path, PurePosixPath
from typing import Any

from gpuaria.paths import SafePath
from gpuaria.records import RemoteFile, Signature

NAME = "model.sig"
_LARGEST = 64 << 20  # bytes of a bundle; 100,000 files take 20 MB
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_FOR_GIT = (".git", ".gitattributes", ".github", ".gitignore")  # what the package itself leaves out


def installed() -> bool:
    """Whether the package is here."""
    return importlib.util.find_spec("model_signing") is not None


def find(files: Iterable[RemoteFile], content: Callable[[RemoteFile], Path]) -> RemoteFile | None:
    """The repo's signature: `model.sig`, else a file of another name `*.sig` in the top folder that holds a bundle."""
    named = sorted((f for f in files if f.path.endswith(".sig") and "/" not in f.path), key=lambda f: f.path != NAME)
    return next((file for file in named if file.path == NAME or _bundle(content(file)) is not None), None)


def check(
    file: RemoteFile, files: Iterable[RemoteFile], content: Callable[[RemoteFile], Path], key: Path, *, locked: bool
) -> Signature:
    """Check the signature in `file` over `files`, all of which are in place and proven, with the public key `key`.

    `locked`: they are what a lock names, which may be a part of what was signed.
    """
    bundle = _bundle(content(file))
    if bundle is None:
        return Signature(file.path, "wrong", "it is not a sigstore bundle")
    method = _method(bundle)
    if method not in ("", "files over sha256"):
        return Signature(
            file.path, "not checked", f"it signs {method}, which gpuaria cannot check; use model_signing verify key"
        )
    signed = {other.path: other for other in files if other.path != file.path}
    try:
        with redirect_stdout(io.StringIO()):  # the package prints its warnings
            _verify(content(file), key, signed, content)
    except Exception as error:  # noqa: BLE001 whatever a hostile bundle makes the package raise, it is not right
        said = str(error) or type(error).__name__
        if locked and _only_missing(said):
            return Signature(file.path, "not checked", "it signs the whole repo, but the lock file selects a part")
        return Signature(file.path, "wrong", said[:300])
    return Signature(file.path, "right", f"by the key {key}, over {len(signed)} files")


def _only_missing(said: str) -> bool:
    """Whether nothing is wrong but that it signs more files than were compared, by the package's own words."""
    words = ("Missing files in model", "Extra files found", "Hash mismatch for")
    return [word in said for word in words] == [True, False, False]


def _bundle(path: Path) -> dict[str, Any] | None:
    """The bundle as it is written, or None for anything else."""
    try:
        with path.open("rb") as stream:
            bundle = _json(stream.read(_LARGEST), 10_000)
        return bundle if str(bundle["mediaType"]).startswith(_BUNDLE) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _method(bundle: dict[str, Any]) -> str:
    """What the bundle says that it signs, for now without proof; "" where it does not say."""
    try:
        payload = _json(base64.b64decode(bundle["dsseEnvelope"]["payload"]), 4_000_000)
        said = payload["predicate"]["serialization"]
        return f"{said['method']} over {said['hash_type']}"[:60]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _json(data: bytes, most: int) -> Any:
    """JSON of at most that many brackets and commas, each of which may cost 100 bytes. Raises ValueError."""
    if sum(data.count(mark) for mark in (b"[", b"{", b",")) > most:
        raise ValueError("too many values")
    return json.loads(data)


def _verify(
    signature: Path, key: Path, signed: dict[SafePath, RemoteFile], content: Callable[[RemoteFile], Path]
) -> None:
    """Raises whatever the package raises."""
    from model_signing import hashing, manifest, verifying
    from model_signing._hashing.hashing import Digest  # what the public FileManifestItem is made of

    class Proven(hashing.Config):  # type: ignore[misc]
        """Gives the digests that are known instead of hashing the folder, which may be full of links."""

        def __init__(self) -> None:
            super().__init__()
            self.ignored = set(_FOR_GIT)

        def add_ignored_paths(self, *, model_path: Any, paths: Iterable[Any]) -> None:
            """Leave out what the signer left out."""
            self.ignored |= {str(PurePosixPath(path)) for path in paths}

        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
            """The manifest that the signed one must be equal to."""
            kind = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
            items = [
                manifest.FileManifestItem(
                    path=PurePosixPath(path), digest=Digest("sha256", _sha256(file, content(file)))
                )
                for path, file in signed.items()
                if not any(path == name or path.startswith(f"{name}/") for name in self.ignored)
            ]
            return manifest.Manifest("", items, manifest.SerializationType.from_args(kind))

    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    config.set_hashing_config(Proven()).verify(signature.parent, signature)


def _sha256(file: RemoteFile, path: Path) -> bytes:
    """The digest that was proven; of a file that git keeps, which is small, it is computed."""
    if file.digest is not None and file.digest.algorithm == "sha256":
        return bytes.fromhex(file.digest.hex)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
