"""A user at a shell with a separate home folder: runs gpuaria and other commands, and keeps their output."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpuaria
from gpuaria.cli import dispatch
from standin import Hub

GPUARIA = [sys.executable, "-m", "gpuaria"]
STAY = {"GPUARIA_MIRRORS": "none"}  # keep the tests off the known mirrors, which are on the internet
# Child processes import this checkout, even if another gpuaria is installed.
HERE = str(Path(gpuaria.__file__).parent.parent)
# Without this interpreter's own folder: whether a venv is active must not decide which aria2c is used.
PATH = os.pathsep.join(
    folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent
)
Serve = Callable[..., Hub]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the objects printed by --json; every line must be an object."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def report(self) -> dict[str, Any]:
        """Return the last object printed by --json."""
        assert self.events[-1]["event"] == "report"
        return self.events[-1]

    @property
    def path(self) -> Path:
        """Return the only line of stdout, which names a folder."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return Path(self.out[:-1])

    def ok(self) -> Done:
        """Return the command itself after checking that it succeeded."""
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        return self

    def refused(self, status: int, *words: str) -> None:
        """Check the status, and that stderr has one error sentence and one hint that contain `words`."""
        assert self.status == status, f"status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        said = [line for line in self.err.splitlines() if line.startswith("gpuaria: ")]
        assert len(said) == 1, self.err
        at = self.err.splitlines().index(said[0])
        hint = self.err.splitlines()[at + 1 :]
        assert len(hint) == 1, self.err
        assert hint[0].startswith("  "), self.err
        for word in words:
            assert word.lower() in (said[0] + hint[0]).lower(), f"{word!r} is not in: {self.err}"


@dataclass
class User:
    """A user at a shell with a separate home and temporary folder, and no inherited variables."""

    home: Path
    temp: Path
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of the user's commands."""
        base = {"PATH": PATH, "HOME": str(self.home), "TMPDIR": str(self.temp), "LANG": "C.UTF-8", "PYTHONPATH": HERE}
        return {**base, **STAY, **self.env, **more}

    def run(self, *words: str | Path, **env: str) -> Done:
        """Run `gpuaria WORDS`."""
        return self.command(*GPUARIA, *words, env=env)

    def quick(self, *words: str | Path, **env: str) -> Done:
        """Run `gpuaria WORDS` in this process, which is faster; remove the log handlers that -v added."""
        before, new, folder = dict(os.environ), self.environ(**env), Path.cwd()
        out, err = io.StringIO(), io.StringIO()
        log = logging.getLogger("gpuaria")
        handlers, level = log.handlers[:], log.level
        try:
            os.environ.clear()
            os.environ.update(new)
            os.chdir(self.home)
            with redirect_stdout(out), redirect_stderr(err):
                status = dispatch.main([str(word) for word in words], threading.Event())
        finally:
            log.handlers[:] = handlers
            log.setLevel(level)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
        return Done(status, out.getvalue(), err.getvalue())

    def command(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        timeout: float = 90,
        env: Mapping[str, str] | None = None,
        data: str = "",
    ) -> Done:
        """Run any command, with `data` on its stdin."""
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environ(**(env or {})),
            cwd=cwd or self.home,
            input=data,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path, **env: str) -> subprocess.Popen[str]:
        """Start `gpuaria WORDS`."""
        return self.spawn(*GPUARIA, *words, **env)

    def spawn(self, *words: str | Path, **env: str) -> subprocess.Popen[str]:
        """Start any command."""
        run = subprocess.Popen(
            [str(word) for word in words],
            env=self.environ(**env),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(run)
        return run

    def hf(self, code: str, **env: str) -> str:
        """Run Python code with huggingface_hub imported as `h` (without Xet); return what it prints."""
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = self.command(sys.executable, "-c", f"import huggingface_hub as h\n{code}", env={**quiet, **env})
        assert done.status == 0, done.err
        return done.out.strip()

    def files(self) -> Iterator[Path]:
        """Yield every regular file in the home and the temporary folder."""
        for place in (self.home, self.temp):
            yield from (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def finish(run: subprocess.Popen[str]) -> Done:
    """Wait for a started command."""
    out, err = run.communicate(timeout=90)
    return Done(run.returncode, out, err)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Poll until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the child processes of `pid` (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found
