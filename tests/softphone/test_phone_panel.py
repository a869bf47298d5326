"""The phone's panel as a person meets it: what it says, what its one large button does, what the
keyboard does."""

from __future__ import annotations

import threading

import pytest
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QAccessible, QMouseEvent
from PySide6.QtWidgets import QApplication, QLabel, QLineEdit, QPushButton, QWidget
from qt_kit import FakePhone, FakeStats, colours, find

from softphone.gui import formatting
from softphone.gui.event_bridge import Bridge
from softphone.gui.level_meter import FRAMES_PER_SECOND, loudness
from softphone.gui.phone_panel import PRIMARY, REGISTRATION_MARKS, PhonePanel
from softphone.gui.theme import DARK, LIGHT
from softphone.ua.events import CallState, DigitPassed, RegistrationState

LONG_NAME = "Alexandrina Wilhelmine von und zu Hohenlohe-Schillingsfürst I"
NARROW = 280


class Screen:
    """A panel with its phone, looked at by object names only."""

    def __init__(self, panel: PhonePanel, phone: FakePhone) -> None:
        self.panel, self.phone = panel, phone

    def button(self, name: str) -> QPushButton:
        return find(self.panel, name, QPushButton)

    def says(self, name: str) -> str:
        return find(self.panel, name, QLabel).text()

    @property
    def target(self) -> QLineEdit:
        return find(self.panel, "target", QLineEdit)

    def talk(self) -> None:
        self.phone.begin(CallState.CALLING)
        self.phone.become(CallState.TALKING, "Talking with Bob")


@pytest.fixture
def screen(qtbot):
    bridge = Bridge()
    phone = FakePhone(bridge)
    panel = PhonePanel("Alice", phone, bridge, target="bob", clock=phone.clock)
    qtbot.addWidget(panel)
    panel.resize(NARROW, 560)
    with qtbot.waitExposed(panel):
        panel.show()
    return Screen(panel, phone)


def click(qtbot, widget: QWidget) -> None:
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def click_again(button: QPushButton) -> None:
    """The second click of a double click, as a window system tells of it."""
    middle, left, none = QPointF(20, 20), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    for kind in (QEvent.Type.MouseButtonDblClick, QEvent.Type.MouseButtonRelease):
        held = left if kind is QEvent.Type.MouseButtonDblClick else Qt.MouseButton.NoButton
        QApplication.sendEvent(
            button, QMouseEvent(kind, middle, button.mapToGlobal(middle), left, held, none)
        )


# -- the one large button --------------------------------------------------------------------------


def test_call_calls_whom_the_line_names(screen: Screen, qtbot) -> None:
    assert screen.button("primary").text() == "Call"
    screen.target.clear()
    qtbot.keyClicks(screen.target, " carol@example.test ")
    click(qtbot, screen.button("primary"))
    assert screen.phone.wishes == [("call", "carol@example.test")]


def test_the_partner_is_offered_to_be_called(screen: Screen, qtbot) -> None:
    click(qtbot, screen.button("primary"))
    assert screen.phone.wishes == [("call", "bob")]


def test_nobody_to_call_is_said_not_silently_refused(screen: Screen, qtbot) -> None:
    screen.target.setText("  ")
    assert not screen.button("primary").isEnabled()
    assert "whom to call" in screen.button("primary").toolTip()
    qtbot.keyClick(screen.target, Qt.Key.Key_Return)
    assert screen.phone.wishes == []


def test_an_incoming_call_offers_answer_and_decline(screen: Screen, qtbot) -> None:
    assert not screen.button("secondary").isVisible()
    screen.phone.begin(CallState.INCOMING, "Bob is calling")
    assert screen.button("primary").text() == "Answer"
    assert screen.button("secondary").isVisible()
    assert screen.button("secondary").text() == "Decline"
    assert screen.says("call") == "Bob is calling"
    click(qtbot, screen.button("primary"))
    click(qtbot, screen.button("secondary"))
    assert screen.phone.wishes == [("answer",), ("decline",)]


def test_a_call_is_hung_up_with_the_button_that_began_it(screen: Screen, qtbot) -> None:
    where = screen.button("primary").geometry()
    screen.talk()
    assert screen.button("primary").text() == "Hang up"
    assert screen.button("primary").geometry() == where
    click(qtbot, screen.button("primary"))
    assert screen.phone.wishes == [("hang_up",)]


def test_the_large_button_stays_where_it_is_in_every_state(screen: Screen, qtbot) -> None:
    corner = screen.button("primary").pos()
    for state in CallState:
        screen.phone.begin(state, call_id=state.value)
        qtbot.wait(1)  # lets the layout run
        assert screen.button("primary").pos() == corner, state
        screen.phone.become(CallState.ENDED)


