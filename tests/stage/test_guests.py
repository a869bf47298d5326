"""Another telephone beside the demo's two, at another address: `--lan`."""

from __future__ import annotations

import sys

import pytest
from pytestqt.qtbot import QtBot
from stage_kit import Demonstration, text_of

from softphone.phone import Account, Phone
from softphone.ua.events import CallChanged
from stage.__main__ import main
from stage.options import parse

FORWARDER, ELSEWHERE = "127.0.0.2", "127.0.0.3"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loopback has one address")
def test_a_call_with_a_guest_outlives_its_server_and_is_billed(qtbot: QtBot) -> None:
    demo = Demonstration(qtbot, lan=FORWARDER)
    events: list[object] = []
    guest: Phone | None = None
    try:
        demo.registered()
        view = demo.window
        assert text_of(view, "guest_server").startswith(FORWARDER)
        account = Account("guest1", FORWARDER, text_of(view, "guest_password"), "A guest")
        guest = Phone(account, demo.show.cluster.forwarder, (ELSEWHERE, 0), events.append)
        guest.start()
        demo.until(lambda: "Guest1" in view.figure.phones, "the guest is in the figure")
        assert "Guest1" in view.ladder.painter.columns
        demo.alice.target.setText("guest1")
        demo.press(demo.alice, "Call")
        demo.until(lambda: state_of(events) == "incoming", "the guest's phone rings")
        guest.answer()
        demo.until(lambda: demo.show.use_case.state.talking, "they talk")
        assert not view.figure.talking, "the arc is from Alice to Bob"
        assert demo.show.use_case.state.answered_through == "server1"
        demo.kill("server1")
        demo.until(lambda: "took over" in view.headline, "server2 takes over")
        guest.hang_up()
        demo.until(lambda: bool(demo.total), "the bill")
        bill = view.bill.bill
        assert bill is not None and bill.callee == "A guest"
        invites = [row for row in view.ladder.rows if row.label == "INVITE"]
        assert any(row.target == "Guest1" for row in invites)
    finally:
        if guest is not None:
            guest.stop(1.0)
        demo.end()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loopback has one address")
def test_a_call_between_two_guests_has_a_bill_page(qtbot: QtBot) -> None:
    demo = Demonstration(qtbot, lan=FORWARDER)
    events: list[object] = []
    guests: list[Phone] = []
    try:
        demo.registered()
        for user in ("guest1", "guest2"):
            account = Account(user, FORWARDER, text_of(demo.window, "guest_password"))
            guests.append(
                Phone(account, demo.show.cluster.forwarder, (ELSEWHERE, 0), events.append)
            )
            guests[-1].start()
            name = user.capitalize()
            demo.until(lambda name=name: name in demo.window.figure.phones, f"{user} registers")
        guests[0].call("guest2")
        demo.until(lambda: state_of(events) in ("incoming", "ringing"), "the other phone rings")
        guests[1].answer()
        demo.until(lambda: demo.window.bill.bill is not None, "a bill that grows")
        demo.kill("server1")
        demo.until(lambda: demo.server("server2") == "hot", "server2 is hot")
        guests[0].hang_up()
        demo.until(lambda: bool(demo.total), "the bill")
        bill = demo.window.bill.bill
        assert bill is not None and (bill.caller, bill.callee) == ("Guest1", "Guest2")
        assert demo.steps == [1, 2], "the steps are those of Alice and Bob"
    finally:
        for guest in guests:
            guest.stop(1.0)
        demo.end()


def state_of(events: list[object]) -> str:
    states = [each.call.state.value for each in events if isinstance(each, CallChanged)]
    return states[-1] if states else ""


def test_the_default_is_loopback_and_scenes_have_no_guests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse([]).lan is None and parse(["--lan"]).lan == ""
    assert main(["--lan", "127.0.0.1", "--scene", "frozen"]) == 2
    assert "without other telephones" in capsys.readouterr().out
