"""The bill of the present call as a server's management page tells it: who, how long, carried by
whom, how much."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QStackedLayout, QVBoxLayout, QWidget

from softphone.gui import formatting
from softphone.gui.theme import GRID, Size, theme
from softphone.gui.widgets import TextLabel, row_of
from stage.gui import painting
from stage.gui.zoom import zoomed
from stage.observation.observations import Bill

EMPTY = "No bill yet. It appears here as soon as a call is answered."


class Bar(QWidget):
    """Seconds carried by each server, drawn to scale: the first in grey, each later one in the
    colour of hot."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._parts: tuple[tuple[str, float], ...] = ()

    def sizeHint(self) -> QSize:
        return QSize(30 * GRID, round(painting.height_of(zoomed(Size.SMALL)) * 1.6))

    def show_parts(self, parts: tuple[tuple[str, float], ...]) -> None:
        if parts != self._parts:
            self._parts = parts
            self.setAccessibleName(
                ", ".join(f"{name} {seconds:.0f} seconds" for name, seconds in parts)
            )
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        palette = theme().palette
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        whole = QRectF(self.rect())
        outline = QPainterPath()
        outline.addRoundedRect(whole, GRID / 2, GRID / 2)
        painter.setClipPath(outline)
        painter.fillRect(whole, palette.raised)
        total = sum(seconds for _, seconds in self._parts)
        left = whole.left()
        for index, (name, seconds) in enumerate(self._parts):
            if total <= 0:
                break
            width = whole.width() * seconds / total
            tone = palette.hot if index % 2 else palette.dead
            box = QRectF(left, whole.top(), width, whole.height())
            painter.fillRect(box, tone.colour)
            if index:
                painter.fillRect(QRectF(left - 1, whole.top(), 2, whole.height()), palette.surface)
            self._label(
                painter, box.adjusted(GRID, 0, -GRID, 0), f"{name}  {seconds:.0f} s", tone.ink
            )
            left += width

    def _label(self, painter: QPainter, room: QRectF, text: str, ink: QColor) -> None:
        font = zoomed(Size.SMALL, bold=True, tabular=True)
        if room.width() >= painting.width_of(text, font):
            painting.text(painter, room, text, font, ink, Qt.AlignmentFlag.AlignLeft)


class BillView(QWidget):
    """Shows one bill, or says when there will be one."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("The bill")
        self.bill: Bill | None = None
        self._stack = QStackedLayout(self)
        empty = TextLabel(Size.TEXT, lines=2, tone="muted")
        empty.set_text(EMPTY)
        empty.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._stack.addWidget(empty)
        self._stack.addWidget(self._make_body())
        theme().changed.connect(self._show_link)

    def _make_body(self) -> QWidget:
        self._who = TextLabel(Size.TEXT, bold=True)
        self._time = TextLabel(Size.TITLE, tabular=True)
        self._time.fix_width("00:00:00")
        self._time.setAlignment(Qt.AlignmentFlag.AlignRight)
        self._why = TextLabel(Size.SMALL, tone="muted")
        self._bar = Bar()
        self.parts = TextLabel(Size.SMALL, tone="muted", tabular=True, name="bill_parts")
        self._terms = TextLabel(Size.SMALL, tone="muted", tabular=True)
        self.total = TextLabel(Size.TITLE, bold=True, tabular=True, name="bill_total")
        self.source = QLabel()
        self.source.setObjectName("bill_source")
        self.source.setFont(theme().font(Size.SMALL))
        self.source.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.source.setOpenExternalLinks(True)
        self.source.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse
            | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, GRID, 0, 0)
        column.setSpacing(GRID // 2)
        column.addLayout(row_of(self._who, self._time))
        column.addWidget(self._why)
        column.addSpacing(GRID // 2)
        column.addWidget(self._bar)
        column.addWidget(self.parts)
        column.addWidget(self._terms)
        column.addLayout(row_of(self.total, self.source))
        column.addStretch(1)
        return body

    def show_bill(self, bill: Bill | None) -> None:
        if bill == self.bill:
            return
        self.bill = bill
        self._stack.setCurrentIndex(0 if bill is None else 1)
        if bill is None:
            return
        self._who.set_text(f"{bill.caller} \u2192 {bill.callee}")
        self._time.set_text(formatting.duration(bill.seconds))
        started = f"Started via {bill.carried[0][0]}. " if bill.carried else ""
        self._why.set_text(f"{started}{bill.why}")
        self._bar.show_parts(bill.carried)
        self.parts.set_text(" + ".join(f"{name} {seconds:.0f} s" for name, seconds in bill.carried))
        self._terms.set_text(bill.terms)
        amount = f"{bill.total} {bill.currency}"
        self.total.set_text(f"Total {amount}" if bill.final else f"{amount} so far")
        self._show_link()
        self.source.setToolTip(
            f"This bill was read from {bill.page}. Click to open the page in your browser."
        )

    def _show_link(self) -> None:
        """A QLabel takes the palette's colour of links when it gets its text."""
        if self.bill is not None:
            link = f'<a href="{self.bill.page}">{self.bill.server}\u2019s page</a>'
            self.source.setText("")
            self.source.setText(link)
