"""The dial pad: twelve keys that tell which one was pressed; it knows nothing of calls."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QPushButton, QSizePolicy, QWidget

from softphone import texts
from softphone.gui.theme import GRID

KEYS = "123456789*0#"
NAMES = {"*": "star", "#": "hash"}


class DialPad(QWidget):
    """Emits `pressed` with one of 0-9, * and #. Keys are called dial_0 .. dial_9, dial_star,
    dial_hash."""

    pressed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        # keys stand as on every telephone, in every language
        self.setLayoutDirection(Qt.LayoutDirection.LeftToRight)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(GRID // 2)
        self.setMaximumHeight(4 * 6 * GRID + 3 * GRID // 2)
        self.keys: list[QPushButton] = []
        for number, digit in enumerate(KEYS):
            key = QPushButton(digit)
            key.setObjectName(f"dial_{NAMES.get(digit, digit)}")
            key.setAccessibleName(texts.KEY.format(name=texts.KEY_NAMES.get(digit, digit)))
            key.setMinimumHeight(3 * GRID)
            key.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a mouse leaves the keyboard where it is
            key.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
            key.clicked.connect(lambda _=False, digit=digit: self.pressed.emit(digit))
            grid.addWidget(key, number // 3, number % 3)
            self.keys.append(key)

    def explain(self, tip: str) -> None:
        """Sets the tooltip that says what a key does at present."""
        for key in self.keys:
            key.setToolTip(tip)
