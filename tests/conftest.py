"""Fixtures of the end-to-end tests: a user with a separate home folder, and stand-in hubs."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from standin import Hub, Repo, make_gpt2
from tests.support.fronts import front as front
from tests.support.nameserver import names as names
from tests.support.repos import SMALL
from tests.support.seed import SEED
from tests.support.user import Serve, User

# A shell starts a background job with SIGINT ignored, and child processes inherit that. Some tests send SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A busy machine draws slowly; that does not fail a test.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


def pytest_report_header() -> str:
    """Print the seed, so that a run can be repeated."""
    return f"seed: {SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print the command that repeats a failed run."""
    if exitstatus:
        terminalreporter.write_line(f"the same draws again: make faults SEED={SEED}")


# Files with tests of 8 s or more. The workers start them first, so that none runs alone at the end.
LONG = (
    "test_crash_kill",
    "test_transfer_large_files",
    "test_faults_dns",
    "test_fetch_dns",
    "test_lab_mirrors",
    "test_faults_server",
    "test_faults_reach",
    "test_faults_machine",
    "test_fetch_cache",
    "test_fetch_tokens",
    "test_sources_hostile_trees",
    "test_storage_crash",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first when workers share the tests. A single process keeps the order of the files."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """Yield a new user; kill the user's remaining processes after the test."""
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
    """Yield a function that starts stand-in hubs, "embedded" by default. The first one is the user's HF_ENDPOINT."""
    with ExitStack() as stack:

        def start(*repos: Repo, **options: Any) -> Hub:
            hub = stack.enter_context(Hub(repos, **{"server": "embedded", **options}))
            user.env.setdefault("HF_ENDPOINT", hub.url)
            stack.callback(_check, hub)
            return hub

        yield start


def _check(hub: Hub) -> None:
    """Fail the test if the stand-in raised an exception. A hub that the test has closed is not checked."""
    try:
        errors = hub.errors
    except RuntimeError:
        return
    assert not errors


@pytest.fixture(scope="session")
def big_bytes() -> bytes:
    """Return enough bytes for a download by aria2."""
    return random.Random(1).randbytes(9_000_000)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/small: a few small files, one of them LFS, all resolved without a redirect."""
    repo = Repo.build("org/small", SMALL, folder=tmp_path_factory.mktemp("small"), direct=True)
    repo.tag("v1")
    return repo


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, big_bytes: bytes) -> Repo:
    """Return org/big: one file of 9 MB and two small files."""
    files = {"model.safetensors": big_bytes, "config.json": b"{}", "README.md": b"# big\n"}
    return Repo.build("org/big", files, folder=tmp_path_factory.mktemp("big"), direct=True)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return gpt2-medium with the hub's layout: 12 files, one large, one empty, the small ones behind a 307."""
    source = make_gpt2(tmp_path_factory.mktemp("source"), 9)
    return Repo.build("openai-community/gpt2-medium", source, folder=tmp_path_factory.mktemp("gpt2"))
