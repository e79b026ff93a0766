"""OpenSSF model signing: a bundle in the repo signs the digests of all other files.

The package model-signing checks the signature with a public key. It uses the digests that the fetch already verified,
so large files are not hashed again.
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
_FOR_GIT = (".git", ".gitattributes", ".github", ".gitignore")  # ignored by the package as well


def installed() -> bool:
    """Return whether the package model-signing is installed."""
    return importlib.util.find_spec("model_signing") is not None


def find(files: Iterable[RemoteFile], content: Callable[[RemoteFile], Path]) -> RemoteFile | None:
    """Return the repo's signature: `model.sig`, else another `*.sig` file in the top folder that is a bundle."""
    named = sorted((f for f in files if f.path.endswith(".sig") and "/" not in f.path), key=lambda f: f.path != NAME)
    return next((file for file in named if file.path == NAME or _bundle(content(file)) is not None), None)


def check(
    file: RemoteFile, files: Iterable[RemoteFile], content: Callable[[RemoteFile], Path], key: Path, *, locked: bool
) -> Signature:
    """Check the signature in `file` over `files`, which are verified and in place, with the public key `key`.

    `locked`: `files` come from a lock file, which may cover only a part of the signed files.
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
    except Exception as error:  # noqa: BLE001 a hostile bundle can make the package raise anything
        said = str(error) or type(error).__name__
        if locked and _only_missing(said):
            return Signature(file.path, "not checked", "it signs the whole repo, but the lock file selects a part")
        return Signature(file.path, "wrong", said[:300])
    return Signature(file.path, "right", f"by the key {key}, over {len(signed)} files")


def _only_missing(said: str) -> bool:
    """Return whether the package's message reports no problem except signed files that were not compared."""
    words = ("Missing files in model", "Extra files found", "Hash mismatch for")
    return [word in said for word in words] == [True, False, False]


def _bundle(path: Path) -> dict[str, Any] | None:
    """Return the parsed bundle, None if the file is not one."""
    try:
        with path.open("rb") as stream:
            bundle = _json(stream.read(_LARGEST), 10_000)
        return bundle if str(bundle["mediaType"]).startswith(_BUNDLE) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _method(bundle: dict[str, Any]) -> str:
    """Return the method that the bundle claims, not verified yet; empty if it claims none."""
    try:
        payload = _json(base64.b64decode(bundle["dsseEnvelope"]["payload"]), 4_000_000)
        said = payload["predicate"]["serialization"]
        return f"{said['method']} over {said['hash_type']}"[:60]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _json(data: bytes, most: int) -> Any:
    """Parse JSON with at most `most` brackets and commas, each of which may cost 100 bytes. Raises ValueError."""
    if sum(data.count(mark) for mark in (b"[", b"{", b",")) > most:
        raise ValueError("too many values")
    return json.loads(data)


def _verify(
    signature: Path, key: Path, signed: dict[SafePath, RemoteFile], content: Callable[[RemoteFile], Path]
) -> None:
    """Verify the signature with the package. Raises the package's errors."""
    from model_signing import hashing, manifest, verifying
    from model_signing._hashing.hashing import Digest  # what the public FileManifestItem is made of

    class Proven(hashing.Config):  # type: ignore[misc]
        """Provide the verified digests instead of hashing the folder, which may contain symlinks."""

        def __init__(self) -> None:
            super().__init__()
            self.ignored = set(_FOR_GIT)

        def add_ignored_paths(self, *, model_path: Any, paths: Iterable[Any]) -> None:
            """Ignore the paths that the signer ignored."""
            self.ignored |= {str(PurePosixPath(path)) for path in paths}

        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
            """Return the manifest that must equal the signed one."""
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
    """Return the verified sha256; computed for a small file stored in git."""
    if file.digest is not None and file.digest.algorithm == "sha256":
        return bytes.fromhex(file.digest.hex)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
