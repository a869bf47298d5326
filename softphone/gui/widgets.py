"""Small widgets that all windows share: text that elides, flat buttons in a state's colour, marks,
round initials."""

from __future__ import annotations

import html

from PySide6.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QEnterEvent,
    QFocusEvent,
    QFontMetricsF,
    QIcon,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QTextLayout,
    QTextOption,
)
from PySide6.QtWidgets import (
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QStyle,
    QWidget,
)

from softphone.gui import icons
from softphone.gui.formatting import initial
from softphone.gui.theme import GRID, RADIUS, Palette, Size, Tone, theme


def tone_of(palette: Palette, name: str) -> Tone:
    """The tone called `name` in this palette: "alive", "hot", "ringing", "warning", "dead",
    "stop"."""
    return palette.tones()[name]


def plain_tooltip(text: str) -> str:
    """A tooltip that shows `text` as it is, also if a stranger put mark-up into it."""
    return html.escape(text) if "<" in text else text


def plain(buttons: QDialogButtonBox) -> None:
    """Take the style's coloured pictures off the buttons of a dialog: colour means state."""
    for button in buttons.buttons():
        button.setIcon(QIcon())


class TextLabel(QLabel):
    """Plain text of fixed height: `lines` lines, the last one elided, the whole text then in the
    tooltip.

    Its height and least width do not depend on the text, so nothing around it moves when the text
    changes. `names`: the text is a name and takes the direction of its own script.
    """

    def __init__(
        self,
        size: Size = Size.TEXT,
        lines: int = 1,
        bold: bool = False,
        tone: str = "",
        tabular: bool = False,
        names: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setFont(theme().font(size, bold, tabular))
        self._lines = lines
        self._tone = tone
        self._names = names
        self._tip = ""
        self.elided = False
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_tone(self, tone: str) -> None:
        """Colour: "" the text's, "muted", or a state's name."""
        if tone != self._tone:
            self._tone = tone
            self.update()

    def set_text(self, text: str, tip: str = "") -> None:
        """Show `text`; `tip` explains it, and is replaced by the text itself while that does not
        fit."""
        if text != self.text() or tip != self._tip:
            self._tip = tip
            self.setText(text)
            self._measure()

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
        self._measure()

    def _measure(self) -> None:
        shown = self._wrapped()
        self.elided = "".join(shown).replace(" ", "") != self.text().replace(" ", "")
        self.setToolTip(plain_tooltip(self.text()) if self.elided else self._tip)
        self.update()

    def _wrapped(self) -> list[str]:
        text, metrics = self.text(), QFontMetricsF(self.font())
        if self._lines == 1:
            return [metrics.elidedText(text, Qt.TextElideMode.ElideRight, self.width())]
        layout = QTextLayout(text, self.font())
        layout.setTextOption(self._option())
        layout.beginLayout()
        shown: list[str] = []
        while (line := layout.createLine()).isValid():
            line.setLineWidth(self.width())
            if len(shown) == self._lines - 1:
                rest = text[line.textStart() :]
                shown.append(metrics.elidedText(rest, Qt.TextElideMode.ElideRight, self.width()))
                break
            shown.append(text[line.textStart() : line.textStart() + line.textLength()])
        layout.endLayout()
        return shown

    def _option(self) -> QTextOption:
        option = QTextOption()
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        # Our sentences are English, also in a window laid out from right to left; a name goes its
        # own way.
        direction = Qt.LayoutDirection
        option.setTextDirection(
            direction.LayoutDirectionAuto if self._names else direction.LeftToRight
        )
        return option

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setFont(self.font())
        painter.setPen(self._colour())
        metrics = QFontMetricsF(self.font())
        start = (self.height() - self._lines * metrics.lineSpacing()) / 2
        side = QStyle.visualAlignment(self.layoutDirection(), self.alignment())
        for number, text in enumerate(self._wrapped()):
            # Twice as high as the line: letters of another script may come from a taller font, and
            # drawText clips.
            row = QRectF(
                0, start + number * metrics.lineSpacing(), self.width(), 2 * metrics.lineSpacing()
            )
            option = self._option()
            option.setWrapMode(QTextOption.WrapMode.NoWrap)
            option.setAlignment(
                (side & Qt.AlignmentFlag.AlignHorizontal_Mask) | Qt.AlignmentFlag.AlignAbsolute
            )
            painter.drawText(row, text, option)

    def _colour(self) -> QColor:
        palette = theme().palette
        if not self.isEnabled():
            return palette.faint
        if self._tone in ("", "muted"):
            return palette.muted if self._tone else palette.text
        return tone_of(palette, self._tone).colour


class FlatButton(QPushButton):
    """A flat button; `tone` colours it as a state. Checked means switched on: its colours are
    inverted."""

    def __init__(
        self, text: str = "", icon: str = "", tone: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(text, parent)
        self.icon_name = icon
        self._tone = tone
        self._lowest = 4 * GRID
        self.by_mouse = False  # how it got the keyboard
        self.repeats = False  # is each click of a double click one of its own, as on a key?
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFont(theme().font(Size.TEXT))

    def dress(self, text: str, icon: str, tone: str = "") -> None:
        """Give the button another meaning; it keeps its place and size."""
        if (text, icon, tone) != (self.text(), self.icon_name, self._tone):
            self.icon_name, self._tone = icon, tone
            self.setText(text)
            self.update()

    def allow(self, allowed: bool, tip: str) -> None:
        """Enable or disable, with a tooltip: what it does, or why it cannot be used now."""
        self.setEnabled(allowed)
        self.setToolTip(tip)
        self.setAccessibleDescription(tip)

    def set_height(self, height: int) -> None:
        self._lowest = height
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(self.font())
        icon = self._icon_side()
        icon += GRID if self.icon_name and self.text() else 0
        wide = metrics.horizontalAdvance(self.text()) + icon + 2 * GRID
        return QSize(int(wide) + 1, max(self._lowest, round(metrics.height()) + GRID))

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def _icon_side(self) -> float:
        """px: 20 beside text of the usual size, and growing with it."""
        return max(2.5 * GRID, QFontMetricsF(self.font()).height()) if self.icon_name else 0.0

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """The second click of a double click must not hit what the first one turned this button
        into."""
        if self.repeats:
            self.mousePressEvent(event)
        else:
            event.accept()

    def focusInEvent(self, event: QFocusEvent) -> None:
        self.by_mouse = event.reason() == Qt.FocusReason.MouseFocusReason
        super().focusInEvent(event)

    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.update()

    def _colours(self) -> tuple[QColor, QColor]:
        palette = theme().palette
        if not self.isEnabled():
            return palette.raised if self._tone else palette.window, palette.faint
        if self._tone:
            tone = tone_of(palette, self._tone)
            ground, ink = tone.colour, tone.ink
        elif self.isChecked():
            ground, ink = palette.text, palette.surface
        else:
            ground, ink = palette.raised, palette.text
        if self.isDown():
            ground = ground.darker(118)
        elif self.underMouse():
            ground = ground.lighter(112) if palette.dark else ground.darker(107)
        return ground, ink

    def paintEvent(self, event: QPaintEvent) -> None:
        ground, ink = self._colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect())
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ground)
        painter.drawRoundedRect(box, RADIUS, RADIUS)
        if not self.isEnabled() and not self._tone:
            painter.setPen(QPen(theme().palette.raised, 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), RADIUS, RADIUS)
        if self.hasFocus() and not self.by_mouse:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(ink, 2))
            painter.drawRoundedRect(box.adjusted(3, 3, -3, -3), RADIUS - 3, RADIUS - 3)
        self._draw_content(painter, box, ink)

    def _draw_content(self, painter: QPainter, box: QRectF, ink: QColor) -> None:
        metrics = QFontMetricsF(self.font())
        side = self._icon_side()
        gap = GRID if self.icon_name and self.text() else 0.0
        room = box.width() - 2 * GRID - side - gap
        text = metrics.elidedText(self.text(), Qt.TextElideMode.ElideRight, room + 1)
        left = box.center().x() - (side + gap + metrics.horizontalAdvance(text)) / 2
        if self.icon_name:
            icons.draw(
                painter, self.icon_name, QRectF(left, box.center().y() - side / 2, side, side), ink
            )
        painter.setPen(ink)
        painter.setFont(self.font())
        where = QRectF(
            left + side + gap, box.top(), metrics.horizontalAdvance(text) + 2, box.height()
        )
        painter.drawText(where, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)


