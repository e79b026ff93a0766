"""Runs of `gpuaria doctor`, and servers that answer it in their own way."""

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
class Seen:
    """What a run of doctor printed as JSON."""

    status: int
    text: str
    findings: list[dict[str, Any]]

    def of(self, topic: str) -> list[dict[str, Any]]:
        """The findings on one topic."""
        return [finding for finding in self.findings if finding["topic"] == topic]

    def has(self, topic: str, state: str, *words: str, fix: str = "") -> None:
        """Check that one finding on `topic` has that state, these words, and a fix with that in it."""
        rows = [row for row in self.of(topic) if row["state"] == state]
        wanted = [row for row in rows if all(word in row["text"] for word in words) and fix in row["fix"]]
        assert wanted, f"{topic} {state} {words} {fix!r} is not in\n{self.text}"
        assert state == "ok" or wanted[0]["fix"]


def run(user: User, *words: str, as_json: bool = False, trace: bool = False, **env: str) -> tuple[int, str]:
    """The command inside this process, with the environment and the home of `user`."""
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


def see(user: User, *words: str, trace: bool = False, **env: str) -> Seen:
    """The same, read back from its JSON."""
    status, text = run(user, *words, as_json=True, trace=trace, **env)
    assert text.count("\n") == 1
    report = json.loads(text)
    assert report["event"] == "report"
    assert report["exit_code"] == status
    for row in report["findings"]:
        assert row["state"] == "ok" or row["fix"], row
    return Seen(status, text, report["findings"])


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """An HTTP server that answers every GET and HEAD by `answer`."""

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


def page(handler: BaseHTTPRequestHandler) -> None:
    """A captive portal."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    handler.wfile.write(b"<html>Welcome to the hotel</html>")


def nobody(handler: BaseHTTPRequestHandler, date: float | None = None) -> None:
    """whoami without a token, at a hub whose clock says `date` (Unix seconds)."""
    handler.send_response_only(401)
    handler.send_header("Date", email.utils.formatdate(time.time() if date is None else date, usegmt=True))
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.wfile.write(b'{"error": "Invalid username or password."}')
