"""What foreign phones and servers send, and what they get: requests that cannot be read, odd
session descriptions, second offers, refused hang-ups, silence."""

from __future__ import annotations

import pytest
from agent_kit import BOB, SDP, Line, Network, Scripted, pair, talking
from message_kit import messages

from sip.message import Request, Response, parse, reply
from softphone.ua.events import CallState, RegistrationState

PROXY, STRANGER, ALICE = ("127.0.0.1", 5060), ("127.0.0.1", 5090), ("127.0.0.1", 5062)
TALKING, ENDED, INCOMING = CallState.TALKING, CallState.ENDED, CallState.INCOMING
HEAD = (
    b"INVITE sip:bob@127.0.0.1:5064 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKf\r\n"
    b"From: <sip:x@failover.test>;tag=x\r\nTo: <sip:bob@failover.test>\r\n"
    b"Call-ID: f\r\nCSeq: 1 INVITE\r\n"
    b"Contact: <sip:x@127.0.0.1:5090>\r\n"
)
WITH_SDP = HEAD + b"Content-Type: application/sdp\r\n"


def bob_alone() -> tuple[Network, Line, Scripted]:
    network = Network()
    return network, Line(network, "bob", 5064), Scripted(network, STRANGER, lambda r: [])


def sends(network: Network, bob: Line, data: bytes) -> None:
    """As bytes: the network's own record could not read some of them."""
    network.send(bob.receive(data, STRANGER, network.now), bob.address)
    network.run(0.01)


# -- requests that cannot be read ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (WITH_SDP + b"Content-Length: 9999\r\n\r\n" + SDP, 400),
        (WITH_SDP + b"Content-Length: -1\r\n\r\n" + SDP, 400),
        (WITH_SDP + b"l: x\r\n\r\n" + SDP, 400),
        (WITH_SDP + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + SDP, 400),
        (WITH_SDP.replace(b" SIP/2.0\r\nVia", b" SIP/7.0\r\nVia") + b"\r\n" + SDP, 505),
        (WITH_SDP.replace(b" SIP/2.0\r\nVia", b" SIP/1.0\r\nVia") + b"\r\n" + SDP, 505),
        (WITH_SDP.replace(b"5064 SIP", b"5064  SIP") + b"\r\n" + SDP, 400),
        (WITH_SDP.replace(b"1 INVITE", b"1 BYE") + b"\r\n" + SDP, 400),
        (WITH_SDP.replace(b"1 INVITE", b"99999999999 INVITE") + b"\r\n" + SDP, 400),
        (
            WITH_SDP.replace(b"To: <sip:bob@failover.test>", b"To: <sip:bob@[half>")
            + b"\r\n"
            + SDP,
            400,
        ),
        (WITH_SDP.replace(b"To: <sip:bob@failover.test>\r\n", b"") + b"\r\n" + SDP, 400),
        (WITH_SDP + b"Max-Forwards: many\r\n\r\n" + SDP, 400),
        (WITH_SDP + b"To: <sip:bob@failover.test>\r\n\r\n" + SDP, 400),
        (WITH_SDP + b"no colon\r\n\r\n" + SDP, 400),
    ],
)
def test_a_request_that_cannot_be_read_is_answered_and_never_rings(data, status):
    network, bob, stranger = bob_alone()
    sends(network, bob, data)
    sends(network, bob, data)
    first, second = stranger.seen
    assert first.status == status and first.to_bytes() == second.to_bytes()
    assert bob.state is None and sum(bob.agent.dropped.values()) == 2


