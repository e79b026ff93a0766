"""`gpuaria why`: a file by its name or its bytes, and whether it has changed since."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpuaria.audit.log import AuditLog
from standin import Repo
from tests.support.repos import SMALL
from tests.support.user import Done, Serve, User


def state(user: User) -> Path:
    """Return the folder of the audit log."""
    return user.home / ".local/state/gpuaria"


def story(done: Done) -> dict[str, Any]:
    """Return the output of `gpuaria why --json`."""
    (told,) = done.events
    assert told["exit_code"] == done.status
    return told


@pytest.fixture
def fetched(user: User, serve: Serve, small: Repo) -> Path:
    """Fetch org/small into the folder x, twice."""
    serve(small)
    user.quick("fetch", "org/small", "--to", "x", "-q").ok()
    user.quick("fetch", "org/small", "--to", "x", "-q", "--force").ok()
    return user.home / "x"


def test_why_a_file(user: User, fetched: Path) -> None:
    told = user.quick("why", "x/weights.bin").ok().out
    assert told.splitlines()[0] == f"{fetched}/weights.bin"
    for words in (
        "weights.bin of org/small, commit ",
        "requested as org/small@main",
        "(origin): the hub listed these checksums",
        "32.0 kB from 127.0.0.1:",
        "unchanged on disk",
        "other log entries for this path",
    ):
        assert words in told
    found = story(user.quick("why", fetched / "weights.bin", "--json").ok())
    assert (found["found_by"], found["state"], found["entry"]["action"]) == ("path", "same", "replace")
    assert found["run"]["exit_code"] == 0
    assert [other["action"] for other in found["others"]] == ["download"]


def test_why_by_other_names_of_the_file(user: User, fetched: Path) -> None:
    (user.home / "link").symlink_to(fetched)
    (user.home / "file").symlink_to(fetched / "config.json")
    for place in ("link/config.json", "file", "x/../x/sub/../config.json", "~/x/config.json"):
        assert story(user.quick("why", place, "--json").ok())["found_by"] == "path", place


def test_why_in_the_cache(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    snapshot = user.quick("fetch", "org/small", "-q").ok().path
    for place in (snapshot / "weights.bin", (snapshot / "weights.bin").resolve()):
        found = story(user.quick("why", place, "--json").ok())
        assert (found["found_by"], found["state"], found["entry"]["file"]) == ("path", "same", "weights.bin")
    for place in (snapshot, snapshot.parent.parent):
        assert "4 ok; exit status 0" in user.quick("why", place).ok().out
        (run,) = story(user.quick("why", place, "--json").ok())["runs"]
        assert run["path"] == str(snapshot)


def test_why_a_moved_file(user: User, fetched: Path) -> None:
    for file in ("weights.bin", "config.json"):
        (fetched / file).rename(user.home / "moved")
        told = user.quick("why", "moved").ok().out
        assert f"found by digest: this path is not in the log; the bytes are those of {fetched}/{file}" in told
        assert user.quick("why", fetched / file).status == 3
        assert "no longer on disk" in user.quick("why", fetched / file).out


def test_why_a_changed_file(user: User, fetched: Path) -> None:
    (fetched / "config.json").write_bytes(b'{"n": 2}\n')
    done = user.quick("why", "x/config.json")
    assert done.status == 4
    assert "CHANGED since" in done.out
    (fetched / "config.json").write_bytes(SMALL["sub/other.txt"])
    done = user.quick("why", "x/config.json", "--json")
    assert (done.status, story(done)["state"], story(done)["now"]["file"]) == (4, "changed", "sub/other.txt")
    assert f"it now holds the bytes of {fetched}/sub/other.txt" in user.quick("why", "x/config.json").out
    (fetched / "config.json").write_bytes(b"")
    assert "it now holds" not in user.quick("why", "x/config.json").out


def test_why_an_unknown_file(user: User, fetched: Path) -> None:
    (user.home / "own.txt").write_bytes(b"my own")
    (user.home / "empty").write_bytes(b"")
    user.quick("why", "own.txt").refused(5, "neither the path nor the bytes", "own.txt")
    user.quick("why", "empty").refused(5, "neither the path nor the bytes")  # every empty file has this digest
    user.quick("why", "x/nothing").refused(5, "does not know", "no such file")
    user.quick("why", "x/sub").refused(5, "destination", "--to")
    user.quick("why", "n" * 5000).refused(8, "too long")
    os.mkfifo(fetched / "pipe")
    user.quick("why", "x/pipe").refused(5, "does not know")
    user.quick("why", "x/config.json/more").refused(5, "does not know")
    (state(user) / "audit.log").unlink()
    user.quick("why", "x/config.json").refused(5, "neither the path nor the bytes")
    assert json.loads(user.quick("why", "x/config.json", "--json").out)["exit_code"] == 5


def test_why_with_a_damaged_log(user: User, fetched: Path) -> None:
    log = state(user) / "audit.log"
    whole = log.read_bytes()
    log.write_bytes(b"\0\xff garbage config.json\n" + whole[:100] + b"\n" + whole + whole[:200])
    found = story(user.quick("why", "x/config.json", "--json").ok())
    assert (found["state"], len(found["others"])) == ("same", 1)


def test_why_without_a_computable_digest(user: User, fetched: Path) -> None:
    entry = story(user.quick("why", "x/config.json", "--json").ok())["entry"]
    log = AuditLog(state(user))
    for year, digest in ((2998, ""), (2999, "sha9:00")):
        log.append(json.dumps({"event": "file", **entry, "at": f"{year}-01-01T00:00:00.000Z", "digest": digest}) + "\n")
        done = user.quick("why", "x/config.json").ok()
        assert "cannot be compared with the file on disk" in done.out


def test_why_sends_no_request(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    user.quick("fetch", "org/small", "--to", "x", "-q").ok()
    hub.reset()
    user.quick("why", "x/config.json").ok()
    user.quick("why", "x").ok()
    assert hub.requests == []


def test_why_explains_the_trust(user: User, serve: Serve, tmp_path: Path) -> None:
    hub, other = serve(Repo.build("org/held", {"a.txt": b"a"}, folder=tmp_path)), "http://127.0.0.1:9"
    user.env["HF_ENDPOINT"] = other
    user.quick("fetch", "org/held", "--to", "x", "--mirror", hub.url).ok()
    told = user.quick("why", "x/a.txt").ok().out
    assert f"checksums from {hub.url} (mirror only): the hub was unreachable; the file list comes from one" in told
    commit = hub.repos[("model", "org/held")].resolve("main")
    user.quick("fetch", "org/held", "--to", "y", "--mirror", hub.url, "--revision", str(commit)).ok()
    assert "(pinned): verified against the pinned commit" in user.quick("why", "y/a.txt").ok().out
