"""How the figure's parts are drawn: boxes, arrows, the store, messages. Functions of painter, place
and state."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import QBuffer, QIODevice, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontDatabase,
    QFontMetricsF,
    QPainter,
    QPainterPath,
    QPen,
    QPolygonF,
)
from PySide6.QtSvg import QSvgGenerator

from softphone.gui import icons
from softphone.gui.theme import GRID, RADIUS, Size, Tone, theme
from stage.gui.zoom import zoomed

HEAD = 10.0  # px, length of an arrow's head
TEXT_HEIGHT = 16.0  # px: the height of the figure's text before the figure is scaled


def figure_font(size: Size = Size.TEXT, bold: bool = False, scale: float = 1.0) -> QFont:
    """The system's font in the figure, which is drawn for text of TEXT_HEIGHT and then scaled as a
    whole: boxes and words keep their proportion whatever the system's font is."""
    font = theme().font(size, bold)
    natural = QFontMetricsF(theme().font(Size.TEXT)).height()
    font.setPointSizeF(font.pointSizeF() * TEXT_HEIGHT / natural * scale)
    return font


def text(
    painter: QPainter,
    where: QRectF,
    words: str,
    font: QFont,
    colour: QColor,
    align: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignCenter,
) -> None:
    """One line, elided to the room it has."""
    painter.setFont(font)
    painter.setPen(colour)
    shown = QFontMetricsF(font).elidedText(words, Qt.TextElideMode.ElideRight, where.width() + 1)
    painter.drawText(where, align | Qt.AlignmentFlag.AlignVCenter, shown)


def card(
    painter: QPainter,
    box: QRectF,
    fill: QColor,
    edge: QColor,
    width: float = 1.0,
    dashed: bool = False,
    radius: float = RADIUS,
) -> None:
    pen = QPen(edge, width)
    if dashed:
        pen.setDashPattern([4, 3])
    painter.setPen(pen)
    painter.setBrush(fill)
    inset = width / 2
    painter.drawRoundedRect(box.adjusted(inset, inset, -inset, -inset), radius, radius)