@pytest.mark.parametrize(
    "data",
    [
        WITH_SDP.replace(b"INVITE", b"ACK") + b"Content-Length: 9999\r\n\r\n",
        WITH_SDP.replace(b"Via: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKf\r\n", b"") + b"\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5090\r\nContent-Length: 9\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_what_has_no_answer_or_no_way_back_gets_none(data):
    network, bob, stranger = bob_alone()
    sends(network, bob, data)
    assert stranger.seen == [] and sum(bob.agent.dropped.values()) == 1


# RFC 4475 3.1.2 and 3.3: name -> what the phone answers
TORTURE = {
    "content-length-beyond-the-datagram": 400,
    "content-length-negative": 400,
    "numbers-too-large-in-a-request": 400,
    "quotation-mark-not-closed": 400,
    "request-uri-in-angle-brackets": 400,
    "request-uri-with-a-space": 400,
    "start-line-with-double-spaces": 400,
    "start-line-with-trailing-spaces": 400,
    "version-seven": 505,
    "cseq-of-another-method": 400,
    "cseq-of-another-method-than-an-unknown-one": 400,
    "mandatory-fields-missing": 400,
    "request-uri-of-an-unknown-scheme": 416,
    "request-uri-of-a-known-scheme-that-is-not-sip": 416,
    "two-content-lengths": 400,
    "single-fields-that-come-twice": 400,
}


@pytest.mark.parametrize("name", TORTURE)
def test_the_torture_messages_that_are_wrong_get_the_answer_of_the_rfc(name):
    bob = Line(Network(), "bob", 5064)
    answers = [parse(data) for data, _ in bob.receive(messages()[name], STRANGER, 1000.0)]
    assert [answer.status for answer in answers] == [TORTURE[name]]


def test_from_and_to_of_unknown_schemes_are_no_reason_to_refuse():
    # RFC 4475 3.3.4
    data = messages()["from-and-to-of-unknown-schemes"]
    uri = data.split(b" ", 2)[1]
    bob = Line(Network(), uri.decode().partition(":")[2].partition("@")[0] or "bob", 5064)
    assert [parse(data).status for data, _ in bob.receive(data, STRANGER, 1000.0)] != [416]


# -- session descriptions --------------------------------------------------------------------------

MIXED = (
    b"--b1\r\nContent-Type: application/sdp\r\nContent-Disposition: session\r\n\r\n"
    + SDP
    + b"\r\n--b1\r\nContent-Type: application/isup;version=itu\r\n"
    b"Content-Disposition: signal;handling=optional\r\n\r\n"
    b"\x01\x02\r\n--b1--\r\n"
)
NESTED = (
    b"preamble\r\n--outer\r\nContent-Type: text/plain\r\n\r\nhello\r\n--outer\r\n"
    b'Content-Type: multipart/alternative; boundary="in ner"\r\n\r\n--in ner\r\n'
    b"c: text/html\r\n\r\n<p>\r\n--in ner\r\n"
    b"content-type: Application/SDP\r\n\r\n" + SDP + b"\r\n--in ner--\r\n--outer--\r\nepilogue"
)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"application/sdp", SDP.replace(b"v=0\r\n", b"v=0 \r\n")),
        (b"application/sdp", SDP.replace(b"v=0\r\n", b"v=0\t\r\n").replace(b"s=-", b"s=- ")),
        (b"application/sdp", SDP.replace(b"\r\n", b"\n")),
        (b"application/sdp", SDP.replace(b"\r\n", b"\r")),
        (b"application/sdp", b"\r\n" + SDP),
        (b"application/sdp", SDP.replace(b"s=-\r\n", b"s=-\r\n\r\n")),
        (b"application/sdp", SDP.replace(b"o=- 1 1 IN IP4 127.0.0.1\r\n", b"")),
        (b"application/sdp", SDP.replace(b"o=- 1 1 IN IP4 127.0.0.1", b"o=")),
        (b"application/sdp", SDP.replace(b"o=- 1 1 IN IP4 127.0.0.1", b"o=phone")),
        (b"application/sdp", SDP.replace(b"o=- 1 1 IN", b"o=two words 1 x IN")),
        (b"application/sdp", SDP.replace(b"o=- 1 1 IN", b"o=- a -1 IN")),
        (b"application/sdp", SDP + b"m=video 0 RTP/AVP\r\n"),
        (b"application/sdp", SDP + b"m=image 0 udptl\r\n"),
        (b"application/sdp", SDP.replace(b"RTP/AVP 0", b"RTP/AVP") + b"a=rtpmap:0 PCMU/8000\r\n"),
        (b"Application/SDP; charset=utf-8", SDP),
        (b"multipart/mixed;boundary=b1", MIXED),
        (b'Multipart/Mixed; boundary="b1"', MIXED.replace(b"\r\n", b"\n")),
        (b"multipart/related; type=x; boundary=outer", NESTED),
    ],
)
def test_a_description_that_is_merely_odd_rings_and_is_answered(kind, body):
    network, bob, stranger = bob_alone()
    sends(network, bob, HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + body)
    assert bob.state is INCOMING, network.ladder()
    bob.answers()
    network.run(0.01)
    ok = stranger.seen[-1]
    assert ok.status == 200 and b"m=audio 6064 RTP/AVP 0" in ok.body
    assert bob.call.media.remote == ("127.0.0.1", 7000)
    streams = body.count(b"\nm=") or 1
    assert ok.body.count(b"m=") == streams, "one for each (RFC 3264 6)"
    assert all(len(line.split()) > 3 for line in ok.body.split(b"\r\n") if line.startswith(b"m="))


