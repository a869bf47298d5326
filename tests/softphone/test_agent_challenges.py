"""Who gets the proof of the password, and what becomes of a call that is challenged (RFC 3261 22,
RFC 7616)."""

from __future__ import annotations

import pytest
from agent_kit import BOB, SDP, Line, Network, Scripted, accepted

from sip.digest import Credentials, check, hash_password
from sip.message import Request, Response, parse, reply
from softphone.ua.events import CallState, RegistrationState

PROXY, STRANGER = ("127.0.0.1", 5060), ("127.0.0.1", 5090)
SECRET = "secret"
PROXY_CONTACT = "<sip:bob@127.0.0.1:5060>"


def challenge(request: Request, status: int, *values: str) -> Response:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return reply(request, status, to_tag="p", fields=[(name, value) for value in values])


def digest(realm: str, nonce: str, more: str = "") -> str:
    return f'Digest realm="{realm}", nonce="{nonce}", algorithm=MD5, qop="auth"{more}'


def proofs(request: Request) -> dict[str, Credentials]:
    """By realm; each is checked with the password."""
    found = {}
    for name in ("Authorization", "Proxy-Authorization"):
        for value in request.all(name):
            each = Credentials.parse(value)
            assert check(each, request.method, hash_password("alice", each.realm, SECRET)), value
            assert each.realm not in found, "one for each realm"
            found[each.realm] = each
    return found


def alice_and_proxy(react, password: str = SECRET) -> tuple[Network, Line, Scripted]:
    network = Network()
    return (
        network,
        Line(network, "alice", 5062, proxy=PROXY, password=password),
        Scripted(network, PROXY, react),
    )


# -- given up while challenged ---------------------------------------------------------------------


@pytest.mark.parametrize("rings_first", [False, True])
def test_a_call_that_was_given_up_is_not_sent_again_with_the_password(rings_first):
    network, alice, proxy = alice_and_proxy(lambda r: [])
    alice.calls("bob")
    network.run(0.01)
    invite = proxy.seen[0]
    if rings_first:
        network.send([(reply(invite, 180, to_tag="b").to_bytes(), alice.address)], PROXY)
        network.run(0.01)
    alice.does("hang_up")
    refusal = challenge(invite, 407, digest("failover.test", "n1"))
    network.send([(refusal.to_bytes(), alice.address)], PROXY)
    network.run(5.0)
    assert [r.method for r in proxy.seen if isinstance(r, Request)].count("INVITE") == 1
    assert (alice.state, alice.sentence) == (CallState.ENDED, "You hung up")
    assert proxy.requests("ACK")


@pytest.mark.parametrize("seconds", [0.1, 100.0])
def test_a_2xx_after_the_challenge_that_ended_the_call_is_acknowledged_and_left(seconds):
    network, alice, proxy = alice_and_proxy(lambda r: [reply(r, 200)] if r.method == "BYE" else [])
    alice.calls("bob")
    network.run(0.01)
    invite = proxy.seen[0]
    alice.does("hang_up")
    network.send(
        [(challenge(invite, 407, digest("failover.test", "n1")).to_bytes(), alice.address)], PROXY
    )
    network.run(seconds)
    late = accepted(invite, contact=PROXY_CONTACT).to_bytes()
    for _ in range(2):
        network.send([(late, alice.address)], PROXY)
        network.run(0.6)
    acks = [ack for ack in proxy.requests("ACK") if ack.to.tag == "b"]
    assert len(acks) == 2 and acks[0].cseq.number == 1
    assert [bye.to.tag for bye in proxy.requests("BYE")] == ["b"]
    assert alice.state is CallState.ENDED


# -- several challengers ---------------------------------------------------------------------------


def in_turn(*challengers):
    """Servers behind each other: each lets through whoever has proven the password in its realm."""

    def react(request: Request) -> list[Response]:
        if request.method == "ACK":
            return []
        for status, realm, nonce in challengers:
            given = proofs(request).get(realm)
            if given is None or given.nonce != nonce:
                return [challenge(request, status, digest(realm.replace('"', '\\"'), nonce))]
        return [accepted(request, contact=PROXY_CONTACT)]

    return react


@pytest.mark.parametrize(
    "challengers",
    [
        [(407, "one.test", "n1"), (407, "two.test", "n2")],
        [(407, "one.test", "same"), (407, "two.test", "same"), (407, "three.test", "n3")],
        [(407, "one.test", "n1"), (401, "two.test", "n2")],
        [(407, 'a "quoted" realm', "n1"), (407, "two.test", "n2")],
    ],
)
def test_every_proxy_on_the_way_gets_its_proof(challengers):
    # RFC 3261 22.3, RFC 3665 3.3
    network, alice, proxy = alice_and_proxy(in_turn(*challengers))
    alice.calls("bob")
    network.run(0.1)
    assert alice.state is CallState.TALKING, network.ladder()
    invites = proxy.requests("INVITE")
    assert [len(proofs(each)) for each in invites] == list(range(len(challengers) + 1))
    used = [(c.realm, c.nonce, c.nc) for each in invites for c in proofs(each).values()]
    assert len(set(used)) == len(used), "no count is used twice for one nonce"


