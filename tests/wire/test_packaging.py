"""The sdist, the wheel in a clean environment, and the single file: `-k "not packaging"` leaves these tests out."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gpuaria import __version__
from gpuaria.aria2 import binary
from tests.support.checkout import ROOT

pytestmark = [
    pytest.mark.packaging,
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


def build(outdir: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Build the sdist and, from it, the wheel; return the wheel and the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(outdir), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = outdir.glob("*.whl"), outdir.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the wheel and the sdist of this checkout."""
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[0]


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


def test_the_wheel_holds_the_package_and_its_documents_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"gpuaria-{__version__}.dist-info/METADATA").decode()
    data, info = f"gpuaria-{__version__}.data", f"gpuaria-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"gpuaria", data, info}
    assert files_below("gpuaria") <= set(names)
    assert {name for name in names if name.startswith(data)} == {
        *(f"{data}/data/share/man/man1/{Path(name).name}" for name in files_below("man")),
        *(f"{data}/data/share/doc/gpuaria/{name}" for name in files_below("configs") | files_below("docs")),
    }
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(names)
    assert f"Version: {__version__}" in metadata
    assert "Requires-Python: >=3.11" in metadata


def files_below(folder: str) -> set[str]:
    """Return the paths of the files below a folder of the checkout, relative to the checkout."""
    found = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {name for name in found if "__pycache__" not in name}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_the_sdist_holds_every_tracked_file(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert tracked - names == set()
    assert {name for name in names - tracked if (ROOT / name).suffix == ".pyc"} == set()


def test_two_builds_give_equal_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Build from the unpacked sdist, whose files have other times and, under another umask, other permissions."""
    with tarfile.open(built[1]) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    umask = os.umask(0o077)
    try:
        again = build(tmp_path / "dist", source)
    finally:
        os.umask(umask)
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() == other.read_bytes() for path, other in zip(again, built, strict=True)] == [True, True]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the single file as `make single` does it."""
    folder = tmp_path_factory.mktemp("single")
    done = subprocess.run(
        ["make", "-s", "single", f"DIST={folder}"], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    if done.returncode and any(text in done.stdout + done.stderr for text in NO_INDEX):
        pytest.skip("pip cannot reach a package index")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "gpuaria.pyz"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_single_file_runs(single: Path, tmp_path: Path) -> None:
    assert run(sys.executable, "-I", single, "--version", cwd=tmp_path).strip() == f"gpuaria {__version__}"
    assert "fetch" in run(sys.executable, "-I", single, "--help", cwd=tmp_path)
    assert "--dry-run" in run(sys.executable, "-I", single, "fetch", "--help", cwd=tmp_path)


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
