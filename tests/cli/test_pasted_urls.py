"""A pasted URL of one file or folder selects exactly that, with every command and from Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import gpuaria
from gpuaria import api
from gpuaria.doctor import examine
from gpuaria.errors import NotFound
from gpuaria.settings import load
from standin import Hub, Repo
from tests.support.repos import contents
from tests.support.user import Serve, User

FILES: dict[str, bytes | Path] = {
    "LICENSE": b"as is\n",
    "config.json": b"{}",
    "v1.5/a.txt": b"a",
    "v1.5/sub/LICENSE": b"as is\n",
    "a[1].txt": b"brackets",
    "a1.txt": b"no brackets",
    "docs/LICENSE": b"as is, too\n",
}
FOLDER = {"v1.5/a.txt", "v1.5/sub/LICENSE"}
MEANT: list[tuple[str, set[str]]] = [
    ("{hub}/org/pasted/blob/main/LICENSE", {"LICENSE"}),
    ("{hub}/org/pasted/resolve/main/LICENSE?download=true", {"LICENSE"}),
    ("{hub}/org/pasted/raw/main/config.json", {"config.json"}),
    ("{hub}/org/pasted/tree/main/v1.5", FOLDER),
    ("{hub}/org/pasted/tree/main/v1.5/", FOLDER),
    ("{hub}/org/pasted/tree/main/v1.5/sub", {"v1.5/sub/LICENSE"}),
    ("{hub}/org/pasted/blob/main/a%5B1%5D.txt", {"a[1].txt"}),
    ("hf://org/pasted@main/LICENSE", {"LICENSE"}),
    ("hf://org/pasted@main/config.json", {"config.json"}),
    ("hf://org/pasted@main/v1.5", FOLDER),
    ("hf://org/pasted@main/v1.5/", FOLDER),
    ("{hub}/org/pasted/tree/main", set(FILES)),
]
MISSED = ["{hub}/org/pasted/blob/main/LICENCE", "{hub}/org/pasted/tree/main/docs/v1.5", "hf://org/pasted@main/a.txt"]
rows = pytest.mark.parametrize(("text", "meant"), MEANT, ids=[row[0].removeprefix("{hub}/") for row in MEANT])
missed = pytest.mark.parametrize("text", MISSED)


@pytest.fixture
def hub(serve: Serve, tmp_path: Path) -> Hub:
    """Return a hub with one repo."""
    return serve(Repo.build("org/pasted", FILES, folder=tmp_path / "pasted", direct=True))


def doctor(user: User, text: str, **flags: Any) -> tuple[int, str]:
    """Return the exit status of a check of `text`, and its findings on the repo."""
    environ = user.environ(GPUARIA_RESOLVERS="system")
    found = examine(load(flags, environ, user.home), environ, text, None, "", with_trace=False)
    return found.exit_code, "".join(row.text for row in found.findings if row.topic in ("repo", "room"))


@rows
def test_fetch(text: str, meant: set[str], user: User, hub: Hub) -> None:
    pasted = text.format(hub=hub.url)
    plan = json.loads(user.quick("fetch", pasted, "--dry-run", "--json").ok().out)
    assert {step["file"]["path"] for step in plan["steps"]} == meant
    assert set(contents(user.quick("fetch", pasted, "--to", "x").ok().path)) == meant
    assert set(contents(user.quick("fetch", "--repo", pasted, "--to", "x", "--offline").ok().path)) == meant


@rows
def test_resolve(text: str, meant: set[str], user: User, hub: Hub) -> None:
    told = json.loads(user.quick("resolve", text.format(hub=hub.url), "--json").ok().out)
    assert {file["path"] for file in told["files"]} == meant


@rows
def test_python(text: str, meant: set[str], user: User, hub: Hub) -> None:
    pasted, environ = text.format(hub=hub.url), user.environ()
    assert {file.path for file in gpuaria.resolve(pasted, environ=environ).files} == meant
    assert gpuaria.fetch(pasted, to=user.home / "x", environ=environ).files == len(meant)
    assert set(contents(user.home / "x")) == meant


def test_python_takes_a_string_as_one_pattern(user: User, hub: Hub) -> None:
    repo, environ = f"{hub.url}/org/pasted", user.environ()
    every = {str(file.path) for file in gpuaria.resolve(repo, environ=environ).files}
    assert "config.json" in every
    assert len(every) > 2
    gpuaria.fetch(repo, include="*.json", to=user.home / "only", environ=environ)
    assert set(contents(user.home / "only")) == {path for path in every if path.endswith(".json")}
    gpuaria.fetch(repo, exclude="config.json", to=user.home / "without", environ=environ)
    assert set(contents(user.home / "without")) == every - {"config.json"}
    gpuaria.fetch(repo, files="config.json", to=user.home / "one", environ=environ)
    assert set(contents(user.home / "one")) == {"config.json"}


@pytest.mark.parametrize(
    ("named", "near"), [("includes", "include"), ("conections", "connections"), ("revison", "revision")]
)
def test_python_names_the_nearest_keyword(user: User, named: str, near: str) -> None:
    words: dict[str, Any] = {named: "8"}
    with pytest.raises(TypeError, match=f"unknown keyword argument '{named}'; did you mean '{near}'"):
        gpuaria.fetch("org/x", environ=user.environ(), **words)


@rows
def test_verify(text: str, meant: set[str], user: User, hub: Hub) -> None:
    pasted = text.format(hub=hub.url)
    path = user.quick("fetch", pasted).ok().path
    hub.close()
    assert f": {len(meant)} ok; checksums from" in user.quick("verify", pasted).ok().out
    (path / min(meant)).unlink()
    assert user.quick("verify", pasted).status == 3


def test_verify_of_one_file_ignores_the_rest(user: User, hub: Hub) -> None:
    path = user.quick("fetch", "org/pasted").ok().path
    (path / "config.json").unlink()
    (path / "stranger.txt").write_bytes(b"?")
    told = user.quick("verify", f"{hub.url}/org/pasted/blob/main/LICENSE").ok().out
    assert told == f"{path}: 1 ok; checksums from {hub.url} (origin)\n"


@rows
def test_mirrors(text: str, meant: set[str], user: User, hub: Hub) -> None:
    told = json.loads(user.quick("mirrors", text.format(hub=hub.url), "--json").ok().out)
    assert told["size"] == sum(len(data) for name, data in FILES.items() if name in meant and isinstance(data, bytes))


@rows
def test_doctor(text: str, meant: set[str], user: User, hub: Hub) -> None:
    size = sum(len(data) for name, data in FILES.items() if name in meant and isinstance(data, bytes))
    status, said = doctor(user, text.format(hub=hub.url))
    assert status == 0
    assert f"{size} B to download" in said
    assert (f"{len(meant)} of 7 files" in said) == (meant != set(FILES))
    user.quick("fetch", text.format(hub=hub.url)).ok()
    assert doctor(user, text.format(hub=hub.url), offline=True)[0] == 0
    assert (doctor(user, "org/pasted", offline=True)[0] == 0) == (meant == set(FILES))


@missed
def test_a_url_of_a_missing_file(text: str, user: User, hub: Hub) -> None:
    pasted, environ = text.format(hub=hub.url), user.environ()
    name = re.split("/main/|@main/", text)[1]
    for command in ("fetch", "resolve", "mirrors"):
        user.quick(command, pasted).refused(5, name)
    if "/tree/" not in text:
        user.quick("fetch", pasted, "config.json").refused(5, name)
    with pytest.raises(NotFound):
        gpuaria.fetch(pasted, environ=environ)
    assert doctor(user, pasted)[0] == 5
    user.quick("fetch", "org/pasted").ok()
    user.quick("verify", pasted).refused(5, name)


def test_files_named_in_addition_are_fetched_too(user: User, hub: Hub) -> None:
    pasted = f"{hub.url}/org/pasted/blob/main/LICENSE"
    got = user.quick("fetch", pasted, "a1.txt", "--include", "docs/", "--to", "x").ok().path
    assert set(contents(got)) == {"LICENSE", "a1.txt", "docs/LICENSE"}


def test_a_url_together_with_a_lock_file(user: User, hub: Hub) -> None:
    lock = user.home / "it.lock"
    lock.write_text(user.quick("resolve", "org/pasted", "--format", "manifest").ok().out)
    done = user.quick("fetch", "--lock", lock, "--repo", f"{hub.url}/org/pasted/tree/main/v1.5", "--to", "x").ok()
    assert set(contents(done.path)) == FOLDER
    assert api.fetch(lock=lock, to=user.home / "y", environ=user.environ()).files == len(FILES)
