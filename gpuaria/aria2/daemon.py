"""Start a private aria2c, or attach to one that already runs."""

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
    """A running aria2c and its RPC client. gpuaria stops only a daemon that it started (`owned`)."""

    def __init__(
        self, rpc: Rpc, process: subprocess.Popen[bytes] | None, folder: private_folder.PrivateFolder | None
    ) -> None:
        self.rpc = rpc
        self._process = process
        self._folder = folder

    @property
    def owned(self) -> bool:
        """True if gpuaria started this daemon, and may therefore stop it."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id of a daemon that gpuaria started; 0 for an attached one."""
        return self._process.pid if self._process else 0

    def alive(self) -> bool:
        """True if the started process still runs; always true for an attached daemon, whose process is unknown."""
        return self._process is None or self._process.poll() is None

    def kill(self) -> None:
        """Kill an owned daemon that has nothing to save: aria2 1.36 takes a second to shut down cleanly."""
        if self._process is not None:
            self._process.kill()

    def stop(self, timeout: float = 1.5) -> None:
        """Stop an owned daemon: SIGTERM, so that it saves control files; SIGKILL after `timeout` seconds."""
        self.rpc.close()
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()


def start(binary: Binary, ca_certificate: str, hidden: Collection[str] = ()) -> Daemon:
    """Start an aria2c that exits with this process; the environment variables `hidden` are not passed to it.

    Retries on another port if another process takes the chosen one first. Raises Aria2Error.
    """
    private_folder.remove_abandoned()
    printed = ""
    for _ in range(START_TRIES):
        private = private_folder.create()
        folder = private.path
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
                start_new_session=True,  # so that Ctrl-C reaches gpuaria only, which shuts aria2c down cleanly
            )
        private.record_pid(process.pid)
        rpc = Rpc(f"http://127.0.0.1:{port}/jsonrpc", secret, timeout=10.0)
        daemon = Daemon(rpc, process, private)
        try:
            _wait_until_up(daemon, port)
        except Aria2Error:
            printed = (folder / "output").read_text(errors="replace").strip()
            daemon.stop()
            continue
        except BaseException:
            daemon.stop()
            raise
        conf.unlink()  # aria2c has read it, and it holds the secret
        return daemon
    line = printed.splitlines()[-1] if printed else "no output"
    raise Aria2Error(f"{binary.path} does not start: {line}", "Run it with --enable-rpc in a terminal to see why.")


def attach(url: str, secret: str) -> Daemon:
    """Connect to a running aria2c. Raises Aria2Error if it does not respond or refuses the secret."""
    rpc = Rpc(url, secret)
    rpc.version()
    return Daemon(rpc, None, None)


def _wait_until_up(daemon: Daemon, port: int) -> None:
    """Wait until the daemon responds. Raises Aria2Error if it exits, or if another process holds the port.

    If 127.0.0.1 is taken, aria2c listens on [::1] alone. The secret must not be sent to the process at 127.0.0.1.
    """
    deadline = time.monotonic() + START_SECONDS
    while daemon.alive() and time.monotonic() < deadline:
        addresses = sockets.listening(daemon.pid)
        if ("127.0.0.1", port) in addresses or not Path("/proc/self/fd").exists():
            daemon.rpc.version()
            return
        if addresses and time.monotonic() > deadline - START_SECONDS + 1:
            raise Aria2Error(f"port {port} is taken")
        time.sleep(0.01)
    raise Aria2Error("aria2c exited" if not daemon.alive() else "aria2c did not open its RPC port")


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
