"""Whom a person may call, who may call, and how their names travel: tel, letters beyond ASCII,
sips, redirections."""

from __future__ import annotations

import pytest
from agent_kit import BOB, SDP, Line, Network, Scripted, accepted, pair

from sip.digest import Credentials
from sip.message import Request, Response, reply
from softphone.ua.events import CallState, RegistrationState

PROXY, GATEWAY = ("127.0.0.1", 5060), ("127.0.0.1", 5090)
TALKING, ENDED, INCOMING, CALLING = (
    CallState.TALKING,
    CallState.ENDED,
    CallState.INCOMING,
    CallState.CALLING,
)


def invite(
    from_: str = "<sip:x@failover.test>;tag=g1",
    to: str = "<sip:bob@failover.test>",
    contact: str = "<sip:x@127.0.0.1:5090>",
    uri: str = BOB,
) -> bytes:
    return (
        f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKg\r\n"
        f"From: {from_}\r\nTo: {to}\r\n"
        f"Call-ID: g\r\nCSeq: 1 INVITE\r\nContact: {contact}\r\n"
        f"Content-Type: application/sdp\r\n\r\n"
    ).encode() + SDP


# -- telephone numbers (RFC 3966, RFC 4475 3.3.4) --------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"from_": "<tel:+4930123>;tag=g1"}, "+4930123"),
        ({"from_": '"Die Zentrale" <tel:030-123;phone-context=+49>;tag=g1'}, "Die Zentrale"),
        ({"from_": "tel:+4930123;tag=g1"}, "+4930123"),
        ({"from_": "<http://www.example.com>;tag=g1"}, "www.example.com"),
        ({"to": "<tel:+4930123>"}, "x"),
        ({"to": "<isbn:2983792873>"}, "x"),
        ({"contact": "<tel:+4930123>"}, "x"),
        (
            {
                "from_": "<tel:+4930123>;tag=g1",
                "to": "<tel:159>",
                "contact": "<tel:+4930123;ext=5>",
            },
            "+4930123",
        ),
    ],
)
def test_a_gateway_that_writes_telephone_numbers_rings_talks_and_is_left(fields, name):
    network = Network()
    bob = Line(network, "bob", 5064)
    gateway = Scripted(network, GATEWAY, lambda r: [reply(r, 200)])
    network.send([(invite(**fields), bob.address)], GATEWAY)
    network.run(0.1)
    assert (bob.state, bob.call.peer_name) == (INCOMING, name)
    bob.answers()
    network.run(0.1)
    ok = gateway.seen[-1]
    assert ok.status == 200 and ok.get("From") == fields.get(
        "from_", "<sip:x@failover.test>;tag=g1"
    )
    assert ok.get("To").startswith(fields.get("to", "<sip:bob@failover.test>"))
    ack = Request(
        "ACK",
        BOB,
        [
            ("Via", "SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKa"),
            ("From", ok.get("From")),
            ("To", ok.get("To")),
            ("Call-ID", "g"),
            ("CSeq", "1 ACK"),
        ],
    )
    network.send([(ack.to_bytes(), bob.address)], GATEWAY)
    network.run(0.1)
    bob.does("hang_up")
    network.run(0.1)
    assert gateway.requests("BYE") and bob.state is ENDED


def test_an_answer_whose_contact_is_a_telephone_number_is_acknowledged_where_it_came_from():
    # It used to end the call with a sentence, and the gateway repeated its 200 for half a minute.
    network, alice, _ = pair()
    gateway = Scripted(
        network,
        ("127.0.0.1", 5064),
        lambda r: {"INVITE": [accepted(r, contact="<tel:+4930123>")], "BYE": [reply(r, 200)]}.get(
            r.method, []
        ),
    )
    alice.calls(BOB)
    network.run(0.1)
    assert alice.state is TALKING and gateway.requests("ACK")[0].uri == "tel:+4930123"
    alice.does("hang_up")
    network.run(0.1)
    assert alice.state is ENDED and len(gateway.requests("BYE")) == 1


