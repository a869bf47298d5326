"""Provisional responses that are acknowledged: RFC 3262, told from both ends, with the peer's
bytes."""

from __future__ import annotations

import pytest
from agent_kit import BOB, SDP, Line, Network, Scripted, accepted, pair

from sip.message import Request, Response, parse, reply
from softphone.ua.events import CallState

TALKING, ENDED, INCOMING, RINGING = (
    CallState.TALKING,
    CallState.ENDED,
    CallState.INCOMING,
    CallState.RINGING,
)
GATEWAY = ("127.0.0.1", 5064)
OTHER = SDP.replace(b"7000", b"7100")


def provisional(
    invite: Request, rseq: object, status: int = 180, tag: str = "b", body: bytes = b""
) -> Response:
    fields = [("Contact", "<sip:bob@127.0.0.1:5064>"), ("Require", "100rel"), ("RSeq", str(rseq))]
    fields += [("Content-Type", "application/sdp")] if body else []
    return reply(invite, status, to_tag=tag, fields=fields, body=body)


class Gateway(Scripted):
    """Alice calls it; it says what the test has it say, and answers each PRACK with 200."""

    def __init__(self) -> None:
        network = Network()
        self.alice = Line(network, "alice", 5062)
        super().__init__(
            network,
            GATEWAY,
            lambda r: [reply(r, 200)] if r.method in ("PRACK", "BYE", "CANCEL") else [],
        )
        self.alice.calls(BOB)
        network.run(0.01)
        self.invite = self.requests("INVITE")[0]

    def says(self, *responses: Response) -> None:
        for response in responses:
            self.network.send([(response.to_bytes(), self.alice.address)], GATEWAY)
            self.network.run(0.01)

    @property
    def racks(self) -> list[str | None]:
        return [prack.get("RAck") for prack in self.requests("PRACK")]


# -- a call of ours --------------------------------------------------------------------------------


def test_our_invite_says_that_we_can():
    gateway = Gateway()
    assert "100rel" in gateway.invite.values("Supported") and "PRACK" in gateway.invite.values(
        "Allow"
    )


def test_a_gateway_that_rings_reliably_is_acknowledged_within_the_early_dialog():
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, 7001))
    prack = gateway.requests("PRACK")[0]
    assert (prack.get("RAck"), prack.uri, prack.to.tag) == (
        "7001 1 INVITE",
        "sip:bob@127.0.0.1:5064",
        "b",
    )
    assert prack.cseq.number == 2 and gateway.alice.state is RINGING
    gateway.says(accepted(gateway.invite))
    gateway.alice.does("hang_up")
    gateway.network.run(0.1)
    assert gateway.requests("BYE")[0].cseq.number == 3 and gateway.alice.state is ENDED


def test_a_repeated_180_is_acknowledged_once_and_rings_once():
    gateway = Gateway()
    gateway.says(*[provisional(gateway.invite, 10)] * 3)
    assert gateway.racks == ["10 1 INVITE"]
    assert gateway.alice.sentences == ["Calling bob ...", "Ringing at bob ..."]


def test_what_comes_before_its_turn_is_neither_heard_nor_acknowledged():
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, 10, 183), provisional(gateway.invite, 12, 180))
    assert gateway.racks == ["10 1 INVITE"] and gateway.alice.state is CallState.CALLING
    gateway.says(provisional(gateway.invite, 11, 182), provisional(gateway.invite, 12, 180))
    assert (
        gateway.racks == ["10 1 INVITE", "11 1 INVITE", "12 1 INVITE"]
        and gateway.alice.state is RINGING
    )


def test_each_phone_that_rings_counts_for_itself():
    gateway = Gateway()
    gateway.says(
        provisional(gateway.invite, 10, tag="b1"), provisional(gateway.invite, 500, tag="b2")
    )
    gateway.says(provisional(gateway.invite, 11, tag="b1"))
    assert gateway.racks == ["10 1 INVITE", "500 1 INVITE", "11 1 INVITE"]
    assert [prack.to.tag for prack in gateway.requests("PRACK")] == ["b1", "b2", "b1"]


@pytest.mark.parametrize("rseq", ["0", "", "x", "2147483648", "-1"])
def test_a_number_that_none_may_be_is_no_reason_not_to_ring(rseq):
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, rseq))
    assert gateway.racks == [] and gateway.alice.state is RINGING


