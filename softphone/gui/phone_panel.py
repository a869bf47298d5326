"""One phone on the screen: who it is, whether it is registered, its call, and everything one can do
with it.

A panel shows the events of its bridge and posts commands to its phone; it keeps no opinion of its
own about the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from softphone import texts
from softphone.call_history import CallHistory
from softphone.gui import formatting
from softphone.gui.call_card import CallCard
from softphone.gui.dial_pad import KEYS, DialPad
from softphone.gui.digits_line import DigitsLine
from softphone.gui.event_bridge import Bridge
from softphone.gui.level_meter import FRAMES_PER_SECOND
from softphone.gui.phone_menu import PhoneMenu
from softphone.gui.theme import GRID, Size, theme
from softphone.gui.widgets import FlatButton, StateMark, TextLabel, row_of
from softphone.phone import Phone
from softphone.ua import user_messages
from softphone.ua.events import (
    CallChanged,
    CallState,
    CallTurnedAway,
    CallView,
    MessagePassed,
    RegistrationChanged,
    RegistrationState,
)

# The mark beside the registration sentence: (icon, tone).
REGISTRATION_MARKS = {
    RegistrationState.UNREGISTERED: ("ring", "dead"),
    RegistrationState.REGISTERING: ("ring", "hot"),
    RegistrationState.REGISTERED: ("check", "alive"),
    RegistrationState.REFUSED: ("warning", "stop"),
    RegistrationState.UNREACHABLE: ("crossed", "warning"),
}
# The faces of the buttons whose meaning changes: (words, icon, tone, tooltip).
Face = tuple[str, str, str, str]
HANG_UP: Face = (texts.HANG_UP, "hang_up", "stop", texts.HANG_UP_TIP)
# The one primary button in every state of an active call; None: the phone is free.
PRIMARY: dict[CallState | None, Face] = {
    None: (texts.CALL, "call", "alive", texts.CALL_ENTER),
    CallState.CALLING: HANG_UP,
    CallState.RINGING: HANG_UP,
    CallState.INCOMING: (texts.ANSWER, "call", "alive", texts.ANSWER_ENTER),
    CallState.TALKING: HANG_UP,
}
HOLD: Face = (texts.HOLD, "pause", "", texts.HOLD_TIP)
RESUME: Face = (texts.RESUME, "play", "", texts.RESUME_TIP)
MUTE: Face = (texts.MUTE, "microphone", "", texts.MUTE_TIP)
UNMUTE: Face = (texts.UNMUTE, "microphone_off", "", texts.UNMUTE_TIP)


class PhonePanel(QWidget):
    """`rings` is emitted with "Bob is calling" when the phone begins to ring, with "" when it ends.
    `password_given` is emitted with the password that the person has typed after the server had
    refused another.

    A phone's panel, 264 px wide or wider. `target` is prefilled; `history` keeps its calls (None:
    in memory)."""

    password_given = Signal(str)
    rings = Signal(str)

    def __init__(
        self,
        phone_label: str,
        phone: Phone,
        bridge: Bridge,
        *,
        target: str = "",
        history: CallHistory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.label = formatting.one_line(phone_label)
        self.setAccessibleName(texts.PHONE_OF.format(name=self.label))
        self.phone = phone
        self._clock = clock
        self._prefilled = target
        self._ringing = ""  # the id of the call that rings here
        self._known: set[str] = set()  # the ids of calls that have not ended
        self._frames = QTimer(
            self, interval=1000 // FRAMES_PER_SECOND, timerType=Qt.TimerType.PreciseTimer
        )
        self._frames.timeout.connect(self._show_frame)
        kept = CallHistory() if history is None else history
        self.menu = PhoneMenu(self.label, kept, phone, self)
        self.menu.call.connect(self.call_back)
        self.menu.missed_changed.connect(self._show_missed)
        self._make_head()
        self.card = CallCard()
        self._make_target(target)
        self._make_password()
        self._make_buttons()
        self.pad = DialPad()
        self.pad.pressed.connect(self._press_digit)
        self._make_note()
        self._lay_out()
        self._make_keys()
        self.set_note("")
        self._show_controls()
        bridge.received.connect(self.show_event)

    # -- construction ------------------------------------------------------------------------------

    def _make_head(self) -> None:
        self.name = TextLabel(Size.TITLE, bold=True)
        self.name.set_text(self.label)
        self.registration_mark = StateMark(Size.SMALL)
        self.registration = TextLabel(Size.SMALL, lines=2, name="registration")
        self._registered = RegistrationChanged(
            0.0, RegistrationState.UNREGISTERED, user_messages.NOT_REGISTERED
        )
        self.registration.set_text(user_messages.NOT_REGISTERED)
        self.menu_button = FlatButton(icon="menu", name="menu", tip=texts.MENU_TIP, narrow=True)
        self.menu_button.setAccessibleName(texts.MENU)
        self.menu_button.setMenu(self.menu)
        self.calls_button = FlatButton(name="calls_button", tip=texts.CALLS_TIP, narrow=True)
        self.calls_button.clicked.connect(self.menu.show_calls)
        self._show_missed(0)

    def _make_target(self, target: str) -> None:
        self.target = QLineEdit(
            target, placeholderText=texts.TARGET_HINT, maxLength=255, clearButtonEnabled=True
        )
        self.target.setObjectName("target")
        self.target.setAccessibleName(texts.WHO_TO_CALL)
        self.target.setToolTip(texts.TARGET_TIP)
        self.target.textChanged.connect(self._show_controls)
        self.digits = DigitsLine()

    def _make_password(self) -> None:
        self.password = QLineEdit(
            placeholderText=texts.NEW_PASSWORD, echoMode=QLineEdit.EchoMode.Password
        )
        self.password.setObjectName("password")
        self.password.setAccessibleName(texts.NEW_PASSWORD)
        self._use_password = FlatButton(
            texts.USE_PASSWORD, name="use_password", tip=texts.USE_PASSWORD_TIP, narrow=True
        )
        self._use_password.clicked.connect(self._give_password)
        self._password_row = QWidget()
        self._password_row.setLayout(row_of(self.password, self._use_password))
        self._password_row.hide()

    def _give_password(self) -> None:
        password = self.password.text()
        self.password.clear()
        self.phone.set_password(password)
        self.password_given.emit(password)

    def _make_buttons(self) -> None:
        self.primary = FlatButton(name="primary")
        self.primary.setMinimumHeight(6 * GRID)
        self.primary.setFont(theme().font(Size.TEXT, bold=True))
        self.primary.clicked.connect(self.press_primary)
        self.secondary = FlatButton(
            texts.DECLINE, "decline", "stop", name="secondary", tip=texts.DECLINE_TIP
        )
        self.secondary.setMinimumHeight(6 * GRID)
        self.secondary.clicked.connect(lambda: self.phone.decline())
        self.hold = FlatButton(name="hold")
        self.hold.setCheckable(True)
        self.hold.clicked.connect(self._press_hold)
        self.mute = FlatButton(name="mute")
        self.mute.setCheckable(True)
        self.mute.clicked.connect(self._press_mute)

    def _make_note(self) -> None:
        mark = StateMark(Size.SMALL)
        mark.show_state("warning", "warning")
        self.note = TextLabel(Size.SMALL, lines=2, name="note")
        self._note_row = QWidget()
        self._note_row.setLayout(row_of(mark, self.note, spacing=GRID // 2))

    def set_note(self, note: str) -> None:
        """A lasting remark below the call, such as on sound; "" takes it away."""
        self.note.set_text(formatting.one_line(note))
        self._note_row.setVisible(bool(note))

    def _lay_out(self) -> None:
        named = QVBoxLayout()
        named.setSpacing(0)
        named.addWidget(self.name)
        named.addLayout(row_of(self.registration_mark, self.registration, spacing=GRID // 2))
        head = QHBoxLayout()
        head.setSpacing(GRID)
        head.addLayout(named, 1)
        head.addWidget(self.menu_button, 0, Qt.AlignmentFlag.AlignTop)
        to = QLabel(texts.TO)
        to.setBuddy(self.target)
        target_row = QWidget()
        target_row.setLayout(row_of(to, self.target))
        self._row = QStackedLayout()
        self._row.addWidget(target_row)
        self._row.addWidget(self.digits)
        dial = QHBoxLayout()
        dial.setSpacing(GRID)
        dial.addLayout(self._row)
        dial.addWidget(self.calls_button)
        main = row_of(self.primary, self.secondary)
        main.setStretch(0, 5)
        main.setStretch(1, 4)
        column = QVBoxLayout(self)
        column.setContentsMargins(2 * GRID, GRID, 2 * GRID, GRID)
        column.setSpacing(GRID)
        column.addLayout(head)
        column.addWidget(self._password_row)
        column.addWidget(self.card)
        column.addWidget(self._note_row)
        column.addLayout(dial)
        column.addLayout(main)
        column.addLayout(row_of(self.hold, self.mute))
        column.addWidget(self.pad, 1)
        column.addStretch(0)

    def _make_keys(self) -> None:
        for key, action in (
            (Qt.Key.Key_Return, self.press_enter),
            (Qt.Key.Key_Enter, self.press_enter),
            (Qt.Key.Key_Escape, self.press_escape),
            ("Alt+M", self.menu_button.showMenu),
        ):
            shortcut = QShortcut(
                QKeySequence(key), self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut
            )
            # a key held down too long must not hang up what it has just begun
            shortcut.setAutoRepeat(False)
            shortcut.activated.connect(action)

    # -- what happened -----------------------------------------------------------------------------

    @property
    def call(self) -> CallView | None:
        """The call that occupies the phone; None if it is free (what the last call came to stays on
        show)."""
        shown = self.card.call
        return shown if shown is not None and shown.active else None

    def show_event(self, event: object) -> None:
        """Show what the phone says; GUI thread (the bridge's signal brings it here)."""
        if isinstance(event, RegistrationChanged):
            self.registration_mark.show_state(*REGISTRATION_MARKS[event.state])
            self._registered = event
            self._show_registration()
            self._password_row.setVisible(event.wants_password)
            self.menu.show_registration(event.state)
        elif isinstance(event, CallChanged):
            self._show_call(event.call)
        elif isinstance(event, MessagePassed):
            before = self.menu.trace.answered_by
            self.menu.keep_message(event)
            if self.menu.trace.answered_by != before:
                self._show_registration()
        elif isinstance(event, CallTurnedAway):
            self.menu.remember(event.call, self._clock())
        elif self.call is not None:
            self.digits.show_event(event, self.call.id)

    def _show_registration(self) -> None:
        """The sentence, and the server that answered last if that is another one."""
        sentence = formatting.one_line(self._registered.sentence)
        server = self.menu.trace.answered_by
        is_registered = self._registered.state is RegistrationState.REGISTERED
        if is_registered and server not in ("", self._registered.server):
            sentence = f"{sentence}; {texts.ANSWERED_LAST.format(server=server)}"
        self.registration.set_text(sentence)

    def _show_call(self, call: CallView) -> None:
        before, shown = self.call, self.card.call
        another = shown is not None and shown.id != call.id
        known = call.id in self._known
        self._known.add(call.id)
        if call.state is CallState.ENDED:
            self._known.remove(call.id)
            self.menu.remember(call, self._clock())
        if call.id == self._ringing and call.state is not CallState.INCOMING:
            self._ringing = ""
            self.rings.emit("")
        if another and (before is not None or (known and not call.active)):
            return  # the call before the last has ended at last
        if before is None and call.active:
            self._begin_call(call)
        elif before is not None and not call.active:
            self._end_call()
        self.card.show_call(call, self._clock())
        self._show_controls()

    def _begin_call(self, call: CallView) -> None:
        self.digits.begin()
        self._frames.start()
        if call.state is CallState.INCOMING:
            QApplication.alert(self.window())
            self._ringing = call.id
            self.rings.emit(formatting.one_line(call.sentence))

    def _end_call(self) -> None:
        self._show_frame()
        self._frames.stop()
        if self.mute.isChecked():
            self.mute.setChecked(False)
            self.phone.mute(False)

    def _show_frame(self) -> None:
        """25 times a second during a call: the clock, the levels, the counters."""
        self.card.tick(self._clock())
        call = self.call
        # before, the numbers are still the last call's
        if call is not None and call.state is CallState.TALKING:
            stats = self.phone.media_stats()
            if stats is not None:
                self.card.show_media(stats)

    # -- what can be done now ----------------------------------------------------------------------

    def _show_controls(self) -> None:
        call = self.call
        state = call.state if call is not None else None
        if call is not None:
            name = formatting.party(call.peer_name, call.peer_uri)
        else:
            name = formatting.one_line(self.target.text())
        nobody = texts.NOBODY_TO_CALL if not name else ""
        self._show_button(self.primary, PRIMARY[state], nobody, name)
        self.secondary.setVisible(state is CallState.INCOMING)
        self._show_row(state)
        talking = state is CallState.TALKING
        held, muted = call is not None and call.held_here, self.mute.isChecked()
        self.hold.setChecked(held)
        nobody = "" if talking else texts.NOBODY_TO_HOLD
        self._show_button(self.hold, RESUME if held else HOLD, nobody)
        nobody = "" if talking else texts.NOBODY_HEARS
        self._show_button(self.mute, UNMUTE if muted else MUTE, nobody)

    @staticmethod
    def _show_button(button: FlatButton, face: Face, why_not: str, name: str = "") -> None:
        """`why_not`: why it cannot be used now, "" if it can. `name`: who the tooltip speaks of."""
        text, icon, tone, tip = face
        button.set_face(text, icon, tone)
        button.set_allowed(not why_not, why_not or tip.format(name=name))

    def _show_row(self, state: CallState | None) -> None:
        if state is None:
            self._row.setCurrentIndex(0)
            self.pad.explain(texts.KEYS_TYPE)
            return
        had_focus = self.target.hasFocus()
        self._row.setCurrentIndex(1)
        if had_focus:
            self.primary.setFocus(Qt.FocusReason.OtherFocusReason)
        talking = state is CallState.TALKING
        held = self.call is not None and self.call.held_here
        said = texts.KEYS_SEND if talking else texts.KEYS_WAIT
        self.pad.explain(texts.KEYS_HELD if held else said)
        if talking:
            self.digits.show_use(held)

    # -- commands ----------------------------------------------------------------------------------

    def press_enter(self) -> None:
        """Press the button that has the keyboard, else the primary one."""
        focused = self.focusWidget()
        if focused is self.password:
            self._give_password()
        elif isinstance(focused, QPushButton):
            focused.click()
        else:
            self.press_primary()

    def press_primary(self) -> None:
        """Call, answer or hang up: whatever the primary button says."""
        if not self.primary.isEnabled():
            return
        if self.call is None:
            self.phone.call(formatting.one_line(self.target.text()))
        elif self.call.state is CallState.INCOMING:
            self.phone.answer()
        else:
            self.phone.hang_up()

    def press_escape(self) -> None:
        """Decline or hang up, asking nothing."""
        if self.call is not None and self.call.state is CallState.INCOMING:
            self.phone.decline()
        elif self.call is not None:
            self.phone.hang_up()

    def call_back(self, uri: str) -> None:
        """Call an address from the list of calls, if the phone is free."""
        if self.call is None:
            self.target.setText(uri)
            self.phone.call(uri)

    def _show_missed(self, number: int) -> None:
        said = texts.MISSED.format(number=number) if number else ""
        self.calls_button.set_face(said, "history", "warning" if number else "")
        self.calls_button.setAccessibleName(f"{texts.CALLS}, {said}" if number else texts.CALLS)

    def focus_phone(self) -> None:
        """Bring the keyboard to this phone, to whatever is most wanted now."""
        (self.target if self.call is None else self.primary).setFocus(
            Qt.FocusReason.ShortcutFocusReason
        )

    def _press_hold(self) -> None:
        call = self.call
        if call is not None:
            # the button turns when the other side has agreed, not before
            self.hold.setChecked(call.held_here)
            (self.phone.resume if call.held_here else self.phone.hold)()

    def _press_mute(self) -> None:
        self.phone.mute(self.mute.isChecked())
        self._show_controls()

    def _press_digit(self, digit: str) -> None:
        if self.call is not None:
            if self.call.state is CallState.TALKING and not self.call.held_here:
                self.phone.dtmf(digit)  # shown once it has left
        else:
            if self.target.text() == self._prefilled and not self.target.isModified():
                # dialling a number means somebody else than the partner offered
                self.target.clear()
            self.target.insert(digit)
            self.target.setModified(True)
            if self.focusWidget() not in self.pad.keys:  # the mouse is used: Enter is to call
                self.target.setFocus(Qt.FocusReason.OtherFocusReason)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.text() and event.text() in KEYS and not event.isAutoRepeat():
            self._press_digit(event.text())
        else:
            super().keyPressEvent(event)
