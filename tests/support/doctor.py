"""Runs of `gpuaria doctor`, and HTTP servers with scripted responses."""

from __future__ import annotations

import email.utils
import io
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import typer

from gpuaria.cli import doctor
from gpuaria.cli.dispatch import parser
from tests.support.user import User

HOST = "hub.example-models.com"
TOKEN = "hf_MARKERmarkerMARKER"


@dataclass(frozen=True)
class DoctorRun:
    """The JSON output of a run of doctor."""

    status: int
    text: str
    findings: list[dict[str, Any]]

    def of(self, topic: str) -> list[dict[str, Any]]:
        """Return the findings on one topic."""
        return [finding for finding in self.findings if finding["topic"] == topic]

    def has(self, topic: str, state: str, *words: str, fix: str = "") -> None:
        """Check that a finding on `topic` has this state, these words, and `fix` in its fix."""
        rows = [row for row in self.of(topic) if row["state"] == state]
        wanted = [row for row in rows if all(word in row["text"] for word in words) and fix in row["fix"]]
        assert wanted, f"{topic} {state} {words} {fix!r} is not in\n{self.text}"
        assert state == "ok" or wanted[0]["fix"]


def run(user: User, *words: str, as_json: bool = False, trace: bool = False, **env: str) -> tuple[int, str]:
    """Run the command in this process, with the environment and the home folder of `user`."""
    before, folder, out = dict(os.environ), Path.cwd(), io.StringIO()
    context = typer.Context(parser(["doctor"]), obj=threading.Event())
    try:
        os.environ.clear()
        os.environ.update(user.environ(**{"GPUARIA_RESOLVERS": "system", **env}))
        os.chdir(user.home)
        with redirect_stdout(out):
            status = doctor.doctor(context, list(words), trace=trace, as_json=as_json)
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
    return status, out.getvalue()


def run_json(user: User, *words: str, trace: bool = False, **env: str) -> DoctorRun:
    """Run the command with --json and parse its output."""
    status, text = run(user, *words, as_json=True, trace=trace, **env)
    assert text.count("\n") == 1
    report = json.loads(text)
    assert report["event"] == "report"
    assert report["exit_code"] == status
    for row in report["findings"]:
        assert row["state"] == "ok" or row["fix"], row
    return DoctorRun(status, text, report["findings"])


@contextmanager
def http_server(
    answer: Callable[[BaseHTTPRequestHandler], None], context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve HTTP; `answer` handles every GET and HEAD."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def captive_portal(handler: BaseHTTPRequestHandler) -> None:
    """Respond as a captive portal."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    handler.wfile.write(b"<html>Welcome to the hotel</html>")


def invalid_token(handler: BaseHTTPRequestHandler, date: float | None = None) -> None:
    """Respond to whoami as a hub that rejects the token and whose clock is at `date` (Unix seconds)."""
    handler.send_response_only(401)
    handler.send_header("Date", email.utils.formatdate(time.time() if date is None else date, usegmt=True))
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.wfile.write(b'{"error": "Invalid username or password."}')
