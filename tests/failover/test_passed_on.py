"""What a dying server has passed on already is not said again: phones hear every message once, in
its order.

Found with a stateful server and a strict phone: a 180 of the last second, repeated through the
survivor, reached the caller after the 200, and an INVITE reached a phone that had answered it.
"""

from __future__ import annotations

import pytest
from forwarder_kit import ALICE, BOB, SERVERS, answer, head, lines, make_core, request

from failover.config.settings import PHONES
from failover.upstream.health import REFUSED

CONTACT_OF_BOB = "sip:bob@192.0.2.8:5060"


def onward(data, server, branch):
    """The request as a proxying server sends it on: its Via on top, to Bob."""
    above = f"Via: SIP/2.0/UDP {SERVERS[server][0]}:{SERVERS[server][1]};branch={branch}"
    first, *rest = head(data)
    return lines(first.replace(first.split(" ")[1], CONTACT_OF_BOB, 1), above, *rest)


def without_top_via(data):
    first, _, *rest = head(data)
    return lines(first, *rest)


class Call:
    """An INVITE of Alice's that server1 has sent on to Bob."""

    def __init__(self):
        self.core = make_core()
        to_server = self.core.receive(request(), PHONES, ALICE, 100.0).sends[0].data
        self.at_bob = (
            self.from_server(onward(to_server, "server1", "z9hG4bKs1"), 100.0).sends[0].data
        )

    def from_server(self, data, now):
        return self.core.receive(data, "server1", SERVERS["server1"], now)

    def bob_says(self, status, now=100.5):
        """Bob's answer as server1 gets it."""
        passed = self.core.receive(answer(self.at_bob, status), PHONES, BOB, now)
        assert [send.to for send in passed.sends] == ["server1"]
        return passed.sends[0].data

    def server_passes(self, data, now=100.5):
        """And as Alice gets it."""
        passed = self.from_server(without_top_via(data), now)
        assert [send.target for send in passed.sends] == [ALICE]

    def replayed(self, now=101.0):
        killed = self.core.failover.signal("server1", REFUSED, now, "gone")
        return [(send.to, head(send.data)[0]) for send in killed.sends]


def test_an_answer_that_the_dead_server_had_passed_on_is_not_said_again():
    call = Call()
    call.server_passes(call.bob_says("180 Ringing"))
    assert call.replayed() == [("server2", "INVITE sip:bob@failover.test SIP/2.0")], (
        "the INVITE waits for its 200"
    )


def test_an_answer_that_it_had_not_passed_on_is_said_to_the_survivor():
    call = Call()
    call.bob_says("180 Ringing")
    assert [line for _, line in call.replayed()] == [
        "INVITE sip:bob@failover.test SIP/2.0",
        "SIP/2.0 180 Ringing",
    ]


def test_an_answered_call_is_not_offered_again_only_its_200_is():
    call = Call()
    call.server_passes(call.bob_says("180 Ringing"))
    call.bob_says("200 OK")
    assert call.replayed() == [("server2", "SIP/2.0 200 OK")]


def test_a_refusal_does_not_settle_an_invite_that_may_ring_elsewhere_too():
    call = Call()
    call.bob_says("486 Busy Here")
    assert [line for _, line in call.replayed()] == [
        "INVITE sip:bob@failover.test SIP/2.0",
        "SIP/2.0 486 Busy Here",
    ]


def test_each_answer_counts_by_itself():
    call = Call()
    call.server_passes(call.bob_says("180 Ringing"))
    call.bob_says("183 Session Progress")
    assert ("server2", "SIP/2.0 183 Session Progress") in call.replayed()
    assert not [line for _, line in call.replayed() if "180" in line]


@pytest.mark.parametrize("passed_on", [True, False])
def test_an_ack_is_said_again_only_if_it_was_not_passed_on(passed_on):
    call = Call()
    call.server_passes(call.bob_says("200 OK"))
    ack = request("ACK", CONTACT_OF_BOB, branch="z9hG4bKack", to_tag="b")
    to_server = call.core.receive(ack, PHONES, ALICE, 100.6).sends[0].data
    if passed_on:
        call.from_server(onward(to_server, "server1", "z9hG4bKs1ack"), 100.6)
    assert call.replayed() == ([] if passed_on else [("server2", f"ACK {CONTACT_OF_BOB} SIP/2.0")])


def test_what_was_passed_on_is_forgotten_at_once():
    call = Call()
    assert len(call.core.pending) == 1
    ringing = call.bob_says("180 Ringing")
    assert len(call.core.pending) == 2
    call.bob_says("180 Ringing")
    assert len(call.core.pending) == 2, "a retransmission takes no more room"
    call.server_passes(ringing)
    assert len(call.core.pending) == 1
