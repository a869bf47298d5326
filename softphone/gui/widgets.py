"""Small widgets that all windows share: text that elides, buttons and marks in a state's colour.
Their colours stand in the theme's style sheet."""

from __future__ import annotations

import html
from bisect import bisect

from PySide6.QtCore import QEvent, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QFocusEvent,
    QFontMetrics,
    QFontMetricsF,
    QIcon,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QWidget

from softphone.gui import icons
from softphone.gui.theme import GRID, Size, theme


def set_property(widget: QWidget, name: str, value: object) -> None:
    """Set a property by which the style sheet chooses the widget's look."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def plain_tooltip(text: str) -> str:
    """A tooltip that shows `text` as it is, also if a stranger put mark-up into it."""
    return html.escape(text) if "<" in text else text


def row_of(*widgets: QWidget, spacing: int = GRID) -> QHBoxLayout:
    """The widgets side by side, pictures at the top."""
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(spacing)
    for widget in widgets:
        row.addWidget(widget)
        if isinstance(widget, StateMark):
            row.setAlignment(widget, Qt.AlignmentFlag.AlignTop)
    return row


class TextLabel(QLabel):
    """Plain text of fixed height: `lines` lines, the last one elided, the whole text then in the
    tooltip.

    Its height and least width do not depend on the text, so nothing around it moves when the text
    changes. `tone`: "" for the colour of text, "muted", or a state's name.
    """

    def __init__(
        self,
        size: Size = Size.TEXT,
        lines: int = 1,
        bold: bool = False,
        tone: str = "",
        tabular: bool = False,
        name: str = "",
    ) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setFont(theme().font(size, bold, tabular))
        self.setProperty("tone", tone)
        self._lines = lines
        if lines > 1:
            self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self._shown = self._tip = ""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    @property
    def elided(self) -> bool:
        return self._shown != self.text()

    def set_tone(self, tone: str) -> None:
        set_property(self, "tone", tone)

    def set_text(self, text: str, tip: str = "") -> None:
        """Show `text`; `tip` explains it, and is replaced by the text itself while that does not
        fit."""
        if text != self.text() or tip != self._tip:
            self._tip = tip
            self.setText(text)
            self._elide()

    def fix_width(self, text: str) -> None:
        """As wide as `text`, whatever it shows and however narrow the window is."""
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setFixedWidth(int(QFontMetricsF(self.font()).horizontalAdvance(text)) + 2)

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(self.font())
        widest = min(metrics.horizontalAdvance(self.text()), 30 * metrics.averageCharWidth())
        return QSize(int(widest) + 1, self._height())

    def minimumSizeHint(self) -> QSize:
        return QSize(4 * GRID, self._height())

    def _height(self) -> int:
        return round(QFontMetricsF(self.font()).lineSpacing()) * self._lines + 1

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        text, metrics = self.text(), QFontMetrics(self.font())
        # letters of another script may come from a taller font
        room = QRect(0, 0, self.width(), int((self._lines + 0.9) * metrics.lineSpacing()))

        def overflows(end: int) -> bool:
            shown = text[:end] + ("" if end == len(text) else "\u2026")
            needed = metrics.boundingRect(room, Qt.TextFlag.TextWordWrap, shown)
            return needed.height() > room.height() or needed.width() > room.width()

        end = bisect(range(len(text)), False, key=overflows) if overflows(len(text)) else len(text)
        self._shown = text if end == len(text) else text[: end - 1].rstrip() + "\u2026"
        self.setToolTip(plain_tooltip(text) if self.elided else self._tip)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Like QLabel, but elided, and each text in the direction of its own script."""
        painter = QPainter(self)
        painter.setLayoutDirection(Qt.LayoutDirection.LayoutDirectionAuto)
        flags = self.alignment() | Qt.TextFlag.TextWordWrap | Qt.TextFlag.TextDontClip
        self.style().drawItemText(
            painter,
            self.rect(),
            flags,
            self.palette(),
            self.isEnabled(),
            self._shown,
            self.foregroundRole(),
        )


class FlatButton(QPushButton):
    """A button with an icon, whose words, icon and colour change with what it does; `tone` is a
    state's name, or "". Checked means switched on: its colours are inverted. `narrow`: as wide as
    its words."""

    def __init__(
        self,
        text: str = "",
        icon: str = "",
        tone: str = "",
        parent: QWidget | None = None,
        name: str = "",
        tip: str = "",
        narrow: bool = False,
    ) -> None:
        super().__init__(text, parent)
        self.setObjectName(name)
        self.set_allowed(True, tip)
        self.icon_name = icon
        self.setMinimumHeight(4 * GRID)
        self.setProperty("tone", tone)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAutoDefault(True)  # Enter presses it, like Space
        width = QSizePolicy.Policy.Fixed if narrow else QSizePolicy.Policy.Expanding
        self.setSizePolicy(width, QSizePolicy.Policy.Fixed)
        theme().changed.connect(self._show_icon)
        self._show_icon()

    def set_face(self, text: str, icon: str, tone: str = "") -> None:
        """Give the button another meaning; it keeps its place and size."""
        if (text, icon, tone) != (self.text(), self.icon_name, self.property("tone")):
            self.icon_name = icon
            self.setText(text)
            set_property(self, "tone", tone)
            self._show_icon()

    def _show_icon(self) -> None:
        if not self.icon_name:
            self.setIcon(QIcon())
            return
        palette, tone = theme().palette, self.property("tone")
        ink = palette.tone(tone).ink if tone else palette.text
        # px: 20 beside text of the usual size; Qt leaves too little room before the text
        side = max(5 * GRID // 2, self.fontMetrics().height())
        size = QSize(side + GRID // 2 if self.text() else side, side)
        self.setIconSize(size)
        self.setIcon(icons.button_icon(self.icon_name, size, ink, palette.surface, palette.faint))

    def set_allowed(self, allowed: bool, tip: str) -> None:
        """Enable or disable, with a tooltip: what it does, or why it cannot be used now."""
        self.setEnabled(allowed)
        self.setToolTip(tip)
        self.setAccessibleDescription(tip)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._show_icon()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """The second click of a double click must not hit what the first one turned this button
        into."""
        event.accept()

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Show the focus to somebody who uses the keyboard."""
        set_property(self, "ring", event.reason() != Qt.FocusReason.MouseFocusReason)
        super().focusInEvent(event)


class StateMark(QWidget):
    """A shape in a state's colour, beside the sentence of this text size that says the same in
    words."""

    def __init__(self, size: Size = Size.TEXT) -> None:
        super().__init__()
        side = max(2 * GRID, round(QFontMetricsF(theme().font(size)).lineSpacing()))
        self.setFixedSize(side, side)
        self.shape, self.tone = "ring", "dead"

    def show_state(self, shape: str, tone: str) -> None:
        if (shape, tone) != (self.shape, self.tone):
            self.shape, self.tone = shape, tone
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        colour = theme().palette.tone(self.tone).colour
        icons.draw(QPainter(self), self.shape, QRectF(self.rect()), colour)
