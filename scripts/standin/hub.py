"""The stand-in hub: repositories, tokens, rate limits and a byte server behind one local URL."""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypedDict, Unpack, cast

from .bytes_server import ByteServer, EmbeddedBytes
from .faults import Faults, HubFault
from .http_server import Handler, Seen, Server
from .nginx import NginxBytes, find_nginx
from .repo import Entry, Repo
from .routes import Reply, Request, bucket, respond, too_many
from .signing import Signer

ALIASES = {"gpt2-medium": "openai-community/gpt2-medium"}


@dataclass(frozen=True)
class RateLimit:
    """Requests per bucket and window; `window` in seconds."""

    api: int = 500
    resolvers: int = 3000
    window: int = 300
    pages: int = 100


class _Meter:
    """Counts requests per bucket in fixed windows."""

    def __init__(self, rate: RateLimit) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start a new window."""
        self._start = time.monotonic()
        self._used: Counter[str] = Counter()

    def charge(self, name: str) -> tuple[bool, int, list[tuple[str, str]]]:
        """Count a request; return True if it is allowed, the seconds to the next window, and the headers."""
        quota: int = getattr(self.rate, name)
        with self._lock:
            if time.monotonic() - self._start >= self.rate.window:
                self.reset()
            self._used[name] += 1
            left = quota - self._used[name]
            wait = math.ceil(self._start + self.rate.window - time.monotonic())
        headers = [
            ("RateLimit", f'"{name}";r={max(0, left)};t={wait}'),
            ("RateLimit-Policy", f'"fixed window";"{name}";q={quota};w={self.rate.window}'),
        ]
        return left >= 0, wait, headers


class HubOptions(TypedDict, total=False):
    """Keyword arguments of `Hub`, by default `DEFAULTS`. `granted`: the tokens that open gated repos."""

    aliases: Mapping[str, str]
    tokens: Iterable[str]
    granted: Iterable[str]
    page: int
    link_host: str | None
    ttl: float
    rate: RateLimit | None
    server: str
    limit_rate: int
    commit_header: bool
    xet_hash: bool
    name: str
    location_base: str | Hub | None
    host: str
    port: int
    signed_form: str
    signed_age: float
    sealed_cache: bool
    cache_slash: str


DEFAULTS = HubOptions(
    aliases=ALIASES,
    tokens=("hf_good",),
    granted=(),
    page=1000,
    link_host=None,
    ttl=3600,
    rate=None,
    server="auto",
    limit_rate=0,
    commit_header=True,
    xet_hash=False,
    name="hub",
    location_base=None,
    host="127.0.0.1",
    port=0,
    signed_form="cloudfront",
    signed_age=0,
    sealed_cache=False,
    cache_slash="%2F",
)


class Hub:
    """A local Hub, used as a context manager."""

    def __init__(self, repos: Iterable[Repo], **options: Unpack[HubOptions]) -> None:
        o: HubOptions = {**DEFAULTS, **options}
        if unknown := options.keys() - DEFAULTS.keys():
            raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
        if o["server"] not in ("auto", "embedded", "nginx") or o["signed_form"] not in ("cloudfront", "s3"):
            raise ValueError(f"unknown server ({o['server']}) or form of signed URLs ({o['signed_form']})")
        self.repos = {(repo.kind, repo.repo_id): repo for repo in repos}
        self.aliases = dict(o["aliases"])
        self.granted = set(o["granted"])
        self.tokens = set(o["tokens"]) | self.granted
        self.sealed_cache, self.cache_slash = o["sealed_cache"], o["cache_slash"]
        self.page, self.link_host = o["page"], o["link_host"] and o["link_host"].rstrip("/")
        self.commit_header, self.xet_hash, self.name = o["commit_header"], o["xet_hash"], o["name"]
        self.location_base = o["location_base"]
        self.faults: Faults[HubFault] = Faults()
        self._limited, self._meter = o["rate"] is not None, _Meter(o["rate"] or RateLimit())
        self._bytes = (o["server"], o["limit_rate"], Signer(o["ttl"], o["signed_form"], o["signed_age"]))
        self._bind = (o["host"], o["port"])
        self._server: _Server | None = None
        self._cdn: ByteServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start both servers. They accept requests when this returns."""
        host, port = self._bind
        if isinstance(self.location_base, Hub):
            self._cdn = self.location_base.cdn
        else:
            server, limit_rate, signer = self._bytes
            nginx = server == "nginx" or (server == "auto" and find_nginx() is not None)
            self._cdn = (NginxBytes if nginx else EmbeddedBytes)(signer, host=host, limit_rate=limit_rate)
        try:
            self._server = _Server(_Handler, host=host, port=port, name=self.name)
        except OSError:
            self.close()
            raise
        self._server.hub = self
        self._server.start()

    def close(self) -> None:
        """Stop both servers and close their connections. A byte server of another hub keeps running."""
        if self._server:
            self._server.close()
        if self._cdn and not isinstance(self.location_base, Hub):
            self._cdn.close()
        self._server = self._cdn = None

    @property
    def url(self) -> str:
        """The hub's URL without a trailing slash."""
        return self._running.url

    @property
    def cdn(self) -> ByteServer:
        """The byte server."""
        if self._cdn is None:
            raise RuntimeError("the hub is not running")
        return self._cdn

    @property
    def requests(self) -> list[Seen]:
        """The requests to the hub so far, without those to the byte server."""
        return self._running.journal.snapshot()

    @property
    def errors(self) -> list[BaseException]:
        """Exceptions raised by request handlers; each is a bug of the stand-in."""
        return self._running.errors

    def count(self) -> int:
        """Return the number of requests to the hub so far."""
        return len(self._running.journal)

    def reset(self) -> None:
        """Clear the journals of hub and byte server and start a new rate-limit window. Faults stay."""
        self._running.journal.reset()
        self.cdn.reset()
        self._meter.reset()

    def add(self, repo: Repo) -> None:
        """Add a repository, or replace the one with the same name."""
        self.repos[repo.kind, repo.repo_id] = repo

    def fault(
        self,
        target_regex: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        times: int | None = None,
        delay: float = 0,
    ) -> None:
        """Inject a reply for matching targets. Without a status, the normal reply is sent after delay seconds."""
        self.faults.add(HubFault(re.compile(target_regex), status, headers or {}, body, times, delay))

    def heal(self) -> None:
        """Remove all faults of hub and byte server."""
        self.faults.clear()
        self.cdn.heal()

    def find(self, kind: str, name: str) -> Repo | None:
        """Return the repository with that name or alias, ignoring case."""
        exact = self.repos.get((kind, name)) or self.repos.get((kind, self.aliases.get(name, "")))
        if exact:
            return exact
        wanted = (kind, name.lower())
        return next((repo for repo in self.repos.values() if (repo.kind, repo.repo_id.lower()) == wanted), None)

    def token_status(self, headers: Mapping[str, str]) -> str:
        """Return "anonymous", "bad", "valid" or "granted" (also valid) for a request's token."""
        value = headers.get("authorization")
        if value is None:
            return "anonymous"
        token = value.removeprefix("Bearer ").strip()
        if token in self.granted:
            return "granted"
        return "valid" if token in self.tokens else "bad"

    def signed_url(self, repo: Repo, entry: Entry) -> str:
        """Return a new signed URL of an LFS file at the byte server."""
        path, query = self.cdn.address(repo, entry, xet=self.xet_hash)
        base = self.location_base if isinstance(self.location_base, str) else self.cdn.url
        return f"{base.rstrip('/')}{path}?{query}"

    def answer(self, request: Request) -> Reply:
        """Return the reply to a request, after faults and rate limits, with the common headers."""
        within, wait, limits = self._meter.charge(bucket(request.target))
        fault = self.faults.next_matching(lambda fault: fault.target.search(request.target) is not None)
        if fault and fault.delay:
            self._running.stopping.wait(fault.delay)
        if fault and fault.status is not None:
            reply = Reply(fault.status, list(fault.headers.items()), fault.body)
        elif self._limited and not within:
            reply = too_many(wait)
        else:
            reply = respond(self, request)
            reply.headers += fault.headers.items() if fault else []
        if not self.commit_header:
            reply.headers = [pair for pair in reply.headers if pair[0] != "X-Repo-Commit"]
        own = {name.lower() for name, _ in reply.headers}
        common = [*limits, ("X-Request-Id", f"Root=1-{secrets.token_hex(8)}")]
        reply.headers += [pair for pair in common if pair[0].lower() not in own]
        return reply

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise RuntimeError("the hub is not running")
        return self._server


class _Server(Server):
    hub: Hub


class _Handler(Handler):
    def answer(self) -> None:
        if "transfer-encoding" in self.seen.headers:
            self.close_connection = True
            return self.reply(411)
        body = self.rfile.read(int(self.seen.headers.get("content-length") or 0))
        reply = cast(_Server, self.server).hub.answer(Request(self.command, self.path, self.seen.headers, body))
        return self.reply(reply.status, reply.headers, reply.body)
