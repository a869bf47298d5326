"""How an agent treats what happens within a call, and what strangers send it (RFC 3261 8.2, 12.2,
14)."""

from __future__ import annotations

import pytest
from agent_kit import ALICE, BOB, Line, Network, Passage, Scripted, pair, talking

from sip.message import Request, parse, reply
from sip.sdp import SessionDescription
from softphone.ua.events import CallState, DigitPassed, DigitRefused

TALKING, ENDED, INCOMING = CallState.TALKING, CallState.ENDED, CallState.INCOMING
STRANGER = ("127.0.0.1", 5090)
SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 7000 RTP/AVP 0\r\n"


def ask(
    network: Network,
    line: Line,
    method: str,
    *,
    uri: str = BOB,
    branch: str = "z9hG4bKs1",
    tag: str = "",
    seq: int = 1,
    fields: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
    call_id: str = "s1",
) -> list[str]:
    """A stranger's request; what came back to the stranger."""
    before = len(network.passed)
    to = "<sip:bob@failover.test>" + (f";tag={tag}" if tag else "")
    head = [
        ("Via", f"SIP/2.0/UDP 127.0.0.1:5090;branch={branch}"),
        ("From", "<sip:x@failover.test>;tag=x"),
        ("To", to),
    ]
    head += [
        ("Call-ID", call_id),
        ("CSeq", f"{seq} {method}"),
        ("Contact", "<sip:x@127.0.0.1:5090>"),
        *fields,
    ]
    head += (
        [("Content-Type", "application/sdp")]
        if body and not any(f[0] == "Content-Type" for f in fields)
        else []
    )
    network.send([(Request(method, uri, head, body).to_bytes(), line.address)], STRANGER)
    network.run(0.01)
    return [p.name for p in network.passed[before + 1 :] if p.to == STRANGER]


def test_an_invite_with_a_broken_expires_is_refused_before_the_phone_rings():
    network, _, bob = pair()
    assert ask(network, bob, "INVITE", fields=(("Expires", "soon"),), body=SDP) == ["400 INVITE"]
    assert bob.state is None and bob.agent.active_call is None


def test_a_body_that_is_no_sdp_is_refused_with_what_would_do():
    # RFC 3261 21.4.13
    network, _, bob = pair()
    assert ask(network, bob, "INVITE", fields=(("Content-Type", "text/plain"),), body=b"hi") == [
        "415 INVITE"
    ]
    assert network.passed[-1].message.get("Accept") == "application/sdp"


# -- within a call ---------------------------------------------------------------------------------


def test_hold_and_resume_are_told_to_both():
    network, alice, bob = talking()
    alice.does("hold")
    network.run(0.1)
    assert (alice.sentence, bob.sentence) == ("Bob is on hold", "Alice has put the call on hold")
    assert (
        alice.call.held_here
        and bob.call.held_there
        and not bob.call.held_here
        and not alice.call.held_there
    )
    assert (alice.call.media.direction, bob.call.media.direction) == ("sendonly", "recvonly")
    bob.does("hold")
    network.run(0.1)
    assert alice.call.held_here and alice.call.held_there
    assert (alice.call.media.direction, bob.call.media.direction) == ("inactive", "inactive")
    alice.does("resume")
    bob.does("resume")
    network.run(10.0)
    assert (alice.sentence, bob.sentence) == ("Talking with Bob", "Talking with Alice")
    assert (alice.call.media.direction, bob.call.media.direction) == ("sendrecv", "sendrecv")
    assert alice.call.since == alice.call.answered_at, "the call's clock goes on"


def test_two_holds_that_collide_are_both_done_in_the_end():
    # RFC 3261 14.1: 491, and the one who made the Call-ID waits longer
    network, alice, bob = talking()
    alice.does("hold")
    bob.does("hold")
    network.run(0.1)
    assert network.names().count("491 INVITE") == 2 and not alice.call.held_here
    network.run(5.0)
    for line in (alice, bob):
        assert line.call.held_here and line.call.held_there and line.state is TALKING
    assert network.names().count("491 INVITE") == 2


def test_a_late_ack_of_their_hold_is_not_taken_for_the_answer_to_ours():
    network, alice, bob = talking()
    network.lose = lambda p: p.name == "ACK"
    bob.does("hold")
    network.run(0.3)
    repeated = network.now + 0.4
    network.lose = lambda p: p.name == "INVITE" and p.at < repeated
    # her INVITE is lost; before it goes out again she repeats her 200, and he his ACK
    alice.does("hold")
    network.run(2.0)
    for line in (alice, bob):
        assert line.call.held_here and line.call.held_there, network.ladder()