@pytest.mark.parametrize("state", list(CallState))
def test_every_state_of_a_call_has_its_words(screen: Screen, state: CallState) -> None:
    screen.phone.begin(state)
    assert screen.says("call")
    occupied = screen.panel.call is not None
    assert screen.button("primary").text() == PRIMARY[state if occupied else None][0]


def test_the_table_of_marks_knows_every_registration_state() -> None:
    assert set(REGISTRATION_MARKS) == set(RegistrationState)


def test_the_second_half_of_a_double_click_does_not_hang_up(screen: Screen, qtbot) -> None:
    click(qtbot, screen.button("primary"))
    screen.phone.begin(CallState.CALLING)
    click_again(screen.button("primary"))
    assert screen.phone.wishes == [("call", "bob")]


# -- the keyboard ----------------------------------------------------------------------------------


def test_enter_does_what_the_large_button_says(screen: Screen, qtbot) -> None:
    screen.target.setFocus()
    qtbot.keyClick(screen.target, Qt.Key.Key_Return)
    screen.phone.begin(CallState.INCOMING)
    qtbot.keyClick(screen.button("primary"), Qt.Key.Key_Enter)
    assert screen.phone.wishes == [("call", "bob"), ("answer",)]


def test_escape_declines_an_incoming_call_and_asks_nothing(screen: Screen, qtbot) -> None:
    screen.phone.begin(CallState.INCOMING)
    qtbot.keyClick(screen.button("primary"), Qt.Key.Key_Escape)
    assert screen.phone.wishes == [("decline",)]


def test_escape_hangs_up_and_does_nothing_without_a_call(screen: Screen, qtbot) -> None:
    qtbot.keyClick(screen.target, Qt.Key.Key_Escape)
    assert screen.phone.wishes == []
    screen.talk()
    qtbot.keyClick(screen.button("hold"), Qt.Key.Key_Escape)
    assert screen.phone.wishes == [("hang_up",)]


def test_tab_walks_the_panel_in_reading_order(screen: Screen, qtbot) -> None:
    def walk(first: str, steps: int) -> list[str]:
        find(screen.panel, first).setFocus()
        seen = []
        for _ in range(steps):
            qtbot.keyClick(screen.panel.window().focusWidget(), Qt.Key.Key_Tab)
            seen.append(screen.panel.window().focusWidget().objectName())
        return seen

    screen.phone.tell_registration(RegistrationState.REFUSED, "", wants_password=True)
    assert walk("menu", 5) == ["password", "use_password", "target", "calls_button", "primary"]
    screen.talk()
    assert walk("primary", 4) == ["hold", "mute", "dial_1", "dial_2"]


def test_the_keyboard_is_not_lost_when_the_line_gives_way_to_the_call(screen: Screen) -> None:
    screen.target.setFocus()
    screen.talk()
    assert screen.panel.window().focusWidget() is screen.button("primary")


# -- what it says ----------------------------------------------------------------------------------


def test_registration_is_told_in_a_sentence(screen: Screen) -> None:
    screen.phone.tell_registration(
        RegistrationState.UNREACHABLE, "No server answers; trying again in 2 s"
    )
    assert screen.says("registration") == "No server answers; trying again in 2 s"


def test_the_timer_counts_the_answered_time_and_keeps_it_when_the_call_is_over(
    screen: Screen, qtbot
) -> None:
    screen.phone.begin(CallState.RINGING)
    assert screen.says("timer") == ""
    screen.phone.become(CallState.TALKING)
    assert screen.says("timer") == "00:00"
    screen.phone.now += 12.99
    qtbot.waitUntil(lambda: screen.says("timer") == "00:12")
    screen.phone.now += 3600
    qtbot.waitUntil(lambda: screen.says("timer") == "01:00:12")
    screen.phone.become(CallState.ENDED, "You hung up")
    screen.phone.now += 60
    assert screen.says("timer") == "01:00:12"
    assert screen.says("call") == "You hung up"


def test_a_call_that_is_being_hung_up_no_longer_counts(screen: Screen) -> None:
    screen.talk()
    screen.phone.now += 5
    screen.phone.become(CallState.ENDING, "Hanging up ...")
    screen.phone.now += 30
    screen.phone.become(CallState.ENDED, "You hung up", ended_at=screen.phone.now - 30)
    assert screen.says("timer") == "00:05"


