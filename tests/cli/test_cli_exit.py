"""Each row of the table of exit statuses: real commands with real failures, each with its own message."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpuaria import errors
from gpuaria.aria2 import binary
from standin import RateLimit, Repo
from tests.support.checkout import ROOT
from tests.support.ports import closed_port, free_port
from tests.support.repos import SMALL, contents, expected
from tests.support.user import PATH, Serve, User, children, wait_until

DOCS = ROOT / "docs" / "exit-status.md"


def test_the_documented_table_lists_every_status() -> None:
    rows = {int(row) for row in re.findall(r"^\|\s*`?(\d+)`?\s*\|", DOCS.read_text(), re.MULTILINE)}
    classes = {
        kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert rows == classes | {0}


def test_0_all_verified(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    assert contents(user.run("fetch", "org/small").ok().path) == SMALL


def test_1_a_bug_is_one_sentence_and_v_adds_the_traceback(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    site = user.temp / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import gpuaria.cli.fetch as f\ndef broken(*a, **k): raise KeyError('nobody foresaw this')\nf.split = broken\n"
    )
    user.run("fetch", "org/small", PYTHONPATH=str(site)).refused(1, "a bug", "nobody foresaw this", "report")
    told = user.run("fetch", "org/small", "-v", PYTHONPATH=str(site))
    assert (told.status, "Traceback" in told.err) == (1, True)
    assert user.run("fetch", "org/small", "--json", PYTHONPATH=str(site)).report["exit_code"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fetch"], "no repo given"),
        (["resolve", "--include", "x"], "no repo given"),
        (["fetch", "a/b/c"], "not a repo name"),
        (["fetch", "--nope", "org/small"], "--nope"),
        (["fly"], "fly"),
        (["verify"], "PATH"),
        (["fetch", "org/small", "--type", "banana"], "model, dataset or space"),
        (["fetch", "org/small", "-x", "99"], "from 1 to 16"),
        (["fetch", "org/small", "-x", "many"], "from 1 to 16"),
        (["fetch", "org/small", "--to", "x", "--cache-dir", "y"], "exclude each other"),
        (["fetch", "org/small", "--to", ""], "--to is empty"),
        (["fetch", "org/small@a", "--revision", "b"], "--revision"),
        (["fetch", "datasets/org/small", "--type", "model"], "--type"),
        (["fetch", "https://example.com/org/small"], "HF_ENDPOINT"),
        (["fetch", "org/small", "--include", ""], "empty"),
        (["fetch", "org/small", "--revision", "../up"], "not a revision"),
        (["resolve", "org/small", "--format", "tar"], "sha256sums"),
        (["fetch", "org/small", "--mirror", "ftp://mirror.example"], "--mirror"),
    ],
)
def test_2_invalid_usage(words: list[str], said: str, user: User) -> None:
    user.quick(*words, HF_ENDPOINT="http://127.0.0.1:9").refused(2, said)


def test_2_without_arguments_the_help_is_printed(user: User) -> None:
    done = user.run()
    assert (done.status, done.out) == (2, "")
    assert {"fetch", "resolve", "verify", "config"} <= set(done.err.split())


def test_usage_errors_end_with_a_json_report(user: User) -> None:
    assert user.quick("fetch", "--nope", "--json").report["exit_code"] == 2


@pytest.mark.parametrize("status", [404, 410])
def test_3_one_file_fails(status: int, user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    hub.fault(r"/resolve/.*config\.json", status=status)
    done = user.run("fetch", "org/small", "--to", "x", "--json", "--patience", "1 s")
    assert done.status == done.report["exit_code"] == 3
    assert done.report["verdicts"] == {"ok": 3, "failed": 1}
    assert [problem["path"] for problem in done.report["problems"]] == ["config.json"]
    assert contents(user.home / "x") == {name: data for name, data in SMALL.items() if name != "config.json"}
    hub.heal()
    hub.reset()
    assert contents(user.run("fetch", "org/small", "--to", "x").ok().path) == SMALL
    assert hub.count() <= 2


def test_3_names_the_file_and_prints_no_path(user: User, serve: Serve, small: Repo) -> None:
    serve(small).fault(r"/resolve/.*config\.json", status=404)
    for flags in ([], ["-q"]):
        done = user.quick("fetch", "org/small", *flags)
        assert (done.status, done.out) == (3, "")
        assert "config.json" in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize("repo", ["small", "big"])
def test_4_wrong_bytes_are_never_published(repo: str, user: User, serve: Serve, request: pytest.FixtureRequest) -> None:
    wanted: Repo = request.getfixturevalue(repo)
    name = next(name for name, entry in wanted.commits[wanted.head].files.items() if entry.sha256)
    hub = serve(wanted)
    hub.cdn.fault(name, "flip", offset=1000)
    done = user.run("fetch", wanted.repo_id, "--to", "x", "--json")
    assert done.status == done.report["exit_code"] == 4
    assert done.report["problems"][0]["outcome"] == "wrong digest"
    assert contents(user.home / "x") == {key: data for key, data in expected(wanted).items() if key != name}
    told = user.run("fetch", wanted.repo_id)
    assert (told.status, told.out) == (4, "")
    assert f"wrong digest: '{name}'" in told.err
    assert not [path for path in user.home.rglob(Path(name).name) if path.exists()]


def test_4_takes_precedence_over_3(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    hub.cdn.fault("weights.bin", "flip", offset=1000)
    hub.fault(r"/resolve/.*config\.json", status=404)
    assert user.quick("fetch", "org/small", "-q").status == 4


def test_bytes_that_are_wrong_once_are_downloaded_again(user: User, serve: Serve, big: Repo) -> None:
    serve(big).cdn.fault("model.safetensors", "flip", offset=5_000_000, times=1)
    assert contents(user.run("fetch", "org/big").ok().path) == expected(big)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["org/nothing"], "no model org/nothing"),
        (["org/nothing", "--type", "dataset"], "no dataset org/nothing"),
        (["org/small@nowhere"], "no revision 'nowhere'"),
        (["org/small@" + "0" * 40], "no revision"),
        (["org/small", "config.jso"], "no file 'config.jso'"),
        (["org/small", "deep.txt"], "sub/folder/deep.txt"),
        (["org/small", "--include", "*.gguf"], "none of the 4 files"),
        (["org/small", "--exclude", "*"], "none of the 4 files"),
        (["org/small", "nope/"], "none of the 4 files"),
    ],
)
def test_5_not_found(words: list[str], said: str, user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    user.quick("fetch", *words).refused(5, said)
    user.quick("resolve", *words).refused(5, said)
    assert hub.cdn.count() == 0


def test_5_offline_and_not_on_disk(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    user.quick("fetch", "org/small", "--offline").refused(5, "org/small", "--offline")
    user.quick("fetch", "org/small", HF_HUB_OFFLINE="1").refused(5, "org/small")
    user.quick("fetch", "org/small", "--offline", "--to", "new").refused(5, "org/small", "new")
    user.quick("fetch", "org/small", "config.json").ok()
    hub.reset()
    user.quick("fetch", "org/small", "--offline").refused(5, "3 of 4 files", "offline")
    assert user.quick("fetch", "org/small", "config.json", "--offline").ok().path.is_dir()
    assert hub.count() == 0


def test_5_verify_without_a_target(user: User) -> None:
    user.quick("verify", "org/never").refused(5, "org/never", "gpuaria fetch org/never")
    user.quick("verify", "/never/was").refused(5, "/never/was")


@pytest.fixture
def closed(tmp_path: Path) -> list[Repo]:
    """Return a hub with a gated and a private repo."""
    gated = Repo.build("org/gated", SMALL, folder=tmp_path / "gated", gated="manual")
    return [gated, Repo.build("org/private", SMALL, folder=tmp_path / "private", private=True)]


@pytest.mark.parametrize(
    ("repo", "token", "status", "said"),
    [
        ("gated", "", 6, "accept its terms"),
        ("gated", "hf_good", 6, "has no access"),
        ("gated", "hf_wrong", 6, "rejects your token"),
        ("private", "hf_wrong", 6, "rejects your token"),
        ("private", "", 5, "private and no token"),
    ],
)
def test_6_access_denied(
    repo: str, token: str, status: int, said: str, user: User, serve: Serve, closed: list[Repo]
) -> None:
    hub = serve(*closed, tokens={"hf_good"}, granted={"hf_in"})
    env = {"HF_TOKEN": token} if token else {}
    user.quick("fetch", f"org/{repo}", **env).refused(status, said)
    assert hub.cdn.count() == 0


def test_6_a_gated_repo_does_not_hide_an_invalid_token(user: User, serve: Serve, closed: list[Repo]) -> None:
    hub = serve(*closed, tokens={"hf_good"})
    hub.fault("/revision/", status=401, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Please log in."})
    done = user.quick("fetch", "org/gated", HF_TOKEN="hf_wrong")
    done.refused(6, "rejects your token", "/settings/tokens", "/org/gated")
    user.quick("fetch", "org/gated").refused(6, "accept its terms")


def test_the_right_token_opens_gated_and_private_repos(user: User, serve: Serve, closed: list[Repo]) -> None:
    serve(*closed, tokens={"hf_good"}, granted={"hf_in"})
    assert contents(user.quick("fetch", "org/gated", HF_TOKEN="hf_in").ok().path) == SMALL
    token = user.home / ".cache/huggingface/token"
    token.write_text("hf_good\n")
    assert contents(user.quick("fetch", "org/private").ok().path) == SMALL
    user.quick("fetch", "org/private", HF_HUB_DISABLE_IMPLICIT_TOKEN="1").refused(5, "no token was sent")


class _Portal(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = b"<html><body>Please sign in to Hotel Wi-Fi</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def portal() -> Iterator[str]:
    """A captive portal: every address returned HTTP 200 with a page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Portal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_7_connection_refused(user: User) -> None:
    port = closed_port()
    user.quick("fetch", "org/small", HF_ENDPOINT=f"http://127.0.0.1:{port}").refused(7, "cannot connect", str(port))


