"""Hubs with scripted or recorded responses."""

import json
from collections.abc import Callable, Mapping
from typing import Self

from gpuaria.http.client import Http
from gpuaria.urls import url_origin
from standin import Seen
from standin.http_server import Handler, Server
from tests.support.checkout import RECORDED

TOKEN = "hf_secret_of_the_tests"
Reply = tuple[int, Mapping[str, str], bytes]


class Token:
    def reveal(self) -> str:
        return TOKEN


class Scripted(Server):
    """A hub that responds with `reply`."""

    def __init__(self, reply: Callable[[Seen], Reply]) -> None:
        super().__init__(_Handler, host="127.0.0.1", port=0, name="scripted")
        self.reply = reply

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def targets(self) -> list[str]:
        return [seen.target for seen in self.journal.snapshot()]


class _Handler(Handler):
    def answer(self) -> None:
        assert isinstance(self.server, Scripted)
        status, headers, body = self.server.reply(self.seen)
        own = [(name, value) for name, value in headers.items() if name != "content-length"]
        self.reply(status, own, body)


class Recorded(Scripted):
    """A hub that replays the responses of a file, in file order if one target has several.

    `{base}` in a body is replaced by the hub's URL.
    """

    def __init__(self, name: str) -> None:
        self._left: dict[tuple[str, str], list[Reply]] = {}
        for exchange in json.loads((RECORDED / name).read_text())["exchanges"]:
            body = exchange["body"]
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            reply = exchange["status"], exchange["headers"], raw
            self._left.setdefault((exchange["method"], exchange["target"]), []).append(reply)
        self.unknown: list[str] = []
        super().__init__(self._replay)

    def _replay(self, seen: Seen) -> Reply:
        replies = self._left.get((seen.method, seen.target))
        if replies is None:
            self.unknown.append(f"{seen.method} {seen.target}")
            return 410, {}, b""
        status, headers, body = replies.pop(0) if len(replies) > 1 else replies[0]
        return status, headers, body.replace(b"{base}", self.url.encode())


def always_true(path: str) -> bool:
    return True


def signed_in(base: str) -> Http:
    return Http(credentials={url_origin(base): Token()})
