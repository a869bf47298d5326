"""The use case, step by step: rows that tick themselves as things are observed, each with what was
measured."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from softphone.gui import icons
from softphone.gui.theme import GRID, Size, theme
from softphone.gui.widgets import TextLabel
from stage.gui import painting
from stage.gui.card import Card
from stage.scenes.use_case import PAIR, STEPS, Row, Step

ICON = 2.0 * GRID
# px, by the number of rows: the height of one, so that all and a heading fit beneath the figure at
# 1024 x 700, and where the words begin, after icon and number.
ROWS = {9: (20, 6.0 * GRID), 10: (18, 7.0 * GRID)}


class StepList(Card):
    """Shows the script's rows. The first one not yet observed is the present one."""

    def __init__(self, steps: Sequence[Step] = STEPS, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("The use case, step by step")
        heading = TextLabel(Size.TEXT, bold=True)
        heading.set_text("The use case, step by step")
        self.rows = [StepRow(Row(step.number, step.text), *ROWS[len(steps)]) for step in steps]
        column = QVBoxLayout(self)
        column.setContentsMargins(2 * GRID, GRID, 2 * GRID, GRID)
        column.setSpacing(0)
        column.addWidget(heading)
        column.addSpacing(GRID // 2)
        for row in self.rows:
            column.addWidget(row, 1)
        self.show_rows([row.row for row in self.rows])

    def show_rows(self, rows: Sequence[Row]) -> None:
        present = next((row.number for row in rows if not row.observed), None)
        for row, widget in zip(rows, self.rows, strict=True):
            widget.show_row(row, row.number == present)


class StepRow(QWidget):
    """Mark, number, text, and the measure at the right edge; the text gives way if both do not
    fit."""

    def __init__(self, row: Row, height: int, text_at: float) -> None:
        super().__init__()
        self._height, self._text_at = height, text_at
        self.setObjectName(f"step_{row.number}")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.row, self.present = row, False

    def sizeHint(self) -> QSize:
        return QSize(50 * GRID, self._height)

    def minimumSizeHint(self) -> QSize:
        return QSize(30 * GRID, self._height)

    def show_row(self, row: Row, present: bool) -> None:
        if (row, present) == (self.row, self.present) and self.accessibleName():
            return
        self.row, self.present = row, present
        said = "observed" if row.observed else "now" if present else "not yet"
        self.setAccessibleName(f"Step {row.number}, {said}: {row.text} {row.words}".strip())
        self.setToolTip(f"{row.text} {row.words}".strip())
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, palette, row = QPainter(self), theme().palette, self.row
        middle = self.height() / 2
        icon, tone = mark_of(row, self.present)
        icons.draw(
            painter, icon, QRectF(0, middle - ICON / 2, ICON, ICON), palette.tones()[tone].colour
        )
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        number = QRectF(ICON, 0, self._text_at - ICON - 1.5 * GRID, self.height())
        painting.text(
            painter,
            number,
            str(row.number),
            theme().font(Size.TEXT, tabular=True),
            palette.muted,
            right,
        )
        font = theme().font(Size.TEXT, bold=self.present)
        measure = theme().font(Size.TEXT, bold=row.observed and row.number in MEASURED)
        wide = min(painting.width_of(row.words, measure) + 1, self.width() * 0.5)
        room = QRectF(
            self._text_at, 0, self.width() - self._text_at - wide - 2 * GRID, self.height()
        )
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
