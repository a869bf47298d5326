"""The message ladder: every message that crossed the forwarder, from top to bottom, as call-flow
tools draw it.

Columns are Alice, forwarder, server1, server2, Bob. A line from a server to Bob turns at the
forwarder, as the message did.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent, QPen, QShowEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from softphone.gui.theme import GRID, Palette, Size, theme
from stage.gui import painting
from stage.gui.topology_view import TONES

KEPT = 400  # rows; older ones fall out at the top
ROW = 24
TIMES = 56  # px, the column of the times
CLEAR = 16.0  # px of a line that stay visible before its head
TURN = 9.0  # px between the two halves of a line that turns at the forwarder


@dataclass(frozen=True)
class LadderRow:
    """One message, or with empty `source` a remark across the whole width. `kind` is a key of the
    figure's TONES."""

    at: float
    source: str
    target: str
    label: str
    kind: str = "request"


class Ladder(QWidget):
    """Rows of rungs; grows downwards and follows the newest unless somebody has scrolled up."""

    def __init__(self, columns: tuple[str, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("The messages of the call")
        self._columns = columns
        self._rungs: deque[LadderRow] = deque(maxlen=KEPT)
        self._head = Head(self)
        self._rows = Rows(self)
        self._area = QScrollArea()
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setWidgetResizable(True)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self._area.setWidget(self._rows)
        self._area.viewport().setAutoFillBackground(False)
        self._rows.setAutoFillBackground(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._head)
        column.addWidget(self._area, 1)
        self._following = True  # until a person scrolls up
        bar = self._area.verticalScrollBar()
        bar.rangeChanged.connect(self._follow)
        bar.actionTriggered.connect(self._scrolled)

    @property
    def rungs(self) -> tuple[LadderRow, ...]:
        return tuple(self._rungs)

    def add(self, rung: LadderRow) -> None:
        self._rungs.append(rung)
        self._rows.updateGeometry()
        self._rows.update()

    def clear(self) -> None:
        self._rungs.clear()
        self._rows.updateGeometry()
        self._rows.update()

    def x_of(self, name: str) -> float:
        """The middle of a column; every part of the ladder has the same width as the rows."""
        step = (self._rows.width() - TIMES) / len(self._columns)
        return TIMES + step * (self._columns.index(name) + 0.5)

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._rows.updateGeometry()  # Qt forgets what was asked for while the page was hidden

    def _follow(self, _: int, highest: int) -> None:
        if self._following:
            self._area.verticalScrollBar().setValue(highest)

    def _scrolled(self, _: int) -> None:
        bar = self._area.verticalScrollBar()
        self._following = bar.sliderPosition() >= bar.maximum() - ROW


class Head(QWidget):
    """The names above the columns."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__(ladder)
        self._ladder = ladder
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(50 * GRID, 3 * GRID)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette = QPainter(self), theme().palette
        font = theme().font(Size.SMALL, bold=True)
        for name in self._ladder.columns:
            x = self._ladder.x_of(name)
            painting.text(painter, QRectF(x - 48, 0, 96, self.height()), name, font, palette.text)
        painting.text(
            painter,
            QRectF(0, 0, TIMES - GRID, self.height()),
            "s",
            theme().font(Size.SMALL),
            palette.muted,
            Qt.AlignmentFlag.AlignRight,
        )


class Rows(QWidget):
    """The rungs themselves; draws only what is on the screen."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self._ladder = ladder

    def sizeHint(self) -> QSize:
        return QSize(50 * GRID, ROW * len(self._ladder.rungs) + GRID)

    def minimumSizeHint(self) -> QSize:
        return QSize(0, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette = QPainter(self), theme().palette
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(palette.line, 1))
        for name in self._ladder.columns:
            x = self._ladder.x_of(name)
            painter.drawLine(QPointF(x, event.rect().top()), QPointF(x, event.rect().bottom() + 1))
        rungs = self._ladder.rungs
        if not rungs:
            where = QRectF(0, 0, self.width(), max(self.height(), 6 * ROW))
            painting.text(
                painter, where, "No messages yet", theme().font(Size.SMALL), palette.muted
            )
        first = max(0, event.rect().top() // ROW)
        for index in range(first, min(len(rungs), event.rect().bottom() // ROW + 1)):
            self._draw(painter, palette, rungs[index], index * ROW, rungs[index].at - rungs[0].at)

    def _draw(
        self, painter: QPainter, palette: Palette, rung: LadderRow, top: float, seconds: float
    ) -> None:
        painting.text(
            painter,
            QRectF(0, top, TIMES - GRID, ROW),
            f"{seconds:.3f}",
            theme().font(Size.SMALL, tabular=True),
            palette.muted,
            Qt.AlignmentFlag.AlignRight,
        )
        tone = palette.tones()[TONES[rung.kind]]
        if not rung.source:
            band = QRectF(TIMES, top + 3, self.width() - TIMES - GRID, ROW - 6)
            painter.fillRect(band, tone.wash)
            painting.text(
                painter, band, rung.label, theme().font(Size.SMALL, bold=True), tone.colour
            )
            return
        line = self._line(rung, top)
        painter.setPen(QPen(tone.colour, 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(line)
        end = line.pointAtPercent(1.0)
        away = 1.0 if end.x() >= line.pointAtPercent(0.97).x() else -1.0
        painting.arrow(painter, QPointF(end.x() - away * 11, end.y()), end, tone.colour, 1.5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(tone.colour)
        for y in self._crossings(rung, top):
            painter.drawEllipse(QPointF(self._ladder.x_of("forwarder"), y), 2.5, 2.5)
        self._label(painter, rung, line, top, tone.colour, palette.surface)

    def _turns(self, rung: LadderRow) -> bool:
        """The forwarder neither is one of the two ends nor stands between them."""
        if "forwarder" in (rung.source, rung.target):
            return False
        middle = self._ladder.x_of("forwarder")
        ends = sorted((self._ladder.x_of(rung.source), self._ladder.x_of(rung.target)))
        return not ends[0] < middle < ends[1]

    def _crossings(self, rung: LadderRow, top: float) -> list[float]:
        return [] if self._turns(rung) or rung.source == "forwarder" else [top + ROW / 2 + 3]

    def _line(self, rung: LadderRow, top: float) -> QPainterPath:
        start, end = self._ladder.x_of(rung.source), self._ladder.x_of(rung.target)
        middle = self._ladder.x_of("forwarder")
        if not self._turns(rung):
            path = QPainterPath(QPointF(start, top + ROW / 2 + 3))
            path.lineTo(QPointF(end, top + ROW / 2 + 3))
            return path
        upper, lower = top + ROW / 2 - TURN / 2 + 2, top + ROW / 2 + TURN / 2 + 2
        side = 1.0 if start > middle else -1.0
        path = QPainterPath(QPointF(start, upper))
        path.lineTo(QPointF(middle + side * TURN, upper))
        path.quadTo(QPointF(middle, upper), QPointF(middle, (upper + lower) / 2))
        path.quadTo(QPointF(middle, lower), QPointF(middle + side * TURN, lower))
        path.lineTo(QPointF(end, lower))
        return path

    def _label(
        self,
        painter: QPainter,
        rung: LadderRow,
        line: QPainterPath,
        top: float,
        ink: QColor,
        ground: QColor,
    ) -> None:
        font = theme().font(Size.SMALL, bold=True)
        box = line.boundingRect()
        width = painting.width_of(rung.label, font) + GRID
        middle = (self._ladder.x_of(rung.source) + self._ladder.x_of(rung.target)) / 2
        rightwards = self._ladder.x_of(rung.target) > self._ladder.x_of(rung.source)
        low, high = (
            box.left() + (4 if rightwards else CLEAR),
            box.right() - width - (CLEAR if rightwards else 4),
        )
        left = max(low, min(middle - width / 2, high))
        where = QRectF(left, top + 3, width, ROW - 6)
        painter.fillRect(where, ground)
        painting.text(painter, where, rung.label, font, ink)
