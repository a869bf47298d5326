"""Icons as SVG on a 24 x 24 field: sharp at every scale, in any colour, alike on every system."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

# Lines are drawn in the icon's colour, INK, which may fill shapes too.
FIELD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="INK" '
    'stroke-width="2" stroke-linecap="round" stroke-linejoin="round">{}</svg>'
)
# A mask: its black parts are cut out of the shape.
CUT = '<mask id="cut"><path fill="#fff" stroke="none" d="M0 0H24V24H0Z"/>{}</mask>'
HANDSET = (
    '<path stroke-width="4" stroke-linecap="butt" d="M3.2 13.6C6.5 7.6 17.5 7.6 20.8 13.6"/>'
    '<g fill="INK" stroke="none"><rect x="1.2" y="11.6" width="6.2" height="5.2" rx="1.6"/>'
    '<rect x="16.6" y="11.6" width="6.2" height="5.2" rx="1.6"/></g>'
)
MICROPHONE = (
    '<rect x="9" y="3" width="6" height="11.5" rx="3" fill="INK" stroke="none"/>'
    '<path d="M6 11.5C6 19.4 18 19.4 18 11.5M12 17.6V21M8.6 21H15.4"/>'
)
ICONS = {
    "call": f'<g transform="translate(12 12) rotate(-135) translate(-12.6 -14.2)">{HANDSET}</g>',
    "hang_up": HANDSET,
    "decline": '<path stroke-width="2.6" d="M6.5 6.5 17.5 17.5M17.5 6.5 6.5 17.5"/>',
    "pause": '<path stroke-width="4" d="M8.5 7V17M15.5 7V17"/>',
    "play": '<path fill="INK" d="M8 5.5 18.5 12 8 18.5Z"/>',
    "microphone": MICROPHONE,
    "microphone_off": CUT.format('<path stroke="#000" stroke-width="5.5" d="M4 3.5 20 20.5"/>')
    + f'<g mask="url(#cut)">{MICROPHONE}</g><path d="M4 3.5 20 20.5"/>',
    "warning": CUT.format('<path stroke="#000" stroke-width="2.2" d="M12 10V13.6M12 16.7V16.8"/>')
    + '<path mask="url(#cut)" fill="INK" d="M12 4.5 21 19.5H3Z"/>',
    "check": CUT.format('<path stroke="#000" stroke-width="2.4" d="M7.6 12.4 10.8 15.4 16.4 9.2"/>')
    + '<circle mask="url(#cut)" fill="INK" stroke="none" cx="12" cy="12" r="9.5"/>',
    "crossed": '<g stroke-width="2.2"><circle cx="12" cy="12" r="8.5"/><path d="M6 18 18 6"/></g>',
    "menu": '<path d="M5 7.5H19M5 12H19M5 16.5H19"/>',
    "history": '<circle cx="12" cy="12" r="8.5"/><path d="M12 7V12L15.5 14"/>',
    "listen": '<path d="M4.5 14.5C4.5 2.5 19.5 2.5 19.5 14.5"/><g fill="INK" stroke="none">'
    '<rect x="3.2" y="13" width="4.6" height="7" rx="1.6"/>'
    '<rect x="16.2" y="13" width="4.6" height="7" rx="1.6"/></g>',
    "ring": '<circle stroke-width="2.6" cx="12" cy="12" r="8"/>',
    "dot": '<circle fill="INK" stroke="none" cx="12" cy="12" r="8"/>',
    "in": '<path stroke-width="2.4" d="M17.5 6.5 6.5 17.5M6.5 9.5V17.5H14.5"/>',
    "out": '<path stroke-width="2.4" d="M6.5 17.5 17.5 6.5M9.5 6.5H17.5V14.5"/>',
}


@cache
def _renderer(name: str, colour: str) -> QSvgRenderer:
    text = FIELD.format(ICONS[name]).replace("INK", colour)
    return QSvgRenderer(QByteArray(text.encode()))


def draw(painter: QPainter, name: str, where: QRectF, colour: QColor) -> None:
    """Draw the icon into `where`, as large as fits, centred. KeyError for one that is not in
    ICONS."""
    side = min(where.width(), where.height())
    square = QRectF(0, 0, side, side)
    square.moveCenter(where.center())
    _renderer(name, colour.name()).render(painter, square)


def window_icon(name: str, ink: QColor, ground: QColor) -> QIcon:
    """The icon in `ink` on a rounded square of `ground`; window managers make it smaller."""
    pixmap = _clear_pixmap(256, 256)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ground)
    painter.drawRoundedRect(0, 0, 256, 256, 56, 56)
    draw(painter, name, QRectF(46, 46, 164, 164), ink)
    painter.end()
    return QIcon(pixmap)


def button_icon(name: str, size: QSize, ink: QColor, checked: QColor, disabled: QColor) -> QIcon:
    """The icon of a button, at the left of `size`, in a colour for each of its states; four times
    as large, for screens with more pixels."""
    result = QIcon()
    for colour, mode, state in (
        (ink, QIcon.Mode.Normal, QIcon.State.Off),
        (checked, QIcon.Mode.Normal, QIcon.State.On),
        (disabled, QIcon.Mode.Disabled, QIcon.State.Off),
    ):
        pixmap = _clear_pixmap(4 * size.width(), 4 * size.height())
        painter = QPainter(pixmap)
        draw(painter, name, QRectF(0, 0, pixmap.height(), pixmap.height()), colour)
        painter.end()
        result.addPixmap(pixmap, mode, state)
    return result


def _clear_pixmap(width: int, height: int) -> QPixmap:
    pixmap = QPixmap(width, height)
    pixmap.fill(Qt.GlobalColor.transparent)
    return pixmap
