"""Names that resolve late or not at all during a download: a test name server in a mount namespace."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest

from standin import Hub, Repo
from tests.support.nameserver import FaultyNameServer, start, with_host
from tests.support.repos import contents, expected
from tests.support.user import Serve, User, finish, wait_until

SIZE = 9_000_000
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare, for a resolv.conf of its own"
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return org/r: three large files; the third is resolved when the first one is complete (-j 1)."""
    data = random.Random(12).randbytes(SIZE)
    return Repo.build("org/r", {f"{n}.safetensors": data[n:] for n in range(3)}, folder=tmp_path / "r", direct=True)


def in_the_middle(hub: Hub, names: FaultyNameServer, change: Callable[[], None], after: int = SIZE) -> None:
    """During the first two files, move the bytes to another name, then apply `change` to that name."""
    wait_until(lambda: sum(seen.sent for seen in hub.cdn.requests) > after)
    hub.location_base = with_host("two.test", hub.cdn.url)
    change()


@pytest.mark.parametrize("seconds", [1.5, pytest.param(5.0, marks=pytest.mark.deep)])
@pytest.mark.fault(
    "DNS: responses take 5 s from mid-run on",
    where="server",
    does="Waits for them; running downloads continue.",
    sees="nothing",
    status=0,
)
def test_slow_dns_responses(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, tmp_path: Path, seconds: float
) -> None:
    hub = serve(repo, limit_rate=200_000)
    names.seconds = seconds
    run = start(user, hub, tmp_path)
    in_the_middle(hub, names, lambda: setattr(names, "late", "test"))
    done = finish(run).ok()
    assert contents(user.home / "out") == expected(repo)
    assert "two.test" in names.asked
    assert done.report["bytes_fetched"] < 3 * SIZE * 1.3


@pytest.mark.parametrize("how", ["lost", pytest.param("silent", marks=pytest.mark.deep)])
@pytest.mark.fault(
    "DNS: the byte server's name stops resolving in mid-run, for a while",
    where="server",
    does="Retries until the name resolves again.",
    sees="one line about the wait",
    status=0,
)
def test_a_name_that_resolves_again(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, tmp_path: Path, how: str
) -> None:
    hub = serve(repo, limit_rate=200_000)
    run = start(user, hub, tmp_path)
    in_the_middle(hub, names, lambda: setattr(names, how, "two.test"))
    wait_until(lambda: names.asked.count("two.test") >= 3)
    time.sleep(2)
    setattr(names, how, "-")
    finish(run).ok()
    assert contents(user.home / "out") == expected(repo)


@pytest.mark.parametrize("how", ["lost", pytest.param("silent", marks=pytest.mark.deep)])
@pytest.mark.fault(
    "DNS: the byte server's name stops resolving, and another mirror works",
    where="server",
    does="Fetches from the other mirror.",
    sees="the dropped mirror, with the reason",
    status=0,
)
def test_a_name_that_stops_resolving_with_another_mirror(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, tmp_path: Path, how: str
) -> None:
    hub, mirror = serve(repo, limit_rate=200_000), serve(repo, host="127.0.0.2", limit_rate=200_000)
    run = start(user, hub, tmp_path, "--mirror", mirror.url)
    in_the_middle(
        hub, names, lambda: setattr(names, how, "two.test"), after=SIZE // 3
    )  # half of the two files is downloaded
    finish(run).ok()
    assert contents(user.home / "out") == expected(repo)
    second = repo.commits[repo.head].files["2.safetensors"].sha256 or "-"
    assert sum(seen.sent for seen in mirror.cdn.requests if second in seen.target) >= SIZE - 2


@pytest.mark.parametrize("how", ["lost", pytest.param("silent", marks=pytest.mark.deep)])
@pytest.mark.fault(
    "DNS: no name resolves from mid-run on",
    where="server",
    does="Retries until `--patience` runs out. Keeps the received bytes, and the next run resumes.",
    sees="the file name, and that the host name does not resolve",
    status=7,
)
def test_names_that_stop_resolving_for_good(
    user: User, serve: Serve, repo: Repo, names: FaultyNameServer, tmp_path: Path, how: str
) -> None:
    hub = serve(repo, limit_rate=200_000)
    run = start(user, hub, tmp_path, patience="3s")

    def gone() -> None:
        setattr(names, how, "test")
        for n in range(3):
            hub.cdn.fault(f"{n}.safetensors", "reset", after=1000)

    in_the_middle(hub, names, gone)
    done = finish(run)
    assert done.status == 7, (done.status, done.out[-2000:], done.err)
    assert "Traceback" not in done.err
    details = {problem["path"]: problem["detail"] for problem in done.report["problems"]}
    assert re.search("no address|resol|does not respond", details["2.safetensors"]), details
    setattr(names, how, "-")
    hub.heal()
    hub.reset()
    finish(start(user, hub, tmp_path)).ok()
    assert contents(user.home / "out") == expected(repo)
    assert sum(seen.sent for seen in hub.cdn.requests) < 3 * SIZE - SIZE // 2


def test_the_test_name_server_is_used(user: User, names: FaultyNameServer, tmp_path: Path) -> None:
    """Otherwise the tests above would check nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(5)
        line.sendto(dns.message.make_query("x.test", "A").to_wire(), names.server_address)
        assert "127.0.0.1" in dns.message.from_wire(line.recv(512)).to_text()
