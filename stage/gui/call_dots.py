"""A dot for each of many calls: none goes out when a server dies."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, Qt, QTimer
from PySide6.QtGui import QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from softphone.gui.theme import GRID, Size, theme
from stage.gui import painting
from stage.gui.zoom import zoomed

LOOK_MS = 50
TONES = {"talking": "alive", "calling": "ringing", "ringing": "ringing", "ended": "dead"}
WORDS = {"talking": "talk", "ringing": "ring", "calling": "are placed", "ended": "ended"}


class CallDots(QWidget):
    """A dot for each call in its present state, and the measurements beneath."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ""
        self._states: Callable[[], list[str]] = list
        self._result: list[str] = []
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look)

    def show_calls(self, states: Callable[[], list[str]]) -> None:
        self._states = states
        self._result = []
        self._timer.start()

    def show_result(self, result: list[str]) -> None:
        """The calls stay as they are now; `result` is written beneath."""
        states = self._states()
        self._states = lambda: states
        self._result = result
        self._timer.stop()
        self._look()

    def _look(self) -> None:
        states = self._states()
        words = [
            f"{states.count(state)} {word}" for state, word in WORDS.items() if state in states
        ]
        self.words = f"{len(states)} calls: " + ", ".join(words)
        self.setAccessibleName(self.words)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette, states = QPainter(self), theme().palette, self._states()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect())
        side = max(40.0, min(box.height(), box.width() * 0.5))
        columns = max(1, math.ceil(math.sqrt(len(states))))
        step = side / columns
        painter.setPen(Qt.PenStyle.NoPen)
        for number, state in enumerate(states):
            tone = TONES.get(state)
            painter.setBrush(palette.tone(tone).colour if tone else palette.line)
            place = QPointF(step * (number % columns + 0.5), step * (number // columns + 0.5))
            painter.drawEllipse(place, step * 0.36, step * 0.36)
        self._draw_words(painter, box.adjusted(side + 2 * GRID, 0, 0, 0))

    def _draw_words(self, painter: QPainter, room: QRectF) -> None:
        """Draws each sentence on as many lines as it needs, closer together in little room."""
        bold, small = zoomed(Size.TEXT, bold=True), zoomed(Size.TEXT)
        sentences = [(self.words, bold), *((words, small) for words in self._result)]
        heights = [
            QFontMetricsF(font).boundingRect(room, Qt.TextFlag.TextWordWrap, words).height()
            for words, font in sentences
        ]
        spare = (room.height() - sum(heights)) / len(heights)
        gap = max(0.0, min(painting.height_of(bold) * 0.3, spare))
        top = room.top()
        painter.setPen(theme().palette.text)
        for (words, font), height in zip(sentences, heights, strict=True):
            painter.setFont(font)
            where = QRectF(room.left(), top, room.width(), height)
            painter.drawText(where, Qt.TextFlag.TextWordWrap, words)
            top += height + gap
