"""Ctrl-C and SIGTERM while Qt runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from PySide6.QtCore import QObject, QTimer

LOOK_MS = 100


class Interrupt(QObject):
    """Calls `on_signal()` in the GUI thread after one of the `signals`. Main thread; `close`
    restores the handlers of before.

    Python runs the handler of a signal between two of its own instructions. Qt's loop may need none
    for minutes, so a timer runs some.
    """

    def __init__(
        self,
        on_signal: Callable[[], object],
        signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    ) -> None:
        super().__init__()
        self._on_signal = on_signal
        self._signalled = False
        self._before = {number: signal.signal(number, self._note) for number in signals}
        self._timer = QTimer(self, interval=LOOK_MS)
        self._timer.timeout.connect(self._look)
        self._timer.start()

    def _note(self, number: int, frame: object) -> None:
        self._signalled = True

    def _look(self) -> None:
        if self._signalled:
            self._signalled = False
            self._on_signal()

    def close(self) -> None:
        self._timer.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)
