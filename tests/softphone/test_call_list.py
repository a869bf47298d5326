"""The list of calls as a person uses it: missed, placed, answered; call back with a click, redial."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPushButton, QTableView
from qt_kit import FakePhone, find

from softphone.call_history import CallHistory, Outcome
from softphone.gui.call_list import CallList, when
from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.ua.events import CallState, CallTurnedAway, CallView, Direction


@pytest.fixture
def phone(qtbot, tmp_path):
    bridge = Bridge()
    made = FakePhone(bridge)
    made.history = CallHistory(tmp_path / "calls")
    made.panel = PhonePanel("Alice", made, bridge, history=made.history, clock=made.clock)
    qtbot.addWidget(made.panel)
    with qtbot.waitExposed(made.panel):
        made.panel.show()
    return made


def click(qtbot, widget) -> None:
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def opened(phone: FakePhone, qtbot) -> CallList:
    click(qtbot, find(phone.panel, "calls_button", QPushButton))
    calls = find(phone.panel, "call_list", CallList)
    qtbot.waitUntil(calls.isActiveWindow)
    return calls


def rows(calls: CallList) -> list[list[str]]:
    model = calls.model
    return [
        [str(model.index(row, column).data() or "") for column in (0, 1, 3, 4)]
        for row in range(model.rowCount())
    ]


def miss(phone: FakePhone, call_id: str = "m") -> None:
    phone.begin(CallState.INCOMING, "Bob is calling", call_id=call_id)
    phone.become(CallState.ENDED, "Missed call from Bob", status=487)


def test_each_call_is_listed_with_how_it_ended(phone, qtbot) -> None:
    phone.begin(CallState.CALLING, call_id="1")
    phone.become(CallState.TALKING, "Talking with Bob")
    phone.now += 83
    phone.become(CallState.ENDED, "Bob hung up")
    phone.begin(CallState.CALLING, call_id="2")
    phone.become(CallState.ENDED, "Bob is busy", status=486)
    miss(phone)
    assert rows(opened(phone, qtbot)) == [
        ["Missed", "Bob", "", "Missed call from Bob"],
        ["No answer", "Bob", "", "Bob is busy"],
        ["Placed", "Bob", "01:23", "Bob hung up"],
    ]


def test_missed_calls_are_counted_until_the_list_is_looked_at(phone, qtbot) -> None:
    button = find(phone.panel, "calls_button", QPushButton)
    assert button.text() == ""
    miss(phone, "1")
    miss(phone, "2")
    assert button.text() == "2 missed" and button.accessibleName() == "Calls, 2 missed"
    click(qtbot, button)
    assert button.text() == ""


def test_who_was_turned_away_as_busy_is_missed(phone, qtbot) -> None:
    phone.begin(CallState.CALLING)
    phone.become(CallState.TALKING)
    carol = CallView(
        "c",
        Direction.INCOMING,
        "Carol",
        "sip:carol@failover.test",
        CallState.ENDED,
        "Carol called while this phone was busy",
        phone.now,
        ended_at=phone.now,
        status=486,
    )
    phone.bridge.received.emit(CallTurnedAway(phone.now, carol))
    assert phone.panel.call.peer_name == "Bob"
    listed = ["Missed", "Carol", "", "Carol called while this phone was busy"]
    assert rows(opened(phone, qtbot)) == [listed]


@pytest.mark.parametrize("way", ["button", "double click", "enter"])
def test_calling_back(phone, qtbot, way: str) -> None:
    miss(phone)
    calls = opened(phone, qtbot)
    table = find(calls, "calls", QTableView)
    if way == "button":
        click(qtbot, find(calls, "call_back", QPushButton))
    elif way == "enter":
        qtbot.keyClick(table, Qt.Key.Key_Return)
    else:
        spot = table.visualRect(calls.model.index(0, 1)).center()
        qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=spot)
        qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert phone.wishes == [("call", "sip:bob@failover.test")]


def test_redial_calls_whom_was_called_last(phone, qtbot) -> None:
    assert not phone.panel.menu.redial.isEnabled()
    phone.begin(CallState.CALLING, name="Carol", uri="sip:carol@failover.test")
    phone.become(CallState.ENDED, "Carol is busy", status=486)
    miss(phone)
    assert phone.panel.menu.redial.text() == "Redial Carol"
    qtbot.keyClick(phone.panel, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    assert phone.wishes == [("call", "sip:carol@failover.test")]


def test_during_a_call_nobody_is_called_back(phone, qtbot) -> None:
    miss(phone)
    phone.begin(CallState.CALLING, call_id="b")
    click(qtbot, find(opened(phone, qtbot), "call_back", QPushButton))
    assert phone.wishes == []


def test_the_calls_are_there_again_after_a_restart_and_can_be_forgotten(phone, qtbot) -> None:
    miss(phone)
    path = phone.history._path
    assert [call.outcome for call in CallHistory(path)] == [Outcome.MISSED]
    calls = opened(phone, qtbot)
    click(qtbot, find(calls, "forget_all", QPushButton))
    assert rows(calls) == [] and list(CallHistory(path)) == []
    assert not find(calls, "call_back", QPushButton).isEnabled()


def test_what_was_no_address_is_not_listed(phone, qtbot) -> None:
    phone.begin(CallState.CALLING, uri="")
    phone.become(CallState.ENDED, "“#” is not an address that can be called")
    assert rows(opened(phone, qtbot)) == []


def test_the_time_of_a_call_says_the_day_unless_it_is_today() -> None:
    noon = 1_800_000_000.0
    assert when(noon, noon) in when(noon - 86_400, noon)
    assert "Yesterday" in when(noon - 86_400, noon)
    assert len(when(noon - 7 * 86_400, noon)) > len(when(noon, noon))
