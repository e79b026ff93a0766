"""The output of a run, its requests to the hub, and the absence of tokens in all of it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from standin import EmbeddedBytes, Hub, Repo
from tests.support.repos import SMALL, contents, expected
from tests.support.user import GPUARIA, Serve, User, children, wait_until

# A test looks for this process name in /proc, where other workers' processes also appear.
MARK = f"hf_MarkerThatMustNotLeak{os.getpid():010}"


# --- stdout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["", "-q", "-v", "-q -v"])
def test_stdout_is_the_path_only(flags: str, user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    command = f'P=$({shlex.join(GPUARIA)} fetch --repo org/small {flags}) && cat "$P/config.json"'
    done = user.command("sh", "-c", command).ok()
    assert done.out == '{"n": 1}\n'
    assert (done.err == "") == (flags == "-q")


def test_a_log_has_a_start_line_one_line_per_large_file_and_a_summary(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    lines = user.run("fetch", "org/big").ok().err.splitlines()
    assert lines[0] == f"org/big@main ({big.head[:12]}): downloading 3 of 3 files, 9.0 MB, from {hub.url[7:]}"
    assert lines[1] == "verified model.safetensors (9.0 MB)"
    assert re.fullmatch(r"org/big@main: 3 files verified; downloaded 9\.0 MB in .+ s \(.+ MB/s\)", lines[2])
    assert lines[3] == f"  checksums from {hub.url} (origin); 5 requests to the hub"
    assert lines[4] == f"  {hub.url[7:]}: 9.0 MB, 3 files"
    assert "\x1b" not in "".join(lines)
    again = user.run("fetch", "org/big").ok().err.splitlines()
    assert again[0].endswith("3 files, nothing to download (9.0 MB on disk)")
    assert re.fullmatch(r"org/big@main: up to date: 3 files, 9\.0 MB \(.+ s\)", again[1])


def test_a_repo_without_files_is_reported_as_empty(user: User, serve: Serve, tmp_path: Path) -> None:
    repo = Repo.build("org/zero", {}, folder=tmp_path / "zero")
    hub = serve(repo)
    for flags in ([], ["--to", "x"]):
        assert user.quick("fetch", "org/zero", *flags).ok().err.splitlines() == [
            f"org/zero@main ({repo.head[:12]}): 0 files, nothing to download",
            "org/zero@main: the repo has no files",
            f"  checksums from {hub.url} (origin); 2 requests to the hub",
        ]


FIELDS = {
    *("event", "ref", "commit", "path", "files", "bytes_fetched", "bytes_reused", "seconds", "speed", "hub_requests"),
    *("mirrors", "verdicts", "vouched_by", "trust", "problems", "exit_code"),
    *("pickles", "pickle_files", "misnamed", "signature"),
}


def test_json_is_events_and_a_final_report(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    done = user.run("fetch", "org/big", "--json").ok()
    assert done.err == ""
    names = [event["event"] for event in done.events]
    assert (names[0], names[-1]) == ("planned", "report")
    assert set(names[1:-1]) == {"progress", "filedone"}
    report = done.report
    assert set(report) == FIELDS
    size = sum(map(len, expected(big).values()))
    assert (report["files"], report["bytes_fetched"], report["bytes_reused"]) == (3, size, 0)
    assert (report["verdicts"], report["exit_code"], report["problems"]) == ({"ok": 3}, 0, [])
    assert (report["vouched_by"], report["trust"], report["commit"]) == (hub.url, "origin", big.head)
    assert report["hub_requests"] == hub.count()
    assert report["seconds"] > 0
    assert report["speed"] == pytest.approx(size / report["seconds"], rel=0.01)
    assert report["mirrors"] == [
        {"name": hub.url[7:], "bytes": size, "files": 3, "requests": hub.count(), "rejected": ""}
        | {"rtt": None, "ping": None, "rank_reason": ""}
    ]


def test_a_failed_file_counts_neither_as_done_nor_as_verified(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big)
    name = max(expected(big), key=lambda path: len(expected(big)[path]))
    hub.cdn.fault(name, "status", status=404)
    hub.fault(f"/resolve/.*{name}", status=404)
    done = user.run("fetch", "org/big", "--json", "--patience", "1s")
    assert done.status != 0
    last = [event for event in done.events if event["event"] == "progress"][-1]
    assert last["verified"] == last["files"] - 1
    assert last["done"] == last["total"] - len(expected(big)[name])


def test_json_ends_with_the_report_after_an_early_error(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    done = user.quick("fetch", "org/nothing", "--json")
    assert (done.status, done.report["exit_code"]) == (5, 5)
    assert "org/nothing" in done.report["error"]
    assert done.report["hint"]
    assert "org/nothing" in done.err


def test_a_closed_pipe_is_not_an_error(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    command = f"{shlex.join(GPUARIA)} fetch org/small --json | true; echo ${{PIPESTATUS[0]}}"
    done = user.command("bash", "-c", command)
    assert "Traceback" not in done.err
    assert "bug" not in done.err


@pytest.mark.parametrize("where", [[], ["--to", "x"]])
def test_a_file_that_differs_is_reported_before_it_is_downloaded_again(
    where: list[str], user: User, serve: Serve, small: Repo
) -> None:
    serve(small)

    def spoil() -> Path:
        path = user.quick("fetch", "org/small", *where).ok().path
        (path / "weights.bin").resolve().write_bytes(b"WEIGHTS " * 4000)
        (path / "config.json").resolve().write_bytes(b"{")
        return path

    path = spoil()
    lines = user.quick("fetch", "org/small", *where).ok().err.splitlines()
    assert "downloading 1 of" in lines[0], "the size of the other one has told already"
    assert [line for line in lines if " again (" in line] == [
        "downloading 'weights.bin' again (32.0 kB): the local file does not match its checksum"
    ]
    assert contents(path) == SMALL
    assert " again (" not in user.quick("fetch", "org/small", "--force", *where).ok().err
    spoil()
    assert user.quick("fetch", "org/small", "-q", *where).ok().err == ""
    spoil()
    told = [event for event in user.quick("fetch", "org/small", "--json", *where).ok().events if "detail" in event]
    assert [(event["path"], event["size"]) for event in told if event["event"] == "mismatch"] == [
        ("weights.bin", 32000)
    ]


def test_after_network_failures_the_message_suggests_the_same_command(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    hub.cdn.fault("weights.bin", "status", status=503)
    done = user.run("fetch", "org/small", "--patience", "1s")
    assert done.status == 7
    lines = done.err.splitlines()
    assert any(line.startswith("failed: 'weights.bin': ") and "503" in line for line in lines)
    assert lines[-1] == "run the same command again to continue; downloaded data is kept"


# --- a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal of 100 columns as the stderr of a command."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self.seen = ""
        os.set_blocking(self.ours, False)

    def read(self) -> str:
        """Return all output so far."""
        while True:
            try:
                self.seen += os.read(self.ours, 65536).decode()
            except BlockingIOError:
                return self.seen

    def restored(self) -> bool:
        """Return whether the modes are as before and the cursor is visible."""
        return self.before == termios.tcgetattr(self.theirs) and (
            self.read().rfind("\x1b[?25h") >= self.read().rfind("\x1b[?25l")
        )


def _on(terminal: Terminal, user: User, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*GPUARIA, *words],
        env=user.environ(TERM="xterm-256color"),
        cwd=user.home,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        text=True,
    )


def test_progress_bars_on_a_terminal(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big, limit_rate=1_500_000)
    terminal = Terminal()
    run = _on(terminal, user, "fetch", "org/big", "-x", "4")
    wait_until(lambda: "model.safetensors" in terminal.read())
    assert isinstance(hub.cdn, EmbeddedBytes)
    hub.cdn.limit_rate = 0
    out, _ = run.communicate(timeout=30)
    shown = terminal.read()
    assert run.returncode == 0
    assert contents(Path(out.rstrip("\n"))) == expected(big)
    assert "total" in shown
    assert re.search(r"[1-9]\d* connections to 1 mirrors?, \d of 3 files verified", shown)
    assert re.search(r"[\d.]+ MB of 9\.0 MB", shown)
    assert "B/s" in shown
    assert "3 files verified; downloaded 9.0 MB" in shown
    assert terminal.restored()


def test_the_terminal_is_restored_after_ctrl_c(user: User, serve: Serve, big: Repo) -> None:
    serve(big, limit_rate=200_000)
    terminal = Terminal()
    run = _on(terminal, user, "fetch", "org/big")
    wait_until(lambda: "connections to" in terminal.read())
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=2)
    assert run.returncode == 130
    assert terminal.restored()
    assert "Run the same command again" in terminal.read()


# --- words of others ----------------------------------------------------------------------------------------------

HOSTILE = "\x9b2Jgo\u202eaway"
SPOKEN = {"X-Error-Message": HOSTILE.encode().decode("latin-1")}  # the bytes as sent over the wire


@pytest.mark.parametrize("where", ["/revision/", r"/resolve/.*config\.json"])
def test_server_text_cannot_control_the_terminal(where: str, user: User, serve: Serve, small: Repo) -> None:
    serve(small).fault(where, status=403, headers=SPOKEN)
    for flags in ([], ["-q"], ["-v"]):
        done = user.run("fetch", "org/small", *flags)
        assert done.status in (3, 6)
        assert "?2Jgo?away" in done.err
        assert not set("\x9b\u202e") & set(done.err)
    told = user.run("fetch", "org/small", "--json")
    assert not set("\x9b\u202e") & set(told.out + told.err)
    said = [told.report["error"]] if "error" in told.report else [one["detail"] for one in told.report["problems"]]
    assert [HOSTILE in text for text in said] == [True]


def test_server_text_in_progress_bars_cannot_control_the_terminal(user: User, serve: Serve, small: Repo) -> None:
    serve(small).fault(r"/resolve/.*config\.json", status=403, headers=SPOKEN)
    terminal = Terminal()
    run = _on(terminal, user, "fetch", "org/small")
    run.communicate(timeout=30)
    assert "?2Jgo?away" in terminal.read()
    assert not set("\x9b\u202e") & set(terminal.read())


def test_server_text_in_a_table_cannot_control_the_terminal(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    mirror = serve(small, name="mirror")
    mirror.fault("/resolve/", status=403, headers=SPOKEN)
    done = user.run("mirrors", "org/small", "--mirror", mirror.url, "--why")
    assert done.out.count("?2Jgo?away") > 1
    assert not set("\x9b\u202e") & set(done.out + done.err)


# --- --dry-run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--json"], ["--to", "x"]])
def test_dry_run_prints_the_plan_and_downloads_nothing(
    flags: list[str], user: User, serve: Serve, big: Repo, small: Repo
) -> None:
    hub = serve(big, small)
    mirrors = ["--mirror", "http://127.0.0.1:9", "--mirror", "http://127.0.0.1:10"]
    first = user.run("fetch", "org/big", "--dry-run", *mirrors, *flags).ok()
    again = user.quick("fetch", "org/big", "--dry-run", *mirrors, *flags).ok()
    assert first.out == again.out
    assert "model.safetensors" in first.out
    assert hub.cdn.count() == 0
    assert not [seen for seen in hub.requests if "/resolve/" in seen.target]
    assert not list(user.home.rglob("*.incomplete")) + list(user.home.rglob("blobs"))
    assert not (user.home / "x").exists()
    if flags == ["--json"]:
        (plan,) = first.events
        assert [step["file"]["path"] for step in plan["steps"]] == ["model.safetensors", "README.md", "config.json"]
        assert plan["fetch_bytes"] == sum(map(len, expected(big).values()))
        assert (plan["event"], plan["exit_code"]) == ("plan", 0)
        assert (plan["ref"], plan["commit"]) == ("org/big@main", big.head)
        assert (plan["vouched_by"], plan["trust"]) == (hub.url, "origin")
        assert set(plan["mirrors"]) == {hub.url[7:], "127.0.0.1:9", "127.0.0.1:10"}


def test_json_prints_one_object_per_line_with_every_command(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    path = user.quick("fetch", "org/small", "--to", "x").ok().path
    asked: list[tuple[list[str | Path], str]] = [
        (["fetch", "org/small", "--dry-run"], "plan"),
        (["resolve", "org/small"], "manifest"),
        (["verify", "x"], "report"),
        (["why", path], "report"),
        (["why", path / "weights.bin"], "report"),
        (["mirrors", "list"], "report"),
        (["config"], "report"),
    ]
    for words, event in asked:
        (told,) = user.quick(*words, "--json").ok().events
        assert (told["event"], told["exit_code"]) == (event, 0), words


def test_dry_run_lists_local_files(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    user.quick("fetch", "org/small", "config.json").ok()
    rows = [line.split() for line in user.quick("fetch", "org/small", "--dry-run").ok().out.splitlines()]
    assert {row[0] for row in rows if "config.json" in row} == {"skip"}
    assert {row[0] for row in rows if "weights.bin" in row} == {"download"}


# --- what the hub is asked, and what others see -------------------------------------------------------------------


def test_requests_to_the_hub_stay_within_the_budget(user: User, serve: Serve, big_bytes: bytes, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {f"s{n}.json": b"%d" % n for n in range(7)}
    files |= {"a.safetensors": big_bytes, "b.safetensors": big_bytes[::-1], "l.bin": b"lfs" * 99}
    repo = Repo.build("openai-community/gpt2-medium", files, folder=tmp_path / "mixed", direct=True)
    hub = serve(repo)
    report = user.run("fetch", "gpt2-medium", "--to", "x", "--json").ok().report
    assert contents(user.home / "x") == files
    assert hub.count() == report["hub_requests"] <= 3 + 8 + 2


def _authorized(hub: Hub) -> tuple[int, int]:
    """Return the requests with a credential at the hub, and at its byte server."""
    both = hub.requests, hub.cdn.requests
    return tuple(sum("authorization" in seen.headers for seen in some) for some in both)  # type: ignore[return-value]


def test_only_the_endpoint_gets_the_token(user: User, serve: Serve, big: Repo) -> None:
    hub = serve(big, tokens={MARK})
    mirror = serve(big, tokens={MARK}, name="mirror")
    report = user.run("fetch", "org/big", "--mirror", mirror.url, "--json", HF_TOKEN=MARK).ok().report
    assert _authorized(hub)[0] > 0
    assert (_authorized(hub)[1], _authorized(mirror)) == (0, (0, 0))
    assert hub.cdn.count() + mirror.cdn.count() > 0
    assert {use["name"] for use in report["mirrors"]} <= {hub.url[7:], mirror.url[7:]}
    assert sum(use["bytes"] for use in report["mirrors"]) == report["bytes_fetched"]


def test_an_unusable_mirror_is_reported_with_a_reason(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    other = serve(name="mirror")
    report = user.quick("fetch", "org/small", "--mirror", other.url, "--json").ok().report
    assert [use["rejected"] != "" for use in report["mirrors"] if use["name"] == other.url[7:]] == [True]


def test_a_private_repo_is_fetched_from_the_endpoint_only(
    user: User, serve: Serve, big_bytes: bytes, tmp_path: Path
) -> None:
    files: dict[str, bytes | Path] = {"m.safetensors": big_bytes, "c.json": b"{}"}
    repo = Repo.build("org/private", files, folder=tmp_path / "private", private=True)
    hub, mirror = serve(repo, tokens={MARK}), serve(repo, tokens={MARK}, name="mirror")
    done = user.run("fetch", "org/private", "--mirror", mirror.url, HF_TOKEN=MARK).ok()
    assert contents(done.path) == files
    assert (mirror.count(), mirror.cdn.count(), _authorized(hub)[1]) == (0, 0, 0)


def _readable(pid: int | str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _how(way: str, user: User) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and variables that pass the token."""
    if way == "variable":
        return [], {"HF_TOKEN": MARK}
    if way == "file":
        (user.home / "secret").write_text(MARK)
        return [], {"HF_TOKEN_PATH": str(user.home / "secret")}
    return [f"--token={MARK}"] if way == "flag=" else ["--token", MARK], {}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("way", ["variable", "file", "flag", "flag="])
