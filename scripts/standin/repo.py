"""A repository as the Hub stores it: real git objects in memory, contents on disk named by digest."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

Content = bytes | Path
LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt")
_FIRST_COMMIT = 1708340265  # 2024-02-19T10:57:45Z; each commit is a minute later, so ids are reproducible
_AUTHOR = "standin <standin@example.invalid>"


def git_id(kind: str, data: bytes) -> str:
    """Return the git object id (40 hex digits) of an object of that kind."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def pointer_text(sha256: str, size: int) -> bytes:
    """Return the LFS pointer file for a content of size bytes."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Entry:
    """One file of a commit: its size in bytes, its git blob id and, for LFS files, its sha256 and Xet-like hash."""

    path: str
    size: int
    oid: str
    file: Path
    sha256: str = ""
    xet: str = ""
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        """The unquoted ETag that the Hub sends: sha256 for LFS files, else the git blob id."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """One commit. listing: files and folders (tree ids) by path, depth first; last: the last commit of each path."""

    oid: str
    tree: str
    parent: str
    title: str
    date: int
    files: dict[str, Entry]
    listing: dict[str, Entry | str]
    last: dict[str, str]


_Node = dict[str, "Entry | _Node"]


def _nest(files: Mapping[str, Entry]) -> _Node:
    root: _Node = {}
    for path, entry in files.items():
        *folders, name = path.split("/")
        node = root
        for folder in folders:
            below = node.setdefault(folder, {})
            if isinstance(below, Entry):
                raise ValueError(f"{path}: {folder} is a file as well as a folder")
            node = below
        if not name or name in node:
            raise ValueError(f"{path}: not a usable file name here")
        node[name] = entry
    return root


class RepoOptions(TypedDict, total=False):
    """The fields of a `Repo` that `Repo.build` accepts."""

    kind: str
    private: bool
    gated: bool | str
    disabled: bool
    lfs_over: int
    direct: bool
    branch: str


@dataclass
class Repo:
    """A repository of the stand-in hub. branches, tags and pulls map names to commit ids."""

    repo_id: str
    folder: Path
    kind: str = "model"
    private: bool = False
    gated: bool | str = False
    disabled: bool = False
    lfs_over: int = 10_000_000
    direct: bool = False
    branch: str = "main"
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tampered: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _names: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def build(cls, repo_id: str, files: Mapping[str, Content], *, folder: Path, **options: Unpack[RepoOptions]) -> Repo:
        """Return a repository with files in its first commit; files over lfs_over bytes are LFS files."""
        repo = cls(repo_id, Path(folder).absolute(), **options)
        if repo.kind not in ("model", "dataset", "space"):
            raise ValueError(f"unknown kind of repository: {repo.kind}")
        repo.commit(files, message="initial commit")
        return repo

    @property
    def head(self) -> str:
        """The commit id of the main branch."""
        return self.branches[self.branch]

    def commit(self, files: Mapping[str, Content], *, message: str = "Replace all", branch: str | None = None) -> str:
        """Commit exactly these files to the branch; return the commit id."""
        name = branch or self.branch
        entries = {path: self._store(path, content) for path, content in files.items()}
        self.branches[name] = self._record(entries, self.branches.get(name, ""), message)
        return self.branches[name]

    def update(self, files: Mapping[str, Content | None], *, message: str = "Update", branch: str | None = None) -> str:
        """Commit added, replaced or removed (None) files to the branch; return the commit id."""
        name = branch or self.branch
        parent = self.branches.get(name, self.head)
        self.branches[name] = self._record(self._changed(parent, files), parent, message)
        return self.branches[name]

    def pull(self, number: int, files: Mapping[str, Content | None]) -> str:
        """Open refs/pr/number with these changes to the main branch; return the commit id."""
        self.pulls[number] = self._record(self._changed(self.head, files), self.head, f"Pull request {number}")
        return self.pulls[number]

    def tag(self, name: str, revision: str = "") -> None:
        """Tag the commit of a revision (default: the main branch)."""
        commit = self.resolve(revision or self.branch)
        if commit is None:
            raise ValueError(f"no such revision: {revision}")
        self.tags[name] = commit

    def forge(self, path: str, content: Content | None) -> None:
        """Make the API list and serve content for a path that differs from the git objects; None hides the path."""
        commit = self.commits[self.head]
        for known in (commit.files, commit.listing):
            known.pop(path, None)
        if content is not None:
            commit.files[path] = commit.listing[path] = self._store(path, content)
            commit.last[path] = commit.oid

    def tamper(self, oid: str, data: bytes) -> None:
        """Make git send data of the same kind in place of an object."""
        self.tampered[oid] = (self.read(oid)[0], data)

    def resolve(self, revision: str) -> str | None:
        """Return the commit id of a branch, tag, refs/..., full id or unique prefix of 7 or more hex digits."""
        short = re.sub(r"^refs/(heads|tags)/", "", revision)
        found = self.branches.get(short) or self.tags.get(short)
        if found:
            return found
        if match := re.fullmatch(r"refs/pr/(\d+)", revision):
            return self.pulls.get(int(match[1]))
        if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
            return None
        hits = [oid for oid in list(self.commits) if oid.startswith(revision)]
        return hits[0] if len(hits) == 1 else None

    def read(self, oid: str) -> tuple[str, bytes]:
        """Return kind and raw data of a git object; blobs are read from disk."""
        if oid in self.objects:
            return self.objects[oid]
        return "blob", (self.folder / "git" / oid).read_bytes()

    def has(self, oid: str) -> bool:
        """Return True if there is a git object with that id."""
        return oid in self.objects or (self.folder / "git" / oid).is_file()

    def names(self, digest: str) -> set[str]:
        """Return all paths that ever had the content with this sha256, Xet-like hash or blob id."""
        return self._names.get(digest, set())

    def _changed(self, parent: str, files: Mapping[str, Content | None]) -> dict[str, Entry]:
        entries = dict(self.commits[parent].files)
        for path, content in files.items():
            entries.pop(path, None)
            if content is not None:
                entries[path] = self._store(path, content)
        return entries

    def _store(self, path: str, content: Content) -> Entry:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size > self.lfs_over or path.endswith(LFS_SUFFIXES):
            entry = self._store_lfs(path, content, size)
        else:
            data = content if isinstance(content, bytes) else content.read_bytes()
            oid = git_id("blob", data)
            entry = Entry(path, size, oid, self._place("git", oid, data))
        for digest in filter(None, (entry.sha256, entry.xet, entry.oid)):
            self._names.setdefault(digest, set()).add(path)
        return entry

    def _store_lfs(self, path: str, content: Content, size: int) -> Entry:
        if isinstance(content, bytes):
            sha256 = hashlib.sha256(content).hexdigest()
        else:
            with content.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        file = self._place("lfs", sha256, content)
        xet = hashlib.sha256(b"xet:" + sha256.encode()).hexdigest()
        self._place("xet", xet, file)
        pointer = pointer_text(sha256, size)
        return Entry(path, size, self._keep("blob", pointer), file, sha256, xet, len(pointer))

    def _place(self, section: str, name: str, content: Content) -> Path:
        target = self.folder / section / name
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{name}.{os.getpid()}")
        if isinstance(content, bytes):
            fresh.write_bytes(content)
        else:
            try:
                os.link(content, fresh)
            except OSError:
                shutil.copyfile(content, fresh)
        os.replace(fresh, target)
        return target

    def _keep(self, kind: str, data: bytes) -> str:
        oid = git_id(kind, data)
        self.objects[oid] = (kind, data)
        return oid

    def _record(self, files: dict[str, Entry], parent: str, message: str) -> str:
        listing: dict[str, Entry | str] = {}
        tree = self._write_tree(_nest(files), "", listing)
        date = _FIRST_COMMIT + 60 * len(self.commits)
        lines = [f"tree {tree}", *([f"parent {parent}"] if parent else [])]
        lines += [f"author {_AUTHOR} {date} +0000", f"committer {_AUTHOR} {date} +0000", "", message, ""]
        oid = self._keep("commit", "\n".join(lines).encode())
        before = self.commits.get(parent)
        last = {
            path: before.last[path] if before and _same(before.listing.get(path), item) else oid
            for path, item in listing.items()
        }
        self.commits[oid] = Commit(oid, tree, parent, message, date, files, listing, last)
        return oid

    def _write_tree(self, node: _Node, prefix: str, listing: dict[str, Entry | str]) -> str:
        raw = b""
        for name, item in _git_order(node):
            path = prefix + name
            if isinstance(item, Entry):
                listing[path] = item
                mode, oid = b"100644", item.oid
            else:
                listing[path] = ""  # lists the folder before its entries
                mode, oid = b"40000", self._write_tree(item, path + "/", listing)
                listing[path] = oid
            raw += mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid)
        return self._keep("tree", raw)


def _git_order(node: _Node) -> Iterator[tuple[str, Entry | _Node]]:
    """Yield a folder's children in git's order: by bytes, folders as if their name ended in a slash."""
    yield from sorted(node.items(), key=lambda pair: (pair[0] + ("" if isinstance(pair[1], Entry) else "/")).encode())


def _same(one: Entry | str | None, other: Entry | str) -> bool:
    left = one.oid if isinstance(one, Entry) else one
    return left == (other.oid if isinstance(other, Entry) else other)