def test_the_timer_keeps_its_place_from_second_to_second(screen: Screen, qtbot) -> None:
    screen.talk()
    places = set()
    for second in (1, 8, 11, 44, 59):
        screen.phone.now = screen.phone.view.answered_at + second
        qtbot.waitUntil(lambda text=f"00:{second:02d}": screen.says("timer") == text)
        places.add(find(screen.panel, "timer").geometry().getRect())
    assert len(places) == 1


def test_packets_gap_and_levels_come_from_the_media(screen: Screen, qtbot) -> None:
    screen.phone.stats = FakeStats(612, 615, 1, 0.4, 21.4, level_in=0.5, level_out=0.25)
    screen.talk()
    qtbot.waitUntil(lambda: "615" in screen.says("packets"))
    assert "612" in screen.says("packets")
    assert screen.says("gap") == "Longest gap 21 ms"
    assert find(screen.panel, "level_in").level == 0.5
    assert find(screen.panel, "level_out").level == 0.25


def test_the_result_of_the_last_call_stays_until_the_next(screen: Screen) -> None:
    screen.phone.begin(CallState.CALLING)
    screen.phone.become(CallState.ENDED, "Bob is busy", status=486)
    screen.phone.tell_registration(RegistrationState.REGISTERED, "Registered through server2")
    assert screen.says("call") == "Bob is busy"
    assert screen.button("primary").text() == "Call"
    screen.phone.begin(CallState.CALLING, "Calling Bob ...", call_id="b")
    assert screen.says("call") == "Calling Bob ..."


def test_a_second_caller_who_is_turned_away_does_not_hide_the_call(screen: Screen) -> None:
    screen.talk()
    going = screen.phone.view
    screen.phone.begin(CallState.INCOMING, "Carol is calling", name="Carol", call_id="b")
    screen.phone.become(CallState.ENDED, "You were busy")
    assert screen.says("call") == "Talking with Bob"
    assert screen.panel.call == going


def test_an_old_call_that_ends_late_does_not_hide_the_new_one(screen: Screen) -> None:
    screen.talk()
    screen.phone.become(CallState.ENDING, "Hanging up ...")
    old = screen.phone.view
    assert screen.button("primary").text() == "Call"
    screen.phone.begin(CallState.CALLING, "Calling Bob ...", call_id="b")
    new = screen.phone.view
    screen.phone.view = old
    screen.phone.become(CallState.ENDED, "You hung up")
    assert screen.panel.call == new
    screen.phone.view = new
    screen.phone.become(CallState.ENDED, "Bob is busy", status=486)
    assert screen.says("call") == "Bob is busy"


def test_a_phone_without_sound_says_so(screen: Screen) -> None:
    assert not find(screen.panel, "note").isVisible()
    screen.panel.set_note("This computer has no microphone; a tone is sent instead.")
    assert find(screen.panel, "note").isVisible()
    assert "no microphone" in screen.says("note")


# -- hold, mute, digits ----------------------------------------------------------------------------


def test_buttons_that_cannot_be_used_say_why(screen: Screen) -> None:
    screen.target.clear()
    for button in screen.panel.findChildren(QPushButton):
        if button.isVisible() and not button.isEnabled():
            assert len(button.toolTip().split()) >= 3, button.objectName()
            assert button.accessibleDescription() == button.toolTip()
    assert not screen.button("hold").isEnabled()
    assert not screen.button("mute").isEnabled()


def test_hold_turns_into_resume_when_the_other_side_has_agreed(screen: Screen, qtbot) -> None:
    screen.talk()
    click(qtbot, screen.button("hold"))
    assert screen.button("hold").text() == "Hold"
    screen.phone.become(CallState.TALKING, "Bob is on hold", held_here=True)
    assert screen.button("hold").text() == "Resume"
    click(qtbot, screen.button("hold"))
    assert screen.phone.wishes == [("hold",), ("resume",)]


def test_mute_shows_that_it_is_on_and_ends_with_the_call(screen: Screen, qtbot) -> None:
    screen.talk()
    click(qtbot, screen.button("mute"))
    assert screen.button("mute").text() == "Unmute"
    assert screen.phone.wishes == [("mute", True)]
    screen.phone.become(CallState.ENDED)
    assert screen.phone.wishes == [("mute", True), ("mute", False)]
    assert screen.button("mute").text() == "Mute"


