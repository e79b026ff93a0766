"""The JSON documents of the Hub's API: repository info, tree pages, paths-info, refs."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from .repo import Commit, Entry, Repo

Json = dict[str, Any]
_SAFE = {"status": "safe", "avScan": {"virusFound": False, "virusNames": None}, "pickleImportScan": None}


def iso(date: int) -> str:
    """Format seconds since 1970 as the Hub does."""
    return datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def info(repo: Repo, commit: Commit, *, blobs: bool, security: bool) -> Json:
    """Return the document of /api/{kind}s/{id}[/revision/{rev}]."""
    document: Json = {"_id": repo.head[:24], "id": repo.repo_id}
    if repo.kind == "model":
        document["modelId"] = repo.repo_id
    if "/" in repo.repo_id:
        document["author"] = repo.repo_id.split("/")[0]
    sizes = {entry.etag: entry.size for entry in commit.files.values()}
    document |= {
        "sha": commit.oid,
        "lastModified": iso(commit.date),
        "createdAt": iso(min(one.date for one in list(repo.commits.values()))),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers", "safetensors"] if repo.kind == "model" else [],
        "siblings": [_sibling(entry, blobs) for entry in commit.files.values()],
        "usedStorage": sum(sizes.values()),
    }
    if repo.kind == "space":
        document["sdk"] = "static"
    if security:
        document["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    return document


def _sibling(entry: Entry, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": entry.path}
    document: Json = {"rfilename": entry.path, "blobId": entry.oid, "size": entry.size}
    if entry.sha256:
        document["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return document


def item(repo: Repo, commit: Commit, path: str, *, expand: bool, xet: bool) -> Json:
    """Return the entry of a file or folder in /tree and /paths-info."""
    entry = commit.listing[path]
    if isinstance(entry, str):
        document: Json = {"type": "directory", "oid": entry, "size": 0, "path": path}
    else:
        document = {"type": "file", "oid": entry.oid, "size": entry.size}
        if entry.sha256:
            document["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
            if xet:
                document["xetHash"] = entry.xet
        document["path"] = path
    if expand:
        last = repo.commits[commit.last[path]]
        document["lastCommit"] = {"id": last.oid, "title": last.title, "date": iso(last.date)}
        if not isinstance(entry, str):
            document["securityFileStatus"] = _SAFE
    return document


def paths_in(commit: Commit, folder: str, *, recursive: bool) -> list[str] | None:
    """Return the paths in a folder ("" is the root), None if there is no such folder."""
    if folder and not isinstance(commit.listing.get(folder), str):
        return None
    start = folder + "/" if folder else ""
    return [path for path in commit.listing if path.startswith(start) and (recursive or "/" not in path[len(start) :])]


def cursor(commit: Commit, path: str, limit: int) -> str:
    """Return the opaque cursor of the page after path."""
    inner = json.dumps({"file_name": path, "tree_oid": commit.tree}).encode()
    return base64.b64encode(base64.b64encode(inner) + f":{limit}".encode()).decode()


def after(mark: str) -> str:
    """Return the path in a cursor; raise ValueError for an invalid cursor."""
    inner = base64.b64decode(base64.b64decode(mark, validate=True).split(b":")[0], validate=True)
    name = json.loads(inner)["file_name"]
    if not isinstance(name, str):
        raise ValueError("no file name in the cursor")
    return name


def refs(repo: Repo, *, pulls: bool) -> Json:
    """Return the document of /refs."""

    def one(name: str, ref: str, commit: str) -> Json:
        return {"name": name, "ref": ref, "targetCommit": commit}

    document: Json = {
        "tags": [one(name, f"refs/tags/{name}", commit) for name, commit in repo.tags.items()],
        "branches": [one(name, f"refs/heads/{name}", commit) for name, commit in repo.branches.items()],
        "converts": [],
    }
    if pulls:
        document["pullRequests"] = [one(str(n), f"refs/pr/{n}", commit) for n, commit in repo.pulls.items()]
    return document


def dump(value: object) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
