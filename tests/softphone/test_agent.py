"""Calls between two agents joined in memory: what each person sees, and what passes between
them."""

from __future__ import annotations

import pytest
from agent_kit import BOB, SDP, Line, Network, Passage, Scripted, accepted, pair, talking

from sip.message import Request, Response, reply
from softphone.ua.call_states import CALL_TRANSITIONS, CallInput
from softphone.ua.events import CallState, CallTurnedAway, Direction

CALLING, RINGING, INCOMING = CallState.CALLING, CallState.RINGING, CallState.INCOMING
TALKING, ENDING, ENDED = CallState.TALKING, CallState.ENDING, CallState.ENDED


def test_the_table_of_call_states_has_an_entry_for_every_event():
    assert set(CALL_TRANSITIONS) == set(CallState)
    for state, row in CALL_TRANSITIONS.items():
        assert set(row) == set(CallInput)
        assert row[CallInput.GONE] is ENDED
        assert state is not ENDED or set(row.values()) == {ENDED}


def test_a_call_is_placed_answered_and_hung_up():
    network, alice, bob = pair()
    alice.calls(BOB)
    assert (alice.state, alice.sentence) == (CALLING, "Calling bob ...")
    network.run(0.1)
    assert (alice.state, alice.sentence) == (RINGING, "Ringing at Bob ...")
    assert (bob.state, bob.sentence, bob.call.direction) == (
        INCOMING,
        "Alice is calling",
        Direction.INCOMING,
    )
    bob.answers()
    network.run(0.1)
    assert (alice.state, alice.sentence) == (TALKING, "Talking with Bob")
    assert (bob.state, bob.sentence) == (TALKING, "Talking with Alice")
    assert alice.call.media.remote == ("127.0.0.1", 6064) and bob.call.media.remote == (
        "127.0.0.1",
        6062,
    )
    assert alice.call.media.codec == bob.call.media.codec == "PCMU"
    network.run(12.0)
    alice.does("hang_up")
    assert (alice.state, alice.sentence) == (ENDING, "Hanging up ...")
    network.run(0.1)
    assert (alice.state, alice.sentence) == (ENDED, "You hung up")
    assert (bob.state, bob.sentence) == (ENDED, "Alice hung up")
    for view in (alice.call, bob.call):
        assert view.ended_at - view.answered_at == pytest.approx(12.1, abs=0.05)
    assert network.names() == ["INVITE", "180 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]
    assert alice.agent.retransmissions == bob.agent.retransmissions == 0
    network.run(60.0)
    assert alice.deadline is None and bob.deadline is None, "nothing is left waiting"


@pytest.mark.parametrize(
    ("fields", "to", "name"),
    [
        ((), "", "bob"),
        (
            (("P-Asserted-Identity", '"Robert" <sip:bob@failover.test>, <tel:+49301>'),),
            '"Bobby"',
            "Robert",
        ),
        ((("P-Asserted-Identity", "<tel:+49301>"),), '"Bobby"', "Bobby"),
        ((("P-Asserted-Identity", '"broken, <sip:bob@failover.test>'),), "", "bob"),
        ((), '" "', "bob"),
        ((), f'"{"B" * 500}"', "B" * 120),
    ],
)
def test_whom_we_called_by_an_address_has_a_name(fields, to, name):
    def answers(request: Request) -> list[Response]:
        if request.method != "INVITE":
            return []
        request.set("To", f"{to} {request.get('To')}".strip())
        response = accepted(request, "b1")
        for field in fields:
            response.add(*field)
        return [response]

    network = Network()
    alice = Line(network, "alice", 5062)
    Scripted(network, ("127.0.0.1", 5064), answers)
    alice.calls(BOB)
    network.run(0.1)
    assert (alice.state, alice.sentence, alice.call.peer_name) == (
        TALKING,
        f"Talking with {name}",
        name,
    )


def test_bob_hangs_up():
    network, alice, bob = talking()
    bob.does("hang_up")
    network.run(0.1)
    assert (alice.sentence, bob.sentence) == ("Bob hung up", "You hung up")


def test_bob_declines():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    bob.does("decline")
    network.run(0.1)
    assert (alice.state, alice.sentence, alice.call.status) == (ENDED, "Bob declined the call", 603)
    assert bob.sentence == "You declined the call"


def test_bob_is_busy_and_goes_on_talking_undisturbed():
    network, _alice, bob = talking()
    carol = Line(network, "carol", 5066)
    carol.calls(BOB)
    network.run(0.1)
    assert (carol.state, carol.sentence, carol.call.status) == (ENDED, "Bob is busy", 486)
    assert bob.state is TALKING and len(bob.agent.calls) == 1
    (turned,) = [event.call for event in bob.events if isinstance(event, CallTurnedAway)]
    assert (turned.peer_name, turned.state, turned.answered_at) == ("Carol", ENDED, None)
    assert turned.sentence == "Carol called while this phone was busy"


def test_a_second_call_is_not_begun_while_one_is_going_on():
    _network, alice, _ = talking()
    alice.calls("sip:carol@127.0.0.1:5066")
    assert len(alice.agent.calls) == 1 and alice.state is TALKING


def test_a_ringing_call_is_cancelled():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.5)
    alice.does("hang_up")
    network.run(0.1)
    assert (alice.state, alice.sentence) == (ENDED, "You hung up")
    assert (bob.state, bob.sentence) == (ENDED, "Missed call from Alice")
    assert network.names()[2:] == ["CANCEL", "200 CANCEL", "487 INVITE", "ACK"]