def test_the_dial_pad_types_while_idle_and_sends_tones_while_talking(screen: Screen, qtbot) -> None:
    for key in ("dial_1", "dial_0", "dial_hash"):
        click(qtbot, screen.button(key))
    assert screen.target.text() == "10#"
    screen.talk()
    click(qtbot, screen.button("dial_star"))
    qtbot.keyClick(screen.button("hold"), "7")
    assert screen.phone.wishes == [("dtmf", "*"), ("dtmf", "7")]
    assert screen.says("digits") == "Sent: *7"
    screen.phone.bridge.received.emit(DigitPassed(0.0, "a", "4", False))
    assert screen.says("digits") == "Sent: *7   Received: 4"
    screen.phone.become(CallState.ENDED)
    assert screen.target.text() == "10#"


def test_only_digits_that_have_left_are_shown_and_who_takes_none_is_named(
    screen: Screen, qtbot
) -> None:
    screen.phone.takes_digits = False
    screen.talk()
    assert screen.says("digits") == "The keys send tones"
    for key in ("dial_1", "dial_5", "dial_9"):
        click(qtbot, screen.button(key))
    assert screen.says("digits") == "Bob's phone takes no digits"
    screen.phone.bridge.received.emit(DigitPassed(0.0, "another call", "4", False))
    assert screen.says("digits") == "Bob's phone takes no digits"


def test_on_hold_no_key_sends_a_tone_and_the_phone_says_so(screen: Screen, qtbot) -> None:
    screen.talk()
    screen.phone.become(CallState.TALKING, held_here=True)
    click(qtbot, screen.button("dial_1"))
    assert screen.phone.wishes == []
    assert screen.says("digits") == "On hold: no tones are sent"
    screen.phone.become(CallState.TALKING, held_here=False)
    click(qtbot, screen.button("dial_1"))
    assert screen.says("digits") == "Sent: 1"


def test_of_many_digits_the_last_are_shown(screen: Screen, qtbot) -> None:
    screen.talk()
    for digit in "1234567890" * 3:
        qtbot.keyClick(screen.button("hold"), digit)
    assert screen.says("digits") == "Sent: …901234567890"
    screen.phone.become(CallState.ENDED)
    screen.talk()
    assert screen.says("digits") == "The keys send tones", "another call begins without"


@pytest.mark.parametrize("talking", [False, True])
def test_two_quick_clicks_on_one_key_are_two_digits(screen: Screen, qtbot, talking: bool) -> None:
    if talking:
        screen.talk()
    key = screen.button("dial_1")
    click(qtbot, key)
    click_again(key)
    assert (screen.says("digits") == "Sent: 11") if talking else (screen.target.text() == "11")


@pytest.mark.parametrize(
    ("name", "wish"), [("hold", ("hold",)), ("mute", ("mute", True)), ("dial_5", ("dtmf", "5"))]
)
@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Enter])
def test_enter_presses_the_button_that_has_the_keyboard(
    screen: Screen, qtbot, name: str, wish, key
) -> None:
    screen.talk()
    screen.button(name).setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(screen.button(name), key)
    assert screen.phone.wishes == [wish]


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Space])
def test_the_menu_opens_with_the_keyboard(screen: Screen, qtbot, key) -> None:
    screen.button("menu").setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(screen.button("menu"), key)
    qtbot.waitUntil(screen.panel.menu.isVisible)
    screen.panel.menu.close()
    assert screen.phone.wishes == []


def test_a_screen_reader_is_told_what_each_thing_is(screen: Screen) -> None:
    roles = {
        "menu": QAccessible.Role.ButtonMenu,
        "calls_button": QAccessible.Role.Button,
        "target": QAccessible.Role.EditableText,
        "primary": QAccessible.Role.Button,
        "hold": QAccessible.Role.CheckBox,
        "dial_star": QAccessible.Role.Button,
        "registration": QAccessible.Role.StaticText,
        "level_in": QAccessible.Role.Client,
    }
    screen.talk()
    for name, role in roles.items():
        node = QAccessible.queryAccessibleInterface(find(screen.panel, name))
        assert (node.role(), bool(node.text(QAccessible.Text.Name))) == (role, True), name


def test_enter_on_decline_does_not_answer(screen: Screen, qtbot) -> None:
    screen.phone.begin(CallState.INCOMING)
    screen.button("secondary").setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(screen.button("secondary"), Qt.Key.Key_Return)
    assert screen.phone.wishes == [("decline",)]


def test_enter_after_clicking_a_hold_button_does_not_hang_up(screen: Screen, qtbot) -> None:
    screen.talk()
    click(qtbot, screen.button("hold"))
    qtbot.keyClick(screen.button("hold"), Qt.Key.Key_Return)
    assert screen.phone.wishes == [("hold",), ("hold",)]


