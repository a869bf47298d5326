"""Tables of records: one record a row, of which one is selected at a time."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QAbstractItemView, QTableView

from softphone.gui.theme import GRID


def record_table(
    headings: Sequence[str], name: str, accessible_name: str
) -> tuple[QTableView, QStandardItemModel]:
    """An empty table, and the model to append rows to. Tab leaves the table."""
    table = QTableView()
    model = QStandardItemModel(0, len(headings), table)
    model.setHorizontalHeaderLabels(headings)
    table.setModel(model)
    table.setObjectName(name)
    table.setAccessibleName(accessible_name)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setTabKeyNavigation(False)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + GRID)
    header = table.horizontalHeader()
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    header.setHighlightSections(False)
    header.setStretchLastSection(True)
    return table, model


def record(*texts: str) -> list[QStandardItem]:
    """A row for the model."""
    return [QStandardItem(text) for text in texts]
