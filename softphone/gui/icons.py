"""Icons as paths on a 24 x 24 field: sharp at every scale, in any colour, the same on every
system."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import (
    QColor,
    QIcon,
    QPainter,
    QPainterPath,
    QPainterPathStroker,
    QPixmap,
    QTransform,
)

FIELD = 24.0


def _stroked(line: QPainterPath, width: float = 2.0) -> QPainterPath:
    pen = QPainterPathStroker()
    pen.setWidth(width)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    return pen.createStroke(line).simplified()


def _lines(*strokes: tuple[tuple[float, float], ...], width: float = 2.0) -> QPainterPath:
    path = QPainterPath()
    for first, *rest in strokes:
        path.moveTo(QPointF(*first))
        for point in rest:
            path.lineTo(QPointF(*point))
    return _stroked(path, width)


def _rounded(x: float, y: float, width: float, height: float, radius: float) -> QPainterPath:
    path = QPainterPath()
    path.addRoundedRect(QRectF(x, y, width, height), radius, radius)
    return path


def _circle(radius: float) -> QPainterPath:
    path = QPainterPath()
    path.addEllipse(QPointF(12, 12), radius, radius)
    return path


def _handset_down() -> QPainterPath:
    arch = QPainterPath(QPointF(3.2, 13.6))
    arch.cubicTo(QPointF(6.5, 7.6), QPointF(17.5, 7.6), QPointF(20.8, 13.6))
    pen = QPainterPathStroker()
    pen.setWidth(4.0)
    pen.setCapStyle(Qt.PenCapStyle.FlatCap)
    ends = _rounded(1.2, 11.6, 6.2, 5.2, 1.6).united(_rounded(16.6, 11.6, 6.2, 5.2, 1.6))
    return pen.createStroke(arch).united(ends).simplified()


def _handset_up() -> QPainterPath:
    turn = QTransform().translate(12, 12).rotate(-135).translate(-12.6, -14.2)
    return turn.map(_handset_down())


def _microphone() -> QPainterPath:
    cup = QPainterPath(QPointF(6, 11.5))
    cup.cubicTo(QPointF(6, 19.4), QPointF(18, 19.4), QPointF(18, 11.5))
    stand = _lines(((12, 17.6), (12, 21)), ((8.6, 21), (15.4, 21)))
    return _rounded(9, 3, 6, 11.5, 3).united(_stroked(cup)).united(stand).simplified()


def _microphone_off() -> QPainterPath:
    slash = ((4.0, 3.5), (20.0, 20.5))
    return _microphone().subtracted(_lines(slash, width=5.5)).united(_lines(slash)).simplified()


def _play() -> QPainterPath:
    path = QPainterPath(QPointF(8, 5.5))
    path.lineTo(18.5, 12)
    path.lineTo(8, 18.5)
    path.closeSubpath()
    return path.united(_stroked(path, 2.0)).simplified()


def _warning() -> QPainterPath:
    triangle = QPainterPath(QPointF(12, 4.5))
    triangle.lineTo(21, 19.5)
    triangle.lineTo(3, 19.5)
    triangle.closeSubpath()
    mark = _lines(((12, 10), (12, 13.6)), ((12, 16.7), (12, 16.8)), width=2.2)
    return triangle.united(_stroked(triangle, 2.0)).subtracted(mark).simplified()


def _headphones() -> QPainterPath:
    band = QPainterPath(QPointF(4.5, 14.5))
    band.cubicTo(QPointF(4.5, 2.5), QPointF(19.5, 2.5), QPointF(19.5, 14.5))
    cups = _rounded(3.2, 13, 4.6, 7, 1.6).united(_rounded(16.2, 13, 4.6, 7, 1.6))
    return _stroked(band).united(cups).simplified()


def _check() -> QPainterPath:
    return (
        _circle(9.5)
        .subtracted(_lines(((7.6, 12.4), (10.8, 15.4), (16.4, 9.2)), width=2.4))
        .simplified()
    )


def _crossed() -> QPainterPath:
    return _stroked(_circle(8.5), 2.2).united(_lines(((6, 18), (18, 6)), width=2.2)).simplified()


PATHS: dict[str, Callable[[], QPainterPath]] = {
    "call": _handset_up,
    "hang_up": _handset_down,
    "decline": lambda: _lines(((6.5, 6.5), (17.5, 17.5)), ((17.5, 6.5), (6.5, 17.5)), width=2.6),
    "pause": lambda: _rounded(6.5, 5, 4, 14, 1.2).united(_rounded(13.5, 5, 4, 14, 1.2)),
    "play": _play,
    "microphone": _microphone,
    "microphone_off": _microphone_off,
    "warning": _warning,
    "check": _check,
    "crossed": _crossed,
    "menu": lambda: _lines(
        ((5, 7.5), (19, 7.5)), ((5, 12), (19, 12)), ((5, 16.5), (19, 16.5)), width=2.0
    ),
    "history": lambda: _stroked(_circle(8.5)).united(_lines(((12, 7), (12, 12), (15.5, 14)))),
    "listen": _headphones,
    "ring": lambda: _stroked(_circle(8.0), 2.6),
    "dot": lambda: _circle(8.0),
    "in": lambda: _lines(
        ((17.5, 6.5), (6.5, 17.5)), ((6.5, 9.5), (6.5, 17.5), (14.5, 17.5)), width=2.4
    ),
    "out": lambda: _lines(
        ((6.5, 17.5), (17.5, 6.5)), ((9.5, 6.5), (17.5, 6.5), (17.5, 14.5)), width=2.4
    ),
}


@cache
def path(name: str) -> QPainterPath:
    """The outline of an icon on the 24 x 24 field; KeyError for a name that is not in PATHS."""
    return PATHS[name]()


def draw(painter: QPainter, name: str, where: QRectF, colour: QColor) -> None:
    """Fill the icon into `where`, as large as fits, centred."""
    scale = min(where.width(), where.height()) / FIELD
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.translate(where.center())
    painter.scale(scale, scale)
    painter.translate(-FIELD / 2, -FIELD / 2)
    painter.fillPath(path(name), colour)
    painter.restore()


def icon(name: str, ink: QColor, ground: QColor) -> QIcon:
    """A window's icon: the path in `ink` on a rounded square of `ground`."""
    result = QIcon()
    for side in (16, 24, 32, 48, 64, 128, 256):
        pixmap = QPixmap(side, side)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        card = QPainterPath()
        card.addRoundedRect(QRectF(0, 0, side, side), side * 0.22, side * 0.22)
        painter.fillPath(card, ground)
        draw(painter, name, QRectF(side * 0.18, side * 0.18, side * 0.64, side * 0.64), ink)
        painter.end()
        result.addPixmap(pixmap)
    return result