def arrow(
    painter: QPainter,
    start: QPointF,
    end: QPointF,
    colour: QColor,
    width: float = 2.0,
    *,
    head: bool = True,
    dotted: bool = False,
) -> None:
    """A straight line, with a filled head at `end` if wished."""
    length = math.hypot(end.x() - start.x(), end.y() - start.y())
    if length < 1:
        return
    along = QPointF((end.x() - start.x()) / length, (end.y() - start.y()) / length)
    neck = end - along * HEAD if head and length > HEAD else end
    pen = QPen(colour, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap)
    if dotted:
        pen.setDashPattern([0.1, 3.5])
    painter.setPen(pen)
    painter.drawLine(start, neck)
    if head and length > HEAD:
        across = QPointF(-along.y(), along.x()) * (HEAD * 0.5 + width * 0.5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        painter.drawPolygon(QPolygonF([end, neck + across, neck - across]))


def cross(painter: QPainter, box: QRectF, colour: QColor, width: float = 2.0) -> None:
    """From corner to corner: dead is not only grey."""
    faint = QColor(colour)
    faint.setAlphaF(0.28)
    painter.setPen(QPen(faint, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawLine(box.topLeft(), box.bottomRight())
    painter.drawLine(box.topRight(), box.bottomLeft())


def phone(painter: QPainter, box: QRectF, name: str, tone: Tone, icon: str) -> None:
    """A round picture of a phone in its state's colour, the person's name beneath."""
    painter.setPen(QPen(tone.colour, 2))
    painter.setBrush(tone.wash)
    painter.drawEllipse(box.adjusted(1, 1, -1, -1))
    side = box.width() * 0.46
    icons.draw(
        painter,
        icon,
        QRectF(box.center().x() - side / 2, box.center().y() - side / 2, side, side),
        tone.colour,
    )
    below = QRectF(box.center().x() - 48, box.bottom() + 2, 96, 2.5 * GRID)
    text(painter, below, name, figure_font(Size.SMALL, bold=True), theme().palette.text)


def two_lines(
    painter: QPainter, box: QRectF, title: str, words: str, ink: QColor, size: Size = Size.TEXT
) -> None:
    """A bold title, and words beneath, in the middle of `box`."""
    half = box.height() / 2
    palette = theme().palette
    text(painter, box.adjusted(0, 0, 0, -half), title, figure_font(size, bold=True), palette.text)
    text(painter, box.adjusted(0, half, 0, 0), words, figure_font(Size.SMALL), ink)


def forwarder(
    painter: QPainter, box: QRectF, words: str, tone: Tone | None, pill: bool = False
) -> None:
    """`pill`: the one address of two forwarders, which is not a program and hence no box."""
    palette = theme().palette
    edge = tone.colour if tone else palette.muted
    fill = tone.wash if tone else palette.surface
    card(painter, box, fill, edge, 2, radius=box.height() / 2 if pill else RADIUS)
    title, size = ("one address", Size.SMALL) if pill else ("forwarder", Size.TEXT)
    two_lines(painter, box.adjusted(GRID, 4, -GRID, -4), title, words, edge, size)


def store(painter: QPainter, box: QRectF) -> None:
    """A cylinder, as everybody draws a data base."""
    palette = theme().palette
    lid = min(14.0, box.height() / 4)
    body = QPainterPath(QPointF(box.left(), box.top() + lid / 2))
    body.lineTo(box.left(), box.bottom() - lid / 2)
    body.arcTo(QRectF(box.left(), box.bottom() - lid, box.width(), lid), 180, 180)
    body.lineTo(box.right(), box.top() + lid / 2)
    body.arcTo(QRectF(box.left(), box.top(), box.width(), lid), 0, 180)
    painter.setPen(QPen(palette.muted, 1.5))
    painter.setBrush(palette.surface)
    painter.drawPath(body)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawArc(QRectF(box.left(), box.top(), box.width(), lid), 180 * 16, 180 * 16)
    room = box.adjusted(GRID, lid, -GRID, -3)
    two_lines(painter, room, "shared store", "calls, registrations, bills", palette.muted)


def label_box(centre: QPointF, words: str, bold: bool = True) -> QRectF:
    """Room for small words around `centre`."""
    metrics = QFontMetricsF(figure_font(Size.SMALL, bold))
    width, height = metrics.horizontalAdvance(words) + 2 * GRID, metrics.height() + 4
    return QRectF(centre.x() - width / 2, centre.y() - height / 2, width, height)


def pill(painter: QPainter, box: QRectF, words: str, tone: Tone, ground: QColor) -> None:
    """A message: its name in a lozenge, set off from the lines it travels on."""
    radius = box.height() / 2 + 1
    painter.setPen(QPen(ground, 2))
    painter.setBrush(tone.colour)
    painter.drawRoundedRect(box.adjusted(-1, -1, 1, 1), radius, radius)
    text(painter, box, words, figure_font(Size.SMALL, bold=True), tone.ink)


def tag(painter: QPainter, centre: QPointF, words: str, colour: QColor, ground: QColor) -> None:
    """Words on a line, with the line hidden behind them."""
    box = label_box(centre, words, bold=False)
    painter.fillRect(box, ground)
    text(painter, box, words, figure_font(Size.SMALL), colour)


def width_of(words: str, font: QFont) -> float:
    return QFontMetricsF(font).horizontalAdvance(words)


def height_of(font: QFont) -> float:
    return QFontMetricsF(font).height()


def fixed_font() -> QFont:
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(zoomed(Size.SMALL).pointSizeF())
    return font


def svg_of(size: QSize, draw: Callable[[QPainter], None]) -> str:
    """The drawing of `draw(painter)` as an SVG element for HTML."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setSize(size)
    generator.setViewBox(QRect(0, 0, size.width(), size.height()))
    painter = QPainter(generator)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    draw(painter)
    painter.end()
    text = bytes(buffer.data().data()).decode("utf-8")
    return text[text.index("<svg") :]
