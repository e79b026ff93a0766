"""Sample lines of an audit log."""

from __future__ import annotations

from pathlib import Path

from gpuaria.audit.log import lines
from gpuaria.audit.record import FileLine, MirrorShare, load

PART = MirrorShare("mirror.example", "https://mirror.example", 5)
FILE = FileLine(
    run="0123456789ab",
    at="2026-08-02T10:11:12.123Z",
    user="ann",
    host="node7",
    ref="org/name@main",
    repo="org/name",
    commit="c" * 40,
    vouched_by="https://huggingface.co",
    trust="origin",
    path="/data/name/a.txt",
    content="",
    file="a.txt",
    size=5,
    digest="git-sha1:" + "d" * 40,
    outcome="ok",
    detail="",
    action="download",
    mirrors=(PART,),
)


def logged_sizes(folder: Path) -> list[int]:
    found = [load(line) for line in lines(folder)]
    return [line.size for line in found if isinstance(line, FileLine)]
