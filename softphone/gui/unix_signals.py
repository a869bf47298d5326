"""Ctrl-C and SIGTERM while Qt runs: Python's handlers wait for Python code, and Qt's loop may run
none for minutes."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable

from PySide6.QtCore import QObject, QSocketNotifier


class Interrupt(QObject):
    """Calls `on_signal()` in the GUI thread after one of the `signals`. Main thread; `close`
    restores the handlers of before."""

    def __init__(
        self,
        on_signal: Callable[[], object],
        parent: QObject | None = None,
        signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    ) -> None:
        super().__init__(parent)
        self._on_signal = on_signal
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = {number: signal.signal(number, _note) for number in signals}
        self._wake_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._notifier = QSocketNotifier(self._reader.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._awake)

    def _awake(self) -> None:
        self._reader.recv(64)
        self._on_signal()

    def close(self) -> None:
        self._notifier.setEnabled(False)
        signal.set_wakeup_fd(self._wake_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def _note(number: int, frame: object) -> None:
    """The wake-up byte has been written by now; nothing else is to be done inside a signal
    handler."""