def test_a_100_is_never_acknowledged():
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, 5, 100))
    assert gateway.racks == []


def test_an_acknowledgement_that_is_lost_is_sent_again():
    gateway = Gateway()
    gateway.network.lose = lambda p: p.name == "PRACK" and p.at < 1001.0
    gateway.says(provisional(gateway.invite, 10))
    gateway.network.run(3.0)
    assert gateway.racks == ["10 1 INVITE"]


def test_an_answer_in_a_reliable_183_is_an_answer_and_an_update_may_change_it():
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, 10, 183, body=SDP))
    assert gateway.alice.call.media.remote == ("127.0.0.1", 7000)
    update = within(gateway.invite, "UPDATE", OTHER)
    gateway.network.send([(update.to_bytes(), gateway.alice.address)], GATEWAY)
    gateway.network.run(0.01)
    answer = gateway.seen[-1]
    assert isinstance(answer, Response) and answer.status == 200 and b"m=audio 6062" in answer.body
    assert gateway.alice.call.media.remote == ("127.0.0.1", 7100)
    gateway.says(accepted(gateway.invite))  # what it answered at first, once more
    assert gateway.alice.state is TALKING and gateway.alice.call.media.remote == ("127.0.0.1", 7100)


@pytest.mark.parametrize("body", [b"", SDP, OTHER])
def test_after_a_reliable_answer_the_200_may_repeat_it_or_say_nothing(body):
    gateway = Gateway()
    gateway.says(
        provisional(gateway.invite, 10, 183, body=SDP), accepted(gateway.invite, body=body)
    )
    assert gateway.alice.state is TALKING
    assert gateway.alice.call.media.remote == ("127.0.0.1", 7100 if body == OTHER else 7000)


def test_an_answer_that_is_corrected_keeps_the_hosts_that_sound_may_come_from():
    gateway = Gateway()
    gateway.says(
        provisional(gateway.invite, 1, 183, body=SDP), accepted(gateway.invite, body=OTHER)
    )
    media = gateway.alice.call.media
    assert (media.remote[1], media.peers) == (7100, (GATEWAY[0],))


def test_the_phone_that_answers_is_talked_to_and_not_the_one_that_played_the_announcement():
    gateway = Gateway()
    gateway.says(
        provisional(gateway.invite, 10, 183, "b1", SDP),
        provisional(gateway.invite, 20, 183, "b2", OTHER),
    )
    gateway.says(accepted(gateway.invite, "b1", b""))
    assert gateway.alice.call.media.remote == ("127.0.0.1", 7000)


def test_giving_up_acknowledges_what_still_comes():
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, 10))
    gateway.alice.does("hang_up")
    gateway.says(provisional(gateway.invite, 11, 183))
    assert gateway.racks == ["10 1 INVITE", "11 1 INVITE"] and len(gateway.requests("CANCEL")) == 1


# -- an early dialog of ours (RFC 3311) ------------------------------------------------------------


def within(
    invite: Request, method: str, body: bytes = b"", tag: str = "b", seq: int = 1
) -> Request:
    """A request of the callee in the dialog that a 180 with that tag began."""
    fields = [
        ("Via", f"SIP/2.0/UDP 127.0.0.1:5064;branch=z9hG4bKw{method}{seq}"),
        ("Max-Forwards", "70"),
    ]
    fields += [
        ("From", f"{invite.get('To')};tag={tag}"),
        ("To", invite.get("From")),
        ("Call-ID", invite.call_id),
    ]
    fields += [("CSeq", f"{seq} {method}"), ("Contact", "<sip:bob@127.0.0.1:5064>")]
    fields += [("Content-Type", "application/sdp")] if body else []
    return Request(method, "sip:alice@127.0.0.1:5062", fields, body)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("UPDATE", b"", 200),
        ("UPDATE", SDP, 491),
        ("INVITE", SDP, 491),
        ("OPTIONS", b"", 200),
        ("PRACK", b"", 481),
    ],
)
def test_a_phone_that_rings_may_ask_us_something(method, body, status):
    gateway = Gateway()
    gateway.says(
        reply(gateway.invite, 180, to_tag="b", fields=[("Contact", "<sip:bob@127.0.0.1:5064>")])
    )
    gateway.network.send(
        [(within(gateway.invite, method, body).to_bytes(), gateway.alice.address)], GATEWAY
    )
    gateway.network.run(0.01)
    answer = gateway.seen[-1]
    assert isinstance(answer, Response) and (answer.status, answer.cseq.method) == (status, method)
    gateway.says(accepted(gateway.invite))
    assert gateway.alice.state is TALKING


