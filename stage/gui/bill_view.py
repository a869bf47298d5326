"""The bill of the present call as a server's management page tells it: who, how long, carried by
whom, how much."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QStackedLayout, QVBoxLayout, QWidget

from softphone.gui import formatting
from softphone.gui.theme import GRID, Size, theme
from softphone.gui.widgets import TextLabel
from stage.gui import painting
from stage.gui.zoom import zoomed
from stage.observation.from_events import person

TARIFF = re.compile(r"([\d.]+)\s*\+\s*([\d.]+)\s*/\s*(\d+)\s*s", re.ASCII)
EMPTY = "No bill yet. It appears here as soon as a call is answered."


@dataclass(frozen=True)
class BillSummary:
    """A bill made ready to show; `carried` are (server, seconds), `page` is the address of the
    server's page."""

    caller: str
    callee: str
    seconds: int
    carried: tuple[tuple[str, float], ...]
    why: str
    total: str
    currency: str
    final: bool
    server: str
    page: str
    sum: str = ""
    started: str = ""


def bill_from_json(call: dict[str, Any], server: str, page: str, started: str) -> BillSummary:
    """From one entry of the `/calls` of `server`, begun through `started`; what is absent is shown
    as nothing."""
    parts = call.get("carried") or ()
    carried = tuple(
        (str(part.get("server", "")), float(part.get("seconds") or 0)) for part in parts
    )
    return BillSummary(
        person(str(call.get("caller", ""))),
        person(str(call.get("callee", ""))),
        int(call.get("seconds") or 0),
        carried,
        str(call.get("why") or ""),
        str(call.get("total", "")),
        str(call.get("currency", "")),
        bool(call.get("final")),
        server,
        page,
        sum_of(str(call.get("tariff") or ""), call.get("units")),
        started,
    )


def sum_of(tariff: str, units: object) -> str:
    """How the total came about: "0.10+0.05/10s" and 2 units read "0.10 set-up + 2 \u00d7 0.05 per
    started 10 s"."""
    match = TARIFF.fullmatch(tariff)
    if not match or not isinstance(units, int):
        return ""
    fee, price, seconds = match.groups()
    return f"{fee} set-up + {units} \u00d7 {price} per started {seconds} s"


class Bar(QWidget):
    """Seconds carried by each server, drawn to scale: the first in grey, each later one in the
    colour of hot."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
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

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("The bill")
        self.look: BillSummary | None = None
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
        self.parts = TextLabel(Size.SMALL, tone="muted", tabular=True)
        self.parts.setObjectName("bill_parts")
        self._sum = TextLabel(Size.SMALL, tone="muted", tabular=True)
        self.total = TextLabel(Size.TITLE, bold=True, tabular=True)
        self.total.setObjectName("bill_total")
        self.source = QLabel()
        self.source.setObjectName("bill_source")
        self.source.setFont(theme().font(Size.SMALL))
        self.source.setOpenExternalLinks(True)
        self.source.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse
            | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, GRID // 2, 0, 0)
        column.setSpacing(GRID // 2)
        column.addLayout(beside(self._who, self._time))
        column.addWidget(self._why)
        column.addSpacing(GRID // 2)
        column.addWidget(self._bar)
        column.addWidget(self.parts)
        column.addWidget(self._sum)
        column.addLayout(beside(self.total, self.source))
        column.addStretch(1)
        return body

    def show_bill(self, look: BillSummary | None) -> None:
        if look == self.look:
            return
        self.look = look
        self._stack.setCurrentIndex(0 if look is None else 1)
        if look is None:
            return
        self._who.set_text(f"{look.caller} \u2192 {look.callee}")
        self._time.set_text(formatting.duration(look.seconds))
        self._why.set_text(f"{f'Started via {look.started}. ' if look.started else ''}{look.why}")
        self._bar.show_parts(look.carried)
        self.parts.set_text(" + ".join(f"{name} {seconds:.0f} s" for name, seconds in look.carried))
        self._sum.set_text(look.sum)
        amount = f"{look.total} {look.currency}"
        self.total.set_text(f"Total {amount}" if look.final else f"{amount} so far")
        self._show_link()
        self.source.setToolTip(
            f"This bill was read from {look.page}. Click to open the page in your browser."
        )

    def _show_link(self) -> None:
        """A QLabel takes the palette's colour of links when it gets its text."""
        if self.look is not None:
            link = f'<a href="{self.look.page}">{self.look.server}\u2019s page</a>'
            self.source.setText("")
            self.source.setText(link)


def beside(left: QWidget, right: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(GRID)
    row.addWidget(left, 1)
    row.addWidget(right)
    return row
