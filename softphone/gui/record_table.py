"""Tables of records: one record a row, of which one is selected at a time."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QAbstractItemModel, Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QAbstractItemView, QTableView

from softphone.gui.theme import GRID


def record_model(headings: Sequence[str]) -> QStandardItemModel:
    """An empty model, to append rows of text to."""
    model = QStandardItemModel(0, len(headings))
    model.setHorizontalHeaderLabels(headings)
    return model


def record(*texts: str) -> list[QStandardItem]:
    """A row for the model."""
    return [QStandardItem(text) for text in texts]


def record_table(model: QAbstractItemModel, name: str, accessible_name: str) -> QTableView:
    """A view of the model; Tab leaves it."""
    table = QTableView(showGrid=False, wordWrap=False)
    table.setTabKeyNavigation(False)
    table.setModel(model)
    table.setObjectName(name)
    table.setAccessibleName(accessible_name)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + GRID)
    header = table.horizontalHeader()
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    header.setHighlightSections(False)
    header.setStretchLastSection(True)
    return table