def ringing_at(gateway: Gateway, *tags: str) -> None:
    contact = [("Contact", "<sip:bob@127.0.0.1:5064>")]
    gateway.says(*(reply(gateway.invite, 180, to_tag=tag, fields=contact) for tag in tags))


def leaves(gateway: Gateway, tag: str) -> None:
    bye = within(gateway.invite, "BYE", tag=tag)
    gateway.network.send([(bye.to_bytes(), gateway.alice.address)], GATEWAY)
    gateway.network.run(0.01)
    answers = [m for m in gateway.seen if isinstance(m, Response) and m.cseq.method == "BYE"]
    assert [answer.status for answer in answers] == [200]


@pytest.mark.parametrize("hangs_up", [False, True])
def test_the_last_phone_that_leaves_while_it_rings_ends_the_call_and_the_invite(hangs_up):
    gateway = Gateway()
    ringing_at(gateway, "b")
    if hangs_up:
        gateway.alice.does("hang_up")
        gateway.network.run(0.01)
    leaves(gateway, "b")
    assert gateway.alice.state is ENDED
    assert gateway.alice.sentence == ("You hung up" if hangs_up else "Bob hung up")
    assert len(gateway.requests("CANCEL")) == 1
    gateway.network.run(70.0)
    assert gateway.alice.agent.deadline is None and not gateway.alice.agent._layer._clients
    assert len(gateway.requests("CANCEL")) == 1 and gateway.alice.state is ENDED


def test_a_phone_that_leaves_while_another_rings_leaves_the_call_alone():
    gateway = Gateway()
    gateway.says(provisional(gateway.invite, 1, 183, tag="b", body=SDP))
    ringing_at(gateway, "c")
    assert gateway.alice.call.media.remote[1] == 7000
    leaves(gateway, "b")
    assert gateway.alice.state is RINGING and gateway.alice.call.media is None
    assert not gateway.requests("CANCEL")
    gateway.says(accepted(gateway.invite, tag="c", body=OTHER))
    assert gateway.alice.state is TALKING and gateway.alice.call.media.remote[1] == 7100


def test_a_tag_that_never_rang_is_nobody():
    gateway = Gateway()
    gateway.says(
        reply(gateway.invite, 180, to_tag="b", fields=[("Contact", "<sip:bob@127.0.0.1:5064>")])
    )
    update = within(gateway.invite, "UPDATE", tag="somebody")
    gateway.network.send([(update.to_bytes(), gateway.alice.address)], GATEWAY)
    gateway.network.run(0.01)
    assert gateway.seen[-1].status == 481


# -- a call to us ----------------------------------------------------------------------------------

INVITE = (
    b"INVITE sip:bob@127.0.0.1:5064 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKi\r\n"
    b'From: "Alice" <sip:alice@failover.test>;tag=a\r\nTo: <sip:bob@failover.test>\r\n'
    b"Call-ID: rel\r\n"
    b"CSeq: 40 INVITE\r\nContact: <sip:alice@127.0.0.1:5062>\r\nRequire: 100rel\r\n"
    b"Max-Forwards: 70\r\n"
)
WITH_OFFER = INVITE + b"Content-Type: application/sdp\r\n\r\n" + SDP


class Caller(Scripted):
    """It calls Bob, and says what the test has it say."""

    def __init__(self, invite: bytes = WITH_OFFER) -> None:
        network = Network()
        self.bob = Line(network, "bob", 5064)
        super().__init__(network, ("127.0.0.1", 5062), lambda r: [])
        self.sends(invite)

    def sends(self, data: bytes) -> Response | None:
        """The last answer."""
        before = len(self.seen)
        self.network.send([(data, self.bob.address)], self.address)
        self.network.run(0.01)
        answers = [m for m in self.seen[before:] if isinstance(m, Response)]
        return answers[-1] if answers else None

    def acknowledges(
        self,
        ringing: Response,
        rack: str = "",
        seq: int = 41,
        body: bytes = b"",
        content_type: str = "application/sdp",
    ) -> Response | None:
        rack = rack or f"{ringing.get('RSeq')} 40 INVITE"
        fields = [
            ("Via", f"SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKp{seq}"),
            ("From", ringing.get("From")),
        ]
        fields += [
            ("To", ringing.get("To")),
            ("Call-ID", "rel"),
            ("CSeq", f"{seq} PRACK"),
            ("RAck", rack),
        ]
        fields += [("Content-Type", content_type)] if body else []
        return self.sends(Request("PRACK", "sip:bob@127.0.0.1:5064", fields, body).to_bytes())

    def answers(self, status: int) -> list[Response]:
        return [
            m
            for m in self.seen
            if isinstance(m, Response) and m.status == status and m.cseq.method == "INVITE"
        ]