def test_the_token_appears_nowhere(way: str, user: User, serve: Serve, big_bytes: bytes, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {"m.safetensors": big_bytes, "c.json": b"{}"}
    repo = Repo.build("org/private", files, folder=tmp_path / "private", private=True)
    hub = serve(repo, tokens={MARK}, limit_rate=2_500_000)
    words, env = _how(way, user)
    run = user.start("fetch", "org/private", "--to", "x", "-v", "--json", "-x", "4", *words, **env)
    wait_until(lambda: bool(children(run.pid)) and sum(seen.sent for seen in hub.cdn.requests) > 1_000_000)
    mark = MARK.encode()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _readable(pid, "cmdline")]
    assert b"fetch\0org/private\0" in _readable(run.pid, "cmdline")
    for pid in children(run.pid):
        assert b"aria2c" in _readable(pid, "cmdline")
        assert mark not in _readable(pid, "environ")
    assert _holding(user) == []
    assert isinstance(hub.cdn, EmbeddedBytes)
    hub.cdn.limit_rate = 0
    out, err = run.communicate(timeout=30)
    assert run.returncode == 0
    assert "/resolve/" in err
    for text in (out, err):
        assert MARK not in text
        assert "Signature" not in text
    assert _holding(user) == []
    for form in ("table", "json", "metalink", "aria2", "sha256sums", "manifest"):
        told = user.quick("resolve", "org/private", "--format", form, *words, **env).ok()
        assert MARK not in told.out + told.err
    told = user.quick("config", **env)
    assert MARK not in told.out + told.err