def test_7_unknown_host_name(user: User) -> None:
    done = user.quick("fetch", "org/small", HF_ENDPOINT="http://no.such.host.invalid")
    done.refused(7, "no.such.host.invalid")


def test_7_a_captive_portal(user: User, portal: str) -> None:
    user.run("fetch", "org/small", HF_ENDPOINT=portal).refused(7, "does not respond like a hub", "captive portal")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_7_no_commit_header(user: User, serve: Serve, big: Repo, name: str) -> None:
    """The run fails at once, whatever `--patience` says."""
    hub = serve(big, commit_header=False)
    user.quick("fetch", "org/big", name, "--to", "out").refused(7, "X-Repo-Commit", "not a hub", "captive portal")
    assert hub.cdn.count() == 0
    assert not (user.home / "out" / name).exists()


def test_7_a_quota_wait_longer_than_patience(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small, rate=RateLimit(api=0, window=300))
    user.run("fetch", "org/small", "--patience", "2 s").refused(7, "429", "patience", "token")
    assert hub.count() == 1


def test_a_quota_wait_within_patience_is_waited_for(user: User, serve: Serve, small: Repo) -> None:
    serve(small, rate=RateLimit(api=1, window=1))
    done = user.run("fetch", "org/small", "--patience", "30 s").ok()
    assert "waiting up to" in done.err


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.fault(
    "disk: full at the start",
    where="machine",
    does="Stops before the download starts.",
    sees="the space needed, the space free, and the folder",
    status=8,
)
def test_8_missing_space_is_detected_before_the_download(user: User, serve: Serve, big: Repo, tiny_disk: Path) -> None:
    hub = serve(big)
    for flag in ("--to", "--cache-dir"):
        user.quick("fetch", "org/big", flag, tiny_disk / "x").refused(8, "9.0 MB needed", "free")
    assert hub.cdn.count() == 0
    assert not [seen for seen in hub.requests if "/resolve/" in seen.target]


