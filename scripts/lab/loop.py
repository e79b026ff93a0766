"""Servers and client on the loopback device, with the interface of Net."""

import subprocess
from collections.abc import Iterable, Sequence

from lab.net import unavailable_reason
from lab.spaces import Counter, inside, kill_all


class Loop:
    """A loopback device in a new namespace if permitted, else this machine's; host i is 127.0.0.(2+i)."""

    def __init__(self, hosts: Iterable[str], prefix: str = "gl") -> None:
        self.hosts = list(hosts)
        self.ip = {name: f"127.0.0.{2 + i}" for i, name in enumerate(self.hosts)}
        self._space = "" if unavailable_reason() else f"{prefix}-loop"

    def __enter__(self) -> "Loop":
        if self._space:
            subprocess.run(["ip", "netns", "add", self._space], check=True)
            subprocess.run(["ip", "-n", self._space, "link", "set", "lo", "up"], check=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._space:
            kill_all(self._space)
            subprocess.run(["ip", "netns", "del", self._space], check=False)

    def space(self, name: str) -> str:
        """Return the namespace of a host; empty for the default namespace."""
        return self._space

    def argv(self, host: str, words: Sequence[object]) -> list[str]:
        """Return the command line that runs `words` on a host."""
        prefix = ["ip", "netns", "exec", self.space(host)] if self._space else []
        return [*prefix, *map(str, words)]

    def counters(self) -> dict[str, Counter]:
        """Return one counter of the bytes that all hosts send: they share one device."""
        with inside(self._space):
            return {"loopback": Counter("", "lo")}
