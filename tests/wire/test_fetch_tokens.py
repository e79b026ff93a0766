"""Whole runs with per-host tokens: who receives which token over what connection, and that none appears elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gpuaria.aria2 import binary, private_folder
from standin import EmbeddedBytes, Hub, Repo
from standin.http_server import Handler, Server
from tests.support.repos import SMALL, contents, expected
from tests.support.user import Serve, User, children, wait_until

# Tests look for these process names in /proc, where other workers' processes also appear.
HUBS = f"hf_MarkerOfTheHub{os.getpid():010}"
MIRRORS = f"hf_MarkerOfTheMirror{os.getpid():010}"
SHELLS = f"hf_MarkerOfTheShell{os.getpid():010}"
MARKS = (HUBS, MIRRORS, SHELLS)


@pytest.fixture
def private_repo(big_bytes: bytes, tmp_path: Path) -> Repo:
    """Return org/private: one large file and one small one, which need a token."""
    files: dict[str, bytes | Path] = {"m.safetensors": big_bytes, "c.json": b"{}"}
    return Repo.build("org/private", files, folder=tmp_path / "private", private=True)


def helper(user: User, text: str) -> str:
    """Write a shell script and return its path; scripts are not searched for tokens."""
    path = user.home / "secret-helper"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def sent(hub: Hub) -> set[str]:
    """Return the credentials sent to a hub and its byte server."""
    return {
        seen.headers["authorization"] for seen in hub.requests + hub.cdn.requests if "authorization" in seen.headers
    }


# --- a mirror with a token of its own -----------------------------------------------------------------------------


def test_each_host_gets_only_its_own_token(user: User, serve: Serve, private_repo: Repo) -> None:
    hub = serve(private_repo, tokens={HUBS})
    mirror = serve(private_repo, tokens={MIRRORS}, name="mirror")
    other = serve(private_repo, tokens={MIRRORS}, name="other")
    hub.fault("/resolve/", status=503)
    asked = user.home / "asked"
    own = helper(user, f"cat >> {asked}; echo password={MIRRORS}")
    words = ["--mirror", mirror.url, "--mirror", other.url, "--patience", "20s", "--json"]
    env = {"HF_TOKEN": HUBS, "GPUARIA_TOKENS": f"{mirror.url}=helper:{own}"}
    done = user.run("fetch", "org/private", "--to", "out", *words, **env).ok()
    assert contents(user.home / "out") == expected(private_repo)
    assert (sent(hub), sent(mirror), sent(other)) == ({f"Bearer {HUBS}"}, {f"Bearer {MIRRORS}"}, set())
    assert other.count() == 0, "it has no token, so it cannot have these files"
    assert {use["name"]: use["files"] for use in done.report["mirrors"]}[mirror.url[7:]] == 2
    assert asked.read_text() == f"protocol=http\nhost={mirror.url[7:]}\n\n", "asked once"


def test_a_mirror_with_a_token_replaces_the_hub(user: User, serve: Serve, private_repo: Repo) -> None:
    mirror = serve(private_repo, tokens={MIRRORS}, name="mirror")
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": HUBS, "MIRROR_PASS": MIRRORS}
    words = ["fetch", "org/private", "--to", "out", "--mirror", mirror.url]
    done = user.quick(*words, GPUARIA_TOKENS=f"{mirror.url}=env:MIRROR_PASS", **env).ok()
    assert contents(user.home / "out") == expected(private_repo)
    assert sent(mirror) == {f"Bearer {MIRRORS}"}
    assert "one unverified mirror" in done.err


def test_bytes_that_need_a_token_are_downloaded_by_our_http_client(
    user: User, serve: Serve, big_bytes: bytes, tmp_path: Path
) -> None:
    """This mirror requires a token even for public repos, and delivers large files itself."""
    folder = tmp_path / "guarded"
    repo = Repo.build("org/guarded", {"m.safetensors": big_bytes, "c.json": b"{}"}, folder=folder)
    hub = serve(repo)
    hub.fault("/resolve/", status=403)
    with Guard(serve(repo, name="behind"), MIRRORS) as guard:
        env = {"GPUARIA_TOKENS": f"{guard.url}=env:PASS_OF_IT", "PASS_OF_IT": MIRRORS}
        words = ["--mirror", guard.url, "--patience", "20s"]
        user.run("fetch", "org/guarded", "m.safetensors", "--to", "out", *words, **env).ok()
        assert contents(user.home / "out")["m.safetensors"] == big_bytes
        large = [seen for seen in guard.journal.snapshot() if "m.safetensors" in seen.target]
        assert [(seen.method, seen.status) for seen in large] == [("HEAD", 200), ("HEAD", 401), ("GET", 200)]


class Guard(Server):
    """In front of a hub: respond 401 without the token, and send the bytes where the hub would redirect."""

    def __init__(self, hub: Hub, token: str) -> None:
        super().__init__(_Guarding, host="127.0.0.1", port=0, name="guard")
        self.hub, self.token = hub, token

    def __enter__(self) -> Guard:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Guarding(Handler):
    def answer(self) -> None:
        guard = self.home
        assert isinstance(guard, Guard)
        if self.seen.headers.get("authorization") != f"Bearer {guard.token}":
            return self.reply(401, [("Content-Type", "text/plain")], b"who are you?")
        import httpx2

        with httpx2.Client(trust_env=False) as client:
            answer = client.get(guard.hub.url + self.seen.target, follow_redirects=True)
            commit = next(iter(guard.hub.repos.values())).head
        return self.reply(answer.status_code, [("X-Repo-Commit", commit)], answer.content)


@pytest.mark.fault(
    "token: a mirror's token helper fails",
    where="machine",
    does="Drops the mirror and does not run the helper again.",
    sees="the reason, next to the mirror in the report",
    status=0,
)
def test_a_mirror_without_its_token_is_dropped(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    mirror = serve(small, name="mirror")
    count = user.home / "count"
    own = helper(user, f"echo x >> {count}; sleep 0.1; echo the keyring is locked >&2; exit 1")
    env = {"GPUARIA_TOKENS": f"{mirror.url}=helper:{own}"}
    done = user.quick("fetch", "org/small", "--to", "out", "--mirror", mirror.url, "--json", **env).ok()
    assert contents(user.home / "out") == SMALL
    (why,) = [use["rejected"] for use in done.report["mirrors"] if use["name"] == mirror.url[7:]]
    assert "the keyring is locked" in why
    assert count.read_text() == "x\n"
    assert mirror.count() == 0


# --- the endpoint's -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "status", "words"),
    [
        pytest.param(
            *("helper:{}", 6, ["helper", "status 7", "no such entry"]),
            marks=pytest.mark.fault(
                "token: the endpoint's token helper fails",
                where="machine",
                does="Sends no request to the endpoint, with or without a token.",
                sees="the helper, its exit status and its last error output",
                status=6,
            ),
        ),
        pytest.param(
            *("helper:/no/such/program", 10, ["/no/such/program", "cannot be run"]),
            marks=pytest.mark.fault(
                "token: the endpoint's token helper does not exist",
                where="machine",
                does="Sends no request to the endpoint.",
                sees="the helper, and why it cannot be run",
                status=10,
            ),
        ),
        ("env:UNSET", 10, ["UNSET", "not set"]),
        ("file:/no/such/file", 10, ["/no/such/file", "missing"]),
    ],
)
def test_an_endpoint_without_its_token(
    user: User, serve: Serve, small: Repo, place: str, status: int, words: list[str]
) -> None:
    hub = serve(small)
    env = {"GPUARIA_TOKENS": f"{hub.url}={place.format(helper(user, 'echo no such entry >&2; exit 7'))}"}
    user.quick("fetch", "org/small", **env).refused(status, hub.url, *words)
    assert hub.count() == 0
    doctor = user.run("doctor", **env)
    assert doctor.status == status
    for word in words:
        assert word in doctor.out
    assert sent(hub) == set()


def test_a_helper_runs_only_when_a_request_needs_its_token(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small, tokens={HUBS})
    mirror = serve(small, name="mirror")
    count = user.home / "count"
    own = helper(user, f"echo x >> {count}; echo password={HUBS}")
    mirrored = ["--mirror", mirror.url]
    both = {"GPUARIA_TOKENS": f"{hub.url}=helper:{own}; {mirror.url}=helper:/no/such/program"}
    user.quick("config", **both).ok()
    assert not count.exists()
    user.quick("fetch", "org/small", **both).ok()
    assert (count.read_text(), sent(hub)) == ("x\n", {f"Bearer {HUBS}"})
    user.quick("fetch", "org/small", "--offline", *mirrored, **both).ok()
    assert count.read_text() == "x\n"
    assert "warning" not in user.quick("fetch", "org/small", *mirrored, **both).ok().err
    assert count.read_text() == "x\nx\n"
    assert mirror.count() == 0


def test_a_project_file_cannot_set_tokens(user: User, serve: Serve, private_repo: Repo) -> None:
    """A project file may add a mirror, which gets only the user's token for exactly that host."""
    hub, thief = serve(private_repo, tokens={HUBS}), serve(private_repo, tokens={HUBS}, name="thief")
    project = user.home / "gpuaria.yaml"
    for text in (f"tokens: {{'{thief.url}': env:HF_TOKEN}}", "send_token_in_clear_text_to: [127.0.0.1]"):
        project.write_text(text)
        user.quick("fetch", "org/private", HF_TOKEN=HUBS).refused(10, "project", "user file")
    user.env["GPUARIA_MIRRORS"] = ""
    project.write_text(f"mirrors: [{thief.url}]")
    user.quick("fetch", "org/private", "--to", "out", HF_TOKEN=HUBS).ok()
    assert (sent(hub), sent(thief)) == ({f"Bearer {HUBS}"}, set())