def _holding(user: User) -> list[Path]:
    """Return the files that contain the token or a signature, except the one that the test wrote."""
    found: list[Path] = []
    for path in user.files():
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        if (MARK.encode() in data or b"Signature=" in data) and path.name != "secret":
            found.append(path)
    return found


def test_a_rejected_token_is_not_shown(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    for words in (["--token", MARK], ["--token", MARK, "--json"], [f"--token={MARK} x"], ["--nope", "--token", MARK]):
        done = user.run("fetch", "org/small", "-v", *words)
        assert done.status in (2, 6)
        assert MARK not in done.out + done.err


def test_the_secret_of_a_running_aria2c_is_not_shown(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    hub.fault("/revision/", delay=1)
    run = user.start("fetch", "org/small", "--rpc", "http://127.0.0.1:9/jsonrpc", "--rpc-secret", MARK)
    wait_until(lambda: b"*" * len(MARK) in _readable(run.pid, "cmdline"))
    assert MARK.encode() not in _readable(run.pid, "cmdline")
    run.communicate(timeout=30)
    assert run.returncode == 0


# --- start-up -----------------------------------------------------------------------------------------------------

IMPORTED = """
import json, runpy, sys
sys.argv = ["gpuaria", *{words!r}]
sys.setprofile(lambda *what: None)  # for whose sake the interpreter comes to its end
try:
    runpy.run_module("gpuaria", run_name="__main__")
except SystemExit:
    pass
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def _imported(user: User, *words: str) -> set[str]:
    out = user.command(sys.executable, "-c", IMPORTED.format(words=list(words))).ok().out
    names: list[Any] = json.loads(out.splitlines()[-1])
    return {str(name) for name in names}


def test_version_and_help_import_nothing_slow(user: User) -> None:
    heavy = {"pycurl", "httpx2", "aria2p", "rich", "yaml", "requests", "pydantic", "sqlite3", "dns", "icmplib"}
    assert not _imported(user, "--version") & (heavy | {"typer", "click"})
    assert not _imported(user, "--help") & heavy
    assert not _imported(user, "fetch", "--help") & (heavy - {"pydantic"})  # Typer 0.29 parses options with it


def test_a_warm_run_imports_neither_aria2p_nor_progress_bars(user: User, serve: Serve, small: Repo) -> None:
    serve(small)
    user.quick("fetch", "org/small").ok()
    unused = {"aria2p", "requests", "rich", "yaml", "loguru", "dns", "icmplib"}
    assert not _imported(user, "fetch", "org/small") & unused
    assert not _imported(user, "fetch", "org/small", "--offline") & (unused | {"pycurl"})
    assert not _imported(user, "verify", "org/small") & (unused | {"pycurl"})
    assert not _imported(user, "config") & (unused | {"pycurl", "sqlite3"})


def test_a_warm_run_does_not_import_xml(user: User) -> None:
    assert "defusedxml" not in _imported(user, "verify", "org/small")


def test_the_console_script_works_the_same(user: User) -> None:
    script = Path(sys.executable).with_name("gpuaria")
    if not script.exists():
        pytest.skip("gpuaria is not installed beside this interpreter")
    assert user.command(script, "--version").ok().out == user.run("--version").ok().out
    assert user.command(script, "fly").status == 2


def test_the_small_fixture_has_the_stated_size(small: Repo) -> None:
    assert expected(small) == SMALL
