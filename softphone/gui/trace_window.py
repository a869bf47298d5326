"""The window with the SIP messages of a phone: a list, the whole message below, and two buttons to
save them."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QFont, QFontDatabase, QStandardItem
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLabel,
    QPlainTextEdit,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from softphone import texts
from softphone.gui.record_table import record, record_model, record_table
from softphone.gui.theme import GRID
from softphone.sip_trace import SipTrace, TracedMessage, clock


class TraceWindow(QDialog):
    """Follows the newest message until another one is chosen."""

    def __init__(self, label: str, trace: SipTrace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trace_window")
        self.setWindowTitle(texts.TRACE_OF.format(name=label))
        self._trace = trace
        self._messages: list[TracedMessage] = []  # as they stand in the rows, the oldest first
        self.model = record_model(texts.TRACE_COLUMNS)
        self.table = record_table(self.model, "messages", self.windowTitle())
        for column, width in enumerate((13, 10, 40)):
            self.table.setColumnWidth(column, width * GRID)
        self.text = QPlainTextEdit(
            readOnly=True, tabChangesFocus=True, placeholderText=texts.NO_MESSAGES
        )
        self.text.setObjectName("whole_message")
        self.text.setAccessibleName(texts.WHOLE_MESSAGE)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.said = QLabel(wordWrap=True)
        self.said.setObjectName("said")
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        for name, text, action in (
            ("save_text", texts.SAVE_TEXT, self._save_text),
            ("save_pcap", texts.SAVE_PCAP, self._save_pcap),
            ("clear", texts.CLEAR, self._clear),
        ):
            button = buttons.addButton(text, QDialogButtonBox.ButtonRole.ActionRole)
            button.setObjectName(name)
            button.setAutoDefault(False)
            button.clicked.connect(action)
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
        messages, shown = list(self._trace), self._messages
        follows = self.table.currentIndex().row() in (-1, len(shown) - 1)
        while shown and (not messages or shown[0] is not messages[0]):
            del shown[0]
            self.model.removeRow(0)
        for each in messages[len(shown) :]:
            shown.append(each)
            self.model.appendRow(_row(each))
        if follows and shown:
            self.table.selectRow(len(shown) - 1)
            self.table.scrollToBottom()
        server = self._trace.answered_by
        self.said.setText(texts.ANSWERED_LAST.format(server=server) if server else "")

    def _show(self, current: QModelIndex) -> None:
        row = current.row()
        self.text.setPlainText(self._messages[row].text if row >= 0 else "")

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


def _row(traced: TracedMessage) -> list[QStandardItem]:
    message = traced.message
    again = texts.SENT_AGAIN if message.retransmission else ""
    sent = texts.SENT if message.sent else texts.RECEIVED
    row = record(clock(traced.at), sent, message.summary + again, traced.route)
    font = QFont()
    font.setItalic(message.retransmission)
    for item in row:
        item.setFont(font)
    return row