def test_a_body_without_a_type_is_read_as_what_it_is():
    network, bob, _ = bob_alone()
    sends(network, bob, HEAD + b"\r\n" + SDP)
    assert bob.state is INCOMING


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        (b"Content-Type: text/plain\r\n", b"hello", 415),
        (
            b"Content-Type: multipart/mixed;boundary=b1\r\n",
            b"--b1\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b1--",
            415,
        ),
        (b"Content-Type: multipart/mixed\r\n", MIXED, 415),
        (b"Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", b"\x1f\x8b", 415),
        (b"Content-Type: multipart/mixed;boundary=b1\r\n", MIXED.replace(b"AVP 0", b"AVP 18"), 488),
        (b"Content-Type: application/sdp\r\n", SDP.replace(b"RTP/AVP 0", b"RTP/AVP"), 488),
    ],
)
def test_a_body_that_we_would_have_to_understand_is_refused_before_it_rings(fields, body, status):
    network, bob, stranger = bob_alone()
    sends(network, bob, HEAD + fields + b"\r\n" + body)
    assert stranger.seen[-1].status == status and bob.state is None
    assert (stranger.seen[-1].get("Accept") == "application/sdp") is (status == 415)


def test_a_body_that_is_marked_as_optional_is_none():
    network, bob, stranger = bob_alone()
    extra = b"Content-Type: text/plain\r\nContent-Disposition: render;handling=optional\r\n"
    sends(network, bob, HEAD + extra + b"\r\nhello")
    bob.answers()
    network.run(0.01)
    assert b"m=audio 6064 RTP/AVP 0 8 101" in stranger.seen[-1].body, "so the offer is ours"


def test_a_second_phones_answer_that_makes_no_sense_does_not_end_the_call_with_the_first():
    network, alice, _ = pair()
    fields = [("Contact", "<sip:bob@127.0.0.1:5064>"), ("Content-Type", "application/sdp")]
    Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: (
            [
                reply(r, 200, to_tag="b", fields=fields, body=SDP),
                reply(r, 200, to_tag="other", body=SDP),
            ]
            if r.method == "INVITE"
            else []
        ),
    )
    alice.calls(BOB)
    network.run(0.1)
    assert alice.state is TALKING


def test_an_answer_in_parts_is_heard():
    network, alice, _ = pair()
    fields = [
        ("Contact", "<sip:bob@127.0.0.1:5064>"),
        ("Content-Type", "multipart/mixed;boundary=b1"),
    ]
    Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: (
            [reply(r, 200, to_tag="b", fields=fields, body=MIXED)] if r.method == "INVITE" else []
        ),
    )
    alice.calls(BOB)
    network.run(0.1)
    assert alice.state is TALKING and alice.call.media.remote == ("127.0.0.1", 7000)


# -- a second offer --------------------------------------------------------------------------------


def within(network: Network, method: str, seq: int, body: bytes = b"") -> Request:
    """Alice's next request to Bob, by the 180 or 200 that he has sent."""
    said = [p for p in network.passed if p.source == ("127.0.0.1", 5064)]
    answer = next(p.message for p in reversed(said) if p.name in ("180 INVITE", "200 INVITE"))
    fields = [
        ("Via", f"SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKs{seq}"),
        ("From", answer.get("From")),
    ]
    fields += [("To", answer.get("To")), ("Call-ID", answer.call_id), ("CSeq", f"{seq} {method}")]
    fields += [("Contact", "<sip:alice@127.0.0.1:5062>")]
    return Request(
        method, BOB, [*fields, *([("Content-Type", "application/sdp")] if body else [])], body
    )


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_second_offer_while_it_rings_is_to_be_made_later(method):
    # RFC 3261 14.2, RFC 3311 5.2
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    network.send([(within(network, method, 50, SDP).to_bytes(), bob.address)], ALICE)
    network.run(0.01)
    answer = next(p.message for p in network.passed if p.name == f"500 {method}")
    assert 0 <= int(answer.get("Retry-After")) <= 10 and bob.state is INCOMING
    bob.answers()
    network.run(0.1)
    assert bob.state is TALKING