def test_a_cancel_waits_for_a_provisional_answer():
    # RFC 3261 9.1
    network, alice, bob = pair()
    slow = []
    network.lose = lambda p: p.name == "INVITE" and not slow
    alice.calls(BOB)
    alice.does("hang_up")
    network.run(0.4)
    assert alice.state is ENDING and "CANCEL" not in network.names()
    slow.append("the next INVITE comes through")
    network.run(0.2)
    assert network.names() == [
        "INVITE",
        "INVITE",
        "180 INVITE",
        "CANCEL",
        "200 CANCEL",
        "487 INVITE",
        "ACK",
    ]
    assert alice.sentence == "You hung up" and bob.state is ENDED


def test_a_cancel_that_crosses_the_answer_becomes_a_bye():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.5)
    bob.answers()
    alice.does("hang_up")
    network.run(0.1)
    assert (alice.state, alice.sentence) == (ENDED, "You hung up")
    assert (bob.state, bob.sentence) == (ENDED, "Alice hung up")
    assert network.names(alice.address) == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert TALKING not in {event.call.state for event in alice.events if hasattr(event, "call")}


def test_a_cancelled_call_ends_even_if_nobody_says_so():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.5)
    network.leave(bob.address)
    alice.does("hang_up")
    network.run(31.9)
    assert alice.state is ENDING
    network.run(0.2)
    assert (alice.state, alice.sentence) == (ENDED, "You hung up")


def test_somebody_who_is_called_and_hangs_up_instead_declines():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    bob.does("hang_up")
    network.run(0.1)
    assert alice.sentence == "Bob declined the call"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (404, "No such user: bob"),
        (486, "Bob is busy"),
        (600, "Bob is busy"),
        (603, "Bob declined the call"),
        (480, "Bob cannot be reached right now"),
        (503, "No server can take the call right now"),
        (488, "Bob's phone and this one have no sound format in common"),
        (408, "No answer from bob"),
        (302, "Bob is to be called elsewhere: Moved Temporarily"),
        (500, "The server could not place the call to bob: Server Internal Error"),
        (499, "The call to bob was refused: Bad Request"),
    ],
)
def test_every_refusal_is_a_sentence(status, sentence):
    network, alice, _ = pair()
    Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: [reply(r, status, to_tag="b")] if r.method == "INVITE" else [],
    )
    alice.calls(BOB)
    network.run(0.1)
    assert (alice.state, alice.sentence, alice.call.status) == (ENDED, sentence, status)
    assert network.names() == ["INVITE", f"{status} INVITE", "ACK"]


def test_a_call_into_silence_says_so_soon_and_ends_after_32_seconds():
    network, alice, bob = pair()
    network.leave(bob.address)
    alice.calls(BOB)
    network.run(1.6)
    assert (alice.state, alice.sentence) == (CALLING, "Calling bob ... no answer yet")
    network.run(31.0)
    assert (alice.state, alice.sentence) == (
        ENDED,
        "Nobody answers: neither a server nor bob's phone",
    )
    assert alice.agent.retransmissions == 6