def test_a_registration_through_a_proxy_that_asks_too_is_proven_to_both_and_at_once_the_next_time():
    def react(request: Request) -> list[Response]:
        given = proofs(request)
        if "proxy.failover.test" not in given:
            return [challenge(request, 407, digest("proxy.failover.test", "p1"))]
        if "failover.test" not in given:
            return [challenge(request, 401, digest("failover.test", "r1"))]
        return [reply(request, 200, fields=[("Contact", request.get("Contact"))])]

    network, alice, proxy = alice_and_proxy(react)
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.state is RegistrationState.REGISTERED
    network.run(160.0)
    assert len(proxy.requests("REGISTER")) == 4 and len(proofs(proxy.requests("REGISTER")[-1])) == 2


def test_challenges_joined_in_one_line_are_all_read():
    joined = f'Basic realm="x", {digest("one.test", "n1")}, {digest("two.test", "n2")}'
    network, alice, proxy = alice_and_proxy(
        lambda r: (
            [
                accepted(r, contact=PROXY_CONTACT)
                if len(proofs(r)) == 2
                else challenge(r, 407, joined)
            ]
            if r.method == "INVITE"
            else []
        )
    )
    alice.calls("bob")
    network.run(0.1)
    assert alice.state is CallState.TALKING and len(proxy.requests("INVITE")) == 2


def test_a_proxy_that_takes_no_nonce_twice_does_not_make_the_password_wrong():
    nonces = iter(["a1", "a2", "a3"])
    spent: list[str] = []

    def react(request: Request) -> list[Response]:
        if request.method == "ACK":
            return []
        first = proofs(request).get("one.test")
        if first is None or first.nonce in spent:
            return [challenge(request, 407, digest("one.test", next(nonces)))]
        spent.append(first.nonce)
        return [
            accepted(request, contact=PROXY_CONTACT)
            if "two.test" in proofs(request)
            else challenge(request, 407, digest("two.test", "b"))
        ]

    network, alice, _ = alice_and_proxy(react)
    alice.calls("bob")
    network.run(0.1)
    assert alice.state is CallState.TALKING


@pytest.mark.parametrize("realm", ["failover.test", 'a \\"quoted\\" realm'])
def test_a_wrong_password_is_said_once_whatever_the_realm_is_called(realm):
    network, alice, proxy = alice_and_proxy(
        lambda r: (
            [challenge(r, 407, digest(realm, f"n{r.cseq.number}"))] if r.method == "INVITE" else []
        ),
        "wrong",
    )
    alice.calls("bob")
    network.run(1.0)
    assert alice.sentence == "The password of alice is wrong"
    assert len(proxy.requests("INVITE")) == 2


def test_a_server_that_asks_in_a_way_we_do_not_have_is_not_said_to_know_a_better_password():
    network, alice, _ = alice_and_proxy(
        lambda r: [challenge(r, 407, digest("failover.test", "n1").replace('"auth"', '"auth-int"'))]
    )
    alice.calls("bob")
    network.run(0.1)
    assert (
        alice.sentence == "The server wants alice's password in a way that this phone does not have"
    )


def test_no_count_of_a_nonce_is_said_twice_however_many_nonces_were_seen():
    nonce = ["standing"]
    seen: list[tuple[str, str]] = []

    def react(request: Request) -> list[Response]:
        if request.method == "ACK":
            return []
        given = proofs(request).get("failover.test")
        seen.extend([(given.nonce, given.nc)] if given else [])
        if request.method == "REGISTER":
            return [
                reply(request, 200, fields=[("Contact", request.get("Contact"))])
                if given
                else challenge(request, 401, digest("failover.test", nonce[0]))
            ]
        return [
            reply(request, 486, to_tag="b")
            if given
            else challenge(request, 407, digest("failover.test", f"call{request.call_id}"))
        ]

    network, alice, _ = alice_and_proxy(react)
    alice.does("register")
    network.run(0.1)
    for _ in range(70):
        alice.calls("bob")
        network.run(0.1)
    alice.does("register")
    network.run(0.1)
    assert len(set(seen)) == len(seen) and ("standing", "00000002") in seen


# -- strangers -------------------------------------------------------------------------------------


