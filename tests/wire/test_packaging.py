"""The built wheel, alone in a clean environment: `-k "not packaging"` leaves this out."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gpuaria import __version__
from gpuaria.aria2 import binary
from tests.support.checkout import ROOT

pytestmark = [
    pytest.mark.xdist_group("packaging"),
    pytest.mark.timeout(600),  # an index may be slow
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling"),
    pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="needs build"),
]
NO_INDEX = ("No matching distribution", "Could not find a version", "Max retries", "Temporary failure")
LOOK = """
import importlib.resources, json, sys
import gpuaria
from gpuaria.aria2 import binary

files = importlib.resources.files("gpuaria")
data = files / "data"
shipped = binary.bundled()
print(json.dumps({
    "place": gpuaria.__file__,
    "typed": (files / "py.typed").is_file(),
    "data": sorted(item.name for item in data.iterdir()) if data.is_dir() else [],
    "aria2c": str(binary.identify(shipped, "wheel").version) if shipped else "",
    "api": callable(gpuaria.fetch) and callable(gpuaria.verify),
}))
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(cwd or "/nonexistent")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that has the wheel, what it depends on, and nothing else."""
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True, timeout=120)
    command = [place / "bin" / "python", "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", wheel]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=400)
    if done.returncode and any(text in done.stderr for text in NO_INDEX):
        pytest.skip(f"pip cannot reach a package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "bin"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"gpuaria-{__version__}.dist-info/METADATA").decode()
    assert {name.split("/")[0] for name in names} == {"gpuaria", f"gpuaria-{__version__}.dist-info"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "gpuaria").rglob("*") if path.is_file()}
    assert {name for name in sources if "__pycache__" not in name} <= set(names)
    assert f"gpuaria-{__version__}.dist-info/licenses/LICENSE" in names
    assert f"Version: {__version__}" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_the_command_runs(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "gpuaria", "--version", cwd=tmp_path).strip() == f"gpuaria {__version__}"
    assert "fetch" in run(installed / "gpuaria", "--help", cwd=tmp_path)
    assert run(installed / "python", "-m", "gpuaria", "--version", cwd=tmp_path).strip() == f"gpuaria {__version__}"
    assert "No broken requirements" in run(installed / "python", "-m", "pip", "check", cwd=tmp_path)


def test_it_finds_its_data_files_and_its_aria2c(installed: Path, tmp_path: Path) -> None:
    found = json.loads(run(installed / "python", "-c", LOOK, cwd=tmp_path))
    assert str(installed.parent) in found["place"]
    assert found["typed"]
    assert found["api"]
    here = ROOT / "gpuaria" / "data"
    assert found["data"] == (sorted(path.name for path in here.iterdir()) if here.is_dir() else [])
    if binary.bundled():
        assert found["aria2c"] == "(1, 37, 0)"