@pytest.mark.parametrize(
    "typed, uri",
    [
        ("tel:+4930123", "sip:+4930123@failover.test;user=phone"),
        ("TEL:+49 (30) 123-45", "sip:+493012345@failover.test;user=phone"),
        (
            "tel:159;phone-context=failover.test",
            "sip:159;phone-context=failover.test@failover.test;user=phone",
        ),
        ("tel:*43#", "sip:*43%23@failover.test;user=phone"),
        ("+49 (30) 123-45", "sip:+493012345@failover.test"),
        ("(030) 123.45 / 6", "sip:030123456@failover.test"),
        ("+49 30 123@127.0.0.1", "sip:+4930123@127.0.0.1"),
        ("sip:+49-30-123@127.0.0.1;user=phone", "sip:+4930123@127.0.0.1;user=phone"),
        ("159", "sip:159@failover.test"),
        ("bob-2", "sip:bob-2@failover.test"),
        ("bob.smith", "sip:bob.smith@failover.test"),
        ("10.0.0.1", "sip:10.0.0.1@failover.test"),
        ("SIP:bob@127.0.0.1?Subject=hello&Priority=urgent", "sip:bob@127.0.0.1"),
        ("sip:bob@127.0.0.1:5070;method=BYE;x=1", "sip:bob@127.0.0.1:5070;x=1"),
        ("j\u00fcrgen", "sip:j%C3%BCrgen@failover.test"),
        ("ju\u0308rgen", "sip:j%C3%BCrgen@failover.test"),
        ("j%C3%BCrgen", "sip:j%C3%BCrgen@failover.test"),
        ("sip:j\u00fcrgen@127.0.0.1", "sip:j%C3%BCrgen@127.0.0.1"),
        ("50%", "sip:50%25@failover.test"),
        ("\u7530\u4e2d", "sip:%E7%94%B0%E4%B8%AD@failover.test"),
        ("bob@m\u00fcnchen.example", "sip:bob@xn--mnchen-3ya.example"),
        ("sip:bob@m\u00fcnchen.example:5070;lr", "sip:bob@xn--mnchen-3ya.example:5070;lr"),
    ],
)
def test_what_is_typed_becomes_one_plain_request_uri(typed, uri):
    network = Network()
    alice = Line(network, "alice", 5062, proxy=PROXY)
    alice.calls(typed)
    sent = network.passed[0]
    assert sent.message.uri == uri and sent.to == PROXY
    assert str(sent.message.to.uri) == uri
    assert sent.data.split(b"\r\n\r\n")[0].isascii()


@pytest.mark.parametrize(
    "typed", ["tel:bob", "tel:", "tel:12 ab", "tel:12;x=<>", "+49 30 x y", "bob@m\u00fc..example"]
)
def test_what_is_no_number_and_no_address_is_said_to_be_none(typed):
    network, alice, _ = pair()
    alice.calls(typed)
    assert network.names() == [] and "is not an address that can be called" in alice.sentence


@pytest.mark.parametrize(
    "typed",
    [
        "sips:bob@127.0.0.1",
        "SIPS:bob@127.0.0.1:5061",
        "sip:bob@127.0.0.1;transport=tls",
        "sip:bob@127.0.0.1;Transport=TLS",
        "sip:bob@127.0.0.1;transport=wss",
    ],
)
def test_an_encrypted_call_is_not_made_in_the_clear(typed):
    network, alice, _ = pair()
    alice.calls(typed)
    assert network.names() == [] and alice.state is ENDED
    assert (
        alice.sentence
        == "That address asks for encryption, which this phone does not have: call it by sip:"
    )


# -- letters beyond ASCII --------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["j\u00fcrgen", "J\u00fcrgen", "ju\u0308rgen", "j%C3%BCrgen"])
@pytest.mark.parametrize("called", ["j\u00fcrgen", "j%c3%bcrgen", "ju\u0308rgen"])
def test_a_user_with_an_umlaut_is_called_talks_and_has_an_escaped_address_everywhere(owner, called):
    network = Network()
    alice, bob = Line(network, "alice", 5062), Line(network, owner, 5064)
    alice.calls(f"{called}@127.0.0.1:5064")
    network.run(0.1)
    assert bob.state is INCOMING, network.ladder()
    bob.answers()
    network.run(0.1)
    bob.does("hang_up")
    network.run(0.1)
    assert alice.state is bob.state is ENDED
    for passage in network.passed:
        lines = passage.data.split(b"\r\n\r\n")[0].split(b"\r\n")
        uris = [line[line.index(b"<") :] for line in lines if b"<" in line]
        assert all(uri.isascii() for uri in [lines[0], *uris]), passage


def test_a_user_with_an_umlaut_registers_and_is_known_by_the_name_of_the_file_of_passwords():
    network = Network()
    registrar = Scripted(
        network,
        PROXY,
        lambda r: [
            reply(r, 200, fields=[("Contact", "<sip:j%c3%bcrgen@127.0.0.1:5062>;expires=20")])
            if r.get("Authorization")
            else reply(
                r, 401, fields=[("WWW-Authenticate", 'Digest realm="failover.test", nonce="n"')]
            )
        ],
    )
    line = Line(network, "j\u00fcrgen", 5062, PROXY, "secret")
    line.does("register")
    network.run(0.1)
    asked = registrar.requests("REGISTER")[-1]
    assert asked.get("Contact") == "<sip:j%C3%BCrgen@127.0.0.1:5062>;expires=300"
    assert Credentials.parse(asked.get("Authorization")).username == "j\u00fcrgen"
    network.run(29.0)
    assert len(registrar.requests("REGISTER")) == 4, "every 10 s, as the binding that is ours says"


