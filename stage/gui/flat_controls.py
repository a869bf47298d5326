"""Tabs and buttons of the demo window in the flat style of the phones' buttons."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QComboBox, QMenu, QSizePolicy, QTabBar, QTabWidget

from softphone.gui.theme import GRID, RADIUS, theme
from softphone.gui.widgets import FlatButton
from stage.gui import painting

UNDERLINE = 3  # px, beneath the tab that is shown


def small_button(text: str) -> FlatButton:
    """A flat button as wide as its text."""
    button = FlatButton(text)
    button.set_height(3 * GRID)
    button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    return button


def menu_button(text: str) -> tuple[FlatButton, QMenu]:
    """A flat button that opens the menu."""
    button = small_button(text)
    menu = QMenu(button)
    button.clicked.connect(lambda: menu.popup(button.mapToGlobal(button.rect().bottomLeft())))
    return button, menu


class FlatTabBar(QTabBar):
    """The tab that is shown is bold and underlined, the others are muted."""

    def __init__(self) -> None:
        super().__init__()
        self.setDrawBase(False)
        self.setExpanding(False)

    def tabSizeHint(self, index: int) -> QSize:
        font = self.font()
        font.setBold(True)
        width = painting.width_of(self.tabText(index), font) + 3 * GRID
        return QSize(round(width), round(painting.height_of(font)) + 2 * GRID)

    def minimumTabSizeHint(self, index: int) -> QSize:
        return self.tabSizeHint(index)

    def paintEvent(self, event: QPaintEvent) -> None:
        palette = theme().palette
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for index in range(self.count()):
            box = QRectF(self.tabRect(index))
            shown = index == self.currentIndex()
            font = self.font()
            font.setBold(shown)
            colour = palette.text if shown else palette.muted
            painting.text(painter, box, self.tabText(index), font, colour)
            if not shown:
                continue
            line = QRectF(box.left() + GRID, box.bottom() - UNDERLINE, box.width() - 2 * GRID, 0)
            painter.fillRect(line.adjusted(0, 0, 0, UNDERLINE), palette.text)
            if self.hasFocus():
                painter.setPen(QPen(palette.hot.colour, 2))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRoundedRect(box.adjusted(2, 2, -2, -UNDERLINE - 2), RADIUS, RADIUS)


class FlatTabs(QTabWidget):
    def __init__(self) -> None:
        super().__init__()
        self.setTabBar(FlatTabBar())
        self.setDocumentMode(True)  # no frame around the pages
        self.tabBar().setDrawBase(False)


class FlatComboBox(QComboBox):
    """A flat button with the chosen text and an arrow that points down."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)

    def sizeHint(self) -> QSize:
        texts = [self.itemText(index) for index in range(self.count())]
        width = max((painting.width_of(text, self.font()) for text in texts), default=0.0)
        height = max(3.0 * GRID, painting.height_of(self.font()) + GRID)
        return QSize(round(width + 3.5 * GRID), round(height))

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        palette = theme().palette
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect())
        painter.setPen(QPen(palette.text, 2) if self.hasFocus() else Qt.PenStyle.NoPen)
        painter.setBrush(palette.raised)
        painter.drawRoundedRect(box.adjusted(1, 1, -1, -1), RADIUS, RADIUS)
        where = box.adjusted(GRID, 0, -2 * GRID, 0)
        left = Qt.AlignmentFlag.AlignLeft
        painting.text(painter, where, self.currentText(), self.font(), palette.text, left)
        tip = QPointF(box.right() - 1.25 * GRID, box.center().y() + 2)
        painter.setPen(QPen(palette.text, 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline([tip + QPointF(-4, -4), tip, tip + QPointF(4, -4)])
