"""The page with what somebody types into another telephone to take part, in large letters."""

from __future__ import annotations

from PySide6.QtWidgets import QFormLayout, QWidget

from plumbing.address import Address
from softphone.gui.theme import GRID, Size
from softphone.gui.widgets import TextLabel
from stage.guests import ACCOUNTS

HINT = (
    "Set up your own telephone with these, over UDP; a second one is guest2, up to guest4. Then "
    "dial alice or bob there, or guest1 here: that call outlives its server, too."
)


class GuestView(QWidget):
    def __init__(self, address: Address, password: str) -> None:
        super().__init__()
        self.setAccessibleName("Your own telephone")
        form = QFormLayout(self)
        form.setContentsMargins(0, GRID, 0, 0)
        form.setHorizontalSpacing(3 * GRID)
        host, port = address
        server = host if port == 5060 else f"{host}:{port}"
        rows = (("Server", server), ("User", ACCOUNTS[0]), ("Password", password))
        for title, words in rows:
            name = f"guest_{title.lower()}"
            value = TextLabel(Size.TITLE, bold=True, tabular=True, name=name)
            value.set_text(words)
            label = TextLabel(Size.TITLE, tone="muted")
            label.set_text(title)
            label.fix_width("Password")
            form.addRow(label, value)
        hint = TextLabel(Size.TEXT, tone="muted", lines=3)
        hint.set_text(HINT)
        form.addRow(hint)
