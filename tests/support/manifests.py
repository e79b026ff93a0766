"""Small manifests, and URLs for their files."""

import hashlib
from typing import Any

from gpuaria.errors import UnsafePath
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REF = RepoRef("hf", "model", "org/name")
SHA = hashlib.sha256(b"hello").hexdigest()
URL = "https://a.example/f"
NAMES = [
    "plain.bin",
    "with space.bin",
    "two  spaces",
    "q'uote\".txt",
    "less<more>.txt",
    "文件/ünï 𝔘.bin",
    "sub/dir/deep/x",
    "#hash",
    "out=evil",
    "-dash",
    "[1-3]{a,b}",
    "%2e%2e/%2F",
    "~/x",
    "a?b*c;d",
    "$HOME",
    "x.torrent",
    "x.meta4",
    "no\u00a0break\u00a0",
]


def a_file(name: str, content: bytes = b"hello", algorithm: str = "sha256") -> RemoteFile:
    digest = Digest(algorithm, hashlib.new({"git-sha1": "sha1"}.get(algorithm, algorithm), content).hexdigest())
    return RemoteFile(SafePath(name), len(content), digest)


def a_manifest(*files: RemoteFile, **fields: Any) -> Manifest:
    return Manifest(
        **{
            "ref": REF,
            "name": "org/name",
            "commit": COMMIT,
            "vouched_by": "https://huggingface.co",
            "trust": "origin",
            "files": tuple(sorted(files, key=lambda file: file.path)),
            **fields,
        }
    )


def urls_for_all(subject: Manifest, *urls: str) -> dict[SafePath, list[tuple[str, str]]]:
    return {file.path: [(url, "") for url in urls or (URL,)] for file in subject.files}


def is_safe_path(text: str) -> bool:
    """Return whether SafePath accepts the text."""
    try:
        SafePath.parse(text)
    except UnsafePath:
        return False
    return True
