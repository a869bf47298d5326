"""Windows of the softphone: one phone, or two side by side. Closing one stops its phones without
freezing it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QCloseEvent, QKeySequence, QPalette, QShortcut
from PySide6.QtWidgets import QFrame, QHBoxLayout, QSystemTrayIcon, QVBoxLayout, QWidget

from softphone import texts
from softphone.gui import icons
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.theme import GRID, LIGHT
from softphone.phone import Phone

LOG = logging.getLogger("qt")
GOODBYE = 1.0  # s: how long a phone may take to hang up and unregister after its window has gone
WIDEST = 55 * GRID  # px: a wider panel would pull apart what belongs together


class PhonesWindow(QWidget):
    """One panel, or several side by side: Ctrl+1, Ctrl+2 bring the keyboard to each. `below`: what
    concerns all of them. `gone` is emitted once, after the window was closed and every phone has
    stopped."""

    gone = Signal()
    _stopped = Signal()

    def __init__(self, panels: Sequence[PhonePanel], below: QWidget | None = None) -> None:
        super().__init__()
        self.panels = panels
        labels = [panel.label for panel in panels]
        what = texts.TWO_PHONES.format(left=labels[0], right=labels[1]) if labels[1:] else labels[0]
        self._title = texts.WINDOW.format(what=what)
        self.setWindowTitle(self._title)
        self.setWindowIcon(icons.window_icon("call", LIGHT.alive.ink, LIGHT.alive.colour))
        # in a window that is not in front, too
        self.setAttribute(Qt.WidgetAttribute.WA_AlwaysShowToolTips)
        self._tray = QSystemTrayIcon(self.windowIcon(), self)  # seen while a phone rings
        self._tray.activated.connect(self.activateWindow)
        self._tray.messageClicked.connect(self.activateWindow)
        self._goodbye = threading.Thread(target=self._stop_phones, name="stop-phones")
        self._stopped.connect(self._on_stopped)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        row = QHBoxLayout()
        column.addLayout(row, 1)
        if below is not None:
            bottom = QHBoxLayout()
            bottom.setContentsMargins(2 * GRID, 0, 2 * GRID, GRID)
            bottom.addWidget(below)
            column.addLayout(bottom)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addStretch(1)
        for number, panel in enumerate(panels):
            if number:
                row.addWidget(self._divider())
            panel.setMaximumWidth(WIDEST)
            row.addWidget(panel, 1000)
            panel.rings.connect(self._show_ringing)
            keys = QShortcut(QKeySequence(f"Ctrl+{number + 1}"), self)
            keys.activated.connect(panel.focus_phone)
        row.addStretch(1)
        self.resize(42 * GRID * len(panels), 80 * GRID)
        panels[0].focus_phone()

    def _show_ringing(self, sentence: str) -> None:
        """In the title, and if the window is not in front in a notification of the system."""
        self.setWindowTitle(texts.WINDOW.format(what=sentence) if sentence else self._title)
        if sentence and not self.isActiveWindow() and QSystemTrayIcon.isSystemTrayAvailable():
            self._tray.show()
            self._tray.showMessage(sentence, self._title, self.windowIcon())
        else:
            self._tray.hide()

    @staticmethod
    def _divider() -> QFrame:
        line = QFrame(frameShape=QFrame.Shape.VLine, frameShadow=QFrame.Shadow.Plain)
        line.setForegroundRole(QPalette.ColorRole.Mid)
        return line

    def closeEvent(self, event: QCloseEvent) -> None:
        """The window goes at once; its phones say goodbye in a thread, and then `gone` is
        emitted."""
        event.ignore()
        self.hide()
        if self._goodbye.ident is None:  # not started yet
            self._goodbye.start()

    def _stop_phones(self) -> None:
        """Stop the phones side by side, and wait for them."""
        phones = [panel.phone for panel in self.panels]
        threads = [threading.Thread(target=_stop, args=(phone,)) for phone in phones]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._stopped.emit()

    def _on_stopped(self) -> None:
        self._goodbye.join()
        self.gone.emit()


def _stop(phone: Phone) -> None:
    try:
        phone.stop(GOODBYE)
    except Exception:
        LOG.exception("a phone did not stop cleanly")
