"""The demonstration for tests: real programs on free ports, real phones, real buttons; and what is
left afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from softphone.gui.phone_panel import PhonePanel
from stage.controller import DemoController
from stage.processes.cluster import Ports

PATIENCE = 10_000  # ms


class Demonstration:
    """A running show and the hands and eyes of a person before it."""

    def __init__(
        self,
        qtbot: QtBot,
        users: Mapping[str, str] | None = None,
        passwords: Mapping[str, str] | None = None,
        pair: bool = False,
        lan: str = "",
    ) -> None:
        self.qtbot = qtbot
        self.show = DemoController(Ports.free(), users, passwords, pair=pair, lan=lan)
        self.window = self.show.window
        qtbot.addWidget(self.window)
        self.alice, self.bob = self.window.panels
        self.window.show()
        self.show.start()

    # -- hands

    def press(self, panel: PhonePanel, words: str) -> None:
        """The primary button, once it says `words`."""
        self.until(
            lambda: panel.primary.text() == words and panel.primary.isEnabled(),
            f"{panel.label}: {words}",
        )
        self.qtbot.mouseClick(panel.primary, Qt.MouseButton.LeftButton)

    def kill(self, name: str) -> None:
        self.click(self.window.figure.buttons[name, "kill"])

    def restart(self, name: str) -> None:
        self.click(self.window.figure.buttons[name, "restart"])
        self.until(lambda: self.server(name) in ("hot", "ready", "standby"), f"{name} is back")

    def click(self, button: QPushButton) -> None:
        self.until(button.isEnabled, f"{button.accessibleName()} can be clicked")
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def talk(self) -> None:
        """Alice calls, Bob answers."""
        self.press(self.alice, "Call")
        self.press(self.bob, "Answer")
        self.until(lambda: self.says(self.alice).startswith("Talking"), "Alice talks")
        self.until(lambda: self.says(self.bob).startswith("Talking"), "Bob talks")

    # -- eyes

    def until(self, condition: Callable[[], object], what: str) -> None:
        def seen() -> None:
            assert condition(), (
                f"not seen: {what}; steps {self.steps}, headline {self.window.headline!r}"
            )

        self.qtbot.waitUntil(seen, timeout=PATIENCE)

    def registered(self) -> None:
        self.until(lambda: self.steps[:2] == [1, 2], "two servers, two phones")

    def says(self, panel: QWidget) -> str:
        """The sentence about the call."""
        return text_of(panel, "call")

    def heard(self, panel: PhonePanel) -> int:
        """RTP packets received, as the phone counts them."""
        stats = self.show.phones[panel.label].media_stats()
        return stats.packets_received if stats else 0

    def server(self, name: str) -> str:
        """Or one of two forwarders."""
        return self.window.figure.programs[name].look

    @property
    def steps(self) -> list[int | str]:
        """The numbers of the ticked steps."""
        return [row.row.number for row in self.window.steps.rows if row.row.observed]

    @property
    def total(self) -> str:
        bill = self.window.bill.bill
        return text_of(self.window.bill, "bill_total") if bill and bill.final else ""

    def bills(self, server: str) -> list[dict[str, object]]:
        """All calls on the management page of `server`."""
        from stage.observation.http_readers import read_page

        page = read_page(f"{self.show.cluster.management[server]}/calls")
        return list(page["calls"]) if page else []

    def end(self) -> None:
        self.window.close()
        self.show.stop()


def text_of(parent: QWidget, name: str) -> str:
    label = parent.findChild(QLabel, name)
    assert isinstance(label, QLabel), name
    return label.text()


def processes_of(folder: Path) -> list[int]:
    """Running processes whose command line names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command:
                found.append(int(entry.name))
    return found
