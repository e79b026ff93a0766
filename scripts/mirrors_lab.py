"""Measure gpuaria against plain aria2 on three unequal mirrors, and the cost of a mirror that fails mid-file.

python scripts/mirrors_lab.py [--megabytes N] [--runs N] [--failures | --end]
(needs root, iproute2, gcc, nginx, aria2c)
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import LINK, PAYLOAD, UNEQUAL, Net, unavailable_reason
from lab.serve import REPO

SCRIPTS = Path(__file__).parent


@dataclass
class Lab:
    """The network with a hub on each mirror. The first mirror is the origin."""

    net: Net
    folder: Path
    file: Path
    urls: dict[str, str]

    def fetch(self, mirrors: Sequence[str], act: Callable[[], None] | None = None) -> tuple[float, dict[str, Any]]:
        """Run `gpuaria fetch` into an empty folder, calling `act` after 5 s; return the seconds and the report."""
        shutil.rmtree(self.folder / "to", ignore_errors=True)
        named = [word for name in mirrors for word in ("--mirror", self.urls[name])]
        words = [sys.executable, "-m", "gpuaria", "fetch", REPO, "--to", self.folder / "to", "--json", *named]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "HF_ENDPOINT": self.urls["m1"]}
        began = time.monotonic()
        process = self.net.popen("client", words, env=env, stdout=subprocess.PIPE, text=True)
        if act is not None:
            time.sleep(5)
            act()
        lines = process.communicate()[0].strip().splitlines()
        return time.monotonic() - began, json.loads(lines[-1])

    def aria2(self, *options: str) -> float:
        """Run plain aria2c on the final URLs of all mirrors, without verification; return the seconds."""
        out = self.folder / "out.bin"
        for path in (out, self.folder / "out.bin.aria2"):
            path.unlink(missing_ok=True)
        words = ["aria2c", "-q", "--file-allocation=none", "-d", self.folder, "-o", out.name, "-x16", "-s48", *options]
        began = time.monotonic()
        done = self.net.run("client", [*words, *(self.final(name) for name in self.urls)])
        if done.returncode:
            raise RuntimeError(f"aria2c ended with {done.returncode}: {done.stderr[-200:]}")
        return time.monotonic() - began

    def final(self, name: str) -> str:
        """Return the signed URL of the file at a mirror."""
        head = self.net.run("client", ["curl", "-sI", f"{self.urls[name]}/{REPO}/resolve/main/{self.file.name}"]).stdout
        return next(line.split(": ", 1)[1].strip() for line in head.splitlines() if line.lower().startswith("location"))

    def servers(self, name: str) -> list[int]:
        """Return the process ids of a mirror's nginx."""
        pids = subprocess.run(["ip", "netns", "pids", self.net.space(name)], capture_output=True, text=True, check=True)
        return [int(pid) for pid in pids.stdout.split() if b"nginx" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a mirror's nginx."""
        for pid in self.servers(name):
            os.kill(pid, number)


def main() -> int:
    """Build the lab, run the chosen measurement and print the results."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--megabytes", type=int, default=1500)
    words.add_argument("--runs", type=int, default=5)
    words.add_argument("--failures", action="store_true", help="measure the cost of a failing mirror")
    words.add_argument("--end", action="store_true", help="compare gpuaria's tail with aria2c on 70 MB")
    options = words.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if reason := unavailable_reason():
        print(f"no lab can be built here: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="gpuaria-lab-") as name, Net(UNEQUAL, LINK, prefix="gb") as net:
        lab = _served(net, Path(name), 70 if options.end else options.megabytes)
        print(f"{lab.file.stat().st_size / 1e6:.0f} MB; link {PAYLOAD / 1e6:.0f} MB/s of payload")
        (_compare_tails if options.end else _failures if options.failures else _compare)(lab, options.runs)
    return 0


def _served(net: Net, folder: Path, megabytes: int) -> Lab:
    file = folder / "model.bin"
    block = os.urandom(1_000_000 - 8)
    with file.open("wb") as out:
        for i in range(megabytes):
            out.write(i.to_bytes(8, "big") + block)
    urls = {}
    for name in net.hosts:
        words = [sys.executable, "-m", "lab.serve", net.ip[name], 8000, file]
        env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
        server = net.popen(name, words, stdout=subprocess.PIPE, text=True, env=env)
        assert server.stdout is not None
        urls[name] = server.stdout.readline().strip()
    return Lab(net, folder, file, urls)


def _compare(lab: Lab, runs: int) -> None:
    """Alternate runs of both programs; print medians and the median ratio of each pair."""
    size, times = lab.file.stat().st_size, dict[str, list[float]]()
    for _ in range(runs):
        times.setdefault("gpuaria, verified", []).append(lab.fetch(["m2", "m3"])[0])
        times.setdefault("aria2c -x16 -s48", []).append(lab.aria2())
        times.setdefault("aria2c -x16 -s48 -k1M", []).append(lab.aria2("-k1M"))
    for name, seconds in times.items():
        rate = size / statistics.median(seconds)
        ratio = statistics.median(
            theirs / ours for ours, theirs in zip(times["gpuaria, verified"], seconds, strict=True)
        )
        summary = f"{rate / 1e6:5.1f} MB/s, {100 * rate / PAYLOAD:5.1f} % of the link, gpuaria is {ratio:.2f} x as fast"
        print(f"{name:24s} {statistics.median(seconds):6.2f} s  {summary}   {[round(s, 1) for s in seconds]}")


def _compare_tails(lab: Lab, runs: int) -> None:
    """Compare gpuaria's tail connections with aria2c on the same file."""
    size = str(lab.file.stat().st_size)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])}
    ours, theirs, used = [], [], []
    for _ in range(runs):
        words = [sys.executable, "-m", "lab.tail", size, lab.folder / "end.bin", *map(lab.final, lab.urls)]
        seconds, processor = map(float, lab.net.run("client", words, env=env).stdout.split())
        ours.append(seconds)
        used.append(processor)
        theirs.append(lab.aria2())
        if (lab.folder / "end.bin").read_bytes() != lab.file.read_bytes():
            raise RuntimeError("the bytes are wrong")
    for name, times in (("gpuaria's own connections", ours), ("aria2c -x16 -s48", theirs)):
        print(f"{name:26s} {statistics.median(times):5.2f} s   {[round(s, 2) for s in times]}")
    print(f"gpuaria's own processor time {statistics.median(used):.2f} s")