def test_a_caller_who_requires_it_is_rung_reliably_and_rings_are_repeated_until_acknowledged():
    caller = Caller()
    assert caller.bob.state is INCOMING
    caller.network.run(8.0)
    ringing = caller.answers(180)
    times = [p.at - 1000.0 for p in caller.network.passed if p.name == "180 INVITE"]
    assert [round(at, 1) for at in times] == [0.0, 0.5, 1.5, 3.5, 7.5], "T1, doubled, without a cap"
    assert ringing[0].values("Require") == ["100rel"] and 0 < int(ringing[0].get("RSeq")) < 2**31
    assert len({response.to_bytes() for response in ringing}) == 1
    answer = caller.acknowledges(ringing[0])
    assert (answer.status, answer.cseq.method) == (200, "PRACK")
    caller.network.run(30.0)
    assert len(caller.answers(180)) == 5
    caller.bob.answers()
    caller.network.run(0.1)
    assert caller.bob.state is TALKING and b"m=audio 6064" in caller.answers(200)[0].body


def test_the_ring_after_a_minute_has_the_next_number():
    caller = Caller()
    caller.acknowledges(caller.answers(180)[0])
    caller.network.run(61.0)
    first, second, *_ = caller.answers(180)
    assert int(second.get("RSeq")) == int(first.get("RSeq")) + 1
    assert caller.acknowledges(second, seq=42).status == 200


@pytest.mark.parametrize(
    ("rack", "status"),
    [
        ("1 40 INVITE", 481),
        ("{rseq} 39 INVITE", 481),
        ("{rseq} 40 BYE", 481),
        ("{rseq}", 400),
        ("nonsense", 400),
    ],
)
def test_a_prack_for_what_was_never_said_acknowledges_nothing(rack, status):
    caller = Caller()
    ringing = caller.answers(180)[0]
    assert caller.acknowledges(ringing, rack.format(rseq=ringing.get("RSeq"))).status == status
    caller.network.run(1.0)
    assert len(caller.answers(180)) > 1 and caller.bob.state is INCOMING


def test_a_second_prack_finds_nothing_to_acknowledge():
    caller = Caller()
    ringing = caller.answers(180)[0]
    assert [caller.acknowledges(ringing, seq=seq).status for seq in (41, 42)] == [200, 481]


def test_a_caller_who_never_acknowledges_is_refused_after_32_seconds_and_the_person_learns_it():
    caller = Caller()
    caller.network.run(33.0)
    assert caller.answers(504) and caller.bob.state is ENDED
    assert (
        caller.bob.sentence
        == "The call of Alice was lost: their phone did not hear that this one rings"
    )


def test_bob_may_answer_before_the_acknowledgement_which_is_still_taken():
    caller = Caller()
    ringing = caller.answers(180)[0]
    caller.bob.answers()
    caller.network.run(0.01)
    assert caller.bob.state is TALKING and caller.answers(200)
    caller.network.run(2.0)
    assert len(caller.answers(180)) == 1, "a final response ends the repeats"
    assert caller.acknowledges(ringing).status == 200


def test_bob_may_decline_before_the_acknowledgement():
    caller = Caller()
    caller.bob.does("decline")
    caller.network.run(2.0)
    assert len(caller.answers(180)) == 1 and caller.answers(603)


def test_an_offer_in_a_prack_while_theirs_is_unanswered_is_refused_and_the_call_goes_on():
    caller = Caller()
    answer = caller.acknowledges(caller.answers(180)[0], body=OTHER)
    assert answer.status == 500 and 0 <= int(answer.get("Retry-After")) <= 10
    caller.network.run(2.0)
    assert len(caller.answers(180)) == 1
    caller.bob.answers()
    assert caller.bob.call.media.remote == ("127.0.0.1", 7000)


