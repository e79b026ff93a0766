"""One libcurl transfer, shared by the loop that receives and the thread that reads."""

import queue
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pycurl

BUFFER = 1 << 20  # bytes buffered for a slow reader before the transfer pauses
_NEARLY_DONE = 64 * 1024  # bytes left of a body that cost less than a new connection


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed transfer: libcurl's code (libcurl-errors(3)) and text, errno, and whether it was connected."""

    code: int
    text: str
    errno: int = 0
    connected: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of the final response; header names in lower case."""

    status: int
    headers: Mapping[str, str]


Item = ResponseHead | bytes | Failure | None  # None: the end of the body


class CurlTransfer:
    """A libcurl handle and its queue of received items. The reader calls `next_item`, the loop all other methods.

    `stall`: time-out in seconds while nothing arrives; `deadline`: time limit of the transfer, 0 for none.
    """

    now: ClassVar[float] = 0.0  # monotonic seconds, updated once per loop iteration

    def __init__(self, easy: Any, stall: float, deadline: float) -> None:
        self.easy, self._stall, self._deadline = easy, stall, deadline
        self.begun = self.moved = 0.0  # monotonic seconds
        self.paused = self.discarding = False
        self._status, self._fields = 0, list[tuple[str, str]]()
        self._head: ResponseHead | None = None
        self._received = self._consumed = 0  # bytes of the body; the loop writes the first, the reader the second
        self._pending: list[Item] = []
        self.on_news: Callable[[CurlTransfer], None] = _ignore
        self._delivered: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()
        self._unread: deque[Item] = deque()
        self.finished = False
        easy.setopt(pycurl.HEADERFUNCTION, self._on_header)
        easy.setopt(pycurl.WRITEFUNCTION, self._on_body)

    # --- the reader --------------------------------------------------------------------------------------------------

    def next_item(self) -> Item:
        """Wait for and return the head, a chunk of the body, a failure, or None at the end of the body."""
        while not self._unread:
            self._unread.extend(self._delivered.get())
        item = self._unread.popleft()
        if isinstance(item, bytes):
            self._consumed += len(item)
        return item

    @property
    def caught_up(self) -> bool:
        """True if at most half of `BUFFER` is unread."""
        return self._received - self._consumed <= BUFFER // 2

    # --- the loop ----------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """True if the connection was established."""
        return bool(self.easy.getinfo(pycurl.PRETRANSFER_TIME))

    @property
    def nearly_done(self) -> bool:
        """True if receiving the rest of the body costs less than a new connection."""
        length = self._head.headers.get("content-length", "") if self._head else ""
        return length.isdecimal() and len(length) < 10 and int(length) - self._received <= _NEARLY_DONE

    def stalls(self, now: float) -> bool:
        """True if the server has sent nothing for `stall` seconds, or the deadline has passed."""
        if self._deadline and now - self.begun > self._deadline:
            return True
        if self.paused or now - self.moved <= self._stall:
            return False
        if self._head is None:  # libcurl limits the connect phase
            connected = float(self.easy.getinfo(pycurl.PRETRANSFER_TIME))
            return connected > 0 and now - self.begun - connected > self._stall
        return True

    def finish(self, failure: Failure | None) -> None:
        """Queue the end or the failure after the received items, and close the handle."""
        self._pending.append(failure)
        self.finished = True
        self.easy.close()  # the handle holds the token and refers to this object

    def deliver(self) -> None:
        """Pass all pending items to the reader at once."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._delivered.put(pending)

    def _on_header(self, line: bytes) -> None:
        self.moved = CurlTransfer.now
        if self._head is not None:
            return  # a trailer
        if line.startswith(b"HTTP/"):
            parts = line.split(None, 2)
            self._status, self._fields = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0, []
        elif line in (b"\r\n", b"\n"):
            if self._status >= 200:
                self._head = ResponseHead(self._status, _join_fields(self._fields))
                self._enqueue(self._head)
        elif line[:1] in b" \t" and self._fields:  # RFC 9112 5.2
            name, value = self._fields[-1]
            self._fields[-1] = name, f"{value} {_decode_field(line)}"
        else:
            name_, _, value_ = line.partition(b":")
            self._fields.append((_decode_field(name_).lower(), _decode_field(value_)))

    def _on_body(self, chunk: bytes) -> int | None:
        if self.discarding:
            return None
        if self._received - self._consumed > BUFFER:
            self.paused = True
            self.on_news(self)
            return int(pycurl.WRITEFUNC_PAUSE)
        self.moved = CurlTransfer.now
        self._received += len(chunk)
        self._enqueue(chunk)
        return None

    def _enqueue(self, item: Item) -> None:
        if not self._pending:
            self.on_news(self)
        self._pending.append(item)


def _ignore(transfer: CurlTransfer) -> None:
    """Ignore items before the loop owns the transfer."""


def _decode_field(value: bytes) -> str:
    """Decode a header field: ASCII by the standard, UTF-8 or Latin-1 from some servers."""
    value = value.strip()
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _join_fields(fields: list[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in fields:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