class StateMark(QWidget):
    """A shape in a state's colour, beside the sentence of this text size that says the same in
    words."""

    def __init__(self, size: Size = Size.TEXT, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        side = max(2 * GRID, round(QFontMetricsF(theme().font(size)).lineSpacing()))
        self.setFixedSize(side, side)
        self.shape, self.tone = "ring", "dead"

    def show_state(self, shape: str, tone: str) -> None:
        if (shape, tone) != (self.shape, self.tone):
            self.shape, self.tone = shape, tone
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        icons.draw(
            QPainter(self),
            self.shape,
            QRectF(self.rect()),
            tone_of(theme().palette, self.tone).colour,
        )


class Avatar(QWidget):
    """A person's initial in a circle; no colour of its own, because colour means state."""

    def __init__(self, name: str, side: int = 5 * GRID, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedSize(side, side)
        self._initial = initial(name)

    def paintEvent(self, event: QPaintEvent) -> None:
        palette = theme().palette
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(palette.line)
        radius = self.width() / 2
        painter.drawEllipse(QPointF(radius, radius), radius, radius)
        font = theme().font(Size.TEXT, bold=True)
        font.setPixelSize(int(self.width() * 0.45))
        painter.setFont(font)
        painter.setPen(palette.text)
        painter.drawText(QRectF(self.rect()), Qt.AlignmentFlag.AlignCenter, self._initial)


class Field(QWidget):
    """A frame around a line edit, with what to write into it as a muted word in front. Its edge
    shows the focus."""

    def __init__(self, word: str, edit: QLineEdit, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.edit = edit
        edit.setFrame(False)
        edit.installEventFilter(self)
        title = TextLabel(Size.TEXT, tone="muted")
        title.set_text(word)
        title.fix_width(word)
        row = QHBoxLayout(self)
        row.setContentsMargins(GRID + GRID // 2, 3, GRID // 2, 3)
        row.setSpacing(GRID // 2)
        row.addWidget(title)
        row.addWidget(edit, 1)
        self.setFixedHeight(max(4 * GRID + GRID // 2, edit.sizeHint().height() + GRID))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.FocusIn, QEvent.Type.FocusOut):
            self.update()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        palette, focus = theme().palette, self.edit.hasFocus()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(palette.surface)
        painter.setPen(QPen(palette.hot.colour, 2) if focus else QPen(palette.faint, 1))
        inset = 1.0 if focus else 0.5
        painter.drawRoundedRect(
            QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), RADIUS, RADIUS
        )
