"""Calls as a person makes them: a real forwarder, two real servers as processes, two real phones,
clicks on buttons.

Each story starts all programs anew on free ports and ends by closing the window, after which
nothing may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from stage_kit import Demonstration, processes_of, text_of

from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.phone import Account, Phone
from stage.controller import DemoController
from stage.processes.cluster import DOMAIN, HOST, Cluster, Ports

Start = Callable[..., Demonstration]


@pytest.fixture
def start(qtbot: QtBot) -> Iterator[Start]:
    """start(users=..., passwords=...) -> a demonstration; whatever happens, it is ended and has
    left nothing."""
    running: list[Demonstration] = []

    def begin(**options: dict[str, str] | bool) -> Demonstration:
        running.append(Demonstration(qtbot, **options))
        return running[-1]

    yield begin
    for demo in running:
        demo.end()
        assert not processes_of(demo.show.cluster.folder)
        assert not demo.show.cluster.folder.exists()


def test_the_whole_use_case_by_hand(start: Start) -> None:
    demo = start()
    demo.registered()
    demo.talk()
    demo.until(
        lambda: demo.window.bill.bill and demo.window.bill.bill.seconds >= 2, "a bill that grows"
    )
    demo.kill("server1")
    demo.until(lambda: demo.steps == [1, 2, 3, 4, 5, 6, 7], "server2 took over, the call goes on")
    assert demo.server("server1") == "dead" and demo.server("server2") == "hot"
    assert demo.says(demo.alice).startswith("Talking") and demo.says(demo.bob).startswith("Talking")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")
    demo.until(lambda: demo.steps == [1, 2, 3, 4, 5, 6, 7, 8, 9], "all steps")
    state = demo.show.use_case.state
    assert "server2" in text_of(demo.window.bill, "bill_source")
    assert state.bill is not None and state.talk_seconds is not None
    assert abs(state.bill.seconds - state.talk_seconds) <= 1
    assert state.lost == 0
    bill = demo.window.bill.bill
    assert bill is not None and bill.carried[0][0] == "server1"
    assert sum(phone.snapshot().retransmissions for phone in demo.show.phones.values()) == 0


def test_a_ringing_call_survives_the_crash_and_is_answered_through_the_other_server(
    start: Start,
) -> None:
    demo = start()
    demo.registered()
    demo.press(demo.alice, "Call")
    demo.until(lambda: demo.bob.primary.text() == "Answer", "Bob rings")
    demo.kill("server1")
    demo.until(lambda: demo.server("server2") == "hot", "server2 is hot")
    demo.press(demo.bob, "Answer")
    demo.until(lambda: demo.says(demo.alice).startswith("Talking"), "Alice talks")
    demo.until(lambda: demo.heard(demo.alice) > 20 and demo.heard(demo.bob) > 20, "audio")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")
    demo.until(lambda: {3, 4, 5, 6, 8, 9} <= set(demo.steps), "all but the audio over the crash")


def test_a_call_whose_server_dies_the_moment_it_is_placed_still_rings(start: Start) -> None:
    demo = start()
    demo.registered()
    demo.press(demo.alice, "Call")
    demo.kill("server1")
    demo.press(demo.bob, "Answer")
    demo.until(lambda: demo.says(demo.alice).startswith("Talking"), "Alice talks")
    demo.press(demo.bob, "Hang up")
    demo.until(lambda: demo.total, "the bill")


def test_bob_may_hang_up_too_and_the_bill_is_the_same(start: Start) -> None:
    demo = start()
    demo.registered()
    demo.talk()
    demo.press(demo.bob, "Hang up")
    demo.until(lambda: demo.total, "the bill")
    demo.until(lambda: "hung up" in demo.says(demo.alice), "Alice is told")
    demo.until(lambda: 8 in demo.steps, "the step is fulfilled, whoever hangs up")
    assert demo.window.steps.rows[7].row.text == "Bob hangs up."


def test_a_caller_who_gives_up_stops_the_ringing_and_pays_nothing(start: Start) -> None:
    demo = start()
    demo.registered()
    demo.press(demo.alice, "Call")
    demo.until(lambda: demo.bob.primary.text() == "Answer", "Bob rings")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.bob.primary.text() == "Call", "Bob's phone is free again")
    demo.until(
        lambda: demo.bills("server2") and demo.bills("server2")[0]["final"], "the record is closed"
    )
    (call,) = demo.bills("server2")
    assert call["seconds"] == 0 and call["answered"] is None
    assert not demo.total


def test_who_calls_a_busy_phone_is_told_so_and_disturbs_nobody(start: Start, qtbot: QtBot) -> None:
    demo = start()
    demo.registered()
    demo.talk()
    bridge = Bridge()
    carol = Phone(
        Account("carol", DOMAIN, display_name="Carol"),
        demo.show.cluster.forwarder,
        (HOST, 0),
        bridge.received.emit,
    )
    panel = PhonePanel("Carol", carol, bridge, target="bob")
    qtbot.addWidget(panel)
    panel.show()
    carol.start()
    try:
        demo.until(lambda: "egistered" in text_of(panel, "registration"), "Carol registers")
        demo.press(panel, "Call")
        demo.until(lambda: "busy" in demo.says(panel), "Bob is busy")
    finally:
        carol.stop()
    assert demo.says(demo.bob).startswith("Talking") and demo.steps[:4] == [1, 2, 3, 4]
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")


def test_a_wrong_password_is_said_in_words_and_the_other_phone_works(start: Start) -> None:
    demo = start(
        users={"alice": "right", "bob": "secret"}, passwords={"alice": "wrong", "bob": "secret"}
    )
    demo.until(
        lambda: "assword" in text_of(demo.alice, "registration"), "the wrong password is named"
    )
    demo.until(
        lambda: text_of(demo.bob, "registration").startswith("Registered"), "Bob is registered"
    )
    assert demo.steps == [1]


def test_with_the_right_passwords_a_nonce_of_the_dead_server_is_good_for_the_other(
    start: Start,
) -> None:
    demo = start(users={"alice": "right", "bob": "secret"})
    demo.registered()
    demo.kill("server1")
    demo.until(lambda: demo.server("server2") == "hot", "server2 is hot")
    demo.talk()
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")


@pytest.mark.long
def test_a_server_that_comes_back_in_mid_call_spoils_neither_call_nor_bill(start: Start) -> None:
    demo = start()
    demo.registered()
    demo.talk()
    demo.kill("server1")
    demo.until(lambda: 6 in demo.steps, "server2 took over")
    demo.restart("server1")
    demo.until(lambda: demo.server("server1") == "hot", "new calls go to server1 again")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")
    state = demo.show.use_case.state
    demo.until(lambda: state.talk_seconds, "the end at Alice's phone")
    talk = state.talk_seconds
    for server in ("server1", "server2"):
        (call,) = demo.bills(server)
        assert call["final"] and talk is not None and abs(int(str(call["seconds"])) - talk) <= 1
    demo.talk()
    demo.until(lambda: demo.steps == [1, 2, 3, 4], "the next call starts the list anew")


@pytest.mark.long
def test_with_both_servers_dead_the_caller_reads_a_sentence_and_after_a_restart_calls_again(
    start: Start,
) -> None:
    demo = start()
    demo.registered()
    demo.kill("server1")
    demo.kill("server2")
    demo.until(lambda: demo.window.headline == "No server is alive", "the headline")
    demo.press(demo.alice, "Call")
    demo.until(
        lambda: (
            demo.alice.primary.text() == "Call" and "No call" not in text_of(demo.alice, "call")
        ),
        "refused",
    )
    said = demo.says(demo.alice)
    assert "503" not in said.split()[0] and len(said.split()) >= 3, said
    demo.restart("server2")
    demo.talk()
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")


@pytest.mark.long
def test_audio_needs_no_server_and_a_call_outlives_both_of_them(start: Start) -> None:
    demo = start()
    demo.registered()
    demo.talk()
    demo.kill("server1")
    demo.until(lambda: 6 in demo.steps, "server2 took over")
    demo.kill("server2")
    demo.until(lambda: demo.window.headline == "No server is alive", "the headline")
    before = demo.heard(demo.bob)
    demo.until(lambda: demo.heard(demo.bob) > before + 20, "the audio goes on")
    demo.restart("server1")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.bob.primary.text() == "Call", "Bob's phone is free")
    demo.until(lambda: any(call["final"] for call in demo.bills("server1")), "the bill")
    assert len(demo.bills("server1")) == 1


def test_a_taken_port_is_told_in_the_forwarders_own_words(qtbot: QtBot) -> None:
    first = Cluster(Ports.free())
    first.programs["forwarder"].start()
    show = DemoController(first.ports)
    qtbot.addWidget(show.window)
    try:
        with qtbot.waitSignal(show.failed, timeout=10_000) as failed:
            show.start()
        assert str(first.ports.forwarder) in failed.args[0]
        assert "Traceback" not in failed.args[0]
        assert not any(button.isEnabled() for button in show.window.figure.buttons.values())
    finally:
        show.stop()
        first.stop()
    assert not processes_of(show.cluster.folder)


def test_the_keyboard_is_enough(start: Start, qtbot: QtBot) -> None:
    demo = start()
    demo.registered()

    def strike(phone: Qt.Key, key: Qt.Key) -> None:
        qtbot.keyClick(demo.window, phone, Qt.KeyboardModifier.ControlModifier)
        focus = demo.window.focusWidget()
        assert focus is not None
        qtbot.keyClick(focus, key)

    strike(Qt.Key.Key_1, Qt.Key.Key_Return)
    demo.until(lambda: demo.bob.primary.text() == "Answer", "Bob rings")
    strike(Qt.Key.Key_2, Qt.Key.Key_Return)
    demo.until(lambda: 4 in demo.steps, "they talk")
    strike(Qt.Key.Key_1, Qt.Key.Key_Escape)
    demo.until(lambda: demo.total, "the bill")


# -- two forwarders


@pytest.mark.long
def test_the_active_forwarder_dies_in_a_call_and_restarted_becomes_the_standby(
    start: Start,
) -> None:
    demo = start(pair=True)
    demo.registered()
    demo.until(
        lambda: (demo.server("forwarder1"), demo.server("forwarder2")) == ("hot", "standby"),
        "their roles",
    )
    demo.talk()
    demo.kill("forwarder1")
    demo.until(lambda: "7a" in demo.steps, "forwarder2 took over")
    assert (demo.server("forwarder1"), demo.server("forwarder2")) == ("dead", "hot")
    demo.restart("forwarder1")
    demo.until(lambda: demo.server("forwarder1") == "standby", "forwarder1 stands by")
    demo.kill("server1")
    demo.until(lambda: demo.steps == [1, 2, 3, 4, 5, 6, 7, "7a"], "server2 took over too")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")
    demo.until(lambda: len(demo.steps) == 10, "all steps")
    assert {row.label for row in demo.window.ladder.rows} >= {
        "forwarder1 killed",
        "forwarder2 has the address",
    }
    state = demo.show.use_case.state
    assert state.forwarder_takeover_ms is not None and state.forwarder_takeover_ms < 500, (
        "slower than T1"
    )
    assert sum(phone.snapshot().retransmissions for phone in demo.show.phones.values()) == 0


@pytest.mark.long
def test_with_both_forwarders_dead_the_audio_goes_on_and_either_one_brings_the_signalling_back(
    start: Start,
) -> None:
    demo = start(pair=True)
    demo.registered()
    demo.talk()
    demo.kill("forwarder2")
    demo.until(lambda: demo.server("forwarder2") == "dead", "the standby is dead")
    assert demo.server("forwarder1") == "hot" and demo.window.figure.active == "forwarder1"
    demo.kill("forwarder1")
    demo.until(lambda: demo.window.headline == "No forwarder is alive", "the headline says so")
    heard = demo.heard(demo.bob)
    demo.until(lambda: demo.heard(demo.bob) > heard + 20, "audio")
    demo.restart("forwarder2")
    demo.until(lambda: demo.server("forwarder2") == "hot", "forwarder2 has the address")
    demo.press(demo.alice, "Hang up")
    demo.until(lambda: demo.total, "the bill")