def test_a_hold_that_is_refused_changes_nothing_and_says_so():
    network, alice, bob = talking()
    Scripted(network, bob.address, lambda r: [reply(r, 488)] if r.method == "INVITE" else [])
    alice.does("hold")
    network.run(0.1)
    assert (alice.state, alice.sentence) == (
        TALKING,
        "Talking with Bob; Bob's phone does not agree to hold",
    )
    assert not alice.call.held_here and alice.call.media.direction == "sendrecv"


def test_a_hold_agreed_to_under_an_unreadable_contact_is_a_hold():
    network, alice, bob = talking()
    fields = [("Contact", "<sip:bob@[half>"), ("Content-Type", "application/sdp")]
    Scripted(
        network,
        bob.address,
        lambda r: [] if r.method == "ACK" else [reply(r, 200, fields=fields, body=SDP)],
    )
    for wish, held in (("hold", True), ("resume", False)):
        alice.does(wish)
        network.run(0.1)
        assert (alice.state, alice.call.held_here) == (TALKING, held)


def test_an_offer_that_was_refused_has_used_up_its_version():
    # RFC 3264 8: two descriptions with one version must be the same, and phones look no further
    # than that
    network, alice, bob = talking()
    peer = Scripted(network, bob.address, lambda r: [reply(r, 488)] if r.method == "INVITE" else [])
    for _ in range(2):
        alice.does("hold")
        network.run(0.1)
    first = network.passed[0].message
    offers = [first, *peer.requests("INVITE")]
    assert [SessionDescription.parse(each.body).version for each in offers] == [1, 2, 3]


def test_a_hold_that_nobody_answers_ends_the_call_with_a_bye():
    network, alice, bob = talking()
    network.leave(bob.address)
    alice.does("hold")
    network.run(33.0)
    assert (alice.state, alice.sentence) == (ENDED, "The call with Bob was lost")
    assert "BYE" in network.names(alice.address)


def test_a_peer_that_forgot_the_call_ends_it():
    network, alice, _bob = talking()
    Line(network, "bob", 5064)
    alice.does("probe")
    network.run(0.1)
    assert (alice.state, alice.probes[0].status) == (ENDED, 481)
    assert alice.sentence == "The call with Bob was lost"


def test_a_probe_that_nobody_answers_ends_nothing():
    network, alice, bob = talking()
    network.leave(bob.address)
    alice.does("probe")
    network.run(33.0)
    assert alice.state is TALKING and [probe.status for probe in alice.probes] == [408]


def test_a_lost_ack_of_a_hold_is_sent_again():
    network, alice, _bob = talking()
    lost: list[Passage] = []
    network.lose = lambda p: p.name == "ACK" and not lost and not lost.append(p)
    alice.does("hold")
    network.run(5.0)
    assert alice.call.held_here and network.names(alice.address).count("ACK") == 3
    assert [m.retransmission for m in alice.messages if m.sent and m.summary.startswith("ACK")] == [
        False,
        False,
        True,
    ]


def test_a_re_invite_without_an_offer_is_answered_with_one():
    network, alice, bob = talking()
    invite = Request("INVITE", BOB, [(f.name, f.value) for f in network.passed[0].message.fields])
    ok = next(p.message for p in network.passed if p.name == "200 INVITE")
    invite.replace_top("Via", "SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKnew")
    invite.set("To", ok.get("To"))
    invite.set("CSeq", "5 INVITE")
    invite.remove("Content-Type")
    network.send([(invite.to_bytes(), bob.address)], alice.address)
    network.run(0.01)
    answer = network.passed[-1].message
    assert answer.status == 200 and b"m=audio 6064" in answer.body and bob.state is TALKING


def test_a_request_out_of_order_gets_500_and_one_that_came_by_two_paths_482():
    network, alice, bob = talking()
    alice.does("probe")
    network.run(0.1)
    dialog = network.passed[-2].message  # the OPTIONS
    for seq, branch, answer in ((1, "z9hG4bKx1", "500 OPTIONS"), (2, "z9hG4bKx2", "482 OPTIONS")):
        late = Request("OPTIONS", dialog.uri, [(f.name, f.value) for f in dialog.fields])
        late.replace_top("Via", f"SIP/2.0/UDP 127.0.0.1:5062;branch={branch}")
        late.set("CSeq", f"{seq} OPTIONS")
        network.send([(late.to_bytes(), bob.address)], alice.address)
        network.run(0.01)
        assert network.passed[-1].name == answer
    assert bob.state is TALKING


