"""Calls between somebody else's phones, Linphone and baresip, behind two Kamailios with exactly the
files of examples/kamailio: registered, called either way, one Kamailio killed in the middle of the
talk."""

from __future__ import annotations

import re

import pytest
from interop_kit import Baresip, Linphone, no_baresip
from parties_kit import PASSWORDS, Scene, absent
from process_kit import wait_until

from plumbing.address import parse_address

WHY_NOT = no_baresip() or absent("linphonec", "kamailio", "kamcmd")
pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"),
]


@pytest.fixture
def scene(tmp_path):
    with Scene(tmp_path) as made:
        made.forwarder("heartbeat.fall=10", options=["-v"])
        for name in ("server1", "server2"):
            made.kamailio(name)
        made.up("server1", "server2")
        made.know_each_other()
        yield made


@pytest.fixture
def phones(scene):
    """Alice has a Linphone, and Bob a baresip that is her friend."""
    proxy = parse_address(scene.address)
    bob = Baresip(scene, proxy, "bob", PASSWORDS["bob"])
    try:
        bob.registers()
        alice = Linphone(scene, proxy, "alice", PASSWORDS["alice"], friend="bob")
        try:
            alice.registers()
            yield alice, bob
        finally:
            alice.stop()
    finally:
        bob.stop()


def passed(scene, method):
    """Of the forwarder's log, the lines of requests of this method that went to a phone."""
    return re.findall(rf".* {method} server\d -> phones .*", scene.processes["forwarder"].said)


@pytest.mark.parametrize(
    "caller_is_linphone", [True, False], ids=["Linphone calls", "baresip calls"]
)
@pytest.mark.parametrize("caller_hangs_up", [True, False], ids=["and hangs up", "and is hung up"])
def test_a_call_goes_on_when_the_kamailio_that_carries_it_is_killed(
    scene, phones, caller_is_linphone, caller_hangs_up
):
    caller, called = phones if caller_is_linphone else phones[::-1]
    alice, bob = phones
    caller.call(called.user)
    called.rings()
    called.answer()
    for phone in phones:
        phone.talks()
    bob.hears()
    scene.processes["server1"].kill()
    wait_until(lambda: scene.status["hot"] == "server2")
    ends, other = (caller, called) if caller_hangs_up else (called, caller)
    ends.hang_up()
    other.is_free()
    ends.is_free()
    assert len(alice.messages("ACK ")) >= 1, "the 200 was acknowledged, and not said again for 32 s"
    assert len(passed(scene, "BYE")) == 1


def test_linphone_is_given_no_gruu(scene, phones):
    alice, _ = phones
    [accepted] = [each for each in alice.messages("SIP/2.0 200") if "REGISTER" in each]
    assert "Contact:" in accepted and "gr=" not in accepted and "gruu" not in accepted


def test_what_linphone_publishes_is_answered_and_does_not_come_back_to_it(scene, phones):
    alice, _ = phones
    wait_until(lambda: alice.messages("SIP/2.0 404"), 10.0, lambda: alice.logged[-3000:])
    [refused] = alice.messages("SIP/2.0 404")
    assert re.search(r"CSeq: \d+ PUBLISH", refused)
    assert len(alice.messages("PUBLISH ")) == 1, "it does not ask again"
    assert passed(scene, "PUBLISH") == []


def test_linphone_s_subscription_to_a_friend_reaches_the_friend_s_phone_and_nobody_else(
    scene, phones
):
    alice, bob = phones
    wait_until(
        lambda: any("SUBSCRIBE" in each for each in alice.messages("SIP/2.0 200")),
        10.0,
        lambda: alice.logged[-3000:],
    )
    wait_until(lambda: alice.messages("NOTIFY "))
    asked = passed(scene, "SUBSCRIBE")
    assert len(asked) == 1 and f"127.0.0.1:{bob.port} " in asked[0]
