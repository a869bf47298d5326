"""Named timers without a clock: each has a deadline and an action. The owner of the clock asks
`deadline` and calls `fire`."""

from __future__ import annotations

from collections.abc import Callable

Action = Callable[[float], None]  # called with `now`


class NamedTimers:
    """A few named timers; setting one again moves it."""

    def __init__(self) -> None:
        self._timers: dict[str, tuple[float, Action]] = {}

    @property
    def deadline(self) -> float | None:
        return min((due for due, _ in self._timers.values()), default=None)

    def due(self, name: str) -> float | None:
        row = self._timers.get(name)
        return row[0] if row else None

    def set(self, name: str, due: float, action: Action) -> None:
        self._timers[name] = (due, action)

    def repeat(
        self, name: str, interval: float, longest: float, action: Action, now: float
    ) -> None:
        """Run the action after `interval` seconds, and then after twice as long each time, at most
        `longest`, until it is cancelled."""

        def run(later: float) -> None:
            self.repeat(name, min(2 * interval, longest), longest, action, later)
            action(later)  # which may cancel it

        self.set(name, now + interval, run)

    def cancel(self, *names: str) -> None:
        for name in names:
            self._timers.pop(name, None)

    def clear(self) -> None:
        self._timers.clear()

    def fire(self, now: float) -> None:
        """Run what is due, the earliest first; a row is gone before its action runs, which may set
        it anew."""
        while self._timers:
            name, (due, action) = min(self._timers.items(), key=lambda item: item[1][0])
            if due > now:
                return
            del self._timers[name]
            action(now)