def _failures(lab: Lab, runs: int) -> None:
    """Measure runs in which a mirror fails after 5 s, against runs without that mirror."""
    size, net = lab.file.stat().st_size, lab.net
    cases: dict[str, tuple[Sequence[str], Callable[[], None] | None, Callable[[], None] | None]] = {
        "all three": (["m2", "m3"], None, None),
        "without m2": (["m3"], None, None),
        "m2 goes dark": (["m2", "m3"], lambda: net.disconnect("m2"), lambda: net.reconnect("m2")),
        "m2 stops sending": (
            ["m2", "m3"],
            lambda: lab.signal("m2", signal.SIGSTOP),
            lambda: lab.signal("m2", signal.SIGCONT),
        ),
        "m2 falls to 1 %": (
            ["m2", "m3"],
            lambda: net.set_rate("m2", "2400kbit"),
            lambda: net.set_rate("m2", "240mbit"),
        ),
    }
    for name, (mirrors, act, undo) in cases.items():
        seconds, shares = [], []
        for _ in range(runs):
            took, report = lab.fetch(mirrors, act)
            seconds.append(took)
            shares.append(report["bytes_fetched"] / size)
            if undo is not None:
                undo()
        rejected = [use["rejected"] for use in report["mirrors"] if use["rejected"]]
        median = f"{statistics.median(seconds):6.2f} s, fetched {statistics.median(shares):.3f} of the file"
        print(f"{name:18s} {median}, status {report['exit_code']}  {rejected}")


if __name__ == "__main__":
    sys.exit(main())
