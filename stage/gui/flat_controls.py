"""Buttons of the demo window in the flat style of the phones' buttons."""

from __future__ import annotations

from PySide6.QtWidgets import QMenu

from softphone.gui.theme import GRID
from softphone.gui.widgets import FlatButton


def small_button(text: str, name: str = "") -> FlatButton:
    """A flat button as wide as its text."""
    button = FlatButton(text, narrow=True, name=name)
    button.setMinimumHeight(3 * GRID)
    return button


def menu_button(text: str, name: str = "") -> tuple[FlatButton, QMenu]:
    """A flat button that opens the menu."""
    button = small_button(text, name)
    menu = QMenu(button)
    button.clicked.connect(lambda: menu.popup(button.mapToGlobal(button.rect().bottomLeft())))
    return button, menu
