"""A log that strangers cannot fill: at most one line a second of each kind."""

from __future__ import annotations

import logging
import threading
import time

LOG_INTERVAL_SECONDS = 1.0  # between two lines of a kind
MAX_KINDS = 1_000


class ThrottledLog:
    """Logs at most one line a second of each kind; the next line says how many it left out.

    May be used by any thread. `kinds` are chosen by the program: the reason of a refusal, say.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()  # guards the two below
        self._next: dict[str, float] = {}  # by kind: when its next line may be written
        self._left_out: dict[str, int] = {}  # by kind: lines since the last one

    def say(
        self,
        kind: str,
        level: int,
        text: str,
        error: BaseException | None = None,
        now: float | None = None,
    ) -> None:
        """Logs `text`, with the traceback of `error`. `now` is in monotonic seconds."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if now < self._next.get(kind, 0.0):
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return
            if len(self._next) >= MAX_KINDS:
                self._forget(now)
            self._next[kind] = now + LOG_INTERVAL_SECONDS
            left_out = self._left_out.pop(kind, 0)
        more = f" (and {left_out} more since the last such line)" if left_out else ""
        self._log.log(level, "%s%s", text, more, exc_info=error)

    def _forget(self, now: float) -> None:
        """Forgets the kinds that were silent for a second."""
        self._next = {kind: due for kind, due in self._next.items() if due > now}
        self._left_out = {kind: n for kind, n in self._left_out.items() if kind in self._next}
