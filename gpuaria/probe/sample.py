"""A small ranged read of a real file: does it answer, how soon, how fast, and does more than one connection help?

The read grows piece by piece on one connection, so that a slow mirror is asked for little and a fast one leaves slow
start behind (RFC 5681 3.1). One connection alone says little about 16: a mirror that waits for round trips grows with
connections, one that is capped does not, so the read is repeated with several at once while there is time.
"""

import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from gpuaria.errors import GpuariaError, Interrupted, NetworkError
from gpuaria.probe.deadline import Deadline, together
from gpuaria.probe.findings import NO_TIME, BytesFinding, Throughput
from gpuaria.probe.tcp import reason
from gpuaria.probe.wire import Carrier, Head

PIECE = 256 << 10  # bytes of the first request; each further one asks for four times as many
CEILING = 4 << 20  # bytes of one connection, and half of what several read together
SECONDS = 1.0  # after the first byte
MAX_REDIRECTS = 4
_STALL = 0.5  # the share of its time that a read may spend waiting for nothing at its end
_REDIRECTS = frozenset([301, 302, 303, 307, 308])


@dataclass(frozen=True, slots=True)
class Limits:
    """When a read ends: after `seconds` from its first byte or after `ceiling` bytes, whichever comes first."""

    seconds: float = SECONDS
    ceiling: int = CEILING
    piece: int = PIECE


class _Refused(Exception):
    """An answer that carries no bytes of the file; what is known so far."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.retry_after = problem, retry_after


@dataclass(slots=True)
class _Read:
    """What one connection has read; moments in the clock's seconds."""

    first_sent: float = 0.0
    first: float | None = None
    last: float = 0.0
    ended: float = 0.0  # `last`, or when waiting for more was given up
    bytes: int = 0
    opening: int = 0  # bytes that came with the first read: they say nothing about a rate
    peak: float | None = None
    status: int | None = None
    ranges: bool | None = None
    size: int | None = None


def sample(
    url: str,
    carrier: Carrier,
    deadline: Deadline,
    *,
    size: int | None = None,
    connections: Sequence[int] = (1, 4),
    limits: Limits | None = None,
) -> BytesFinding:
    """Read from the middle of the file at `url`; `size` is what the manifest declares, None if nobody did.

    The first of `connections` has to be 1; the further ones are tried while a third of the time is left. Never raises
    for the network. Redirects are followed, not out of TLS.
    """
    limits = limits or Limits()
    finding = BytesFinding("not measured", problem=NO_TIME)
    if size == 0:
        return replace(finding, problem="the file is empty")
    whole, done = deadline.left(), _Read()
    try:
        for _ in range(MAX_REDIRECTS):
            finding = replace(finding, final_host=_place(url))
            if deadline.over:
                return finding
            target = _stream(carrier, url, size, 0, deadline, limits, done)
            if not target:
                break
            check_redirect(url, target)
            url = target
        else:
            raise _Refused("redirects in a circle")
    except Interrupted:
        raise
    except _Refused as refused:
        return _finding(done, carrier, finding, refused.problem, refused.retry_after)
    except (GpuariaError, OSError, ValueError) as error:
        problem = reason(error) if not isinstance(error, GpuariaError) else error.message
        return _finding(done, carrier, finding, problem)
    finally:
        carrier.close()
    found = _finding(done, carrier, finding, _stalled(done, deadline, limits))
    for count in connections[1:]:
        if found.state != "measured" or not done.ranges or deadline.left() < whole / 3:
            break
        more = _several(count, url, carrier, size, deadline, limits)
        if more is None:
            break
        found = replace(found, rates=(*found.rates, more))
    return found


def check_redirect(url: str, target: str) -> None:
    """Raise NetworkError for a redirect to another scheme than http(s), or out of TLS."""
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise NetworkError(f"redirects to {scheme}://{urlsplit(target).hostname}, out of the encrypted connection")


def _place(url: str) -> str:
    parts = urlsplit(url)
    own = {"http": 80, "https": 443}.get(parts.scheme)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port and parts.port != own else "")


def _stream(
    carrier: Carrier, url: str, size: int | None, lane: int, deadline: Deadline, limits: Limits, done: _Read
) -> str:
    """Read pieces until time or bytes are used up; gives the target of a redirect, or an empty text."""
    carrier.prepare(url)
    at = _start(size, lane, limits)
    done.first_sent, piece = deadline.clock(), limits.piece
    while done.bytes < limits.ceiling:
        end = at + min(piece, limits.ceiling - done.bytes)
        end = min(end, size) if size is not None else end
        if end <= at or (done.first is not None and _left(done, deadline, limits) <= 0):
            break
        headers = {"range": f"bytes={at}-{end - 1}", "accept-encoding": "identity"}
        head, body = carrier.get(url, headers, lambda: _left(done, deadline, limits))
        done.status = head[0]
        if head[0] in _REDIRECTS and "location" in head[1]:
            carrier.close()
            return urljoin(url, head[1]["location"])
        _check(head, at, size, done)
        before = done.bytes
        if not _piece(body, deadline, limits, done) or not done.ranges:
            break
        at, piece = at + done.bytes - before, piece * 4
    return ""