# --- in the clear -------------------------------------------------------------------------------------------------


@pytest.fixture
def lan() -> str:
    """Return an address of this machine other than loopback."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        found = str(probe.getsockname()[0])
        if not found.startswith("127."):
            return found
    pytest.skip("this machine has no address but loopback")


def test_no_token_goes_over_http_unless_the_user_names_the_host(
    user: User, serve: Serve, private_repo: Repo, lan: str
) -> None:
    hub = serve(private_repo, tokens={HUBS}, host=lan)
    assert hub.url.startswith(f"http://{lan}:")
    done = user.quick("fetch", "org/private", HF_TOKEN=HUBS)
    assert done.status == 5
    assert f"the token for {hub.url} is not sent: the connection is not encrypted" in done.err
    assert f"GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO={lan}" in done.err
    assert sent(hub) == set()
    for others in ("127.0.0.1", f"x{lan}", "localhost"):
        user.quick("fetch", "org/private", HF_TOKEN=HUBS, GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO=others)
    assert sent(hub) == set()
    named = {"HF_TOKEN": HUBS, "GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO": lan}
    done = user.quick("fetch", "org/private", "--to", "out", **named).ok()
    assert "not sent" not in done.err
    assert contents(user.home / "out") == expected(private_repo)
    assert {seen.headers.get("authorization") for seen in hub.requests[-3:]} == {f"Bearer {HUBS}"}
    assert not any("authorization" in seen.headers for seen in hub.cdn.requests)


def test_no_token_of_a_mirror_goes_over_http(user: User, serve: Serve, private_repo: Repo, lan: str) -> None:
    hub = serve(private_repo, tokens={HUBS})
    mirror = serve(private_repo, tokens={MIRRORS}, name="mirror", host=lan)
    env = {"HF_TOKEN": HUBS, "GPUARIA_TOKENS": f"{mirror.url}=env:PASS_OF_IT", "PASS_OF_IT": MIRRORS}
    done = user.quick("fetch", "org/private", "--to", "a", "--mirror", mirror.url, **env).ok()
    assert f"the token for {mirror.url} is not sent" in done.err
    assert mirror.count() == 0, "without a token it has nothing for us"
    hub.fault("/resolve/", status=503)
    env["GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO"] = lan
    user.quick("fetch", "org/private", "--to", "b", "--mirror", mirror.url, "--patience", "20s", **env).ok()
    assert sent(mirror) == {f"Bearer {MIRRORS}"}


def test_no_token_goes_through_a_proxy_to_a_local_host(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small, tokens={HUBS})
    with Proxy() as proxy:
        env = {"HF_TOKEN": HUBS, "http_proxy": proxy.url}
        done = user.quick("resolve", "org/small", **env)
        assert f"the token for {hub.url} is not sent: a proxy could read it; set no_proxy=127.0.0.1" in done.err
        assert proxy.journal.snapshot()
        assert not any("authorization" in seen.headers for seen in proxy.journal.snapshot())
        doctor = user.run("doctor", **env)
        assert "export no_proxy=127.0.0.1" in doctor.out
        assert not any("authorization" in seen.headers for seen in proxy.journal.snapshot())
        user.quick("resolve", "org/small", no_proxy="127.0.0.1", **env).ok()
    assert sent(hub) == {f"Bearer {HUBS}"}


class Proxy(Server):
    """Record each request and respond 404."""

    def __init__(self) -> None:
        super().__init__(_Nothing, host="127.0.0.1", port=0, name="proxy")

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Nothing(Handler):
    def answer(self) -> None:
        self.reply(404, [], b"")


def test_the_aria2_secret_does_not_go_through_a_proxy(user: User, serve: Serve, big: Repo, lan: str) -> None:
    serve(big)
    with Proxy() as listener:
        rpc = f"http://{lan}:{listener.socket.getsockname()[1]}/jsonrpc"
        user.quick("fetch", "org/big", "--rpc", rpc, GPUARIA_RPC_SECRET=MIRRORS).refused(10, lan, "not encrypted")
        doctor = user.run("doctor", "--rpc", rpc, GPUARIA_RPC_SECRET=MIRRORS)
        assert doctor.status == 10
        assert "not encrypted" in doctor.out
        assert listener.journal.snapshot() == []


# --- a server that repeats it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        (
            "/revision/",
            {"status": 403, "headers": {"X-Error-Message": f"Bearer {HUBS} may not"}, "body": HUBS.encode()},
        ),
        ("/revision/", {"status": 401, "headers": {"X-Error-Code": HUBS}, "body": json.dumps({"e": HUBS}).encode()}),
        ("/revision/", {"status": 302, "headers": {"Location": f"/login/{HUBS}?t={HUBS}"}}),
        ("/revision/", {"status": 302, "headers": {"Location": f"http://127.0.0.2:9/{HUBS}"}}),
        ("/revision/", {"status": 302, "headers": {"Location": f"ftp://{HUBS}.example/"}}),
        ("/revision/", {"status": 200, "headers": {"Content-Type": f"text/{HUBS}"}, "body": b"<html>"}),
        ("/revision/", {"status": 200, "body": json.dumps({"sha": "0" * 40, "id": f"-{HUBS}"}).encode()}),
        ("/tree/", {"status": 200, "headers": {"Link": f'<http://{HUBS}.example/>; rel="next"'}, "body": b"[]"}),
        ("/tree/", {"status": 200, "body": json.dumps([{"type": "file", "path": f"../{HUBS}"}]).encode()}),
        ("/resolve/", {"status": 302, "headers": {"Location": f"http://127.0.0.2:9/{HUBS}/x"}}),
        ("/resolve/", {"status": 403, "headers": {"X-Error-Message": HUBS}}),
        ("/resolve/", {"status": 200, "headers": {"X-Repo-Commit": HUBS, "ETag": f'"{HUBS}"'}, "body": HUBS.encode()}),
    ],
)
def test_a_token_repeated_by_a_server_is_redacted(
    user: User, serve: Serve, big: Repo, target: str, fault: dict[str, object]
) -> None:
    hub = serve(big, tokens={HUBS})
    hub.fault(target, **fault)  # type: ignore[arg-type]
    env = {"HF_TOKEN": HUBS, "GPUARIA_CONNECT_TIMEOUT": "1s", "GPUARIA_TIMEOUT": "1s"}
    done = user.run("fetch", "org/big", "--to", "out", "--patience", "1s", "-v", "--json", **env)
    assert done.status in (3, 4, 5, 6, 7)
    assert HUBS not in done.out + done.err
    assert f"Bearer {HUBS}" in sent(hub)
    assert not [path for path in user.files() if HUBS.encode() in path.read_bytes() or HUBS in str(path)]


# --- where none of them turns up ----------------------------------------------------------------------------------


def readable(pid: int | str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def holding(user: User, marks: tuple[str, ...]) -> list[Path]:
    """Return the files that contain a token, except those that the test wrote."""
    found = []
    for path in user.files():
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            if any(mark.encode() in data for mark in marks) and not path.name.startswith("secret"):
                found.append(path)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_per_host_tokens_appear_nowhere(user: User, serve: Serve, private_repo: Repo) -> None:
    hub = serve(private_repo, tokens={HUBS}, limit_rate=300_000)
    mirror = serve(private_repo, tokens={MIRRORS}, name="mirror", limit_rate=300_000)
    seen_by = user.home / "environments"
    own = helper(user, f"env >> {seen_by}; tr '\\0' ' ' < /proc/$PPID/cmdline >> {seen_by}; echo password={HUBS}")
    aria2c = user.home / "aria2c"
    aria2c.write_text(f'#!/bin/sh\nenv >> {seen_by}\nexec {binary.find_binary().path} "$@"\n')
    aria2c.chmod(0o755)
    (user.home / ".config/gpuaria").mkdir(parents=True)
    (user.home / ".config/gpuaria/config.yaml").write_text(
        f"aria2c: {aria2c}\nmirrors: [{mirror.url}]\n"
        f"tokens:\n  '{hub.url}': helper:{own}\n  '{mirror.url}': env:WORD_OF_THE_MIRROR\n"
    )
    env = {"HF_TOKEN": SHELLS, "WORD_OF_THE_MIRROR": MIRRORS, "GPUARIA_MIRRORS": ""}
    run = user.start("fetch", "org/private", "--to", "x", "-v", "--json", "-x", "4", **env)
    wait_until(lambda: bool(children(run.pid)) and bool(hub.cdn.count() + mirror.cdn.count()) and bool(mirror.count()))
    marks = [mark.encode() for mark in MARKS]
    processes = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    assert not [pid for pid in processes for mark in marks if mark in readable(pid, "cmdline")]
    started = children(run.pid)
    assert started
    for pid in started:
        assert b"aria2c" in readable(pid, "cmdline")
        assert b"PATH=" in readable(pid, "environ")
        assert not [mark for mark in marks if mark in readable(pid, "environ")]
    assert holding(user, MARKS) == []
    for server in (hub, mirror):
        assert isinstance(server.cdn, EmbeddedBytes)
        server.cdn.limit_rate = 0
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "the helper" in err
    assert len(re.findall(r"^PATH=", seen_by.read_text(), re.MULTILINE)) >= 3  # the helper, aria2c --version, aria2c
    assert (sent(hub), sent(mirror)) == ({f"Bearer {HUBS}"}, {f"Bearer {MIRRORS}"})
    for form in ("table", "json", "metalink", "aria2", "manifest"):
        told = user.quick("resolve", "org/private", "--format", form, **env).ok()
        out, err = out + told.out, err + told.err
    for words in (["config"], ["config", "--json"], ["mirrors", "org/private", "-v"], ["doctor", "org/private", "-v"]):
        told = user.run(*words, **env)
        out, err = out + told.out, err + told.err
    assert not [mark for mark in MARKS if mark in out + err]
    assert holding(user, MARKS) == []
    assert list(user.temp.iterdir()) == []


# --- what a killed run leaves -------------------------------------------------------------------------------------


def test_private_files_of_a_killed_run_are_removed_by_the_next(user: User, serve: Serve, private_repo: Repo) -> None:
    hub = serve(private_repo, tokens={HUBS})
    hub.cdn.fault("m.safetensors", "stall", after=100_000)
    run = user.start("fetch", "org/private", "--to", "x", HF_TOKEN=HUBS)
    wait_until(lambda: any(seen.sent for seen in hub.cdn.requests))
    (aria2c,) = children(run.pid)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    (left,) = user.temp.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in left.iterdir()} == {"output", "pid"}, "the secret is gone once aria2c has read it"
    (left / "aria2.conf").write_text("rpc-secret=as if it had been killed before\n")
    wait_until(lambda: not Path(f"/proc/{aria2c}").exists())
    hub.heal()
    user.run("fetch", "org/private", "--to", "x", HF_TOKEN=HUBS).ok()
    assert list(user.temp.iterdir()) == []


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty temporary folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_cleanup_removes_only_our_abandoned_folders(temp: Path, tmp_path: Path) -> None:
    long_ago = time.time() - 3600
    used = private_folder.create()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (temp / "gpuaria-link").symlink_to(tmp_path / "elsewhere")
    (temp / "gpuaria-file").write_text("x")
    for name, mode in (("gpuaria-old", 0o700), ("gpuaria-open", 0o755), ("gpuaria-young", 0o700), ("other", 0o700)):
        (temp / name).mkdir(mode=mode)
        (temp / name / "aria2.conf").write_text("rpc-secret=x")
    for path in (used.path, tmp_path / "elsewhere", *(temp / n for n in ("gpuaria-old", "gpuaria-open", "other"))):
        os.utime(path, (long_ago, long_ago))
    private_folder.remove_abandoned()
    left = {path.name for path in temp.iterdir()}
    assert left == {used.path.name, "gpuaria-link", "gpuaria-file", "gpuaria-open", "gpuaria-young", "other"}
    assert (tmp_path / "elsewhere").exists()
    used.remove()
    assert not used.path.exists()
