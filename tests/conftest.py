"""What the end-to-end tests share: a user with a home of their own, and stand-in hubs to fetch from."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gpuaria
from gpuaria.cli import app
from standin import Hub, Repo, make_gpt2

if TYPE_CHECKING:
    from tests.fronts import front as front
    from tests.nameserver import names as names
else:
    from fronts import front as front
    from nameserver import names as names

GPUARIA = [sys.executable, "-m", "gpuaria"]
HERE = str(Path(gpuaria.__file__).parent.parent)  # children run what is tested, though another one may be installed
# Not what is installed beside this interpreter: whether a venv is activated must not decide which aria2c is used.
PATH = os.pathsep.join(
    folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent
)
Serve = Callable[..., Hub]
# A job that a shell puts into the background ignores Ctrl-C, and its children would: the tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
SEED = int(os.environ.get("GPUARIA_TEST_SEED", "1"))  # of whatever a test draws


def pytest_report_header() -> str:
    """The seed, so that a run can be had again."""
    return f"seed: {SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """The same where it is looked for."""
    if exitstatus:
        terminalreporter.write_line(f"the same draws again: make faults SEED={SEED}")


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What --json printed; every line must be an object."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def report(self) -> dict[str, Any]:
        """The last object of --json."""
        assert self.events[-1]["event"] == "report"
        return self.events[-1]

    @property
    def path(self) -> Path:
        """The one line on stdout, which names a folder."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        return Path(self.out[:-1])

    def ok(self) -> Done:
        """Itself, having ended well."""
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        return self

    def refused(self, status: int, *words: str) -> None:
        """Check the status, and that stderr says why in one sentence and a hint, with these words in it."""
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
    """Someone at a shell: a home and a temporary folder that nobody else uses, and no variable from outside."""

    home: Path
    temp: Path
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def environ(self, **more: str) -> dict[str, str]:
        """What their commands see."""
        base = {"PATH": PATH, "HOME": str(self.home), "TMPDIR": str(self.temp), "LANG": "C.UTF-8", "PYTHONPATH": HERE}
        return {**base, **self.env, **more}

    def run(self, *words: str | Path, **env: str) -> Done:
        """`gpuaria WORDS` to its end."""
        return self.command(*GPUARIA, *words, env=env)

    def quick(self, *words: str | Path, **env: str) -> Done:
        """`gpuaria WORDS` inside this process, for tables of many rows: nothing is started, and what -v began ends."""
        before, new, folder = dict(os.environ), self.environ(**env), Path.cwd()
        out, err = io.StringIO(), io.StringIO()
        log = logging.getLogger("gpuaria")
        handlers, level = log.handlers[:], log.level
        try:
            os.environ.clear()
            os.environ.update(new)
            os.chdir(self.home)
            with redirect_stdout(out), redirect_stderr(err):
                status = app.main([str(word) for word in words], threading.Event())
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
        """Any command to its end, with `data` on its stdin."""
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
        """`gpuaria WORDS` under way."""
        return self.spawn(*GPUARIA, *words, **env)

    def spawn(self, *words: str | Path, **env: str) -> subprocess.Popen[str]:
        """Any command under way."""
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
        """What Python code prints that has the official client as `h` (without Xet)."""
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = self.command(sys.executable, "-c", f"import huggingface_hub as h\n{code}", env={**quiet, **env})
        assert done.status == 0, done.err
        return done.out.strip()

    def files(self) -> Iterator[Path]:
        """Every regular file in the home and the temporary folder."""
        for place in (self.home, self.temp):
            yield from (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """A new user, none of whose commands outlives the test."""
    home, temp = tmp_path / "home", tmp_path / "temp"
    home.mkdir()
    temp.mkdir()
    someone = User(home, temp)
    yield someone
    for run in someone.started:
        if run.poll() is None:
            run.kill()
        run.communicate()


@pytest.fixture
def serve(user: User) -> Iterator[Serve]:
    """Start stand-in hubs; the user's HF_ENDPOINT is the first one. `server` is "embedded" unless said otherwise."""
    with ExitStack() as stack:

        def start(*repos: Repo, **options: Any) -> Hub:
            hub = stack.enter_context(Hub(repos, **{"server": "embedded", **options}))
            user.env.setdefault("HF_ENDPOINT", hub.url)
            stack.callback(_check, hub)
            return hub

        yield start


def _check(hub: Hub) -> None:
    """An exception in the stand-in is a bug of the stand-in; one that the test has closed tells nothing any more."""
    try:
        errors = hub.errors
    except RuntimeError:
        return
    assert not errors


SMALL = {
    "config.json": b'{"n": 1}\n',
    "sub/folder/deep.txt": b"deep\n",
    "sub/other.txt": b"other\n",
    "weights.bin": b"weights " * 4000,
}


@pytest.fixture(scope="session")
def big_bytes() -> bytes:
    """Enough bytes to go by aria2."""
    return random.Random(1).randbytes(9_000_000)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """org/small: a few small files, one of them LFS, whose resolve answers are direct."""
    repo = Repo.build("org/small", SMALL, folder=tmp_path_factory.mktemp("small"), direct=True)
    repo.tag("v1")
    return repo


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, big_bytes: bytes) -> Repo:
    """org/big: one file of 9 MB and two small ones."""
    files = {"model.safetensors": big_bytes, "config.json": b"{}", "README.md": b"# big\n"}
    return Repo.build("org/big", files, folder=tmp_path_factory.mktemp("big"), direct=True)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """gpt2-medium as the hub has it: 12 files, one of them large, one empty, small ones by way of a 307."""
    source = make_gpt2(tmp_path_factory.mktemp("source"), 9)
    return Repo.build("openai-community/gpt2-medium", source, folder=tmp_path_factory.mktemp("gpt2"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` that is not the tools' own, by its path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path.read_bytes() for name, path in sorted(names.items()) if not name.startswith(".cache/")}


def expected(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    """What a repo of the stand-in holds."""
    commit = repo.commits[repo.resolve(revision) or ""]
    return {name: entry.file.read_bytes() for name, entry in sorted(commit.files.items())}


def ended(run: subprocess.Popen[str]) -> Done:
    """A run that was started, to its end."""
    out, err = run.communicate(timeout=90)
    return Done(run.returncode, out, err)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Poll until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that `pid` started (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found
