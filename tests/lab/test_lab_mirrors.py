"""Several mirrors on an isolated network: one dies or is throttled, the others deliver the file."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Host, Net, unavailable_reason
from tests.support.checkout import SCRIPTS
from tests.support.repos import contents
from tests.support.user import Done, User, wait_until

pytestmark = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
SIZE = 60_000_000
IN_FLIGHT = 12_000_000  # bytes: pieces that the bad mirror held, and duplicates in the tail
NAME = "model.safetensors"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lab") / NAME
    path.write_bytes(random.Random(9).randbytes(SIZE))
    return path


@pytest.fixture
def net(file: Path) -> Iterator[Net]:
    """Three servers of the file with different delays, 16 Mbit/s each."""
    hosts = {name: Host(rate="16mbit", delay=delay) for name, delay in (("a", 2.0), ("b", 10.0), ("c", 20.0))}
    with Net(hosts, prefix=f"gt{os.getpid() % 1000}") as lab:
        for name in hosts:
            server = lab.popen(
                name,
                [sys.executable, "-m", "lab.serve", lab.ip[name], "8000", file],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
            )
            assert server.stdout is not None
            assert server.stdout.readline().startswith("http")
        yield lab


class Running:
    """`gpuaria fetch` on the client of a lab, from all of its servers."""

    def __init__(self, user: User, net: Net) -> None:
        self._place = user.home / "out"
        base = [f"http://{net.ip[name]}:8000" for name in net.hosts]
        mirrors = [word for url in base[1:] for word in ("--mirror", url)]
        argv = [sys.executable, "-m", "gpuaria", "fetch", "lab/model", "--to", self._place, "--json", *mirrors]
        env = user.environ(HF_ENDPOINT=base[0])
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
        self._process = net.popen("client", argv, cwd=user.home, **how)
        self._done: list[Done] = []
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        out, err = self._process.communicate()
        self._done.append(Done(self._process.returncode, out, err))

    @property
    def stored(self) -> int:
        """Return the bytes on disk so far."""
        blocks = 0
        for path in self._place.rglob("sha256-*"):
            try:
                blocks = max(blocks, path.stat().st_blocks if path.is_file() else 0)
            except FileNotFoundError:
                continue
        return blocks * 512

    def at(self, share: float) -> None:
        """Wait until this share of the file is on disk."""
        wait_until(lambda: self.stored > share * SIZE or not self._thread.is_alive(), 60)
        assert self._thread.is_alive(), self._done

    def right(self, file: Path) -> dict[str, Any]:
        """Check that the run succeeded; return its report."""
        self._thread.join(120)
        assert self._done, "it hangs"
        report = self._done[0].ok().report
        assert contents(self._place)[NAME] == file.read_bytes()
        assert report["bytes_fetched"] <= SIZE + IN_FLIGHT
        return report


def reasons(report: dict[str, Any]) -> dict[str, str]:
    """Return the reasons for quarantined mirrors, by host."""
    return {use["name"].partition(":")[0]: use["rejected"] for use in report["mirrors"] if use["rejected"]}


Trouble = Callable[[Net, str], None]


@pytest.mark.parametrize(
    ("trouble", "who"),
    [(Net.disconnect, "a"), (lambda net, host: net.set_rate(host, "160kbit"), "c")],
    ids=["dies", "throttled"],
)
def test_one_of_three_mirrors_fails_in_mid_file(user: User, net: Net, file: Path, trouble: Trouble, who: str) -> None:
    run = Running(user, net)
    run.at(0.5)
    trouble(net, who)
    report = run.right(file)
    assert net.ip[who] in reasons(report), report["mirrors"]
    assert set(reasons(report)) == {net.ip[who]}


def test_one_mirror_stalls_and_recovers(user: User, net: Net, file: Path) -> None:
    run = Running(user, net)
    run.at(0.4)
    net.disconnect("b")
    run.at(0.75)
    net.reconnect("b")
    report = run.right(file)
    assert sum(use["bytes"] for use in report["mirrors"]) >= SIZE
