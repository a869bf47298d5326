"""A log that strangers cannot fill: at most one line a second of each kind."""

from __future__ import annotations

import logging
import threading
import time

QUIET = 1.0  # seconds between two lines of a kind


class RareLog:
    """Logs at most one line a second and kind, and says how many it left out. For any thread.
    `kinds` are the caller's own words, so there are few."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()  # guards _next and _untold
        self._next: dict[str, float] = {}  # by kind, monotonic seconds
        self._untold: dict[str, int] = {}

    def say(self, kind: str, level: int, text: str, error: BaseException | None = None) -> None:
        """`error` is shown with its traceback: a defect of ours."""
        now = time.monotonic()
        with self._lock:
            if now < self._next.get(kind, 0.0):
                self._untold[kind] = self._untold.get(kind, 0) + 1
                return
            self._next[kind] = now + QUIET
            untold = self._untold.pop(kind, 0)
        more = f" (and {untold} more since the last such line)" if untold else ""
        self._log.log(level, "%s%s", text, more, exc_info=error)