@pytest.mark.parametrize("held", [False, True])
def test_a_re_invite_without_an_offer_gets_all_we_have(held):
    # RFC 3261 14.2: as in a new call, so that a gateway may choose another codec
    network, _alice, bob = talking()
    if held:
        bob.does("hold")
        network.run(0.1)
    network.send([(within(network, "INVITE", 50).to_bytes(), bob.address)], ALICE)
    network.run(0.01)
    offer = network.passed[-1].message.body
    assert b"m=audio 6064 RTP/AVP 0 8 101\r\n" in offer
    assert (b"a=sendonly" if held else b"a=sendrecv") in offer
    first = next(
        p.message for p in network.passed if p.name == "200 INVITE" and p.source == bob.address
    )
    old, new = (int(body.split(b"o=")[1].split()[2]) for body in (first.body, offer))
    assert new > old


def test_what_was_turned_down_and_what_was_numbered_stays_so_in_an_offer_of_ours():
    # RFC 3264 8 and 8.3.2
    network, bob, stranger = bob_alone()
    body = (
        SDP.replace(b"AVP 0", b"AVP 8 96")
        + b"a=rtpmap:96 telephone-event/8000\r\nm=video 7002 RTP/AVP 31\r\n"
    )
    sends(network, bob, WITH_SDP + b"\r\n" + body)
    bob.answers()
    network.run(0.01)
    ok = stranger.seen[-1]
    to = f"To: {ok.get('To')}".encode()
    again = (
        HEAD.replace(b"To: <sip:bob@failover.test>", to)
        .replace(b"bKf", b"bKg")
        .replace(b"1 INVITE", b"2 INVITE")
    )
    ack = again.replace(b"INVITE", b"ACK").replace(b"CSeq: 2", b"CSeq: 1").replace(b"bKg", b"bKa")
    sends(network, bob, ack + b"\r\n")
    sends(network, bob, again + b"\r\n")
    offer = stranger.seen[-1].body
    assert (
        b"m=audio 6064 RTP/AVP 8 0 96\r\n" in offer and b"a=rtpmap:96 telephone-event/8000" in offer
    )
    assert b"m=video 0 RTP/AVP 31\r\n" in offer


# -- hanging up on a server in trouble -------------------------------------------------------------


class Troubled(Scripted):
    """Bob, behind a server that answers what is named with these statuses in turn, then with
    200."""

    def __init__(self, network: Network, method: str, *statuses: int, retry: str = "") -> None:
        self.method, self.statuses, self.retry = method, list(statuses), retry
        super().__init__(network, ("127.0.0.1", 5064), self._answer)

    def _answer(self, request: Request) -> list[Response]:
        if request.method == self.method and self.statuses:
            fields = [("Retry-After", self.retry)] if self.retry else []
            return [reply(request, self.statuses.pop(0), to_tag="s", fields=fields)]
        return {"INVITE": [reply(request, 180, to_tag="b")], "ACK": []}.get(
            request.method, [reply(request, 200)]
        )


@pytest.mark.parametrize(
    ("statuses", "retry", "at"),
    [
        ([503], "", [0, 2]),
        ([503], "5", [0, 5]),
        ([503, 503], "3 (busy)", [0, 3, 6]),
        ([500], "1", [0, 1]),
        ([502], "", [0, 2]),
        ([504], "", [0, 2]),
        ([503] * 50, "10", [0, 10, 20, 30, 32]),
        ([503], "3600", [0, 32]),
        ([481], "", [0]),
        ([408], "", [0]),
        ([403], "7", [0]),
    ],
)
def test_a_refused_bye_is_said_again_until_it_is_answered_or_half_a_minute_is_over(
    statuses, retry, at
):
    network, alice, _bob = talking()
    peer = Troubled(network, "BYE", *statuses, retry=retry)
    began = network.now
    alice.does("hang_up")
    network.run(100.0)
    said = [round(p.at - began) for p in network.passed if p.name == "BYE"]
    assert said == at
    numbers = [bye.cseq.number for bye in peer.requests("BYE")]
    assert numbers == sorted(set(numbers)) and (alice.state, alice.sentence) == (
        ENDED,
        "You hung up",
    )


