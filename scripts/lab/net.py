"""Network namespaces joined by a link with delay, loss and rates.

    client (10.60.0.2) == wan: delay and loss per host, the client link's rate == core == hosts (10.50.0.11 ...)

All names start with `prefix`. The end of the `with` block removes everything.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.spaces import Counter, kill_all

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Host:
    """A server's link: `rate` in tc syntax ("160mbit"), one-way `delay` in ms, `loss` in percent each way."""

    rate: str = ""
    delay: float = 0.0
    loss: float = 0.0


def unavailable_reason() -> str:
    """Return why this machine cannot run the lab; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc", "gcc") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    probe = subprocess.run(["ip", "netns", "add", "gpuaria-probe"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", "gpuaria-probe"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else f"namespaces are not permitted: {probe.stderr.strip()}"


class Net:
    """The network, for the duration of a `with` block, which also ends the processes started in it."""

    def __init__(self, hosts: Mapping[str, Host], client_rate: str = "", prefix: str = "gl") -> None:
        self.hosts, self._client_rate, self._prefix = dict(hosts), client_rate, prefix
        self.ip = {name: f"10.50.0.{11 + i}" for i, name in enumerate(hosts)}
        self._processes: list[subprocess.Popen[Any]] = []
        self._table: Path | None = None

    def space(self, name: str) -> str:
        """Return the namespace of a host, of `client` or of `core`."""
        return f"{self._prefix}-{name}"

    def __enter__(self) -> "Net":
        try:
            self._spaces()
            self._wan()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _spaces(self) -> None:
        core = self.space("core")
        for space in (self.space("client"), core):
            _run("ip", "netns", "add", space)
            _run("ip", "-n", space, "link", "set", "lo", "up")
        _run("ip", "netns", "exec", core, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _run("ip", "-n", core, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", core, "addr", "add", "10.50.0.1/24", "dev", "br0")
        _run("ip", "-n", core, "link", "set", "br0", "up")
        for i, (name, host) in enumerate(self.hosts.items()):
            space, port = self.space(name), f"{self._prefix}v{i}"
            _run("ip", "netns", "add", space)
            _run("ip", "-n", space, "link", "set", "lo", "up")
            _run(*f"ip link add {port} netns {core} type veth peer name eth0 netns {space}".split())
            _run("ip", "-n", core, "link", "set", port, "master", "br0", "up")
            _run("ip", "-n", space, "addr", "add", f"{self.ip[name]}/24", "dev", "eth0")
            _run("ip", "-n", space, "link", "set", "eth0", "up")
            _run(*f"ip -n {space} route add default via 10.50.0.1".split())
            if host.rate:
                self.set_rate(name, host.rate)

    def _wan(self) -> None:
        client, core = self.space("client"), self.space("core")
        table = tempfile.NamedTemporaryFile("w", suffix=".wan", delete=False)  # noqa: SIM115 wan reads it once
        self._table = Path(table.name)
        with table:
            table.writelines(f"{self.ip[name]} {h.delay} {h.loss}\n" for name, h in self.hosts.items())
            table.write("default 0 0\n")
        wan = subprocess.Popen(
            [_built_wan(), client, "tun0", core, "tun1", table.name],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must not stop the forwarder before the rest
        )
        self._processes.append(wan)
        if wan.stdout is None or wan.stdout.readline().strip() != "ready":
            raise RuntimeError("the wan forwarder does not start")
        for space, device, address in ((client, "tun0", "10.60.0.2"), (core, "tun1", "10.60.0.1")):
            _run("ip", "-n", space, "addr", "add", f"{address}/30", "dev", device)
            _run(*f"ip -n {space} link set {device} up mtu 1500 txqueuelen 5000".split())
        _run(*f"ip -n {client} route add default via 10.60.0.1".split())
        if self._client_rate:
            _shape(core, "tun1", self._client_rate)

    def argv(self, host: str, words: Sequence[object]) -> list[str]:
        """Return the command line that runs `words` on a host."""
        return ["ip", "netns", "exec", self.space(host), *map(str, words)]

    def counters(self) -> dict[str, Counter]:
        """Return counters of the bytes that each host sends, and that the client receives."""
        sent = {name: Counter(self.space(name), "eth0") for name in self.hosts}
        return {"client": Counter(self.space("client"), "tun0", received=True), **sent}

    def popen(self, host: str, argv: Sequence[object], **how: Any) -> subprocess.Popen[Any]:
        """Start a program on a host; it is stopped with the network."""
        process = subprocess.Popen(self.argv(host, argv), **how)
        self._processes.append(process)
        return process

    def run(self, host: str, argv: Sequence[object], **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a program on a host and capture its output as text."""
        how = {"text": True, "capture_output": True, "check": False, **how}
        return subprocess.run(self.argv(host, argv), **how)

    def disconnect(self, host: str) -> None:
        """Drop all packets of a host."""
        self._link(host, "down")

    def reconnect(self, host: str) -> None:
        """Deliver a host's packets again."""
        self._link(host, "up")

    def set_rate(self, host: str, rate: str) -> None:
        """Change the sending rate of a host."""
        _shape(self.space(host), "eth0", rate)

    def _link(self, host: str, state: str) -> None:
        port = f"{self._prefix}v{list(self.hosts).index(host)}"
        _run("ip", "-n", self.space("core"), "link", "set", port, state)

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for name in ("client", "core", *self.hosts):
            kill_all(self.space(name))
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True, check=False)
        if self._table is not None:
            self._table.unlink(missing_ok=True)


def _built_wan() -> str:
    """Return the path of the forwarder, compiled once per version of its source."""
    source = HERE / "wan.c"
    built = Path(tempfile.gettempdir()) / f"gpuaria-wan-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not built.exists():
        fresh = built.with_suffix(f".{os.getpid()}")
        _run("gcc", "-O2", "-o", str(fresh), str(source))
        fresh.rename(built)
    return str(built)


def _shape(space: str, device: str, rate: str) -> None:
    """Limit a device by a token bucket. Offloads are turned off: with them, 64 kB segments count as one packet."""
    if shutil.which("ethtool"):
        off = ["ip", "netns", "exec", space, "ethtool", "-K", device, "tso", "off", "gso", "off"]
        subprocess.run(off, capture_output=True, check=False)
    _run(*f"tc -n {space} qdisc replace dev {device} root tbf rate {rate} burst 256kb latency 100ms".split())


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