def test_a_contact_says_no_name_and_the_answer_does():
    # SIPp's [next_url] copies all that follows "Contact:" into the Request-URI
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    contacts = [p.message.get("Contact") for p in network.passed if p.message.get("Contact")]
    assert set(contacts) == {"<sip:alice@127.0.0.1:5062>", "<sip:bob@127.0.0.1:5064>"}
    assert alice.sentence == "Talking with Bob"


def test_a_redirection_is_followed_without_a_server_too():
    network, alice, bob = pair()
    moved = [("Contact", "<sip:bob@127.0.0.1:5064>")]
    Scripted(
        network,
        GATEWAY,
        lambda r: [reply(r, 301, to_tag="m", fields=moved)] if r.method == "INVITE" else [],
    )
    alice.calls("sip:info@127.0.0.1:5090")
    network.run(0.1)
    assert (bob.state, alice.call.peer_uri) == (INCOMING, "sip:bob@127.0.0.1:5064")
    bob.answers()
    network.run(0.1)
    assert alice.sentence == "Talking with Bob"


def test_sound_may_come_from_where_the_other_side_was_reached():
    network = Network()
    alice = Line(network, "alice", 5062, host="192.0.2.1")
    bob = Line(network, "bob", 5064, host="198.51.100.7")
    alice.calls("sip:bob@198.51.100.7:5064")
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    assert alice.call.media.peers == ("198.51.100.7",)
    assert bob.call.media.peers[0] == "192.0.2.1"


def test_after_a_redirection_sound_may_come_from_the_new_place():
    network = Network()
    alice = Line(network, "alice", 5062, host="192.0.2.1")
    bob = Line(network, "bob", 5064, host="198.51.100.7")
    moved = [("Contact", "<sip:bob@198.51.100.7:5064>")]
    Scripted(
        network,
        GATEWAY,
        lambda r: [reply(r, 301, to_tag="m", fields=moved)] if r.method == "INVITE" else [],
    )
    alice.calls("sip:info@127.0.0.1:5090")
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    assert alice.call.media.peers == ("198.51.100.7",)


# -- redirections (RFC 3261 8.1.3.4) ---------------------------------------------------------------


class Redirector(Scripted):
    """Its answers, by the user called: contacts of a 302, or a status, or nothing for "answers"."""

    def __init__(self, network: Network, **where: list[str] | int) -> None:
        self.where = where
        super().__init__(network, PROXY, self._redirect)

    def _redirect(self, request: Request) -> list[Response]:
        if request.method != "INVITE":
            return [] if request.method == "ACK" else [reply(request, 200)]
        user = request.uri.partition(":")[2].partition("@")[0]
        step = self.where.get(user, 404)
        if step == 200:
            return [accepted(request, contact=f"<sip:{user}@127.0.0.1:5060>")]
        if isinstance(step, int):
            return [reply(request, step, to_tag=user)]
        return [reply(request, 302, to_tag=user, fields=[("Contact", each) for each in step])]


def redirected(**where) -> tuple[Network, Line, Redirector]:
    network = Network()
    redirector = Redirector(network, **where)
    alice = Line(network, "alice", 5062, proxy=PROXY)
    alice.calls("bob")
    network.run(0.2)
    return network, alice, redirector


def test_a_call_that_is_redirected_goes_there_and_says_so():
    _, alice, redirector = redirected(bob=["<sip:carol@failover.test>"], carol=200)
    assert alice.state is TALKING and "Bob is reached elsewhere: calling carol ..." in [
        text[:1].upper() + text[1:] for text in alice.sentences
    ]
    assert (alice.sentence, alice.call.peer_uri) == (
        "Talking with carol",
        "sip:carol@failover.test",
    )
    first, second = redirector.requests("INVITE")
    assert second.uri == "sip:carol@failover.test" and second.get("To") == "<sip:bob@failover.test>"
    assert (first.call_id, first.get("From")) == (second.call_id, second.get("From"))
    assert (first.cseq.number, second.cseq.number) == (1, 2) and first.body == second.body
    assert len(redirector.requests("ACK")) == 2


