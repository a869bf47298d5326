"""The connections of a small server: so many at most, and a silent one gives way to the next that
comes."""

from __future__ import annotations

import contextlib
import socket
import threading


class Connections:
    """For any thread. Times are monotonic seconds.

    A connection either waits for its client, to say a request or to go, or it is busy with an
    answer. One that is ended here is shut down: the thread that reads it finds its end, and closes
    it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _waiting
        self._waiting: dict[socket.socket, float | None] = {}  # since when it waits; None: busy

    def admit(self, connection: socket.socket, most: int, now: float) -> bool:
        """Takes in one that waits. If there are `most`, the one that has waited longest goes; False
        if all are busy."""
        with self._lock:
            if len(self._waiting) >= most:
                waiting = {
                    each: since for each, since in self._waiting.items() if since is not None
                }
                if not waiting:
                    return False
                self._end(min(waiting, key=lambda each: waiting[each]))
            self._waiting[connection] = now
            return True

    def waits(self, connection: socket.socket, since: float | None) -> None:
        """It waits for its client since then, or is busy."""
        with self._lock:
            if connection in self._waiting:
                self._waiting[connection] = since

    def leave(self, connection: socket.socket) -> None:
        """Before the socket is closed."""
        with self._lock:
            self._waiting.pop(connection, None)

    def end_overdue(self, before: float) -> None:
        """Ends those that have been waiting since before then."""
        with self._lock:
            for each in [
                each for each, since in self._waiting.items() if (since or before) < before
            ]:
                self._end(each)

    def end_all(self) -> None:
        with self._lock:
            for each in list(self._waiting):
                self._end(each)

    def _end(self, connection: socket.socket) -> None:
        del self._waiting[connection]
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