def test_both_hang_up_at_once():
    network, alice, bob = talking()
    alice.does("hang_up")
    bob.does("hang_up")
    network.run(0.1)
    assert (alice.sentence, bob.sentence) == ("You hung up", "You hung up")


def test_requests_within_a_call_follow_the_route_set():
    network, alice, _bob = pair()
    alice.calls(BOB)
    invite = network.passed[0].message
    invite.push("Record-Route", "<sip:127.0.0.1:5060;lr;hint=server1>")
    other = Line(network, "bob", 5070)
    network.send([(invite.to_bytes(), other.address)], alice.address)
    network.run(0.1)
    assert network.passed[-1].message.get("Record-Route") == "<sip:127.0.0.1:5060;lr;hint=server1>"
    other.answers()
    network.leave(alice.address)
    other.does("hang_up")
    network.run(33.0)
    bye = network.passed[-1]
    assert bye.name == "BYE" and bye.to == ("127.0.0.1", 5060)
    assert (
        bye.message.get("Route") == "<sip:127.0.0.1:5060;lr;hint=server1>"
        and bye.message.uri == ALICE
    )


# -- strangers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "answer"),
    [
        ("OPTIONS", {}, "200 OPTIONS"),
        ("PUBLISH", {}, "405 PUBLISH"),
        ("BYE", {}, "481 BYE"),
        ("BYE", {"tag": "b"}, "481 BYE"),
        ("INVITE", {"tag": "b"}, "481 INVITE"),
        ("CANCEL", {}, "481 CANCEL"),
        ("INVITE", {"uri": "sip:carol@127.0.0.1:5064"}, "404 INVITE"),
        ("INVITE", {"uri": "tel:123"}, "416 INVITE"),
        ("INVITE", {"fields": (("Require", "replaces"),)}, "420 INVITE"),
        ("INVITE", {"body": b"x", "fields": (("Content-Type", "text/plain"),)}, "415 INVITE"),
        ("INVITE", {"body": b"nonsense"}, "400 INVITE"),
        ("INVITE", {"body": SDP.replace(b"AVP 0", b"AVP 18")}, "488 INVITE"),
    ],
)
def test_a_stranger_gets_the_answer_the_rules_have(method, options, answer):
    network, _, bob = pair()
    assert ask(network, bob, method, **options)[:1] == [answer]
    assert bob.agent.calls == ()


def test_answers_say_what_would_be_understood():
    network, _, bob = pair()
    ask(network, bob, "PUBLISH")
    assert (
        network.passed[-1].message.get("Allow")
        == "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE"
    )
    ask(
        network, bob, "INVITE", branch="z9hG4bKs2", fields=(("Require", "100rel, replaces, timer"),)
    )
    refusal = next(p.message for p in network.passed if p.name == "420 INVITE")
    assert refusal.get("Unsupported") == "replaces" and refusal.to.tag


def test_an_invite_that_comes_by_two_paths_rings_once():
    network, _, bob = pair()
    assert ask(network, bob, "INVITE", body=SDP) == ["180 INVITE"]
    assert ask(network, bob, "INVITE", body=SDP, branch="z9hG4bKother")[:1] == ["482 INVITE"]
    assert len(bob.agent.calls) == 1 and bob.state is INCOMING


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is():
    network, _, bob = pair()
    ask(network, bob, "INVITE", body=SDP, fields=(("Subject", "x"),))
    invite = (
        network.passed[0]
        .data.replace(b"From: <", b'From: "A\xff' + b"l" * 500 + b'" <')
        .replace(b"s1", b"s2")
    )
    bob.does("decline")
    bob.receive(invite, STRANGER, network.now)
    assert bob.call.peer_name.startswith("A?lll") and len(bob.call.peer_name) == 120
    assert bob.sentence.encode()


def test_an_ack_to_nothing_is_passed_over():
    network, _, bob = pair()
    assert ask(network, bob, "ACK", tag="b") == [] and ask(network, bob, "ACK") == []


def test_a_cancel_after_the_answer_changes_nothing():
    network, _, bob = pair()
    ask(network, bob, "INVITE", body=SDP)
    bob.answers()
    assert "200 CANCEL" in ask(network, bob, "CANCEL")
    assert bob.state is TALKING


