"""One thread that drives all libcurl transfers, and passes response heads, chunks and failures to waiting threads.

libcurl multiplexes requests over one HTTP/2 connection if the server supports it, and keeps connections alive. A
transfer with a slow reader is paused: at most about `BUFFER` bytes are buffered for it.
"""

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pycurl

from gpuaria.http.curl_transfer import CurlTransfer, Failure

CONNECTIONS = 64  # maximum idle connections kept alive
STALL_CHECK = 0.05  # seconds between checks for stalled transfers
_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}
_CLOSED = Failure(pycurl.E_ABORTED_BY_CALLBACK, "the client is closed")


class CurlLoop:
    """Event loop of libcurl, from construction until `close`. Public methods are thread-safe."""

    def __init__(self) -> None:
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, CONNECTIONS)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._inbox: deque[Callable[[], None]] = deque()
        self._due: float | None = None  # monotonic seconds at which libcurl must be called
        self._active: dict[Any, CurlTransfer] = {}
        self._with_news: list[CurlTransfer] = []  # transfers with undelivered items
        self._checked = 0.0
        self._closing = self._ended = False
        self._lock = threading.Lock()  # makes scheduling and the end of the loop exclusive
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def submit(self, transfer: CurlTransfer) -> None:
        """Start a transfer; it fails at once if the loop has ended."""
        if not self._schedule(lambda: self._begin(transfer)):
            transfer.finish(_CLOSED)
            transfer.deliver()

    def resume(self, transfer: CurlTransfer) -> None:
        """Resume a paused transfer whose reader has caught up."""
        self._schedule(lambda: self._continue(transfer))

    def abandon(self, transfer: CurlTransfer) -> None:
        """Drop a transfer's reader. If little of the body is left, receive it so that the connection can be reused."""
        self._schedule(lambda: self._drain_or_end(transfer))

    def close(self) -> None:
        """Abort all transfers, close all connections and join the thread."""
        self._closing = True
        self._schedule(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _schedule(self, command: Callable[[], None]) -> bool:
        """Run a command on the loop; return False if the loop has ended."""
        with self._lock:
            if self._ended:
                return False
            self._inbox.append(command)
            with contextlib.suppress(BlockingIOError):  # the pipe is full: the loop will wake up
                os.write(self._wake_out, b"x")
            return True

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failure = _CLOSED
        try:
            while not self._closing:
                self._run_once()
        except BaseException as error:
            failure = Failure(pycurl.E_FAILED_INIT, f"the thread of the HTTP client ended: {error!r}")
            raise
        finally:
            with self._lock:
                self._ended = True
            while self._inbox:
                self._inbox.popleft()()
            for transfer in list(self._active.values()):
                self._finish(transfer, failure)
            self._multi.close()
            self._selector.close()
            os.close(self._wake_in)
            os.close(self._wake_out)

    def _run_once(self) -> None:
        now = time.monotonic()
        until = [self._due] if self._due is not None else []
        if self._active:
            until.append(now + STALL_CHECK)
        ready = self._selector.select(max(0.0, min(until) - now) if until else None)
        now = CurlTransfer.now = time.monotonic()
        for key, mask in ready:
            if key.fd == self._wake_in:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_in, 4096)
            else:
                flags = (pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0) | (
                    pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
                )
                self._multi.socket_action(key.fd, flags)
        while self._inbox:
            self._inbox.popleft()()
        if self._due is not None and now >= self._due:
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._read_results()
        if now - self._checked >= STALL_CHECK:
            self._checked = now
            self._end_stalled(now)
        with_news, self._with_news = self._with_news, []
        for transfer in with_news:
            transfer.deliver()
            if transfer.paused and transfer.caught_up:  # the reader caught up before the pause was noted
                self._continue(transfer)

    def _note_news(self, transfer: CurlTransfer) -> None:
        self._with_news.append(transfer)

    def _watch(self, what: int, fd: int, multi: object, data: object) -> None:
        """Start or stop watching a socket for libcurl (CURLMOPT_SOCKETFUNCTION)."""
        if what == pycurl.POLL_REMOVE:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(fd)
        elif fd in self._selector.get_map():
            self._selector.modify(fd, _EVENTS[what])
        else:
            self._selector.register(fd, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _read_results(self) -> None:
        while True:
            left, good, bad = self._multi.info_read()
            for easy in good:
                self._finish(self._active[easy], None)
            for easy, code, text in bad:
                transfer = self._active[easy]
                self._finish(transfer, Failure(code, text, easy.getinfo(pycurl.OS_ERRNO), transfer.connected))
            if not left:
                return

    def _end_stalled(self, now: float) -> None:
        for transfer in list(self._active.values()):
            if transfer.stalls(now):
                self._finish(transfer, Failure(pycurl.E_OPERATION_TIMEDOUT, "", connected=True))

    # --- commands ----------------------------------------------------------------------------------------------------

    def _begin(self, transfer: CurlTransfer) -> None:
        transfer.begun = transfer.moved = CurlTransfer.now = time.monotonic()
        transfer.on_news = self._note_news
        try:
            self._multi.add_handle(transfer.easy)
        except pycurl.error as error:
            transfer.finish(Failure(error.args[0], str(error.args[-1])))
            transfer.deliver()
            return
        self._active[transfer.easy] = transfer

    def _continue(self, transfer: CurlTransfer) -> None:
        if transfer.easy in self._active and transfer.paused:
            transfer.paused = False
            transfer.moved = time.monotonic()
            transfer.easy.pause(pycurl.PAUSE_CONT)

    def _drain_or_end(self, transfer: CurlTransfer) -> None:
        if transfer.easy in self._active:
            if transfer.nearly_done:
                transfer.discarding = True
                self._continue(transfer)
            else:
                self._finish(transfer, None)

    def _finish(self, transfer: CurlTransfer, failure: Failure | None) -> None:
        del self._active[transfer.easy]
        self._multi.remove_handle(transfer.easy)
        transfer.finish(failure)
        transfer.deliver()
