"""An event loop: one thread that waits for its sockets and timers, and runs what others post to it.

Rules

  1. State that callbacks touch belongs to the loop's thread and needs no lock. Other threads use
     `post` (run this soon; asyncio's call_soon_threadsafe) or `ask` (run this and give me the
     result). `start`, `stop`, `running` and `on_thread` may be called from any thread, everything
     else from the loop's alone, or before it starts.
  2. A callback must not block. An exception that leaves one is counted (`errors`), told to
     `on_error`, and costs that callback only. A callback with several steps that must not suffer
     from each other runs each through `call`.
  3. A periodic callback arms its next timer first, so that an exception cannot end the series.

How a turn goes

  Callbacks of the sockets that are ready, at most MAX_READY; then the functions posted until now;
  then the timers that are due. What one of these posts runs in the next turn. A timer is a row in
  a heap, a cancelled one stays there without a function until its time has come.

Closing a watched socket

  A callback may `unwatch` and close any socket, also one that is ready in the same turn, as when a
  reload removes a server whose answer has just arrived: the system tells file numbers, and the
  callback is looked up when that number's turn comes. If a socket opened meanwhile has been given
  the number, its callback runs and finds nothing to read, which a non-blocking socket allows.
  `unwatch` must come before `close`, for a closed socket no longer knows its number.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from plumbing.throttled_log import ThrottledLog

READABLE = getattr(select, "EPOLLIN", 0)
MAX_READY = 64  # sockets in a turn; the others are the first of the next
RETRY_SECONDS = 0.05  # until the sockets are waited for again, after the system has refused to
LOOK_INTERVAL = 0.2  # seconds between two looks whether a loop that is to answer still runs
T = TypeVar("T")
log = logging.getLogger(__name__)


class LoopStopped(RuntimeError):
    """The loop does not run, so there will be no result."""


class Timer:
    """A deadline in a loop's heap. `cancel()` belongs to the loop's thread."""

    __slots__ = ("deadline", "function")

    def __init__(self, deadline: float, function: Callable[[], object]) -> None:
        self.deadline = deadline
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        self.function = None


class _Selector:
    """The part of select.epoll that the loop uses, for systems other than Linux. epoll itself costs
    half as much as a selector, which makes an object for each ready socket."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, number: int, _events: int) -> None:
        self._selector.register(number, selectors.EVENT_READ)

    def unregister(self, number: int) -> None:
        self._selector.unregister(number)

    def poll(self, seconds: float | None, _most: int) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(seconds)]

    def close(self) -> None:
        self._selector.close()


