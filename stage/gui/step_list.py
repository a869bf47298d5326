"""The use case, step by step: rows that tick themselves as things are observed, each with what was
measured."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from softphone.gui.theme import GRID
from softphone.gui.widgets import StateMark, TextLabel
from stage.scenes.use_case import PAIR, Row, Step


class StepList(QWidget):
    """Shows the use case's rows. The first one not yet observed is the present one."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
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
        self.row, self.present = row, False
        self._mark = StateMark()
        number = TextLabel(tone="muted", tabular=True)
        number.set_text(str(row.number))
        number.fix_width("7a")
        self._text, self._words = TextLabel(), TextLabel()
        self._words.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(GRID // 2)
        for part in (self._mark, number, self._text, self._words):
            line.addWidget(part, int(part is self._text))

    def show_row(self, row: Row, present: bool) -> None:
        if (row, present) == (self.row, self.present) and self.accessibleName():
            return
        self.row, self.present = row, present
        status = "observed" if row.observed else "now" if present else "not yet"
        self.setAccessibleName(f"Step {row.number}, {status}: {row.text} {row.words}".strip())
        self._mark.show_state(*mark_of(row, present))
        measured = row.observed and row.number in MEASURED
        for label, text, bold in (
            (self._text, row.text, present),
            (self._words, row.words, measured),
        ):
            font = label.font()
            font.setBold(bold)
            label.setFont(font)
            label.set_text(text)
            label.set_tone("" if row.observed or (present and label is self._text) else "muted")


MEASURED = (6, 7, PAIR.number, 9)  # the steps whose measure is the point of the demonstration


def mark_of(row: Row, present: bool) -> tuple[str, str]:
    """Icon and tone: a check for what was observed, an arrow at the present step, a ring for the
    rest."""
    if row.observed:
        return "check", "alive"
    return ("play", "hot") if present else ("ring", "dead")
