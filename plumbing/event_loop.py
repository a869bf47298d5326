"""One thread with its sockets and its timers; everybody else hands it a function.

The thread owns whatever its callbacks touch, so nothing there needs a lock. A timer is a row in a
heap, not a thread.
"""

from __future__ import annotations

import collections
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

MOST_READY = 64  # sockets in a turn; the others are the first of the next
BREATH = 0.05  # seconds before the sockets are waited for again, if the system would not
T = TypeVar("T")
log = logging.getLogger(__name__)


class LoopStopped(RuntimeError):
    """The loop is not running, so nobody will answer."""


class Timer:
    """A deadline in a loop's heap. `cancel()` belongs to the loop's thread."""

    __slots__ = ("deadline", "function")

    def __init__(self, deadline: float, function: Callable[[], object]) -> None:
        self.deadline = deadline
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        self.function = None


class Epoll:
    """Waits for sockets on Linux, at about half the cost of a selector, which makes objects of what
    is ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], object]] = {}

    def watch(self, sock: socket.socket, ready: Callable[[], object]) -> None:
        self._epoll.register(sock, select.EPOLLIN)
        self._callbacks[sock.fileno()] = ready

    def unwatch(self, sock: socket.socket) -> None:
        self._epoll.unregister(sock)
        del self._callbacks[sock.fileno()]

    def wait(self, seconds: float | None) -> list[Callable[[], object]]:
        """Of the sockets that can be read or have an error to tell; None: for as long as it
        takes."""
        ready = self._epoll.poll(seconds, MOST_READY)
        if len(ready) == 1:
            return [self._callbacks[ready[0][0]]]
        return [self._callbacks[number] for number, _ in ready]

    def close(self) -> None:
        self._epoll.close()


class Selector:
    """The same on other systems."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, sock: socket.socket, ready: Callable[[], object]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, ready)

    def unwatch(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    def wait(self, seconds: float | None) -> list[Callable[[], object]]:
        return [key.data for key, _ in self._selector.select(seconds)]

    def close(self) -> None:
        self._selector.close()


class Loop:
    """`name` becomes the thread's. An exception that leaves a callback goes to `on_error`; the loop
    lives on."""

    def __init__(self, name: str, on_error: Callable[[Exception], object] | None = None) -> None:
        self.name = name
        self._on_error = on_error or self._log_error
        self.errors = 0  # exceptions that have left callbacks since the start; for reading
        self._next_log = 0.0
        self._ready = Epoll() if hasattr(select, "epoll") else Selector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._wake_in, self._wake_out = socket.socketpair()
        for sock in (self._wake_in, self._wake_out):
            sock.setblocking(False)
        self._ready.watch(self._wake_out, self._drain_wake)
        # When the timers had their last two turns.
        self._turned = self._turned_before = time.monotonic()
        # append and popleft are atomic
        self._posted: collections.deque[Callable[[], object]] = collections.deque()
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
        """What was posted before still runs. Raises TimeoutError if a callback does not end in
        time."""
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
        """Runs `function` on the loop's thread soon. After the loop's end it is dropped."""
        if self._closed:
            return
        self._posted.append(function)
        if not self.on_thread():
            self._wake()

    def ask(self, function: Callable[[], T], timeout: float = 1.0) -> T:
        """Runs `function` on the loop's thread and returns its result, or raises what it raised.

        Raises LoopStopped if the loop does not run, TimeoutError if there is no answer within
        `timeout` seconds: its text says whether the function has not begun, and never will, or is
        still running.
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
        deadline = time.monotonic() + timeout
        while True:
            try:
                return answer.result(timeout=min(0.2, max(0.0, deadline - time.monotonic())))
            except FutureTimeout:
                if answer.done():  # just now, or the function itself raised a TimeoutError
                    return answer.result()
                if not self.running:
                    raise LoopStopped(f"loop {self.name} stopped before it answered") from None
                if time.monotonic() >= deadline:
                    undone = answer.cancel()
                    if answer.done() and not undone:  # in this very moment
                        return answer.result()
                    follows = "and it will not be done" if undone else "and is still at it"
                    raise TimeoutError(
                        f"loop {self.name} did not answer within {timeout:g} s, {follows}"
                    ) from None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def on_thread(self) -> bool:
        return threading.current_thread() is self._thread

    # -- the loop's thread, or before start --------------------------------------------------------

    def watch(self, sock: socket.socket, ready: Callable[[], object]) -> None:
        """Calls `ready()` whenever `sock` can be read, or has an error to tell."""
        self._ready.watch(sock, ready)

    def unwatch(self, sock: socket.socket) -> None:
        self._ready.unwatch(sock)

    def at(self, deadline: float, function: Callable[[], object]) -> Timer:
        """Calls `function()` once time.monotonic() has reached `deadline`."""
        timer = Timer(deadline, function)
        heapq.heappush(self._timers, (deadline, next(self._order), timer))
        return timer

    def call(self, function: Callable[[], object]) -> bool:
        """Calls `function()` now, for a callback whose other steps must not suffer from this one's
        exception: that is counted and told like one that leaves a callback. Returns False if there
        was one."""
        try:
            function()
        except Exception as error:
            self.failed(error)
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Counts and tells an exception that was caught in a callback."""
        self.errors += 1
        try:
            self._on_error(error)
        except Exception:
            log.exception("thread %s: telling an error failed", self.name)

    def held_up(self) -> float:
        """Seconds that this turn and the one before have taken, waiting included. Much longer than
        it is to the next timer: the process was frozen, or a callback was."""
        return time.monotonic() - self._turned_before

    # -- inside ------------------------------------------------------------------------------------

    def _run(self) -> None:
        patience: float | None = 0.0
        try:
            while not (self._stopping and not self._posted):
                for ready in self._wait(patience):
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

    def _wait(self, seconds: float | None) -> list[Callable[[], object]]:
        try:
            return self._ready.wait(seconds)
        except Exception as error:
            self.failed(error)
            time.sleep(BREATH)
            return []

    def _run_posted(self) -> None:
        for _ in range(len(self._posted)):  # what these post themselves waits for the next turn
            self.call(self._posted.popleft())

    def _run_timers(self) -> float | None:
        """Calls those that are due; returns how many seconds there are until the next one or the
        next thing to do."""
        now = time.monotonic()
        self._turned_before, self._turned = self._turned, now
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].function is None):
            timer = heapq.heappop(self._timers)[2]
            function, timer.function = timer.function, None
            if function:
                self.call(function)
        if self._posted:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _log_error(self, error: Exception) -> None:
        if time.monotonic() >= self._next_log:
            self._next_log = time.monotonic() + 1.0
            log.error("thread %s: error %d, going on", self.name, self.errors, exc_info=error)

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            return  # full: it will wake anyway; closed: nobody is left to wake

    def _drain_wake(self) -> None:
        self._wake_out.recv(4096)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._ready.close()
            self._wake_in.close()
            self._wake_out.close()
