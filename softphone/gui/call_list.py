"""The list of calls: a table of the last hundred, from which one calls back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import (
    QDateTime,
    QLocale,
    Qt,
    Signal,
)
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from softphone import texts
from softphone.call_history import CallHistory, Outcome, PastCall
from softphone.gui import formatting
from softphone.gui.record_table import Index, RecordModel, record_table
from softphone.gui.theme import GRID, theme

OUTCOME, PEER, WHEN, LENGTH, REASON = range(5)


class CallListModel(RecordModel):
    """The calls of a history, the newest first."""

    headings = texts.CALL_COLUMNS

    def __init__(
        self, history: CallHistory, now: Callable[[], float] = time.time, parent: Any = None
    ) -> None:
        super().__init__(parent)
        self._history, self._now = history, now
        self.records: list[PastCall] = list(history)

    def refresh(self) -> None:
        """Show what the history holds now."""
        self.beginResetModel()
        self.records = list(self._history)
        self.endResetModel()

    def call_at(self, row: int) -> PastCall:
        return self.records[row]

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        call, column = self.records[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(call, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return formatting.one_line(call.reason if column == REASON else call.uri)
        if role == Qt.ItemDataRole.ForegroundRole and call.outcome is Outcome.MISSED:
            return theme().palette.stop.colour
        return None

    def _text(self, call: PastCall, column: int) -> str:
        if column == OUTCOME:
            return texts.OUTCOMES[call.outcome.name]
        if column == PEER:
            return name_of(call)
        if column == WHEN:
            return when(call.started, self._now())
        if column == LENGTH:
            answered = call.outcome in (Outcome.ANSWERED, Outcome.PLACED)
            return formatting.duration(call.seconds) if answered else ""
        return formatting.one_line(call.reason)


class CallList(QDialog):
    """A window with the list. `call_back` is emitted with the address of a call that was chosen by
    a double click, Enter or the button."""

    call_back = Signal(str)

    def __init__(self, label: str, history: CallHistory, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("call_list")
        self.setWindowTitle(texts.CALLS_OF.format(name=label))
        self._history = history
        self.model = CallListModel(history, parent=self)
        self.table = record_table(self.model, "calls", self.windowTitle())
        self.table.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self._empty = QLabel(texts.NO_CALLS)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._fault = QLabel()
        self._fault.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self._call = QPushButton(texts.CALL_BACK)
        self._call.setObjectName("call_back")
        self._clear = QPushButton(texts.FORGET_ALL)
        self._clear.setObjectName("forget_all")
        buttons.addButton(self._call, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.addButton(self._clear, QDialogButtonBox.ButtonRole.ResetRole)
        for button in (self._clear, buttons.button(QDialogButtonBox.StandardButton.Close)):
            button.setAutoDefault(False)
        self._call.setDefault(True)
        buttons.rejected.connect(self.close)
        self._call.clicked.connect(self._call_selected)
        self._clear.clicked.connect(self._forget_all)
        self.table.doubleClicked.connect(lambda index: self._call_row(index.row()))
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._show_buttons())
        column = QVBoxLayout(self)
        for widget in (self._empty, self.table, self._fault, buttons):
            column.addWidget(widget)
        self.resize(80 * GRID, 45 * GRID)
        self.refresh()

    def refresh(self) -> None:
        """A call has ended."""
        row = self._row()
        self.model.refresh()
        if self.model.rowCount():
            self.table.selectRow(max(0, min(row, self.model.rowCount() - 1)))
        self._show_buttons()

    def _row(self) -> int:
        rows = self.table.selectionModel().selectedRows()
        return rows[0].row() if rows else 0

    def _show_buttons(self) -> None:
        some = self.model.rowCount() > 0
        self._empty.setVisible(not some)
        self.table.setVisible(some)
        self._fault.setText(self._history.fault)
        self._fault.setVisible(bool(self._history.fault))
        self._clear.setEnabled(some)
        chosen = self.table.selectionModel().selectedRows()
        self._call.setEnabled(bool(chosen))
        tip = (
            texts.CALL_NAME.format(name=name_of(self.model.call_at(self._row()))) if chosen else ""
        )
        self._call.setToolTip(tip or texts.CHOOSE_A_CALL)

    def _call_selected(self) -> None:
        if self.table.selectionModel().selectedRows():
            self._call_row(self._row())

    def _call_row(self, row: int) -> None:
        self.call_back.emit(self.model.call_at(row).uri)

    def _forget_all(self) -> None:
        self._history.clear()
        self.refresh()


def name_of(call: PastCall) -> str:
    """The name of the other side in a list: the display name, else the address."""
    return formatting.one_line(call.name) or formatting.one_line(call.uri.partition(":")[2])


def when(wall: float, now: float) -> str:
    """The time of a call, of another day with its date, as this country writes it."""
    moment = QDateTime.fromSecsSinceEpoch(int(wall))
    today = QDateTime.fromSecsSinceEpoch(int(now)).date()
    clock = QLocale().toString(moment.time(), QLocale.FormatType.ShortFormat)
    days = moment.date().daysTo(today)
    if days == 0:
        return clock
    if days == 1:
        return texts.YESTERDAY.format(time=clock)
    return f"{QLocale().toString(moment.date(), QLocale.FormatType.ShortFormat)} {clock}"
