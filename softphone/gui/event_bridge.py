"""The one place where a phone's thread meets the windows: a signal that carries events across.

    phone = Phone(account, proxy, on_event=bridge.event.emit)  # emitted in the phone's sip thread
    bridge.event.connect(panel.show_event)                     # runs in the GUI thread

Qt queues the signal because sender and receiver live in different threads; nobody connects it with
DirectConnection. The bridge must outlive the phone: stop the phone before the application lets go
of its windows.
"""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal


class _Carrier(QObject):
    carried = Signal(object)


class Bridge:
    """Create it in the GUI thread, before the phone, one per phone. `event` is the signal, to emit
    and to connect."""

    def __init__(self, parent: QObject | None = None) -> None:
        # Not a QObject itself: a signal named `event` on one would hide QObject.event(), through
        # which Qt delivers.
        self._carrier = _Carrier(parent)
        self.event = self._carrier.carried
