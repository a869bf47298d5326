"""The use case, step by step: rows that tick themselves as things are observed, each with what was
measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from softphone.gui import icons
from softphone.gui.theme import GRID, Size, theme
from stage.gui import painting
from stage.gui.wording import said
from stage.gui.zoom import zoomed
from stage.scenes.use_case import PAIR, STEPS, Row, Step

NUMBERS_WIDTH = 3.5  # heights of the text: icon and number, before the words


class StepList(QWidget):
    """Shows the use case's rows. The first one not yet observed is the present one."""

    def __init__(self, steps: Sequence[Step] = STEPS, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("The use case, step by step")
        self.rows = [StepRow(Row(step.number, "")) for step in steps]
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        for row in self.rows:
            column.addWidget(row, 1)

    def show_rows(self, rows: Sequence[Row]) -> None:
        present = next((row.number for row in rows if not row.observed), None)
        for row, widget in zip(rows, self.rows, strict=True):
            widget.show_row(row, row.number == present)


class StepRow(QWidget):
    """Mark, number, text, and the measure at the right edge; the text gives way if both do not
    fit."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.setObjectName(f"step_{row.number}")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.row, self.present = row, False

    def sizeHint(self) -> QSize:
        return QSize(50 * GRID, round(painting.height_of(zoomed(Size.TEXT)) * 1.25))

    def minimumSizeHint(self) -> QSize:
        return QSize(30 * GRID, round(painting.height_of(zoomed(Size.TEXT))))

    def show_row(self, row: Row, present: bool) -> None:
        row = replace(row, words=said(row.words))
        if (row, present) == (self.row, self.present) and self.accessibleName():
            return
        self.row, self.present = row, present
        status = "observed" if row.observed else "now" if present else "not yet"
        self.setAccessibleName(f"Step {row.number}, {status}: {row.text} {row.words}".strip())
        self.setToolTip(f"{row.text} {row.words}".strip())
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette, row = QPainter(self), theme().palette, self.row
        middle, icon_side = self.height() / 2, painting.height_of(zoomed(Size.TEXT))
        words_at = NUMBERS_WIDTH * icon_side
        icon, tone = mark_of(row, self.present)
        icons.draw(
            painter,
            icon,
            QRectF(0, middle - icon_side / 2, icon_side, icon_side),
            palette.tone(tone).colour,
        )
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        number = QRectF(icon_side, 0, words_at - icon_side - 1.5 * GRID, self.height())
        painting.text(
            painter,
            number,
            str(row.number),
            zoomed(Size.TEXT, tabular=True),
            palette.muted,
            right,
        )
        font = zoomed(Size.TEXT, bold=self.present)
        measure = zoomed(Size.TEXT, bold=row.observed and row.number in MEASURED)
        wide = min(painting.width_of(row.words, measure) + 1, self.width() * 0.5)
        room = QRectF(words_at, 0, self.width() - words_at - wide - 2 * GRID, self.height())
        ink = palette.text if row.observed or self.present else palette.muted
        painting.text(painter, room, row.text, font, ink, left)
        words = QRectF(self.width() - wide, 0, wide, self.height())
        painting.text(
            painter,
            words,
            row.words,
            measure,
            palette.text if row.observed else palette.muted,
            right,
        )


MEASURED = (6, 7, PAIR.number, 9)  # the steps whose measure is the point of the demonstration


def mark_of(row: Row, present: bool) -> tuple[str, str]:
    """Icon and tone: a check for what was observed, an arrow at the present step, a ring for the
    rest."""
    if row.observed:
        return "check", "alive"
    return ("play", "hot") if present else ("ring", "dead")