class Loop:
    """`name` is the thread's. `on_error` is called with each exception that leaves a callback;
    without it they are logged."""

    def __init__(self, name: str, on_error: Callable[[Exception], object] | None = None) -> None:
        self.name = name
        self._on_error = on_error or self._log_error
        self.errors = 0  # exceptions that have left callbacks since the start; any thread may read
        self._log = ThrottledLog(log)
        self._selector = select.epoll() if hasattr(select, "epoll") else _Selector()
        self._poll = self._selector.poll
        self._ready: dict[int, Callable[[], object]] = {}  # callbacks by file number
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._wake_in, self._wake_out = socket.socketpair()
        for sock in (self._wake_in, self._wake_out):
            sock.setblocking(False)
        self.watch(self._wake_out, self._drain_wake)
        self._turn_ended = self._turn_before_ended = time.monotonic()
        self._posted: collections.deque[Callable[[], object]] = collections.deque()  # atomic
        self._state = threading.Lock()  # guards _thread, _stopping, _closed
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closed = False

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        with self._state:
            if self._thread or self._closed:
                raise LoopStopped(f"loop {self.name} was started before")
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Runs what was posted before, then ends the thread. May be called twice, and on the loop's
        own thread, where it does not wait. Raises TimeoutError if a callback takes too long."""
        with self._state:
            thread, self._stopping = self._thread, True
            if thread is None:
                self._close()
                return
        if thread is threading.current_thread():
            return
        self._wake()
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError(f"thread {self.name} is still busy after {timeout:g} s")

    def post(self, function: Callable[[], object]) -> None:
        """Runs `function` on the loop's thread soon; drops it after the loop's end."""
        if self._closed:
            return
        self._posted.append(function)
        if not self.on_thread():
            self._wake()

    def ask(self, function: Callable[[], T], timeout: float = 1.0) -> T:
        """Runs `function` on the loop's thread; returns its result or raises its exception.

        Raises LoopStopped if the loop does not run. Raises TimeoutError after `timeout` seconds;
        its text says whether the function is still running, or had not begun and never will.
        """
        if self.on_thread():
            return function()
        if not self.running:
            raise LoopStopped(f"loop {self.name} is not running")
        answer: Future[T] = Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(function())
                except BaseException as error:
                    answer.set_exception(error)

        self.post(run)
        end = time.monotonic() + timeout
        while not answer.done() and self.running and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(FutureTimeout):
                # waits; raises nothing that the function raises
                answer.exception(min(left, LOOK_INTERVAL))
        undone = answer.cancel()
        if answer.done() and not undone:
            return answer.result()
        if not self.running:
            raise LoopStopped(f"loop {self.name} stopped before it answered")
        follows = "and it will not be done" if undone else "and is still at it"
        raise TimeoutError(f"loop {self.name} did not answer within {timeout:g} s, {follows}")

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def on_thread(self) -> bool:
        return threading.current_thread() is self._thread

    # -- the loop's thread, or before start --------------------------------------------------------

    def watch(self, sock: socket.socket, ready: Callable[[], object]) -> None:
        """Calls `ready()` whenever `sock`, which does not block, can be read or has an error."""
        self._selector.register(sock.fileno(), READABLE)
        self._ready[sock.fileno()] = ready

    def unwatch(self, sock: socket.socket) -> None:
        """To be called before `sock` is closed. Raises KeyError if it is not watched."""
        del self._ready[sock.fileno()]
        self._selector.unregister(sock.fileno())

    def at(self, deadline: float, function: Callable[[], object]) -> Timer:
        """Calls `function()` once time.monotonic() has reached `deadline`."""
        timer = Timer(deadline, function)
        heapq.heappush(self._timers, (deadline, next(self._order), timer))
        return timer

    def call(self, function: Callable[[], object]) -> bool:
        """Calls `function()` now. An exception is handled like one that leaves a callback; returns
        False then."""
        try:
            function()
        except Exception as error:
            self.failed(error)
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Counts an exception that a callback has caught itself, and tells it to `on_error`."""
        self.errors += 1
        try:
            self._on_error(error)
        except Exception:
            log.exception("thread %s: telling an error failed", self.name)

    def held_up(self) -> float:
        """Seconds that this turn and the one before have taken, waiting included. If that is much
        longer than the shortest timer, the process or a callback was frozen."""
        return time.monotonic() - self._turn_before_ended

    # -- inside ------------------------------------------------------------------------------------

    def _run(self) -> None:
        patience: float | None = 0.0
        try:
            while not (self._stopping and not self._posted):
                for number, _ in self._wait(patience):
                    ready = self._ready.get(number)
                    if ready:  # else a callback of this turn has unwatched it
                        try:
                            ready()
                        except Exception as error:
                            self.failed(error)
                if self._posted:
                    self._run_posted()
                patience = self._run_timers()
        finally:
            with self._state:
                self._close()

    def _wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """The file numbers of ready sockets, within `seconds` (None: no limit)."""
        try:
            return self._poll(seconds, MAX_READY)
        except Exception as error:
            self.failed(error)
            time.sleep(RETRY_SECONDS)
            return []

    def _run_posted(self) -> None:
        for _ in range(len(self._posted)):  # what these post waits for the next turn
            self.call(self._posted.popleft())

    def _run_timers(self) -> float | None:
        """Calls the timers that are due; returns the seconds to wait for sockets after that."""
        now = time.monotonic()
        self._turn_before_ended, self._turn_ended = self._turn_ended, now
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].function is None):
            timer = heapq.heappop(self._timers)[2]
            function, timer.function = timer.function, None
            if function:
                self.call(function)
        if self._posted:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _log_error(self, error: Exception) -> None:
        text = f"thread {self.name}: error {self.errors}, going on"
        self._log.say("exception", logging.ERROR, text, error)

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            return  # the pipe is full, so the loop wakes anyway; or closed, so it has ended

    def _drain_wake(self) -> None:
        self._wake_out.recv(4096)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()
