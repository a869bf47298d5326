"""Timers as rows: a name, a deadline, what to do then. Whoever owns the clock asks `deadline` and
calls `fire`."""

from __future__ import annotations

from collections.abc import Callable

Action = Callable[[float], None]  # called with `now`


class Rows:
    """A few named timers; setting one again moves it."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[float, Action]] = {}

    @property
    def deadline(self) -> float | None:
        return min((due for due, _ in self._rows.values()), default=None)

    def due(self, name: str) -> float | None:
        row = self._rows.get(name)
        return row[0] if row else None

    def set(self, name: str, due: float, action: Action) -> None:
        self._rows[name] = (due, action)

    def cancel(self, *names: str) -> None:
        for name in names:
            self._rows.pop(name, None)

    def clear(self) -> None:
        self._rows.clear()

    def fire(self, now: float) -> None:
        """Run what is due, the earliest first; a row is gone before its action runs, which may set
        it anew."""
        while self._rows:
            name, (due, action) = min(self._rows.items(), key=lambda item: item[1][0])
            if due > now:
                return
            del self._rows[name]
            action(now)