def test_the_likeliest_contact_is_tried_first_and_then_the_next():
    _, alice, redirector = redirected(
        bob=[
            "<sip:a@failover.test>;q=0.2",
            "<sip:b@failover.test>;q=0.9, <sip:c@failover.test>;q=0.5",
        ],
        a=200,
        b=480,
        c=486,
    )
    assert [r.uri.split("@")[0] for r in redirector.requests("INVITE")] == [
        "sip:bob",
        "sip:b",
        "sip:c",
        "sip:a",
    ]
    assert alice.state is TALKING


def test_a_phone_that_declines_everywhere_is_asked_nowhere_else():
    _, alice, redirector = redirected(
        bob=["<sip:a@failover.test>", "<sip:b@failover.test>"], a=603, b=200
    )
    assert len(redirector.requests("INVITE")) == 2 and alice.sentence == "A declined the call"


def test_two_phones_that_name_each_other_cause_no_storm():
    _, alice, redirector = redirected(
        bob=["<sip:carol@failover.test>"], carol=["<sip:bob@FAILOVER.test>"]
    )
    assert len(redirector.requests("INVITE")) == 2 and alice.state is ENDED
    assert alice.sentence == "Carol is to be called elsewhere: Moved Temporarily"


def test_a_chain_of_redirections_is_followed_only_so_far():
    _, alice, redirector = redirected(
        bob=["<sip:u1@failover.test>"],
        **{f"u{n}": [f"<sip:u{n + 1}@failover.test>"] for n in range(1, 50)},
    )
    assert len(redirector.requests("INVITE")) == 6 and alice.state is ENDED


@pytest.mark.parametrize(
    "contacts, uri",
    [
        (["<tel:+4930123>"], "sip:+4930123@failover.test;user=phone"),
        (["<sip:carol@failover.test?Subject=x>"], "sip:carol@failover.test"),
        (["sip:carol@failover.test;q=0.5"], "sip:carol@failover.test"),
        (
            ["<nonsense>", "<mailto:bob@failover.test>", "<sip:carol@failover.test>"],
            "sip:carol@failover.test",
        ),
        (["<sips:carol@failover.test>", "<sip:carol@failover.test>"], "sip:carol@failover.test"),
    ],
)
def test_every_contact_that_can_be_called_is(contacts, uri):
    _, _, redirector = redirected(bob=contacts)
    assert redirector.requests("INVITE")[1].uri == uri


@pytest.mark.parametrize(
    "contacts, sentence",
    [
        (["<sip:bob@name.example>;q=1.0", "<sip:bob@127.0.0.1:5064>;q=0.5"], "Ringing at Bob ..."),
        (
            ["<sip:bob@one.example>;q=1.0", "<sip:bob@two.example>;q=0.5"],
            "Two.example cannot be found without a server",
        ),
    ],
)
def test_a_contact_that_cannot_be_found_is_passed_over(contacts, sentence):
    network, alice, _ = pair()
    moved = [("Contact", each) for each in contacts]
    Scripted(
        network,
        GATEWAY,
        lambda r: [reply(r, 302, to_tag="m", fields=moved)] if r.method == "INVITE" else [],
    )
    alice.calls("sip:info@127.0.0.1:5090")
    network.run(0.1)
    assert alice.sentence == sentence


def test_a_redirection_to_where_only_encrypted_calls_go_is_told():
    _, alice, redirector = redirected(bob=["<sips:carol@failover.test>"])
    assert len(redirector.requests("INVITE")) == 1
    assert (
        alice.sentence
        == "That address asks for encryption, which this phone does not have: call it by sip:"
    )


@pytest.mark.parametrize(
    "contacts", [[], ["*"], ["<nonsense>"], ['"open <sip:carol@failover.test>']]
)
def test_a_redirection_to_nowhere_ends_the_call(contacts):
    _, alice, _ = redirected(bob=contacts)
    assert alice.sentence == "Bob is to be called elsewhere: Moved Temporarily"


def test_a_call_that_was_given_up_is_not_redirected():
    network = Network()
    silent = Scripted(network, PROXY, lambda r: [])
    alice = Line(network, "alice", 5062, proxy=PROXY)
    alice.calls("bob")
    network.run(0.01)
    alice.does("hang_up")
    moved = reply(
        silent.seen[0], 302, to_tag="b", fields=[("Contact", "<sip:carol@failover.test>")]
    )
    network.send([(moved.to_bytes(), alice.address)], PROXY)
    network.run(1.0)
    assert len(silent.requests("INVITE")) == 1 and alice.sentence == "You hung up"


