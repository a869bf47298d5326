"""The one place where a phone's thread meets the windows: a signal that carries events across."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal


class Bridge(QObject):
    """Create it in the GUI thread, before the phone, one per phone.

        phone = Phone(account, proxy, on_event=bridge.received.emit)  # in the phone's sip thread
        bridge.received.connect(panel.show_event)                     # runs in the GUI thread

    Qt queues the signal because sender and receiver live in different threads; nobody connects it
    with DirectConnection. The bridge must outlive the phone: stop the phone before the application
    lets go of its windows.
    """

    received = Signal(object)