def _start(size: int | None, lane: int, limits: Limits) -> int:
    """Where to begin: in the middle, each connection in a part of its own; at 0 where the file is small or unknown."""
    if size is None or size < 2 * limits.piece:
        return 0
    start = (size // 2 + lane * limits.ceiling) % size
    return start if start + limits.piece <= size else size // 2


def _left(done: _Read, deadline: Deadline, limits: Limits) -> float:
    if done.first is None:
        return deadline.left()
    return min(deadline.left(), done.first + limits.seconds - deadline.clock())


def _piece(body: Iterator[bytes], deadline: Deadline, limits: Limits, done: _Read) -> bool:
    """Read one answer's body; False when the time ran out in it. Raises TimeoutError before any byte."""
    first, opening, total = 0.0, 0, 0
    try:
        for chunk in body:
            now = deadline.clock()
            if not total:
                first, opening = now, len(chunk)
            if done.first is None:
                done.first, done.opening = now, len(chunk)
            total, done.bytes = total + len(chunk), done.bytes + len(chunk)
            done.last = done.ended = now
            if done.bytes >= limits.ceiling or _left(done, deadline, limits) <= 0:
                break
    except TimeoutError:
        if done.first is None:
            raise
        done.ended = deadline.clock()
        return False
    finally:
        if total - opening >= min(limits.piece // 2, PIECE // 2) and done.ended > first:
            done.peak = (total - opening) / (done.ended - first)
    return True


def _check(head: Head, at: int, size: int | None, done: _Read) -> None:
    """Raise _Refused for an answer that is not the wanted part of the file."""
    status, headers = head
    html = headers.get("content-type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
    spoken = re.fullmatch(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", headers.get("content-range", "").strip())
    if spoken and spoken[2] != "*":
        done.size = int(spoken[2])
    elif status == 200 and re.fullmatch(r"\d{1,18}", headers.get("content-length", "")):
        done.size = int(headers["content-length"])
    other = size is not None and done.size is not None and done.size != size
    if status in (200, 206) and html and (other or size is None or done.size is None):
        raise _Refused(f"answers {status} with a web page where a file was due: a captive portal, or no mirror")
    if status in (200, 206, 416) and other:
        raise _Refused(f"declares {done.size:,} bytes for the file, not {size:,}")
    if status not in (200, 206):
        asked = retry_after(headers, time.time())
        wait = f" and asks to wait {asked:.0f} s" if asked is not None else ""
        raise _Refused(f"answers {status}{wait}", asked)
    if status == 206 and (spoken is None or spoken[1] is None or int(spoken[1]) != at):
        raise _Refused("sends another range than was asked for")
    done.ranges = status == 206


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an answer asks us to wait (RFC 9110 10.2.3: seconds or a date), None if it does not."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now) if text else None
    except (ValueError, OverflowError, TypeError):
        return None


def _rate(total: int, opening: int, seconds: float, since_sent: float) -> float | None:
    """Bytes per second after the first bytes; where all came at once, the whole way counts: too low, never too high."""
    if total - opening >= PIECE // 4 and seconds > 0:
        return (total - opening) / seconds
    return total / since_sent if since_sent > 0 else None


def _stalled(done: _Read, deadline: Deadline, limits: Limits) -> str:
    """Why a read that ran into its end is none to count on; empty where bytes were coming until then."""
    if done.first is None:
        return "sends no byte"
    silent = deadline.clock() - done.last
    allowed = _STALL * limits.seconds
    return f"stalled after {done.bytes:,} bytes" if silent >= allowed else ""


def _finding(
    done: _Read, carrier: Carrier, so_far: BytesFinding, problem: str, wait: float | None = None
) -> BytesFinding:
    found = replace(
        so_far,
        state="failed" if problem else "measured",
        problem=problem,
        peer=carrier.peer,
        connect=carrier.connect,
        handshake=carrier.handshake,
        status=done.status,
        ranges=done.ranges,
        size=done.size,
        bytes=done.bytes,
        retry_after=wait,
    )
    if done.first is None:
        return found
    seconds = done.ended - done.first
    rate = _rate(done.bytes, done.opening, seconds, done.ended - done.first_sent)
    rates = (Throughput(1, done.bytes, seconds, rate),) if rate is not None else ()
    first = done.first - done.first_sent
    return replace(found, first_byte=first, seconds=seconds, rate=rate, peak=done.peak or rate, rates=rates)


def _several(
    count: int, url: str, carrier: Carrier, size: int | None, deadline: Deadline, limits: Limits
) -> Throughput | None:
    """The same with `count` connections at once, from the first byte of any to the last of all; None if one fails."""
    share = replace(limits, ceiling=max(limits.piece, 2 * limits.ceiling // count))
    reads = [_Read() for _ in range(count)]

    def lane(number: int) -> Callable[[], bool]:
        def read() -> bool:
            mine = carrier.another()
            try:
                return _stream(mine, url, size, number + 1, deadline, share, reads[number]) == ""
            except Interrupted:
                raise
            except (_Refused, GpuariaError, OSError, ValueError):
                return False
            finally:
                mine.close()

        return read

    fine = together([lane(number) for number in range(count)], deadline)
    begun = [read.first for read in reads if read.first is not None]
    if not all(fine) or len(begun) < count:
        return None
    total = sum(read.bytes for read in reads)
    seconds = max(read.ended for read in reads) - min(begun)
    rate = _rate(total, sum(r.opening for r in reads), seconds, deadline.clock() - min(r.first_sent for r in reads))
    return Throughput(count, total, seconds, rate) if rate is not None else None
