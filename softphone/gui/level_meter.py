"""A level meter that remembers two seconds: sound runs from right to left, and a gap in it is seen
as a gap."""

from __future__ import annotations

import math
from collections import deque

from PySide6.QtCore import QLineF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from softphone.gui.theme import GRID, theme

FRAMES_PER_SECOND = 25
QUIETEST_DB = -48.0  # what the shortest bar means
PITCH, BAR = 5, 3  # px: from bar to bar, and of that the bar
MOST_BARS = 400


def loudness(level: float) -> float:
    """Height 0..1 of a bar for a linear peak level 0..1: decibels, because ears hear them."""
    if not level > 0.0:
        return 0.0
    return min(1.0, max(0.0, 1.0 - 20.0 * math.log10(level) / QUIETEST_DB))


class LevelMeter(QWidget):
    """Call `push` 25 times a second while sound flows. With reduced motion it shows one bar, the
    present level."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setAccessibleName(what)
        self.setToolTip(what)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._bars: deque[float] = deque(maxlen=MOST_BARS)

    @property
    def level(self) -> float:
        """The level pushed last, 0..1."""
        return self._bars[-1] if self._bars else 0.0

    def push(self, level: float) -> None:
        self._bars.append(level)
        self.update()

    def clear(self) -> None:
        if self._bars:
            self._bars.clear()
            self.update()

    def sizeHint(self) -> QSize:
        return QSize(16 * GRID, 3 * GRID)

    def minimumSizeHint(self) -> QSize:
        return QSize(4 * GRID, 3 * GRID)

    def paintEvent(self, event: QPaintEvent) -> None:
        count = max(1, self.width() // PITCH)
        if theme().reduced_motion:
            lit = round(loudness(self.level) * count)
            shares = [0.5] * lit + [0.0] * (count - lit)
        else:
            heard = list(self._bars)[-count:]
            shares = [0.0] * (count - len(heard)) + [loudness(level) for level in heard]
        silent: list[QLineF] = []
        loud: list[QLineF] = []
        middle, most = self.height() / 2, (self.height() - BAR) / 2
        for number, share in enumerate(shares):
            x, half = number * PITCH + BAR / 2, share * most
            # A line without length would not be drawn; with round ends it is the dot of silence.
            (loud if share > 0.0 else silent).append(
                QLineF(x, middle - half, x, middle + half + 0.01)
            )
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = theme().palette
        for lines, colour in ((silent, palette.line), (loud, palette.alive.colour)):
            painter.setPen(QPen(colour, BAR, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
            painter.drawLines(lines)