def gives_nothing_away(network: Network) -> bool:
    return not any(b"uthorization:" in passage.data for passage in network.passed)


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("realm", ["attacker.test", "failover.test"])
@pytest.mark.parametrize("method", ["BYE", "INVITE", "OPTIONS"])
def test_a_stranger_who_calls_and_asks_for_the_password_gets_nothing(status, realm, method):
    network = Network()
    alice = Line(network, "alice", 5062, proxy=PROXY, password=SECRET, direct=True)
    stranger = Scripted(
        network,
        STRANGER,
        lambda r: (
            [challenge(r, status, digest(realm, "evil"))]
            if r.method == method
            else []
            if r.method == "ACK"
            else [reply(r, 200)]
        ),
    )
    invite = (
        b"INVITE sip:alice@127.0.0.1:5062 SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKe\r\n"
        b"From: <sip:x@attacker.test>;tag=x\r\nTo: <sip:alice@failover.test>\r\n"
        b"Call-ID: evil\r\nCSeq: 1 INVITE\r\n"
        b"Contact: <sip:x@127.0.0.1:5090>\r\nContent-Type: application/sdp\r\n\r\n" + SDP
    )
    network.send([(invite, alice.address)], STRANGER)
    network.run(0.1)
    alice.answers()
    network.run(0.1)
    ok = parse(next(p.data for p in network.passed if p.name == "200 INVITE"))
    ack = [
        ("Via", "SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKa"),
        ("From", str(ok.from_)),
        ("To", str(ok.to)),
    ]
    ack += [("Call-ID", "evil"), ("CSeq", "1 ACK")]
    network.send(
        [(Request("ACK", "sip:alice@127.0.0.1:5062", ack).to_bytes(), alice.address)], STRANGER
    )
    network.run(0.1)
    alice.does({"BYE": "hang_up", "INVITE": "hold", "OPTIONS": "probe"}[method])
    network.run(1.0)
    assert stranger.requests(method) and gives_nothing_away(network)
    assert alice.agent.dropped["a challenge by a stranger"] == 1


def test_a_phone_that_we_call_directly_and_that_asks_for_the_password_is_told_no():
    network = Network()
    alice = Line(network, "alice", 5062, password=SECRET)
    Scripted(
        network, ("127.0.0.1", 5064), lambda r: [challenge(r, 407, digest("failover.test", "evil"))]
    )
    alice.calls(BOB)
    network.run(1.0)
    assert gives_nothing_away(network)
    assert (
        alice.sentence
        == "127.0.0.1 port 5064 asks for the password of alice, which only alice's own server gets"
    )


@pytest.mark.parametrize("status", [401, 407])
def test_a_callee_behind_our_own_server_gets_no_proof_for_a_realm_of_his_own(status):
    def react(request: Request) -> list[Response]:
        if request.method == "REGISTER":
            return [
                reply(request, 200, fields=[("Contact", request.get("Contact"))])
                if proofs(request)
                else challenge(request, 401, digest("failover.test", "r1"))
            ]
        if request.method == "ACK":
            return []
        # passed on by the server
        return [challenge(request, status, digest("attacker.test", "evil"))]

    network, alice, proxy = alice_and_proxy(react)
    alice.does("register")
    network.run(0.1)
    alice.calls("mallory")
    network.run(1.0)
    assert not proofs(proxy.requests("INVITE")[-1])
    assert alice.sentence == (
        "Attacker.test asks for the password of alice; "
        "if that is your own server's realm, name it by --realm"
    )


@pytest.mark.parametrize("method", ["BYE", "INVITE"])
def test_a_callee_behind_our_own_server_gets_no_proof_within_the_call(method):
    def react(request: Request) -> list[Response]:
        if request.method == "ACK":
            return []
        if request.method == "INVITE" and not request.to.tag:
            return [accepted(request, contact=PROXY_CONTACT)]
        return [challenge(request, 407, digest("attacker.test", "evil"))]

    network, alice, _ = alice_and_proxy(react)
    alice.calls("mallory")
    network.run(0.1)
    alice.does("hang_up" if method == "BYE" else "hold")
    network.run(1.0)
    assert gives_nothing_away(network)


def test_a_challenge_after_it_rang_comes_from_the_callee():
    network, alice, _ = alice_and_proxy(
        lambda r: (
            [reply(r, 180, to_tag="m"), challenge(r, 407, digest("attacker.test", "evil"))]
            if r.method == "INVITE"
            else []
        )
    )
    alice.calls("mallory")
    network.run(1.0)
    assert gives_nothing_away(network) and alice.state is CallState.ENDED


def test_a_callee_who_answers_past_the_server_gets_nothing():
    network, alice, proxy = alice_and_proxy(lambda r: [])
    alice.calls("mallory")
    network.run(0.01)
    network.send(
        [(challenge(proxy.seen[0], 407, digest("failover.test", "e")).to_bytes(), alice.address)],
        STRANGER,
    )
    network.run(1.0)
    assert gives_nothing_away(network)


def test_the_ack_that_goes_straight_to_the_callee_does_not_carry_the_proof_meant_for_the_server():
    network, alice, _ = alice_and_proxy(
        lambda r: (
            []
            if r.method == "ACK"
            else [
                accepted(r, contact="<sip:mallory@127.0.0.1:5090>")
                if proofs(r)
                else challenge(r, 407, digest("failover.test", "n1"))
            ]
        )
    )
    mallory = Scripted(network, STRANGER, lambda r: [])
    alice.calls("mallory")
    network.run(0.1)
    ack = mallory.requests("ACK")[0]
    assert ack.get("Proxy-Authorization") is None


@pytest.mark.parametrize("realms", [(), ("partner.example",)])
def test_more_realms_may_be_named(realms):
    network = Network()
    Scripted(network, PROXY, in_turn((407, "partner.example", "n1")))
    alice = Line(network, "alice", 5062, PROXY, SECRET, realms=realms or ("another.example",))
    alice.calls("bob")
    network.run(0.1)
    assert (alice.state is CallState.TALKING) is bool(realms)
