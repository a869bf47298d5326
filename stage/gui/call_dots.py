"""A dot for each of many calls, over the figure: none goes out when a server dies."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, Qt, QTimer
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from softphone.gui.theme import GRID, RADIUS, Size, theme
from stage.gui import painting
from stage.gui.zoom import zoomed

LOOK_MS = 50
TONES = {"talking": "alive", "calling": "ringing", "ringing": "ringing", "ended": "dead"}
WORDS = {"talking": "talk", "ringing": "ring", "calling": "are placed", "ended": "have ended"}


class CallDots(QWidget):
    """Lies in the upper left corner of its parent while calls are shown."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._over = parent
        self.words = ""
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._states: Callable[[], list[str]] = list
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look)
        self.hide()

    def show_calls(self, states: Callable[[], list[str]] | None) -> None:
        self._states = states or list
        self.setVisible(states is not None)
        if states is None:
            self._timer.stop()
        else:
            self._timer.start()
            self._look()

    def _look(self) -> None:
        states = self._states()
        words = [
            f"{states.count(state)} {word}" for state, word in WORDS.items() if state in states
        ]
        self.words = f"{len(states)} calls: " + ", ".join(words)
        self.setAccessibleName(self.words)
        room = self._over.size()
        side = min(room.width() // 3, room.height() // 2)
        self.setGeometry(GRID, room.height() - side - GRID, side, side)
        self.raise_()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette, states = QPainter(self), theme().palette, self._states()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.setPen(palette.line)
        painter.setBrush(palette.surface)
        painter.drawRoundedRect(box, RADIUS, RADIUS)
        font = zoomed(Size.SMALL, bold=True)
        line = painting.height_of(font) * 1.4
        head = QRectF(box.left() + GRID, box.top(), box.width() - 2 * GRID, line)
        painting.text(painter, head, self.words, font, palette.text)
        columns = max(1, math.ceil(math.sqrt(len(states))))
        step = min(box.width() - GRID, box.height() - line - GRID) / columns
        painter.setPen(Qt.PenStyle.NoPen)
        left = box.center().x() - step * columns / 2
        for number, state in enumerate(states):
            tone = TONES.get(state)
            painter.setBrush(palette.tones()[tone].colour if tone else palette.line)
            place = QPointF(
                left + step * (number % columns + 0.5),
                box.top() + line + step * (number // columns + 0.5),
            )
            painter.drawEllipse(place, step * 0.36, step * 0.36)
