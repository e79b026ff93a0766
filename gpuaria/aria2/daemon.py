"""A private aria2c for one run, or a running one that is only visited."""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from gpuaria.aria2 import private_folder, sockets
from gpuaria.aria2.binary import Binary, environment
from gpuaria.aria2.options import DAEMON
from gpuaria.aria2.rpc import Rpc
from gpuaria.errors import Aria2Error

START_TRIES = 5
START_SECONDS = 15.0


class Daemon:
    """An aria2c and its RPC. `own` tells whether we started it and so may stop it."""

    def __init__(self, rpc: Rpc, process: subprocess.Popen[bytes] | None, folder: private_folder.Folder | None) -> None:
        self.rpc = rpc
        self._process = process
        self._folder = folder

    @property
    def owned(self) -> bool:
        """Whether it is ours to stop."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process that we started, 0 for one that we only visit."""
        return self._process.pid if self._process else 0

    def alive(self) -> bool:
        """Whether the process that we started still runs; an attached one is judged by its answers only."""
        return self._process is None or self._process.poll() is None

    def kill(self) -> None:
        """End our own daemon at once: for when it has nothing to save (1.36 takes a second to end in order)."""
        if self._process is not None:
            self._process.kill()

    def stop(self, patience: float = 1.5) -> None:
        """End our own daemon: TERM, which saves control files, then KILL after `patience` seconds."""
        self.rpc.close()
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()


def start(binary: Binary, ca_certificate: str, hidden: Collection[str] = ()) -> Daemon:
    """Start an aria2c that ends when this process does, and does not see the environment variables `hidden`.

    Another process may take the port first, so try a few.
    """
    private_folder.remove_abandoned()
    said = ""
    for _ in range(START_TRIES):
        held = private_folder.create()
        folder = held.path
        port, secret = _free_port(), secrets.token_urlsafe(24)
        conf = folder / "aria2.conf"
        _write_conf(conf, port, secret, ca_certificate)
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [binary.path, f"--conf-path={conf}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment(hidden),
                start_new_session=True,  # Ctrl-C on the terminal reaches us, and we end it in order
            )
        held.record_pid(process.pid)
        rpc = Rpc(f"http://127.0.0.1:{port}/jsonrpc", secret, timeout=10.0)
        daemon = Daemon(rpc, process, held)
        try:
            _wait_until_up(daemon, port)
        except Aria2Error:
            said = (folder / "output").read_text(errors="replace").strip()
            daemon.stop()
            continue
        except BaseException:
            daemon.stop()
            raise
        conf.unlink()  # it was read; the secret need not lie there any longer
        return daemon
    line = said.splitlines()[-1] if said else "it says nothing"
    raise Aria2Error(f"{binary.path} does not start: {line}", "Run it by hand with --enable-rpc to see why.")


def attach(url: str, secret: str) -> Daemon:
    """Use an aria2c that already runs. Raises Aria2Error if it does not answer or refuses the secret."""
    rpc = Rpc(url, secret)
    rpc.version()
    return Daemon(rpc, None, None)


def _wait_until_up(daemon: Daemon, port: int) -> None:
    """Wait for its answer. Raises Aria2Error if it ended, or if another process has the port.

    aria2c is content with [::1] when 127.0.0.1 is taken: the secret must not be sent to whoever has that.
    """
    deadline = time.monotonic() + START_SECONDS
    while daemon.alive() and time.monotonic() < deadline:
        places = sockets.listening(daemon.pid)
        if ("127.0.0.1", port) in places or not Path("/proc/self/fd").exists():
            daemon.rpc.version()
            return
        if places and time.monotonic() > deadline - START_SECONDS + 1:
            raise Aria2Error(f"port {port} is taken")
        time.sleep(0.01)
    raise Aria2Error("aria2c ended" if not daemon.alive() else "aria2c does not open its port")


def _write_conf(conf: Path, port: int, secret: str, ca_certificate: str) -> None:
    settings = {name: value for name, (value, _) in DAEMON.items()} | {
        "rpc-listen-port": str(port),
        "rpc-secret": secret,
        "stop-with-process": str(os.getpid()),
        "ca-certificate": ca_certificate,
    }
    descriptor = os.open(conf, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in settings.items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