# -- who may ring (with a proxy) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxy", "direct", "source", "rings"),
    [
        (PROXY, False, PROXY, True),
        (PROXY, False, GATEWAY, False),
        (PROXY, False, ("127.0.0.2", 5060), False),
        (PROXY, True, GATEWAY, True),
        (None, False, GATEWAY, True),
        (PROXY, False, ("::ffff:127.0.0.1", 5060), True),
        (("::1", 5060), False, ("::1", 5061), False),
    ],
)
def test_only_what_comes_through_the_proxy_rings_the_phone(proxy, direct, source, rings):
    network = Network()
    bob = Line(network, "bob", 5064, proxy=proxy, direct=direct)
    network.send(bob.receive(invite(), source, network.now), bob.address)
    assert (bob.state is INCOMING) is rings
    assert network.names() == (["180 INVITE"] if rings else ["403 INVITE"])
    assert bob.agent.dropped == ({} if rings else {"a call that did not come from the server": 1})


@pytest.mark.parametrize(
    ("source", "rings"), [(("127.0.0.2", 5060), True), (("::1", 5060), True), (GATEWAY, False)]
)
def test_every_server_of_the_account_rings_the_phone_and_nobody_else_does(source, rings):
    network = Network()
    bob = Line(network, "bob", 5064, proxy=PROXY, servers=(("127.0.0.2", 5060), ("::1", 5060)))
    network.send(bob.receive(invite(), source, network.now), bob.address)
    assert (bob.state is INCOMING) is rings


def test_a_server_that_answers_from_another_address_of_its_own_rings_the_phone_too():
    # Bound to all addresses of a computer with several, it speaks from whichever the system takes.
    network = Network()
    bob = Line(network, "bob", 5064, PROXY, "secret")
    other = ("127.0.0.9", 5060)

    def react(request: Request) -> list[Response]:
        if request.get("Authorization") is None:
            challenge = 'Digest realm="failover.test", nonce="n"'
            return [reply(request, 401, fields=[("WWW-Authenticate", challenge)])]
        return [reply(request, 200, fields=[("Contact", request.get("Contact"))])]

    class Homed(Scripted):
        def receive(self, data, source, now):
            return [(*packet, other) for packet in super().receive(data, source, now)]

    Homed(network, PROXY, react)
    bob.does("register")
    network.run(0.1)
    assert bob.agent.registration.state is RegistrationState.REGISTERED
    network.send(bob.receive(invite(), GATEWAY, network.now), bob.address)
    assert bob.state is None
    data = invite().replace(b"Call-ID: g", b"Call-ID: h").replace(b"bKg", b"bKh")
    network.send(bob.receive(data, other, network.now), bob.address)
    assert bob.state is INCOMING


def test_a_request_within_a_call_may_come_from_the_other_phone_itself():
    network = Network()
    bob = Line(network, "bob", 5064, proxy=PROXY)
    Scripted(network, PROXY, lambda r: [])
    network.send([(invite(), bob.address)], PROXY)
    network.run(0.1)
    bob.answers()
    ok = network.passed[-1].message
    fields = [
        ("Via", "SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKd"),
        ("From", ok.get("From")),
        ("To", ok.get("To")),
        ("Call-ID", "g"),
        ("CSeq", "2 BYE"),
    ]
    network.send([(Request("BYE", BOB, fields).to_bytes(), bob.address)], GATEWAY)
    network.run(0.1)
    assert bob.state is ENDED


# -- registrars ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contacts",
    [
        ["<sip:alice@203.0.113.9:40000>;expires=10"],
        ["<sip:alice-x7@10.9.9.9:5060;transport=udp>;expires=10"],
        ["<sip:alice@127.0.0.1:5062;ob>;expires=10"],
        ["<sip:alice@127.0.0.1:5062;transport=udp>;expires=10"],
        ["<sip:127.0.0.1:5062>;expires=10"],
        ["<sip:carol@10.0.0.1>;expires=3000", "<sip:alice@203.0.113.9>;expires=10"],
        ["<sip:a1@10.0.0.1>;expires=3000", "<sip:a2@10.0.0.2>;expires=10"],
        ["<sip:x@10.0.0.1>;expires=0", "<sip:y@10.0.0.2>;expires=10"],
    ],
)
def test_a_registrar_that_writes_our_contact_anew_is_refreshed_in_its_own_time(contacts):
    network = Network()
    registrar = Scripted(
        network, PROXY, lambda r: [reply(r, 200, fields=[("Contact", c) for c in contacts])]
    )
    alice = Line(network, "alice", 5062, proxy=PROXY)
    alice.does("register")
    network.run(14.0)
    assert len(registrar.requests("REGISTER")) == 3, "every 5 s"
    assert alice.agent.registration.state is RegistrationState.REGISTERED
