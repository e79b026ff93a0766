"""The contents of stand-in repos and of folders."""

from __future__ import annotations

from pathlib import Path

from standin import Repo

SMALL = {
    "config.json": b'{"n": 1}\n',
    "sub/folder/deep.txt": b"deep\n",
    "sub/other.txt": b"other\n",
    "weights.bin": b"weights " * 4000,
}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` by its path, without the tools' own files."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in sorted(names.items()) if not name.startswith(".cache/")}


def expected(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    """Return the files of a stand-in repo."""
    commit = repo.commits[repo.resolve(revision) or ""]
    return {name: entry.file.read_bytes() for name, entry in sorted(commit.files.items())}