@pytest.mark.parametrize("name", ["../up.txt", "/etc/x", "a\\b.txt", "con.txt", "a\nb.txt", ".git/config"])
def test_8_an_unsafe_file_name(name: str, user: User, serve: Serve, small: Repo) -> None:
    entry = f'{{"type":"file","path":{_quoted(name)},"size":0,"oid":"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"}}'
    hub = serve(small)
    hub.fault("/tree/", status=200, body=f"[{entry}]".encode(), headers={"Content-Type": "application/json"})
    user.quick("fetch", "org/small", "--to", "x").refused(8, "unsafe file name")
    assert contents(user.home / "x") == {}
    assert not (user.home / "up.txt").exists()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace("\n", "\\n") + '"'


@pytest.mark.fault(
    "processes: another one locks the target for longer than `--patience`",
    where="machine",
    does="Waits, then stops.",
    sees="the process that holds the lock",
    status=8,
)
def test_8_a_locked_target(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    user.run("fetch", "org/small", "--to", "x").ok()
    lock = user.home / "x/.cache/huggingface/gpuaria.lock"
    code = f"import filelock, sys; l = filelock.FileLock({str(lock)!r}); l.acquire(); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = user.run("fetch", "org/small", "--to", "x", "--patience", "1 s", "-q")
        done.refused(8, "gave up waiting", "lock")
        holder.communicate("\n")
    user.run("fetch", "org/small", "--to", "x").ok()


def test_8_a_target_that_is_a_file(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    (user.home / "x").write_text("mine")
    user.quick("fetch", "org/small", "--to", "x").refused(8, str(user.home / "x"))
    assert (user.home / "x").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc does not allow new folders")
@pytest.mark.parametrize("to", ["/proc/foo", "/proc/foo/bar"])
def test_8_a_target_that_cannot_be_created(to: str, user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    done = user.quick("fetch", "org/small", "--to", to)
    done.refused(8, f"cannot create the folder {to}: ", "choose another")
    assert ".cache" not in done.err


def test_9_aria2c_is_missing(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    done = user.run("fetch", "org/big", GPUARIA_ARIA2C="/no/such/aria2c")
    done.refused(9, "/no/such/aria2c", "aria2")
    assert hub.cdn.count() == 0


@pytest.mark.parametrize(("says", "said"), [("aria2 version 1.19.0", "1.36"), ("wget 1.21", "is not aria2c")])
def test_9_an_aria2c_that_is_too_old_or_another_program(
    says: str, said: str, user: User, serve: Serve, big: Repo
) -> None:
    serve(big)
    script = user.home / "old-aria2c"
    script.write_text(f"#!/bin/sh\necho '{says}'\n")
    script.chmod(0o755)
    user.quick("fetch", "org/big", GPUARIA_ARIA2C=str(script)).refused(9, str(script), said)


def test_9_small_files_need_no_aria2c(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    user.quick("fetch", "org/small", GPUARIA_ARIA2C="/no/such/aria2c").ok()


def test_gpuaria_runs_aria2c_itself(user: User, serve: Serve, big: Repo) -> None:
    pytest.importorskip("aria2c")
    script = user.home / "bin/aria2c"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom aria2c import main\nsys.exit(main())\n")
    script.chmod(0o755)
    hub = serve(big, limit_rate=1_000_000)
    run = user.start("fetch", "org/big", PATH=f"{script.parent}:{PATH}")
    try:
        wait_until(lambda: hub.cdn.count() > 0)
        programs = [os.readlink(f"/proc/{pid}/exe") for pid in children(run.pid)]
        assert [Path(program).name for program in programs] == ["aria2c"]
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=10)


@pytest.fixture
def daemon(user: User) -> Iterator[str]:
    """Start an aria2c as another user would, with a secret."""
    port = free_port()
    process = subprocess.Popen(
        [
            binary.find_binary().path,
            "--no-conf",
            "--enable-rpc",
            f"--rpc-listen-port={port}",
            "--rpc-secret=right",
            "--quiet",
        ],
        cwd=user.temp,
        stdin=subprocess.DEVNULL,
    )
    wait_until(lambda: _answers(port))
    yield f"http://127.0.0.1:{port}/jsonrpc"
    assert process.poll() is None, "somebody ended an aria2c that was not theirs"
    process.terminate()
    process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_9_a_running_aria2c_rejects_the_secret(user: User, serve: Serve, big: Repo, daemon: str) -> None:
    serve(big)
    user.quick("fetch", "org/big", "--rpc", daemon, "--rpc-secret", "wrong").refused(9, "secret")
    user.quick("fetch", "org/big", "--rpc", daemon).refused(9, "secret")
    done = user.quick("fetch", "org/big", "--rpc", daemon, GPUARIA_RPC_SECRET="right").ok()
    assert contents(done.path) == expected(big)


def test_the_report_accounts_for_every_byte(user: User, serve: Serve, big: Repo, daemon: str) -> None:
    serve(big)
    report = user.quick("fetch", "org/big", "--rpc", daemon, "--json", GPUARIA_RPC_SECRET="right").ok().report
    assert report["bytes_fetched"] == sum(map(len, expected(big).values()))


def test_9_no_response_at_the_rpc_url(user: User, serve: Serve, big: Repo) -> None:
    serve(big)
    port = closed_port()
    user.quick("fetch", "org/big", "--rpc", f"http://127.0.0.1:{port}/jsonrpc").refused(9, str(port))


def test_10_an_unknown_key(user: User) -> None:
    file = user.home / ".config/gpuaria/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("jobs: 2\nconections: 8\n")
    for words in (["fetch", "org/small"], ["config"], ["resolve", "org/small"], ["verify", "org/small"]):
        user.quick(*words).refused(10, f"{file}:2", "conections", "Did you mean connections?")


@pytest.mark.parametrize(
    ("text", "said"),
    [("jobs: many\n", ":1"), ("jobs: [1\n", "not valid YAML"), ("- a\n", "mapping"), ("token: hf_abc\n", "token")],
)
def test_10_a_bad_file(text: str, said: str, user: User) -> None:
    file = user.home / "own.yaml"
    file.write_text(text)
    done = user.quick("config", GPUARIA_CONFIG=str(file))
    done.refused(10, str(file), said)
    assert "hf_abc" not in done.err


def test_10_a_bad_variable(user: User) -> None:
    user.quick("config", GPUARIA_CONECTIONS="8").refused(10, "GPUARIA_CONECTIONS", "GPUARIA_CONNECTIONS")
    user.quick("config", GPUARIA_JOBS="0").refused(10, "GPUARIA_JOBS")