def test_a_phone_that_rings_too_long_is_given_up():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(181.0)
    assert alice.state is ENDED and bob.state is ENDED
    assert bob.sentence == "Missed call from Alice"
    assert network.names(bob.address).count("180 INVITE") >= 3, (
        "a provisional answer every minute (13.3.1.1)"
    )


def test_an_invite_that_expires_is_missed():
    network, alice, _bob = pair()
    alice.calls(BOB)
    invite = network.passed[0].message
    invite.add("Expires", "20")
    other = Line(network, "bob", 5070)
    network.send([(invite.to_bytes(), other.address)], alice.address)
    network.run(21.0)
    assert (other.state, other.sentence) == (ENDED, "Missed call from Alice")


@pytest.mark.parametrize(
    "target", ["b ob", "sip:", "sip:bob@", "bob@h:99999", "tel:bob", '"', "b\x00b"]
)
def test_a_target_that_is_no_address_is_told_and_nothing_is_sent(target):
    network, alice, _ = pair()
    alice.calls(target)
    assert alice.state is ENDED and "not an address" in alice.sentence
    assert network.names() == []


def test_a_name_beyond_ascii_is_escaped_on_the_wire_and_shown_as_typed():
    network, alice, _bob = pair()
    alice.calls("j\u00f6rg@127.0.0.1:5064")
    assert alice.sentence == "Calling j\u00f6rg ..."
    assert network.passed[0].message.uri == "sip:j%C3%B6rg@127.0.0.1:5064"


def test_an_empty_target_is_asked_for():
    _, alice, _ = pair()
    alice.calls("  ")
    assert alice.sentence == "Whom do you want to call?"


def test_a_name_needs_a_server():
    network, alice, _ = pair()
    alice.calls("bob")
    assert (
        alice.sentence == "Failover.test cannot be found without a server" and network.names() == []
    )


# -- losses ----------------------------------------------------------------------------------------


def lose_first(*names: str):
    left = list(names)

    def lose(passage: Passage) -> bool:
        if passage.name in left:
            left.remove(passage.name)
            return True
        return False

    return lose


@pytest.mark.parametrize("name", ["INVITE", "180 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"])
def test_any_one_message_may_be_lost(name):
    network, alice, bob = pair()
    network.lose = lose_first(name)
    alice.calls(BOB)
    network.run(1.0)
    bob.answers()
    network.run(2.0)
    assert (alice.state, bob.state) == (TALKING, TALKING), network.ladder()
    alice.does("hang_up")
    network.run(2.0)
    assert (alice.state, bob.state) == (ENDED, ENDED), network.ladder()
    assert alice.agent.retransmissions + bob.agent.retransmissions == 1
    network.run(60.0)
    assert alice.deadline is None and bob.deadline is None


@pytest.mark.parametrize("seed", range(12))
def test_a_call_survives_a_network_that_loses_a_third_of_everything(seed):
    import random

    network, alice, bob = pair()
    dice = random.Random(seed)
    network.lose = lambda passage: dice.random() < 0.33
    alice.calls(BOB)
    network.run_until(lambda: bob.state is INCOMING)
    bob.answers()
    network.run_until(lambda: alice.state is TALKING)
    network.run(5.0)
    bob.does("hang_up")
    network.run_until(lambda: alice.state is ENDED and bob.state is ENDED, within=80.0)
    network.run(100.0)
    assert alice.deadline is None and bob.deadline is None


def test_an_answer_is_repeated_until_it_is_acknowledged_and_the_call_ended_if_it_never_is():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    network.leave(alice.address)
    bob.answers()
    network.run(31.9)
    assert bob.state is TALKING
    assert network.names(bob.address).count("200 INVITE") == 11 and bob.agent.retransmissions == 10
    network.run(0.2)
    assert (bob.state, bob.sentence) == (ENDED, "The call with Alice was never confirmed")
    assert network.names(bob.address)[-1] == "BYE"


def test_the_called_side_hangs_up_only_after_the_ack():
    # RFC 3261 15: no BYE before the ACK or the 2xx's end
    network, alice, bob = pair()
    network.lose = lose_first("ACK", "ACK")
    alice.calls(BOB)
    network.run(0.1)
    bob.answers()
    bob.does("hang_up")
    network.run(0.6)
    assert bob.state is ENDING and "BYE" not in network.names()
    network.run(2.0)
    assert network.names(bob.address)[-1] == "BYE" and (bob.state, alice.state) == (ENDED, ENDED)