def test_the_phone_answers_by_the_way_the_request_came():
    # RFC 3581: rport asked for, or a sent-by that is not the source
    network, _, bob = pair()
    ask(network, bob, "OPTIONS")
    assert network.passed[-1].to == STRANGER
    head = [
        ("Via", "SIP/2.0/UDP phone.invalid:9999;branch=z9hG4bKn;rport"),
        ("From", "<sip:x@y>;tag=x"),
    ]
    head += [("To", "<sip:bob@y>"), ("Call-ID", "n"), ("CSeq", "1 OPTIONS")]
    network.send([(Request("OPTIONS", BOB, head).to_bytes(), bob.address)], STRANGER)
    network.run(0.01)
    answer = network.passed[-1]
    assert (
        answer.to == STRANGER
        and answer.message.via.received == "127.0.0.1"
        and answer.message.via.rport == 5090
    )


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0"])
def test_keep_alives_are_passed_over(data):
    _, _, bob = pair()
    assert bob.receive(data, STRANGER, 1.0) == [] and bob.agent.dropped == {}


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"\xff" * 100,
        b"SIP/2.0 200 OK\r\n\r\n",
        b"INVITE sip:bob@x SIP/2.0\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b\r\nFrom: "
        b"<sip:a@b>;tag=1\r\n"
        b"To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n",
    ],
)
def test_nonsense_is_counted_and_never_raised(data):
    _, _, bob = pair()
    assert bob.receive(data, STRANGER, 1.0) == []
    assert sum(bob.agent.dropped.values()) == 1


@pytest.mark.long
@pytest.mark.parametrize("method", ["OPTIONS", "PUBLISH", "BYE", "INVITE"])
def test_a_flood_of_strangers_requests_meets_a_bound_and_does_not_make_the_phone_deaf(method):
    network, alice, bob = talking()
    if method != "INVITE":
        alice.does("hang_up")
        network.run(0.1)
    for number in range(700):
        ask(
            network,
            bob,
            method,
            branch=f"z9hG4bK{number}",
            call_id=f"c{number}",
            seq=number,
            body=SDP,
        )
        network.now = 1000.2
    assert 700 - 512 <= bob.agent.dropped["answers forgotten to make room"] <= 700 - 500
    if method == "INVITE":
        assert bob.state is TALKING, "the call goes on"
        network.run(0.1)
        alice.does("hang_up")
        network.run(0.1)
    alice.calls(BOB)
    network.run(0.1)
    assert (alice.state, bob.state) == (CallState.RINGING, INCOMING)


@pytest.mark.parametrize(
    "connection",
    [
        "IN IP6 2001:db8::9",
        "IN IP6 ::1",
        "IN IP4 phone.example.test",
        "IN IP4 239.1.2.3/127",
        "IN IP6 ff02::1",
        "IN IP4 255.255.255.255",
        "IN IP4 ::1",
    ],
)
@pytest.mark.parametrize("place", ["session", "stream"])
def test_an_offer_whose_media_cannot_be_reached_is_refused_before_it_rings(connection, place):
    # RFC 3261 13.3.1.3: who rings, answers and is then heard by nobody has been lied to.
    network, _, bob = pair()
    media = b"m=audio 7000 RTP/AVP 0\r\n"
    line = b"c=" + connection.encode() + b"\r\n"
    offer = (
        SDP.replace(b"c=IN IP4 127.0.0.1\r\n", line)
        if place == "session"
        else SDP.replace(media, media + line)
    )
    assert ask(network, bob, "INVITE", body=offer) == ["488 INVITE"]
    assert bob.state is None


@pytest.mark.parametrize(
    "connection", ["IN IP4 192.0.2.9", "IN IP4 phone.example.test", "IN IP6 ff02::1"]
)
def test_a_phone_of_ipv6_refuses_what_it_cannot_reach_before_it_rings(connection):
    network = Network()
    bob = Line(network, "bob", 5064, host="::1")
    offer = SDP.replace(b"c=IN IP4 127.0.0.1", b"c=" + connection.encode())
    assert ask(network, bob, "INVITE", uri="sip:bob@[::1]:5064", body=offer)[:1] == ["488 INVITE"]
    assert bob.state is None
    offer = SDP.replace(b"c=IN IP4 127.0.0.1", b"c=IN IP6 2001:db8::9")
    assert ask(
        network, bob, "INVITE", uri="sip:bob@[::1]:5064", body=offer, branch="z9hG4bK2", call_id="2"
    ) == ["180 INVITE"]


