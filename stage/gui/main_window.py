"""The demo window: the two phones at the edges, what happens between them in the middle, what it
means below.

It arranges parts; what they show is decided in `controller.py`. In a large window the steps and the
pages stand side by side below the whole width; in a small one the phones take the whole height, and
the steps are one more page beneath the figure. F11 shows the figure, the headline and two large
numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from string import Template

from PySide6.QtCore import QEvent, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeySequence, QResizeEvent, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from plumbing.address import Address
from plumbing.screen_check import SCREENLESS
from softphone.gui import icons
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.theme import GRID, LIGHT, Size, theme
from softphone.gui.widgets import FlatButton, StateMark, TextLabel, row_of
from stage.gui import painting, wording, zoom
from stage.gui.bill_view import BillView
from stage.gui.call_dots import CallDots
from stage.gui.failover_view import FailoverView
from stage.gui.flat_controls import menu_button, small_button
from stage.gui.guest_view import GuestView
from stage.gui.message_animation import Frame
from stage.gui.message_ladder import Ladder
from stage.gui.step_list import StepList
from stage.gui.topology_view import TopologyView
from stage.scenes.use_case import STEPS, Step

SIZE = QSize(1280, 800)
LEAST = QSize(960, 620)
FRAME = QSize(16, 48)  # px, what a window manager adds, before it is known
# from this size on, in text of natural size, steps and pages are neighbours
WIDE = QSize(1200, 780)
PANEL = (264, 336)  # px, a phone's width in the smallest and in a large window, at natural size
STEPS_PAGE, BILL_PAGE = "Steps", "Bill"
FAILOVER_PAGE, MESSAGES_PAGE, CALLS_PAGE = "Failover", "Messages", "Calls"
GUESTS_PAGE = "Join"


STYLE = Template("""
QFrame#card { background: $surface; border-radius: 8px; border: 1px solid $line }
QTabBar::tab { padding: 4px 8px; color: $muted; border: none; border-bottom: 3px solid transparent }
QTabBar::tab:selected { color: $text; border-bottom-color: $text }
QTabBar::tab:selected:focus { border-bottom-color: $hot }
QTabWidget QComboBox { padding: 1px 0 1px 6px }
QTabWidget QComboBox:focus { padding: 0 0 0 5px }
QTabWidget QComboBox::drop-down { width: 16px }
""")


class Card(QFrame):
    """A sheet with a fine line around it."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("card")
        self.column = QVBoxLayout(self)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)


