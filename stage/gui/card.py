"""The ground on which each part of the window stands, a rounded sheet, and the tabs that turn its
pages."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QWidget

from softphone.gui.theme import GRID, RADIUS, Size, theme


class Card(QWidget):
    """A surface with a fine line around it."""

    def paintEvent(self, event: QPaintEvent) -> None:
        palette = theme().palette
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(palette.line, 1))
        painter.setBrush(palette.surface)
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), RADIUS, RADIUS)


class Tab(QAbstractButton):
    """One of several pages: a word, underlined in the colour of focus while its page is shown."""

    def __init__(self, words: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setText(words)
        self.setToolTip(tip)
        self.setAccessibleName(words)
        self.setCheckable(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        wide = QFontMetricsF(theme().font(Size.TEXT, bold=True)).horizontalAdvance(self.text())
        return QSize(int(wide) + 1, 3 * GRID + GRID // 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette = QPainter(self), theme().palette
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(theme().font(Size.TEXT, bold=True))
        painter.setPen(palette.text if self.isChecked() else palette.muted)
        painter.drawText(
            QRectF(self.rect()).adjusted(0, 0, 2, -4), Qt.AlignmentFlag.AlignVCenter, self.text()
        )
        if self.isChecked() or self.hasFocus() or self.underMouse():
            colour = palette.hot.colour if self.isChecked() or self.hasFocus() else palette.line
            height = 3 if self.hasFocus() else 2
            painter.fillRect(QRectF(0, self.height() - height, self.width(), height), colour)
