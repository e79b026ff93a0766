"""What repos of the stand-in hold, and what lies in a folder."""

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
    """Every file below `folder` that is not the tools' own, by its path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in sorted(names.items()) if not name.startswith(".cache/")}


def expected(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    """What a repo of the stand-in holds."""
    commit = repo.commits[repo.resolve(revision) or ""]
    return {name: entry.file.read_bytes() for name, entry in sorted(commit.files.items())}