class PhoneCard(Card):
    """A phone's sheet, with a button that shows the keypad where the sheet is too low for it."""

    def __init__(self, panel: PhonePanel) -> None:
        super().__init__()
        self._panel = panel
        self._button = FlatButton("Keypad")
        self._button.setCheckable(True)
        self._button.setVisible(False)
        self._button.toggled.connect(self.fit)
        row = QHBoxLayout()
        row.setContentsMargins(2 * GRID, 0, 2 * GRID, GRID + GRID // 2)
        row.addWidget(self._button)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.addWidget(panel)
        self.column.addLayout(row)
        self._fitting = QTimer(self, singleShot=True, interval=0)
        self._fitting.timeout.connect(self.fit)

    def fit(self) -> None:
        panel, button = self._panel, self._button
        height = self.height() if self.isVisible() else self.window().height() * 2 // 3
        needed = panel.minimumSizeHint().height()
        for part in (panel.pad, panel.card):
            needed += part.minimumSizeHint().height() + GRID if part.isHidden() else 0
        fits = needed <= height
        button.setVisible(not fits or (button.isChecked() and panel.pad.isHidden()))
        panel.pad.setVisible(fits or button.isChecked())
        panel.card.setVisible(fits or not button.isChecked())

    def event(self, event: QEvent) -> bool:
        """The card has got another height, or its phone a remark that needs room."""
        if event.type() in (QEvent.Type.Resize, QEvent.Type.LayoutRequest):
            self._fitting.start()
        return super().event(event)


class Window(QWidget):
    """`closing` is emitted once, when the person closes the window; `presenting` when the
    presenter's view begins or ends."""

    closing = Signal()
    presenting = Signal()

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
        self.setWindowIcon(icons.window_icon("call", LIGHT.hot.ink, LIGHT.hot.colour))
        self.panels = (left, right)
        self.figure = figure
        self.steps = StepList(steps)
        self.bill = BillView()
        self.failover = FailoverView()
        self.ladder = Ladder(columns)
        self._replayed: Frame | None = None
        self.failover.replay.frame.connect(self._show_frame)
        self.dots = CallDots()
        self._closed = self._trouble = self._fitted = self.presented = False
        self._wide: bool | None = None
        self._chosen = zoom.chosen()
        self._make_headline()
        self._make_parts()
        self._make_keys()
        theme().changed.connect(self._dress)
        self._dress()
        self.setMinimumSize(LEAST.boundedTo(self._room()))
        self.resize(SIZE.boundedTo(self._room()))
        self._arrange()

    # -- construction ------------------------------------------------------------------------------

    def _dress(self) -> None:
        palette = theme().palette
        names = ("surface", "line", "muted", "text")
        colours = {name: getattr(palette, name).name() for name in names}
        self.setStyleSheet(STYLE.substitute(colours, hot=palette.hot.colour.name()))

    def _make_headline(self) -> None:
        self._mark = StateMark(Size.TITLE)
        self._headline = TextLabel(Size.TITLE, bold=True, name="headline")
        self._hint = TextLabel(Size.TEXT, tone="muted", lines=2, name="hint")
        self.again = small_button("Start again", "start_again")
        self.again.setToolTip("Restart what is dead, and begin the list of steps anew")
        self.scenes, self.menu = menu_button("Scenes", "scenes")
        self.scenes.setAccessibleName("Scenes")
        self.scenes.setToolTip("Other crashes, at other moments; each plays by itself")
        self.menu.addAction("Start again", self.again.click)
        self.menu.addAction("Presenter's view (F11)", lambda: self.present(not self.presented))
        technical = self.menu.addAction("Technical words")
        technical.setCheckable(True)
        technical.setChecked(wording.technical())
        technical.toggled.connect(self._choose_words)
        self.menu.addSeparator()

    def _make_parts(self) -> None:
        self._sides = [PhoneCard(panel) for panel in self.panels]
        said = QVBoxLayout()
        said.setSpacing(0)
        said.addWidget(self._headline)
        said.addWidget(self._hint)
        head = row_of(self._mark)
        head.addLayout(said, 1)
        self._numbers = [TextLabel(Size.TITLE, bold=True, tabular=True) for _ in range(2)]
        for label in self._numbers:
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            label.setVisible(False)
        self._middle = Card()
        column = self._middle.column
        column.setContentsMargins(GRID, GRID, GRID, GRID)
        column.setSpacing(GRID // 2)
        column.addLayout(head)
        column.addWidget(self.figure, 1)
        column.addLayout(row_of(*self._numbers))
        self._steps_card = Card()
        self._steps_column = self._steps_card.column
        self._steps_column.setContentsMargins(2 * GRID, GRID, 2 * GRID, GRID)
        self._steps_column.addWidget(self.steps)
        self.tabs = QTabWidget(documentMode=True)
        self.tabs.tabBar().setDrawBase(False)
        self.tabs.tabBar().setExpanding(False)
        self.tabs.setAccessibleName("Steps, bill, failover, messages")
        for part, title in (
            (self.bill, BILL_PAGE),
            (self.failover, FAILOVER_PAGE),
            (self.ladder, MESSAGES_PAGE),
        ):
            self.tabs.addTab(part, title)
        corner = QWidget()
        buttons = QHBoxLayout(corner)
        buttons.setContentsMargins(0, 0, 0, 2)
        buttons.setSpacing(GRID // 2)
        buttons.addWidget(self.again)
        buttons.addWidget(self.scenes)
        self.tabs.setCornerWidget(corner)
        self._tabs_card = Card()
        self._tabs_card.column.setContentsMargins(GRID, GRID // 2, GRID, GRID // 2)
        self._tabs_card.column.addWidget(self.tabs)
        self._below = QWidget()
        below = QHBoxLayout(self._below)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(GRID)
        below.addWidget(self._steps_card, 1)
        below.addWidget(self._tabs_card, 1)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(GRID, GRID, GRID, GRID)
        self._grid.setSpacing(GRID)

    def _make_keys(self) -> None:
        """Ctrl+1 and Ctrl+2 go to a phone, Alt+letters to a page, Ctrl + - 0 change the text's
        size. In the presenter's view Ctrl+1 and Ctrl+2 call, answer and hang up."""
        left, right = self.panels
        acts: dict[str, Callable[[], None]] = {
            "Ctrl+1": partial(self._use_phone, left),
            "Ctrl+2": partial(self._use_phone, right),
            "Alt+S": partial(self.show_page, STEPS_PAGE),
            "Alt+B": partial(self.show_page, BILL_PAGE),
            "Alt+F": partial(self.show_page, FAILOVER_PAGE),
            "Alt+M": partial(self.show_page, MESSAGES_PAGE),
            "Ctrl++": partial(self.change_zoom, zoom.STEP),
            "Ctrl+=": partial(self.change_zoom, zoom.STEP),
            "Ctrl+-": partial(self.change_zoom, 1 / zoom.STEP),
            "Ctrl+0": partial(self.change_zoom, 0.0),
            "F11": lambda: self.present(not self.presented),
        }
        for key, act in acts.items():
            QShortcut(QKeySequence(key), self, act)
        self._leave = QShortcut(QKeySequence("Esc"), self, lambda: self.present(False))
        self._leave.setEnabled(False)  # elsewhere it is the phones': decline or hang up
        self.figure.phone.connect(self._click_phone)

    def _use_phone(self, panel: PhonePanel) -> None:
        (panel.primary.click if self.presented else panel.focus_phone)()

    def _click_phone(self, name: str) -> None:
        for panel in self.panels:
            if panel.label == name and self.presented:
                panel.primary.click()

    # -- what there is to show ---------------------------------------------------------------------

    def tell(self, shape: str, tone: str, headline: str, hint: str) -> None:
        """The headline: what is happening, and what one could do now."""
        if not self._trouble and self._replayed is None:
            self._say(shape, tone, headline, hint)

    def _say(self, shape: str, tone: str, headline: str, hint: str) -> None:
        self._mark.show_state(shape, tone)
        self._headline.set_text(headline)
        self._hint.set_text(hint)

    def _show_frame(self, frame: Frame | None) -> None:
        """A moment of the slow replay is said where the headline is."""
        self._replayed = frame
        self.figure.show_replay(frame)
        if frame is not None and not self._trouble:
            self._say("play", "warning", f"Slowly: {frame.when}", frame.words)

    def tell_numbers(self, *words: str) -> None:
        """The two large numbers of the presenter's mode."""
        for label, text in zip(self._numbers, words, strict=True):
            label.set_text(text)

    def show_trouble(self, sentence: str) -> None:
        """The demonstration cannot go on; the sentence stays until the window is closed."""
        self._trouble = True
        self._say("warning", "stop", "The demonstration cannot run", sentence)

    def allow_phones(self, allowed: bool) -> None:
        """Enables the phones, which can call once the programs run."""
        for panel in self.panels:
            panel.setEnabled(allowed)
            panel.setToolTip("" if allowed else "The programs are not running yet")
        if allowed:
            self.panels[0].focus_phone()

    def show_guests(self, address: Address, password: str) -> None:
        """A page that says how other telephones take part."""
        self.tabs.addTab(GuestView(address, password), GUESTS_PAGE)
        self.show_page(GUESTS_PAGE)

    def add_guest(self, name: str) -> None:
        """Another telephone has registered: it gets a place in the figure and in the ladder."""
        self.figure.add_guest(name)
        self.ladder.add_column(name)

    def show_calls(self, states: Callable[[], list[str]]) -> None:
        """A page with a dot for each of many calls."""
        if self.tabs.indexOf(self.dots) < 0:
            self.tabs.addTab(self.dots, CALLS_PAGE)
        self.dots.show_calls(states)
        self.show_page(CALLS_PAGE)

    @property
    def headline(self) -> str:
        return self._headline.text()

    @property
    def hint(self) -> str:
        return self._hint.text()

    def show_page(self, page: str) -> None:
        """Out of the presenter's view, too, which has no pages."""
        if self.presented:
            self.present(False)
        for index in range(self.tabs.count()):
            if self.tabs.tabText(index) == page:
                self.tabs.setCurrentIndex(index)
                self.tabs.currentWidget().setFocus(Qt.FocusReason.ShortcutFocusReason)

    # -- size --------------------------------------------------------------------------------------

    def present(self, presented: bool) -> None:
        """Figure, headline and two numbers alone, over the whole screen."""
        self.presented = presented
        (self.showFullScreen if presented else self.showNormal)()
        for part in (*self._sides, self._below):
            part.setVisible(not presented)
        for label in self._numbers:
            label.setVisible(presented)
        self._wide = None
        self._grid.setRowStretch(1, 0)
        self.figure.setFocus()  # not on a button that kills
        self.figure.present(presented)
        self._leave.setEnabled(presented)
        self._arrange()
        self.presenting.emit()

    def change_zoom(self, change: float) -> None:
        """Larger or smaller text; 0: as the window's size has it."""
        self._chosen = max(0.7, min(2.0, self._chosen * change)) if change else 1.0
        zoom.choose(self._chosen)
        self._arrange()

    def _choose_words(self, technical: bool) -> None:
        wording.choose(technical)
        self.figure.update()

    def _room(self) -> QSize:
        """The room on the screen for a window without its frame."""
        if QApplication.platformName() in SCREENLESS:
            return QSize(SIZE)
        screen = self.screen() or QApplication.primaryScreen()
        frame = self.frameGeometry().size() - self.size() if self._fitted else QSize(0, 0)
        return screen.availableGeometry().size() - (frame if frame.height() > 0 else FRAME)

    def _arrange(self) -> None:
        """After a change of the window's size or of the text's."""
        size = self.size()
        # as large as everything has room: at LEAST that is text of the usual height
        usual = painting.height_of(theme().font(Size.TEXT)) / painting.TEXT_HEIGHT
        most = min(size.width() / LEAST.width(), size.height() / LEAST.height()) / usual
        factor = min(zoom.by_size(size) * self._chosen, most)
        factor = zoom.by_size(size) * 1.5 if self.presented else factor
        if zoom.set_factor(factor) or not self._fitted:
            zoom.apply(self)
            self.ladder.fit_rows()
            self.figure.rescale()
        natural = self.size() / (zoom.factor() * usual)
        wide = natural.width() >= WIDE.width() and natural.height() >= WIDE.height()
        if wide is not self._wide and not self.presented:
            self._wide = wide
            self._place(wide)
        width = self.width() * 21 // 100
        narrow, broad = (round(each * max(1.0, zoom.factor() * usual)) for each in PANEL)
        for side in self._sides:
            side.setFixedWidth(max(narrow, min(broad, width)))
            side.fit()

    def _place(self, wide: bool) -> None:
        for part in (*self._sides, self._middle, self._below):
            self._grid.removeWidget(part)
        if wide:
            self.tabs.removeTab(self.tabs.indexOf(self.steps))
            self._steps_column.addWidget(self.steps)
            self.steps.show()
            self._grid.addWidget(self._below, 1, 0, 1, 3)
        else:
            self.tabs.insertTab(0, self.steps, STEPS_PAGE)
            if self.tabs.currentWidget() is self.bill:  # the first page there was
                self.tabs.setCurrentIndex(0)
            self._grid.addWidget(self._below, 1, 1)
        self._steps_card.setVisible(wide)
        self.again.setVisible(wide)  # it is in the menu, too
        rows = 1 if wide else 2
        self._grid.addWidget(self._sides[0], 0, 0, rows, 1)
        self._grid.addWidget(self._middle, 0, 1)
        self._grid.addWidget(self._sides[1], 0, 2, rows, 1)
        self._grid.setColumnStretch(1, 1)
        self._grid.setRowStretch(0, 5 if wide else 7)
        self._grid.setRowStretch(1, 3 if wide else 4)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if not self._fitted:
            self._fitted = True
            self.resize(self.size().boundedTo(self._room()))
        for side in self._sides:
            side.fit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.ScreenChangeInternal and not self.isMaximized():
            self.resize(self.size().boundedTo(self._room()))

    def closeEvent(self, event: QCloseEvent) -> None:
        super().closeEvent(event)
        if not self._closed:
            self._closed = True
            self.closing.emit()
