"""Git commits and trees built with dulwich, and the verdict of `git_verify` on a listing."""

from __future__ import annotations

from collections.abc import Mapping

from dulwich.objects import Commit, ObjectID, ShaFile

from gpuaria.records import Manifest, RemoteFile, RepoRef
from gpuaria.sources.git_verify import unproven_reason

Sent = list[tuple[str, bytes]]


def raw(thing: ShaFile) -> tuple[str, bytes]:
    return thing.type_name.decode(), thing.as_raw_string()


def committed(tree: str, sent: Sent) -> str:
    commit = Commit()
    commit.tree, commit.message = ObjectID(tree.encode()), b"made\n"
    commit.author = commit.committer = b"a <a@example.invalid>"
    commit.author_time = commit.commit_time = commit.author_timezone = commit.commit_timezone = 0
    sent.append(raw(commit))
    return commit.id.decode()


def listing(commit: str, known: Mapping[str, RemoteFile]) -> Manifest:
    ref = RepoRef("hf", "model", "org/held", commit)
    return Manifest(ref, "org/held", commit, "http://mirror", "origin", tuple(known.values()))


def verdict(known: Mapping[str, RemoteFile], commit: str, sent: Sent) -> str:
    return unproven_reason(commit, listing(commit, known), sent)
