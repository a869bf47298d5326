"""The list of calls: a table of the last hundred, from which one calls back."""

from __future__ import annotations

import time

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
    QVBoxLayout,
    QWidget,
)

from softphone import texts
from softphone.call_history import CallHistory, Outcome, PastCall
from softphone.gui import formatting
from softphone.gui.record_table import record, record_model, record_table
from softphone.gui.theme import GRID, theme

PEER, REASON = 1, 4  # columns


class CallList(QDialog):
    """A window with the list. `call_back` is emitted with the address of a call that was chosen by
    a double click, Enter or the button."""

    call_back = Signal(str)

    def __init__(self, label: str, history: CallHistory, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("call_list")
        self.setWindowTitle(texts.CALLS_OF.format(name=label))
        self._history = history
        self._calls: list[PastCall] = []  # as they stand in the rows
        self.model = record_model(texts.CALL_COLUMNS)
        self.table = record_table(self.model, "calls", self.windowTitle())
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        for stretched in (PEER, REASON):
            header.setSectionResizeMode(stretched, QHeaderView.ResizeMode.Stretch)
        self._empty = QLabel(texts.NO_CALLS, alignment=Qt.AlignmentFlag.AlignCenter)
        self._fault = QLabel(wordWrap=True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self._call = buttons.addButton(texts.CALL_BACK, QDialogButtonBox.ButtonRole.ActionRole)
        self._call.setObjectName("call_back")
        self._clear = buttons.addButton(texts.FORGET_ALL, QDialogButtonBox.ButtonRole.ResetRole)
        self._clear.setObjectName("forget_all")
        close = buttons.button(QDialogButtonBox.StandardButton.Close)
        for button in (self._clear, close):
            button.setAutoDefault(False)
        self._call.setDefault(True)
        buttons.rejected.connect(self.close)
        self._call.clicked.connect(self._call_selected)
        self.table.doubleClicked.connect(self._call_selected)
        self._clear.clicked.connect(self._forget_all)
        self.table.selectionModel().currentRowChanged.connect(self._show_buttons)
        theme().changed.connect(self.refresh)
        column = QVBoxLayout(self)
        for widget in (self._empty, self.table, self._fault, buttons):
            column.addWidget(widget)
        self.resize(100 * GRID, 45 * GRID)
        self.refresh()

    def refresh(self) -> None:
        """A call has ended."""
        chosen = self._row()
        self._calls = list(self._history)
        self.model.setRowCount(0)
        for call in self._calls:
            row = record(*_texts_of(call, time.time()))
            for item in row:
                item.setToolTip(formatting.one_line(call.uri))
                if call.outcome is Outcome.MISSED:
                    item.setForeground(theme().palette.stop.colour)
            row[REASON].setToolTip(row[REASON].text())
            self.model.appendRow(row)
        if self._calls:
            self.table.selectRow(min(max(chosen, 0), len(self._calls) - 1))
        self._show_buttons()

    def _row(self) -> int:
        return self.table.currentIndex().row()

    def _show_buttons(self) -> None:
        some, row = bool(self._calls), self._row()
        self._empty.setVisible(not some)
        self.table.setVisible(some)
        self._fault.setText(self._history.fault)
        self._fault.setVisible(bool(self._history.fault))
        self._clear.setEnabled(some)
        self._call.setEnabled(row >= 0)
        tip = texts.CHOOSE_A_CALL
        if row >= 0:
            call = self._calls[row]
            tip = texts.CALL_NAME.format(name=formatting.party(call.name, call.uri))
        self._call.setToolTip(tip)

    def _call_selected(self) -> None:
        self.call_back.emit(self._calls[self._row()].uri)

    def _forget_all(self) -> None:
        self._history.clear()
        self.refresh()


def _texts_of(call: PastCall, now: float) -> tuple[str, ...]:
    talked = call.outcome in (Outcome.ANSWERED, Outcome.PLACED)
    return (
        texts.OUTCOMES[call.outcome.name],
        formatting.party(call.name, call.uri),
        when(call.started, now),
        formatting.duration(call.seconds) if talked else "",
        formatting.one_line(call.reason),
    )


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