def test_hanging_up_on_somebody_who_is_gone_ends_after_32_seconds():
    network, alice, bob = talking()
    network.leave(bob.address)
    alice.does("hang_up")
    network.run(33.0)
    assert (alice.state, alice.sentence) == (ENDED, "You hung up")


# -- forks, late answers, early media --------------------------------------------------------------


def test_of_two_phones_that_answer_one_is_talked_to_and_the_other_left():
    network, alice, _ = pair()
    both = Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: {
            "INVITE": [reply(r, 180, to_tag="b1"), accepted(r, "b1"), accepted(r, "b2")],
            "BYE": [reply(r, 200)],
        }.get(r.method, []),
    )
    alice.calls(BOB)
    network.run(0.1)
    assert alice.state is TALKING
    assert [ack.to.tag for ack in both.requests("ACK")] == ["b1", "b2"]
    assert [bye.to.tag for bye in both.requests("BYE")] == ["b2"]


def test_early_media_is_heard_before_the_answer():
    network, alice, _ = pair()
    fields = [("Contact", "<sip:bob@127.0.0.1:5064>"), ("Content-Type", "application/sdp")]
    Scripted(
        network, ("127.0.0.1", 5064), lambda r: [reply(r, 183, to_tag="b", fields=fields, body=SDP)]
    )
    alice.calls(BOB)
    network.run(0.1)
    assert alice.state is CALLING and alice.call.media.remote == ("127.0.0.1", 7000)


def test_an_answer_in_a_provisional_response_stands_if_the_200_has_none():
    network, alice, _ = pair()
    fields = [("Contact", "<sip:bob@127.0.0.1:5064>"), ("Content-Type", "application/sdp")]
    Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: (
            [
                reply(r, 183, to_tag="b", fields=fields, body=SDP),
                reply(r, 200, to_tag="b", fields=fields[:1]),
            ]
            if r.method == "INVITE"
            else []
        ),
    )
    alice.calls(BOB)
    network.run(0.1)
    assert alice.state is TALKING and alice.call.media.remote == ("127.0.0.1", 7000)


@pytest.mark.parametrize("body", [b"", b"nonsense", SDP.replace(b"AVP 0", b"AVP 18")])
def test_an_answer_without_usable_media_is_acknowledged_and_left(body):
    network, alice, _ = pair()
    bob = Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: {"INVITE": [accepted(r, "b", body)], "BYE": [reply(r, 200)]}.get(r.method, []),
    )
    alice.calls(BOB)
    network.run(0.1)
    assert (alice.state, alice.sentence) == (
        ENDED,
        "Bob's phone and this one have no sound format in common",
    )
    assert [m.method for m in bob.seen if isinstance(m, Request)] == ["INVITE", "ACK", "BYE"]


@pytest.mark.parametrize("contact", [[], [("Contact", "<nonsense>")]])
def test_an_answer_without_a_usable_contact_ends_the_call(contact):
    network, alice, _ = pair()
    fields = [*contact, ("Content-Type", "application/sdp")]
    Scripted(
        network, ("127.0.0.1", 5064), lambda r: [reply(r, 200, to_tag="b", fields=fields, body=SDP)]
    )
    alice.calls(BOB)
    network.run(0.1)
    assert (alice.state, alice.sentence) == (
        ENDED,
        "Bob's phone gave an answer that makes no sense",
    )


def test_somebody_who_sends_no_offer_gets_one_with_the_answer():
    network, alice, _bob = pair()
    alice.calls(BOB)
    invite = network.passed[0].message
    invite.body = b""
    invite.remove("Content-Type")
    invite.remove("Content-Length")
    other = Line(network, "bob", 5070)
    network.send([(invite.to_bytes(), other.address)], alice.address)
    network.run(0.1)
    other.answers()
    ok = network.passed[-1].message
    assert b"m=audio 6070" in ok.body
    ack = Request(
        "ACK", "sip:bob@127.0.0.1:5070", [(f.name, f.value) for f in invite.fields], body=SDP
    )
    ack.replace_top("Via", "SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKack")
    ack.set("CSeq", "1 ACK")
    ack.set("To", ok.get("To"))
    ack.set("Content-Type", "application/sdp")
    network.send([(ack.to_bytes(), other.address)], alice.address)
    network.run(0.1)
    assert other.state is TALKING and other.call.media.remote == ("127.0.0.1", 7000)
    network.run(5.0)
    assert other.agent.retransmissions == 0