def test_of_two_streams_the_one_that_can_be_reached_is_taken():
    # RFC 4091's predecessor in the field: one stream for each family.
    network, _, bob = pair()
    six = b"m=audio 7002 RTP/AVP 0\r\nc=IN IP6 2001:db8::9\r\n"
    name = b"m=audio 7004 RTP/AVP 0\r\nc=IN IP4 phone.example.test\r\n"
    offer = SDP.replace(b"m=audio", six + name + b"m=audio")
    assert ask(network, bob, "INVITE", body=offer) == ["180 INVITE"]
    bob.answers()
    assert bob.call.media.remote == ("127.0.0.1", 7000)
    answer = SessionDescription.parse(network.passed[-1].message.body)
    assert [stream.port > 0 for stream in answer.media] == [False, False, True]


def test_a_re_invite_to_the_other_family_is_refused_and_the_call_goes_on():
    network, alice, bob = talking()
    network.edit = lambda data: data.replace(b"c=IN IP4 127.0.0.1", b"c=IN IP6 fd00::1:1")
    alice.does("hold")
    network.run(0.1)
    assert "488 INVITE" in network.names(bob.address)
    assert (alice.state, bob.state, bob.call.media.remote[0]) == (TALKING, TALKING, "127.0.0.1")


def test_a_repeated_request_gets_the_same_answer_again():
    network, _, bob = pair()
    ask(network, bob, "OPTIONS")
    first = network.passed[-1].data
    ask(network, bob, "OPTIONS")
    assert network.passed[-1].data == first
    assert [m.retransmission for m in bob.messages] == [False, False, True, True]
    assert bob.agent.retransmissions == 0


# -- digits to a phone without telephone-events ----------------------------------------------------


def without_telephone_events(data: bytes) -> bytes:
    """The same message from a phone that has no telephone-events, and takes INFO in place of
    UPDATE."""
    said = data.replace(b"telephone-event/8000", b"something-other/8000")
    return said.replace(b", UPDATE", b",   INFO")


def info_party(network: Network, status: int) -> list[Request]:
    """Bob's INFO are answered by a script, as his phone would; what was asked of him."""
    asked: list[Request] = []
    deliver = network.parties[("127.0.0.1", 5064)]

    class Bob:
        @property
        def deadline(self):
            return deliver.deadline

        def receive(self, data, source, now):
            if not data.startswith(b"INFO "):
                return deliver.receive(data, source, now)
            request = parse(data)
            assert isinstance(request, Request)
            asked.append(request)
            request.replace_top("Via", str(request.via.with_source(*source)))
            return [(reply(request, status).to_bytes(), source)] if status else []

        def on_deadline(self, now):
            return deliver.on_deadline(now)

    network.parties[("127.0.0.1", 5064)] = Bob()
    return asked


def told_of_digits(line: Line) -> list[str]:
    passed = (DigitPassed, DigitRefused)
    return [
        e.digit if isinstance(e, DigitPassed) else e.sentence
        for e in line.events
        if isinstance(e, passed)
    ]


def test_digits_go_by_info_one_after_the_other_to_a_phone_that_allows_it():
    network, alice, _ = talking(without_telephone_events)
    assert alice.call.media.telephone_event is None
    asked = info_party(network, 200)
    for digit in "15#":
        alice.does("digit", digit)
    assert told_of_digits(alice) == [], "not before it has been taken"
    network.run(0.1)
    assert [r.body for r in asked] == [
        f"Signal={digit}\r\nDuration=160\r\n".encode() for digit in "15#"
    ]
    assert {r.content_type for r in asked} == {"application/dtmf-relay"}
    assert [r.cseq.number for r in asked] == list(
        range(asked[0].cseq.number, asked[0].cseq.number + 3)
    )
    assert told_of_digits(alice) == ["1", "5", "#"]
    assert all(
        isinstance(e, DigitPassed) and e.sent
        for e in alice.events
        if isinstance(e, DigitPassed | DigitRefused)
    )


@pytest.mark.parametrize("status", [405, 415, 501, 0])
def test_digits_that_are_refused_after_all_say_so_and_end_nothing(status):
    network, alice, bob = talking(without_telephone_events)
    info_party(network, status)
    alice.does("digit", "1")
    network.run(40.0)
    assert told_of_digits(alice) == ["Bob's phone takes no digits"]
    assert (alice.state, bob.state) == (TALKING, TALKING)


def test_a_phone_that_takes_no_digits_at_all_gets_none_and_the_person_is_told():
    network, alice, _ = talking(
        lambda data: data.replace(b"telephone-event/8000", b"something-other/8000")
    )
    count = len(network.passed)
    alice.does("digit", "1")
    assert len(network.passed) == count and told_of_digits(alice) == ["Bob's phone takes no digits"]