def test_enter_after_dialling_with_the_mouse_calls(screen: Screen, qtbot) -> None:
    for key in ("dial_1", "dial_2"):
        click(qtbot, screen.button(key))
    qtbot.keyClick(screen.button("dial_2"), Qt.Key.Key_Return)
    assert screen.phone.wishes == [("call", "12")]


def test_sound_that_goes_elsewhere_than_announced_is_shown(screen: Screen, qtbot) -> None:
    screen.talk()
    screen.phone.stats = FakeStats(elsewhere="203.0.113.5")
    qtbot.waitUntil(lambda: "Sound via 203.0.113.5" in screen.says("gap"))


# -- names, widths, colours, motion ----------------------------------------------------------------


def test_a_long_name_does_not_widen_the_panel_and_can_be_read_in_full(
    screen: Screen, qtbot
) -> None:
    before = screen.panel.minimumSizeHint()
    screen.phone.begin(CallState.INCOMING, f"{LONG_NAME} is calling", name=LONG_NAME)
    qtbot.wait(1)
    assert screen.panel.minimumSizeHint().width() <= NARROW
    assert screen.panel.minimumSizeHint().height() == before.height()
    assert screen.panel.width() == NARROW
    assert screen.panel.card.peer.toolTip() == LONG_NAME


def test_a_panel_fits_beside_another_on_a_small_screen(screen: Screen) -> None:
    screen.panel.set_note(
        "This computer has no microphone and no loudspeaker; a tone is sent instead."
    )
    size = screen.panel.minimumSizeHint()
    assert size.width() <= 264
    assert size.height() <= 560


def test_a_name_cannot_bring_mark_up_or_reorder_the_line(screen: Screen) -> None:
    screen.phone.begin(CallState.INCOMING, name="<b>Mallory\u202e</b>\n" + "x" * 60)
    peer = screen.panel.card.peer
    assert "\u202e" not in peer.text()
    assert "\n" not in peer.text()
    assert "<b>" not in peer.toolTip()


def test_a_right_to_left_name_does_not_turn_the_sentence_around(screen: Screen) -> None:
    screen.phone.begin(CallState.INCOMING, "דניאל כהן is calling", name="דניאל כהן")
    assert screen.says("call") == "\u2068דניאל כהן\u2069 is calling"
    assert screen.panel.card.peer.text() == "דניאל כהן"


def test_the_panel_turns_dark_while_it_is_open(screen: Screen, qtbot) -> None:
    for palette in (LIGHT, DARK):
        with colours(palette):
            qtbot.waitUntil(lambda palette=palette: ground(screen.panel) == palette.window.name())


def ground(panel: PhonePanel) -> str:
    return panel.grab().toImage().pixelColor(2, 2).name()


def test_a_ringing_phone_pulses_until_it_is_answered(screen: Screen) -> None:
    screen.phone.begin(CallState.INCOMING)
    assert screen.panel.card.pulsing
    screen.phone.become(CallState.TALKING)
    assert not screen.panel.card.pulsing


def test_nothing_pulses_for_somebody_who_wants_no_motion(screen: Screen, monkeypatch) -> None:
    monkeypatch.setenv("CALL_FAILOVER_MOTION", "reduced")
    screen.phone.begin(CallState.INCOMING)
    assert not screen.panel.card.pulsing
    assert screen.button("primary").text() == "Answer"


def test_everything_that_can_be_reached_has_a_name_for_a_screen_reader(screen: Screen) -> None:
    screen.talk()
    for widget in screen.panel.findChildren(QWidget):
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisible():
            assert widget.accessibleName() or getattr(widget, "text", str)(), widget.objectName()


def test_events_of_the_phones_thread_are_shown_by_the_gui_thread(screen: Screen, qtbot) -> None:
    thread = threading.Thread(
        target=lambda: screen.phone.begin(CallState.INCOMING, "Bob is calling")
    )
    thread.start()
    thread.join()
    assert screen.panel.call is None  # not yet: the event waits for the GUI thread
    qtbot.waitUntil(lambda: screen.says("call") == "Bob is calling")


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00"),
        (59.99, "00:59"),
        (61, "01:01"),
        (3599, "59:59"),
        (3600, "01:00:00"),
        (-1, "00:00"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_durations_are_spoken_in_words() -> None:
    assert formatting.spoken_duration(3661) == "1 hour 1 minute 1 second"
    assert formatting.spoken_duration(0) == "0 seconds"


def test_a_meter_hears_in_decibels() -> None:
    assert loudness(0.0) == 0.0
    assert loudness(1.0) == 1.0
    assert 0.7 < loudness(0.25) < 0.8
    assert FRAMES_PER_SECOND == 25
