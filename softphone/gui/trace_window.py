"""The window with the SIP messages of a phone: a list, the whole message below, and two buttons to
save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QFontDatabase
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHeaderView,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from softphone import texts
from softphone.gui.record_table import Index, RecordModel, record_table
from softphone.gui.theme import GRID, theme
from softphone.sip_trace import SipTrace, TracedMessage, clock


class TraceModel(RecordModel):
    """The messages, the oldest first."""

    headings = texts.TRACE_COLUMNS

    def __init__(self, trace: SipTrace, parent: Any = None) -> None:
        super().__init__(parent)
        self._trace = trace
        self.records: list[TracedMessage] = list(trace)

    def refresh(self) -> None:
        """Show what the trace holds now."""
        rows = list(self._trace)
        added = len(rows) - len(self.records)
        if added > 0 and rows[: len(self.records)] == self.records:
            self.beginInsertRows(QModelIndex(), len(self.records), len(rows) - 1)
            self.records = rows
            self.endInsertRows()
        else:
            self.beginResetModel()
            self.records = rows
            self.endResetModel()

    def message_at(self, row: int) -> TracedMessage:
        return self.records[row]

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self.records[index.row()]
        message = row.message
        if role == Qt.ItemDataRole.DisplayRole:
            again = texts.SENT_AGAIN if message.retransmission else ""
            sent = texts.SENT if message.sent else texts.RECEIVED
            return (clock(row.at), sent, message.summary + again, row.route)[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole and message.retransmission:
            return theme().palette.muted
        return None


class TraceWindow(QDialog):
    """Follows the newest message until another one is chosen."""

    def __init__(self, label: str, trace: SipTrace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trace_window")
        self.setWindowTitle(texts.TRACE_OF.format(name=label))
        self._trace = trace
        self.model = TraceModel(trace, self)
        self.table = record_table(self.model, "messages", self.windowTitle())
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        for column, width in enumerate((14, 10, 44)):
            self.table.setColumnWidth(column, width * GRID)
        self.text = QPlainTextEdit()
        self.text.setObjectName("whole_message")
        self.text.setAccessibleName(texts.WHOLE_MESSAGE)
        self.text.setReadOnly(True)
        self.text.setTabChangesFocus(True)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.said = QLabel()
        self.said.setObjectName("said")
        self.said.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        for name, text, action in (
            ("save_text", texts.SAVE_TEXT, self._save_text),
            ("save_pcap", texts.SAVE_PCAP, self._save_pcap),
            ("clear", texts.CLEAR, self._clear),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setAutoDefault(False)
            button.clicked.connect(action)
            buttons.addButton(button, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.close)
        halves = QSplitter(Qt.Orientation.Vertical)
        halves.addWidget(self.table)
        halves.addWidget(self.text)
        rows = QVBoxLayout(self)
        rows.addWidget(halves, 1)
        rows.addWidget(self.said)
        rows.addWidget(buttons)
        self.table.selectionModel().currentRowChanged.connect(self._show)
        self.resize(100 * GRID, 75 * GRID)
        self.refresh()

    def refresh(self) -> None:
        """A message has passed."""
        current, last = self.table.currentIndex().row(), self.model.rowCount() - 1
        self.model.refresh()
        if current in (-1, last) and self.model.rowCount():
            self.table.selectRow(self.model.rowCount() - 1)
            self.table.scrollToBottom()
        server = self._trace.answered_by
        self.said.setText(texts.ANSWERED_LAST.format(server=server) if server else "")

    def _show(self, current: QModelIndex) -> None:
        row = current.row()
        self.text.setPlainText(self.model.message_at(row).text if row >= 0 else "")

    def _clear(self) -> None:
        self._trace.clear()
        self.refresh()
        self.text.clear()

    def _save_text(self) -> None:
        self._save(texts.TEXT_FILES, "trace.txt", self._trace.as_text().encode())

    def _save_pcap(self) -> None:
        self._save(texts.PCAP_FILES, "trace.pcap", self._trace.as_pcap())

    def _save(self, kind: str, name: str, data: bytes) -> None:
        path, _ = QFileDialog.getSaveFileName(self, texts.SAVE_TRACE, name, kind)
        if path:
            try:
                Path(path).write_bytes(data)
                self.said.setText(texts.SAVED.format(path=path))
            except OSError as fault:
                self.said.setText(texts.NOT_SAVED.format(path=path, reason=fault.strerror))
