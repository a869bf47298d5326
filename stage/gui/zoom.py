"""How large the window's text is: a factor that follows the window's size, times what a person
chose with Ctrl + and -.

Widgets that draw their text ask `zoomed` for a font when they paint. Those that keep a font, the
phones' panels among them, are given theirs anew by `apply`, which remembers the size each had.
"""

from __future__ import annotations

from PySide6.QtCore import QSettings, QSize
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QWidget

from softphone.gui.theme import Size, theme
from softphone.gui.widgets import StateMark, TextLabel

NATURAL = QSize(1280, 800)  # px: the window's size at which the text has the system's
LARGEST_BY_SIZE, LEAST, LARGEST = 1.7, 0.5, 3.0
STEP = 1.1  # of one Ctrl +
_BASE = "zoom_base"

_factor = 1.0


def factor() -> float:
    return _factor


def by_size(size: QSize) -> float:
    """The zoom for the window's size: never smaller than the system's text."""
    room = min(size.width() / NATURAL.width(), size.height() / NATURAL.height())
    return max(1.0, min(LARGEST_BY_SIZE, room))


def set_factor(value: float) -> bool:
    """True if that is another one than before; then `apply` is due."""
    global _factor
    value = round(max(LEAST, min(LARGEST, value)), 2)
    changed, _factor = value != _factor, value
    return changed


def zoomed(size: Size = Size.TEXT, bold: bool = False, tabular: bool = False) -> QFont:
    """The theme's font in the present size."""
    font = theme().font(size, bold, tabular)
    font.setPointSizeF(font.pointSizeF() * _factor)
    return font


def apply(root: QWidget) -> None:
    """Give every widget in `root` its font in the present size."""
    for widget in [root, *root.findChildren(QWidget)]:
        base = widget.property(_BASE)
        if base is None:
            fixed = widget.minimumWidth() == widget.maximumWidth()
            width = widget.width() if fixed and isinstance(widget, StateMark | TextLabel) else 0
            base = [widget.font().pointSizeF(), width]
            widget.setProperty(_BASE, base)
        font = widget.font()
        if base[0] > 0 and abs(font.pointSizeF() - base[0] * _factor) > 0.01:
            font.setPointSizeF(base[0] * _factor)
            widget.setFont(font)
            if base[1]:
                widget.setFixedWidth(round(base[1] * _factor))
                if isinstance(widget, StateMark):
                    widget.setFixedHeight(widget.width())
            widget.updateGeometry()


def chosen() -> float:
    """The zoom that a person chose last time."""
    try:
        return float(str(QSettings().value("zoom", 1.0)))
    except ValueError:
        return 1.0


def choose(value: float) -> None:
    QSettings().setValue("zoom", value)
