"""The messages that crossed the forwarder, from top to bottom, as call-flow tools draw them.

A model holds the rows, a proxy filters them, a delegate draws one. Columns are the phones,
the forwarders and the servers. A line from a server to Bob turns at the forwarder, as the message
did.
A selected row opens the whole message beside the ladder.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QPointF,
    QRectF,
    QSize,
    QSortFilterProxyModel,
    Qt,
)
from PySide6.QtGui import (
    QActionGroup,
    QColor,
    QGuiApplication,
    QKeySequence,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QShortcut,
    QStandardItemModel,
)
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QMessageBox,
    QPlainTextEdit,
    QSplitter,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from plumbing.address import parse_address
from plumbing.pcap import CapturedDatagram, pcap
from softphone.gui.record_table import record, record_model, record_table
from softphone.gui.theme import GRID, Size, theme
from softphone.gui.widgets import row_of
from softphone.sip_trace import clock
from stage.gui import painting
from stage.gui.flat_controls import menu_button, small_button
from stage.gui.topology_view import TONES
from stage.gui.zoom import zoomed
from stage.observation.observations import LadderRow, MessageForwarded, Remark

ROWS_KEPT = 2000  # older ones fall out at the top
BESIDE_WIDTH = 560  # px: from here on a message stands beside the ladder, else Enter opens it
SVG_WIDTH = 900  # px
LABEL_GAP = 16.0  # px of a line that stay visible before its head
TURN = 9.0  # px between the two halves of a line that turns at the forwarder
SDP = "\r\n\r\nv=0"  # a session description begins, as the body of a message
HEADINGS = ("Time", "Message", "From", "To", "Call-ID")
SINCE_KILL, DELTA, CLOCK = "since the kill", "since the message above", "of the day"

Index = QModelIndex | QPersistentModelIndex


class LadderFilter(QSortFilterProxyModel):
    """By call and by method; OPTIONS, the demo's own questions, are hidden unless asked for.
    Messages sent again after a failover, and remarks on programs, are always shown.

    `zero`, from which times are counted, is the first message until something is killed, then the
    latest kill; it does not move when old rows fall out."""

    def __init__(self, model: QStandardItemModel) -> None:
        super().__init__()
        self.call = self.method = ""
        self.options = False
        self.times = SINCE_KILL
        self.zero: float | None = None
        self.setSourceModel(model)

    def filterAcceptsRow(self, number: int, parent: Index) -> bool:
        row = self.sourceModel().index(number, 0, parent).data(Qt.ItemDataRole.UserRole)
        if isinstance(row, Remark):
            return True
        if self.call and row.call_id != self.call:
            return False
        if self.method:
            return bool(row.method == self.method)
        return row.method != "OPTIONS" or self.options or row.replayed

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and index.column() == 0:
            return self.time_of(index.row())
        if role == Qt.ItemDataRole.AccessibleTextRole:
            row = self.row(index.row())
            way = "" if isinstance(row, Remark) else f"{row.sender} to {row.target}: "
            return f"{self.time_of(index.row())} {way}{row.label}"
        return super().data(index, role)

    def row(self, number: int) -> LadderRow:
        row: LadderRow = self.index(number, 0).data(Qt.ItemDataRole.UserRole)
        return row

    def shown(self) -> list[LadderRow]:
        return [self.row(number) for number in range(self.rowCount())]

    def time_of(self, number: int) -> str:
        """Of a row that is shown; a delta is the time since the one above it."""
        at = self.row(number).at
        if self.times == CLOCK:
            return clock(time.time() - time.monotonic() + at)
        if self.times == DELTA:
            return f"{at - (self.row(number - 1).at if number else at):+.3f}"
        return self.since_zero(at)

    def since_zero(self, at: float) -> str:
        return f"{at - (at if self.zero is None else self.zero):+.3f}"


class RowPainter(QStyledItemDelegate):
    """Draws one row in a given width; for the screen and for SVG alike."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.widest_time = "+000.000"

    @property
    def height(self) -> int:
        return round(painting.height_of(zoomed(Size.SMALL)) * 1.3)

    @property
    def times(self) -> float:
        return painting.width_of(self.widest_time, zoomed(Size.SMALL)) + GRID

    def x_of(self, name: str, box: QRectF) -> float:
        name = name if name in self.columns else "forwarder"
        name = name if name in self.columns else self.columns[1]
        step = (box.width() - self.times) / len(self.columns)
        return box.left() + self.times + step * (self.columns.index(name) + 0.5)

    def heading(self, painter: QPainter, box: QRectF) -> None:
        step = (box.width() - self.times) / len(self.columns)
        for name in self.columns:
            where = QRectF(self.x_of(name, box) - step / 2, box.top(), step, box.height())
            if painting.width_of(name, zoomed(Size.SMALL, bold=True)) > step:
                name = name.replace("forwarder", "fwd").replace("server", "srv")
            painting.text(painter, where, name, zoomed(Size.SMALL, bold=True), theme().palette.text)

    def row(
        self, painter: QPainter, box: QRectF, row: LadderRow, when: str, ground: QColor
    ) -> None:
        palette, small = theme().palette, zoomed(Size.SMALL)
        painter.fillRect(box, ground)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(palette.line, 1))
        for name in self.columns:
            x = self.x_of(name, box)
            painter.drawLine(QPointF(x, box.top()), QPointF(x, box.bottom()))
        left = QRectF(box.left(), box.top(), self.times - GRID, box.height())
        painting.text(painter, left, when, small, palette.muted, Qt.AlignmentFlag.AlignRight)
        tone = palette.tone(TONES[row.kind])
        if isinstance(row, Remark):
            band = QRectF(
                box.left() + self.times, box.top() + 3, box.width() - self.times, box.height() - 6
            )
            painter.fillRect(band, tone.wash)
            painting.text(painter, band, row.label, zoomed(Size.SMALL, bold=True), tone.colour)
            return
        line = self._line(row, box)
        painter.setPen(QPen(tone.colour, 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(line)
        end = line.pointAtPercent(1.0)
        away = 1.0 if end.x() >= line.pointAtPercent(0.97).x() else -1.0
        painting.arrow(painter, QPointF(end.x() - away * 11, end.y()), end, tone.colour, 1.5)
        if not self._turns(row, box) and row.through != row.sender:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(tone.colour)
            painter.drawEllipse(QPointF(self.x_of(row.through, box), end.y()), 2.5, 2.5)
        self._label(painter, row, line, box, tone.colour, ground)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        palette = theme().palette
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        ground = palette.raised if chosen else palette.surface
        row, when = index.data(Qt.ItemDataRole.UserRole), index.data(Qt.ItemDataRole.DisplayRole)
        painter.save()
        self.row(painter, QRectF(option.rect), row, when, ground)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(40 * GRID, self.height)

    def _turns(self, row: MessageForwarded, box: QRectF) -> bool:
        """True if the forwarder neither sent the message again nor stands between its two ends."""
        if row.through == row.sender:
            return False
        ends = sorted((self.x_of(row.sender, box), self.x_of(row.target, box)))
        return not ends[0] < self.x_of(row.through, box) < ends[1]

    def _line(self, row: MessageForwarded, box: QRectF) -> QPainterPath:
        start, end = self.x_of(row.sender, box), self.x_of(row.target, box)
        middle, level = self.x_of(row.through, box), box.center().y() + box.height() * 0.18
        if not self._turns(row, box):
            path = QPainterPath(QPointF(start, level))
            path.lineTo(QPointF(end, level))
            return path
        upper, lower = level - TURN / 2, level + TURN / 2
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
        row: MessageForwarded,
        line: QPainterPath,
        box: QRectF,
        ink: QColor,
        ground: QColor,
    ) -> None:
        font, around = zoomed(Size.SMALL, bold=True), line.boundingRect()
        label = f"{row.label} (SDP)" if SDP in row.text else row.label
        width = painting.width_of(label, font) + GRID
        start, end = self.x_of(row.sender, box), self.x_of(row.target, box)
        low = around.left() + (4 if end > start else LABEL_GAP)
        high = around.right() - width - (LABEL_GAP if end > start else 4)
        left = max(low, min((start + end - width) / 2, high))
        where = QRectF(left, box.top() + 1, width, box.height() - 2)
        painter.fillRect(where.adjusted(0, 2, 0, -2), ground)
        painting.text(painter, where, label, font, ink)


def message_text(text: str) -> QPlainTextEdit:
    """A whole message, to be read and copied."""
    view = QPlainTextEdit(text)
    view.setObjectName("message_text")
    view.setAccessibleName("The selected message")
    view.setReadOnly(True)
    view.setFrameShape(QFrame.Shape.NoFrame)
    view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
    view.setFont(painting.fixed_font())
    return view


class Heading(QWidget):
    """The names above the columns."""

    def __init__(self, rows: RowPainter, view: QTableView) -> None:
        super().__init__()
        self._rows, self._view = rows, view

    def sizeHint(self) -> QSize:
        return QSize(40 * GRID, self._rows.height)

    def paintEvent(self, event: QPaintEvent) -> None:
        box = QRectF(0, 0, self._view.viewport().width(), self.height())
        self._rows.heading(QPainter(self), box)


class Ladder(QWidget):
    """The view with its filters; follows the newest row unless somebody has scrolled up."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.setAccessibleName("The messages of the call")
        self.rows: deque[LadderRow] = deque()  # as they stand in the model, the oldest first
        self.model = record_model(HEADINGS)
        self.filter = LadderFilter(self.model)
        self.painter = RowPainter(columns)
        self._calls: list[str] = []
        self._make_view()
        self.detail = message_text("")
        self.detail.setVisible(False)
        self._heading = Heading(self.painter, self.view)
        flow = QWidget()
        column = QVBoxLayout(flow)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._heading)
        column.addWidget(self.view, 1)
        self.splitter = QSplitter(Qt.Orientation.Horizontal)
        self.splitter.addWidget(flow)
        self.splitter.addWidget(self.detail)
        self.splitter.setStretchFactor(0, 3)
        self.splitter.setStretchFactor(1, 2)
        self.splitter.setChildrenCollapsible(False)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, GRID // 2, 0, 0)
        whole.setSpacing(GRID // 2)
        whole.addLayout(self._make_filters())
        whole.addWidget(self.splitter, 1)
        self.fit_rows()

    # -- construction ------------------------------------------------------------------------------

    def _make_view(self) -> None:
        view = record_table(self.filter, "messages", "Messages")
        view.setItemDelegateForColumn(0, self.painter)
        for number in range(1, len(HEADINGS)):
            view.setColumnHidden(number, True)
        view.horizontalHeader().setVisible(False)
        view.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        view.verticalHeader().setMinimumSectionSize(8)
        view.setFrameShape(QFrame.Shape.NoFrame)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        view.setMinimumSize(30 * GRID, 6 * GRID)
        self.view = view
        self._following = True  # until a person scrolls up
        bar = view.verticalScrollBar()
        bar.rangeChanged.connect(lambda _, most: bar.setValue(most) if self._following else None)
        bar.actionTriggered.connect(
            lambda _: setattr(self, "_following", bar.sliderPosition() >= bar.maximum() - 1)
        )
        view.selectionModel().currentRowChanged.connect(self._open)
        view.activated.connect(self.open_window)
        view.setToolTip("Enter or a double click opens the whole message")
        copy = QShortcut(QKeySequence.StandardKey.Copy, view, self._copy)
        copy.setContext(Qt.ShortcutContext.WidgetShortcut)

    def _make_filters(self) -> QHBoxLayout:
        self.calls, self.methods = QComboBox(), QComboBox()
        self.calls.addItem("All calls", "")
        self.methods.addItem("All methods", "")
        time_button, times = menu_button("Time")
        self.times = QActionGroup(self)
        for text in (SINCE_KILL, DELTA, CLOCK):
            action = self.times.addAction(text)
            action.setCheckable(True)
            action.setChecked(text == SINCE_KILL)
            times.addAction(action)
        self.options = small_button("OPTIONS")
        self.options.setCheckable(True)
        self.options.setToolTip("Show the questions within the call that the demo asks by itself")
        save, menu = menu_button("Save", "save_messages")
        save.setToolTip("Save the messages shown here")
        menu.addAction("Copy all as text", lambda: self._to_clipboard(self.text()))
        for kind in ("text", "SVG", "pcap"):
            menu.addAction(f"Save as {kind} ...", partial(self._ask_and_save, kind))
        names = ("Which call", "Which method", "How times are shown", "Show OPTIONS", "Save")
        parts = (self.calls, self.methods, time_button, self.options, save)
        for part, name in zip(parts, names, strict=True):
            part.setAccessibleName(name)
        time_button.setToolTip("How times are shown")
        for box in (self.calls, self.methods):
            box.setToolTip(box.accessibleName())
            box.setFrame(False)
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
            box.setMinimumWidth(8 * GRID)
        row = row_of(*parts, spacing=GRID // 2)
        row.insertStretch(2, 1)  # what is shown to the left, how to the right
        self.calls.currentIndexChanged.connect(self._choose)
        self.methods.currentIndexChanged.connect(self._choose)
        self.options.toggled.connect(self._choose)
        self.times.triggered.connect(lambda action: self._show_times(action.text()))
        return row

    # -- rows --------------------------------------------------------------------------------------

    def add(self, row: LadderRow) -> None:
        if len(self.rows) >= ROWS_KEPT:
            self.rows.popleft()
            self.model.removeRow(0)
        place = len(self.rows)  # by time: a kill is told sooner than the message it followed
        while place and self.rows[place - 1].at > row.at:
            place -= 1
        self.rows.insert(place, row)
        if isinstance(row, MessageForwarded):
            cells = record("", row.label, row.sender, row.target, row.call_id)
            self._offer_filters(row)
        else:
            cells = record("", row.label, "", "", "")
        cells[0].setData(row, Qt.ItemDataRole.UserRole)
        self.model.insertRow(place, cells)
        killed = isinstance(row, Remark) and row.kind == "refusal"
        if self.filter.zero is None or killed:
            self.filter.zero = row.at
            self.view.viewport().update()

    def _offer_filters(self, row: MessageForwarded) -> None:
        if self.methods.findData(row.method) < 0:
            self.methods.addItem(row.method, row.method)
        if row.method == "INVITE" and row.call_id not in self._calls:
            self._calls.append(row.call_id)
            self.calls.addItem(f"Call {len(self._calls)}", row.call_id)
            last = self.calls.count() - 1
            self.calls.setItemData(last, row.call_id, Qt.ItemDataRole.ToolTipRole)

    def add_column(self, name: str) -> None:
        """At the right edge; twice is fine."""
        if name not in self.painter.columns:
            self.painter.columns += (name,)
            self._heading.update()
            self.view.viewport().update()

    def fit_rows(self) -> None:
        """After a change of the text's size."""
        self.view.verticalHeader().setDefaultSectionSize(self.painter.height)
        self.detail.setFont(painting.fixed_font())
        self._heading.updateGeometry()

    def _choose(self) -> None:
        self.filter.call = self.calls.currentData() or ""
        self.filter.method = self.methods.currentData() or ""
        self.filter.options = self.options.isChecked()
        self.filter.invalidate()

    def _show_times(self, times: str) -> None:
        self.filter.times = times
        self.painter.widest_time = "00:00:00.000" if times == CLOCK else "+000.000"
        self._heading.update()
        self.view.viewport().update()

    def _open(self, current: QModelIndex) -> None:
        row = current.data(Qt.ItemDataRole.UserRole) if current.isValid() else None
        self.detail.setVisible(row is not None and self.width() >= BESIDE_WIDTH)
        if row is not None:
            self.detail.setPlainText(self.describe(row))

    def open_window(self, index: QModelIndex) -> QDialog:
        """The message in a window of its own."""
        dialog = QDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        row: LadderRow = index.data(Qt.ItemDataRole.UserRole)
        dialog.setWindowTitle(row.label)
        QVBoxLayout(dialog).addWidget(message_text(self.describe(row)))
        dialog.resize(90 * GRID, 60 * GRID)
        dialog.show()
        return dialog

    def describe(self, row: LadderRow) -> str:
        """A row's whole text: a remark's words, or a message with its addresses and Call-ID."""
        if isinstance(row, Remark):
            return row.label
        head = f"{row.source_address} > {row.target_address}\nCall-ID {row.call_id}\n\n"
        return head + row.text.replace("\r\n", "\n")

    # -- taken away --------------------------------------------------------------------------------

    def text(self) -> str:
        """A line per message with the seconds since the kill, and its text indented beneath."""
        lines: list[str] = []
        for row in self.filter.shown():
            when = f"{self.filter.since_zero(row.at):>9}"
            if isinstance(row, Remark):
                lines.append(f"{when}  ---- {row.label} ----")
                continue
            way = f"{row.sender} -> {row.target}  {row.label}"
            lines.append(f"{when}  {way}  {row.source_address} > {row.target_address}")
            lines += [f"           | {line}" for line in row.text.splitlines()]
        return "\n".join(lines) + "\n"

    def pcap(self) -> bytes:
        """A capture file of the messages whose text is known."""
        offset = time.time() - time.monotonic()
        return pcap(
            CapturedDatagram(
                row.at + offset,
                parse_address(row.source_address),
                parse_address(row.target_address),
                row.text.encode(),
            )
            for row in self.filter.shown()
            if isinstance(row, MessageForwarded) and row.text
        )

    def svg(self) -> str:
        """The heading and the rows that the filter lets through, as an SVG element."""
        rows, height = self.filter.shown(), self.painter.height
        size = QSize(SVG_WIDTH, (len(rows) + 1) * height)
        surface = theme().palette.surface

        def draw(painter: QPainter) -> None:
            painter.fillRect(QRectF(QPointF(0, 0), size), surface)
            self.painter.heading(painter, QRectF(0, 0, SVG_WIDTH, height))
            for number, row in enumerate(rows, start=1):
                when = self.filter.since_zero(row.at)
                box = QRectF(0, number * height, SVG_WIDTH, height)
                self.painter.row(painter, box, row, when, surface)

        return painting.svg_of(size, draw)

    def save(self, kind: str, path: str) -> None:
        if kind == "pcap":
            Path(path).write_bytes(self.pcap())
        else:
            text = self.svg() if kind == "SVG" else self.text()
            Path(path).write_text(text, encoding="utf-8")

    def _ask_and_save(self, kind: str) -> None:
        ending = {"text": "txt", "SVG": "svg", "pcap": "pcap"}[kind]
        path, _ = QFileDialog.getSaveFileName(self, f"Save as {kind}", f"messages.{ending}")
        if path:
            try:
                self.save(kind, path)
            except OSError as error:
                trouble = f"{path} could not be written: {error.strerror}."
                QMessageBox.warning(self, f"Save as {kind}", trouble)

    def _copy(self) -> None:
        self._to_clipboard(self.detail.toPlainText())

    @staticmethod
    def _to_clipboard(text: str) -> None:
        QGuiApplication.clipboard().setText(text)