def test_the_phone_is_free_while_a_bye_waits():
    network, alice, _bob = talking()
    Troubled(network, "BYE", 503, retry="20")
    alice.does("hang_up")
    network.run(0.1)
    assert alice.agent.active_call is None
    alice.calls("sip:carol@127.0.0.1:5070")
    assert len(alice.agent.calls) == 2


@pytest.mark.parametrize(("refusals", "said"), [(1, 2), (50, 16)])
def test_a_refused_cancel_is_said_again_so_that_the_other_phone_stops_ringing(refusals, said):
    network, alice, _bob = pair()
    peer = Troubled(network, "CANCEL", *[503] * refusals, retry="2")
    alice.calls(BOB)
    network.run(0.1)
    alice.does("hang_up")
    network.run(80.0)
    assert len(peer.requests("CANCEL")) == said
    assert (alice.state, alice.sentence) == (ENDED, "You hung up")


# -- silence ---------------------------------------------------------------------------------------


def test_a_call_that_brings_no_sound_says_so_until_it_does():
    network, alice, _bob = talking()
    for seconds in (0, 5, 5, 10, 0):
        alice.does("nothing_heard", seconds)
    assert alice.sentences[-4:] == [
        "Talking with Bob",
        "Talking with Bob; nothing has been heard for 5 s",
        "Talking with Bob; nothing has been heard for 10 s",
        "Talking with Bob",
    ]
    alice.does("hang_up")
    network.run(0.1)
    alice.does("nothing_heard", 20)
    assert alice.sentence == "You hung up"


# -- signs of life to the server -------------------------------------------------------------------


class Server(Scripted):
    """A registrar. `says`: its answer to OPTIONS; 0: none."""

    def __init__(self, network: Network, says: int = 200) -> None:
        self.says, self.registers = says, 200
        super().__init__(network, PROXY, self._answer)

    def _answer(self, request: Request) -> list[Response]:
        if request.method == "OPTIONS":
            return [reply(request, self.says)] if self.says else []
        return [reply(request, self.registers, fields=[("Contact", request.values("Contact")[0])])]


def registered(says: int = 200, keep_alive: float = 15.0) -> tuple[Network, Line, Server]:
    network = Network()
    server = Server(network, says)
    alice = Line(network, "alice", 5062, proxy=PROXY, keep_alive=keep_alive)
    alice.does("register")
    network.run(1.0)
    return network, alice, server


@pytest.mark.parametrize("says", [200, 404, 405, 401, 500])
def test_a_registered_phone_gives_a_sign_of_life_and_any_answer_will_do(says):
    network, alice, server = registered(says)
    network.run(140.0)
    assert len(server.requests("OPTIONS")) == 9 and len(server.requests("REGISTER")) == 1
    assert alice.agent.registration.state is RegistrationState.REGISTERED
    gaps = [b.at - a.at for a, b in zip(network.passed, network.passed[1:], strict=False)]
    assert max(gaps) < 30.0


@pytest.mark.parametrize("says", [503, 0])
def test_a_phone_whose_servers_are_dead_does_not_say_registered_for_minutes(says):
    network, alice, server = registered()
    server.says, server.registers = says, 503
    if not says:
        network.leave(PROXY)
    network.run(20.0)
    registration = alice.agent.registration
    said = "No server answers" if says else "No answer from 127.0.0.1:5060"
    assert registration.state is RegistrationState.UNREACHABLE
    assert registration.sentence.startswith(said)
    network.join(PROXY, server)
    server.says, server.registers = 200, 200
    network.run(40.0)
    assert alice.agent.registration.state is RegistrationState.REGISTERED
    before = len(server.requests("OPTIONS"))
    network.run(40.0)
    assert len(server.requests("OPTIONS")) > before


def test_a_server_that_knows_no_options_gets_empty_lines_and_the_phone_stays_registered():
    network, alice, server = registered(0)
    network.run(140.0)
    assert (
        len(server.requests("REGISTER")) == 2 and network.names(alice.address).count("empty") >= 7
    )
    assert alice.agent.registration.state is RegistrationState.REGISTERED
    assert all("again" not in text for text in alice.registration_sentences)


def test_a_phone_that_is_not_to_gives_none_and_one_that_left_neither():
    network, _, server = registered(keep_alive=0.0)
    network.run(100.0)
    assert not server.requests("OPTIONS")
    network, alice, server = registered()
    alice.does("unregister")
    network.run(100.0)
    assert not server.requests("OPTIONS") and alice.deadline is None
