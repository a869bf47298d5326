"""The demo window: the two phones at the edges, what happens between them in the middle, what it
means below.

It arranges parts and switches between bill and messages; what they show is decided in `show.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QColor,
    QKeySequence,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QShortcut,
)
from PySide6.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QHBoxLayout,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from softphone.gui import icons
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.theme import GRID, LIGHT, Size, theme
from softphone.gui.widgets import StateMark, TextLabel
from stage.gui.bill_view import BillView
from stage.gui.card import Card, Tab
from stage.gui.message_ladder import Ladder
from stage.gui.step_list import StepList
from stage.gui.topology_view import TopologyView
from stage.scenes.use_case import STEPS, Step

SIZE = QSize(1280, 800)
LEAST = QSize(1024, 700)
PANEL = (264, 336)  # px, a phone's width in the smallest and in a large window
# px: a window lower than this hides the dial pads; the keyboard's digits do the same
ROOM_FOR_PAD = 780


class Window(QWidget):
    """`closing` is emitted once, when the person closes the window; `page` is 0 for the bill, 1 for
    the messages."""

    closing = Signal()

    def __init__(
        self,
        left: PhonePanel,
        right: PhonePanel,
        figure: TopologyView,
        columns: tuple[str, ...],
        steps: Sequence[Step] = STEPS,
    ) -> None:
        super().__init__()
        self.setWindowTitle("Call Failover")
        self.setWindowIcon(icons.icon("call", LIGHT.hot.ink, LIGHT.hot.colour))
        self.panels = (left, right)
        self.figure = figure
        self.steps = StepList(steps)
        self.bill = BillView()
        self.ladder = Ladder(columns)
        self._closed = self._trouble = False
        self._make_story()
        self._lay_out()
        self._make_keys()
        self.resize(SIZE)
        self.setMinimumSize(LEAST)

    # -- construction ------------------------------------------------------------------------------

    def _make_story(self) -> None:
        self._mark = StateMark(Size.TITLE)
        self._story = TextLabel(Size.TITLE, bold=True)
        self._story.setObjectName("story")
        self._hint = TextLabel(Size.TEXT, tone="muted", lines=2)
        self._hint.setObjectName("hint")

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(GRID, GRID, GRID, GRID)
        grid.setSpacing(GRID)
        self._sides = [carded(panel) for panel in self.panels]
        grid.addWidget(self._sides[0], 0, 0)
        grid.addWidget(self._middle(), 0, 1)
        grid.addWidget(self._sides[1], 0, 2)
        below = QHBoxLayout()
        below.setSpacing(GRID)
        below.addWidget(self.steps, 11)
        below.addWidget(self._outcome(), 10)
        grid.addLayout(below, 1, 0, 1, 3)
        grid.setColumnStretch(1, 1)
        grid.setRowStretch(0, 5)
        grid.setRowStretch(1, 2)

    def _middle(self) -> QWidget:
        said = QVBoxLayout()
        said.setSpacing(0)
        said.addWidget(self._story)
        said.addWidget(self._hint)
        head = QHBoxLayout()
        head.setSpacing(GRID + GRID // 2)
        head.addWidget(self._mark, 0, Qt.AlignmentFlag.AlignTop)
        head.addLayout(said, 1)
        card = Card()
        column = QVBoxLayout(card)
        column.setContentsMargins(2 * GRID, 2 * GRID, 2 * GRID, GRID)
        column.setSpacing(GRID)
        column.addLayout(head)
        column.addWidget(self.figure, 1)
        return card

    def _outcome(self) -> QWidget:
        """The bill and the messages, one at a time."""
        self._pages = QStackedLayout()
        self._pages.addWidget(self.bill)
        self._pages.addWidget(self.ladder)
        tabs = QHBoxLayout()
        tabs.setSpacing(3 * GRID)
        self._tabs = QButtonGroup(self)
        for index, (words, tip) in enumerate(
            (
                ("The bill", "What the call costs, as the servers see it (Alt+B)"),
                ("Messages", "Every SIP message that crossed the forwarder (Alt+M)"),
            )
        ):
            tab = Tab(words, tip)
            tab.setObjectName(("tab_bill", "tab_messages")[index])
            tab.setChecked(index == 0)
            self._tabs.addButton(tab, index)
            tabs.addWidget(tab)
        tabs.addStretch(1)
        self._tabs.idClicked.connect(self.show_page)
        card = Card()
        # the steps say how tall
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)
        column = QVBoxLayout(card)
        column.setContentsMargins(2 * GRID, GRID // 2, 2 * GRID, GRID)
        column.setSpacing(GRID)
        column.addLayout(tabs)
        column.addLayout(self._pages, 1)
        return card

    def _make_keys(self) -> None:
        """Reading order for Tab: Alice, the servers, Bob, below. Ctrl+1 and Ctrl+2 go to a
        phone."""
        buttons = list(self.figure.buttons.values())
        phones = [focusable(panel) for panel in self.panels]
        chain = [*phones[0], *buttons, *phones[1], *self._tabs.buttons(), self.bill.source]
        for one, following in pairwise(chain):
            QWidget.setTabOrder(one, following)
        for number, panel in enumerate(self.panels, start=1):
            QShortcut(QKeySequence(f"Ctrl+{number}"), self, panel.focus_phone)
        for key, page in (("Alt+B", 0), ("Alt+M", 1)):
            QShortcut(QKeySequence(key), self, lambda page=page: self.show_page(page))

    # -- what there is to show ---------------------------------------------------------------------

    def tell(self, shape: str, tone: str, story: str, hint: str) -> None:
        """The headline: what is happening, and what one could do now."""
        if not self._trouble:
            self._mark.show_state(shape, tone)
            self._story.set_text(story)
            self._hint.set_text(hint)

    def show_trouble(self, sentence: str) -> None:
        """The demonstration cannot go on; the sentence stays until the window is closed."""
        self._trouble = True
        self._mark.show_state("warning", "stop")
        self._story.set_text("The demonstration cannot run")
        self._hint.set_text(sentence)

    def allow_phones(self, allowed: bool) -> None:
        """Nobody can call before the programs run."""
        for panel in self.panels:
            panel.setEnabled(allowed)
            panel.setToolTip("" if allowed else "The programs are not running yet")
        if allowed:
            self.panels[0].focus_phone()

    @property
    def story(self) -> str:
        return self._story.text()

    def show_page(self, page: int) -> None:
        self._pages.setCurrentIndex(page)
        self._tabs.button(page).setChecked(True)

    # -- size and end ------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        width = max(PANEL[0], min(PANEL[1], self.width() * 21 // 100))
        for side, panel in zip(self._sides, self.panels, strict=True):
            side.setFixedWidth(width)
            panel.pad.setVisible(self.height() >= ROOM_FOR_PAD)

    def paintEvent(self, event: QPaintEvent) -> None:
        QPainter(self).fillRect(self.rect(), QColor(theme().palette.window))

    def closeEvent(self, event: QCloseEvent) -> None:
        super().closeEvent(event)
        if not self._closed:
            self._closed = True
            self.closing.emit()


def carded(part: QWidget) -> Card:
    card = Card()
    column = QVBoxLayout(card)
    column.setContentsMargins(0, 0, 0, 0)
    column.addWidget(part)
    return card


def focusable(panel: PhonePanel) -> list[QWidget]:
    """The panel's own order, which is its reading order."""
    return [panel.target, panel.primary, panel.secondary, panel.hold, panel.mute, *panel.pad.keys]