def test_a_caller_without_an_offer_gets_ours_in_the_180_and_answers_in_the_prack():
    # RFC 3261 13.2.1, RFC 3262 5
    caller = Caller(INVITE + b"\r\n")
    assert caller.bob.state is INCOMING
    ringing = caller.answers(180)[0]
    assert b"m=audio 6064" in ringing.body
    caller.bob.answers()
    caller.network.run(0.01)
    assert not caller.answers(200), "RFC 3262 3: not before that offer is acknowledged"
    assert caller.acknowledges(ringing, body=SDP).status == 200
    assert caller.answers(200)[0].body == b"" and caller.bob.state is TALKING
    assert caller.bob.call.media.remote == ("127.0.0.1", 7000)


def test_once_that_offer_is_answered_the_caller_may_change_it_while_it_rings():
    caller = Caller(INVITE + b"\r\n")
    ringing = caller.answers(180)[0]
    caller.acknowledges(ringing, body=SDP)
    update = Request(
        "UPDATE",
        "sip:bob@127.0.0.1:5064",
        [
            ("Via", "SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKu"),
            ("From", ringing.get("From")),
            ("To", ringing.get("To")),
            ("Call-ID", "rel"),
            ("CSeq", "42 UPDATE"),
            ("Contact", "<sip:alice@127.0.0.1:5062>"),
            ("Content-Type", "application/sdp"),
        ],
        OTHER,
    )
    answer = caller.sends(update.to_bytes())
    assert answer.status == 200 and b"m=audio 6064" in answer.body
    assert caller.bob.state is INCOMING and caller.bob.call.media is None, "nobody is heard yet"
    caller.bob.answers()
    assert caller.bob.call.media.remote == ("127.0.0.1", 7100)


def test_a_caller_without_an_offer_whose_answer_does_not_fit_is_told_so():
    caller = Caller(INVITE + b"\r\n")
    caller.acknowledges(caller.answers(180)[0], body=SDP.replace(b"AVP 0", b"AVP 18"))
    assert "200 PRACK" in caller.network.names(), "RFC 3262 3: what it acknowledges has arrived"
    assert caller.answers(488) and caller.bob.state is ENDED


@pytest.mark.parametrize("again", [True, False])
def test_a_prack_with_a_body_of_another_kind_acknowledges_nothing(again):
    caller = Caller(INVITE + b"\r\n")
    ringing = caller.answers(180)[0]
    caller.bob.answers()
    refused = caller.acknowledges(ringing, body=b"hello", content_type="application/foo")
    assert (refused.status, refused.get("Accept")) == (415, "application/sdp")
    if again:
        assert caller.acknowledges(ringing, seq=42, body=SDP).status == 200
        assert caller.answers(200) and caller.bob.state is TALKING
    else:
        caller.network.run(33.0)
        assert caller.answers(504) and caller.bob.state is ENDED, "the INVITE has its final answer"


def test_a_caller_without_an_offer_is_refused_by_a_phone_without_a_port_for_sound(monkeypatch):
    def fail(call_id):
        raise OSError("no two ports are free")

    caller = Caller(b"")
    monkeypatch.setattr(caller.bob.agent._layer, "open_media", fail)
    assert caller.sends(INVITE + b"\r\n").status == 480
    assert caller.bob.state is ENDED and caller.bob.sentence == "No sound: no two ports are free"


def test_a_caller_who_only_supports_it_is_rung_as_ever():
    caller = Caller(WITH_OFFER.replace(b"Require", b"Supported"))
    caller.network.run(5.0)
    assert len(caller.answers(180)) == 1 and caller.answers(180)[0].get("RSeq") is None


def test_two_of_our_phones_ring_reliably_where_one_requires_it():
    network, alice, bob = pair()
    network.edit = lambda data: data.replace(b"Supported: 100rel\r\n", b"Require: 100rel\r\n")
    alice.calls(BOB)
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    assert network.names() == ["INVITE", "180 INVITE", "PRACK", "200 PRACK", "200 INVITE", "ACK"]
    assert alice.state is bob.state is TALKING
    assert parse(network.passed[2].data).get("RAck").endswith(" 1 INVITE")
