"""Registering: refresh, passwords, short and long answers, silence, NAT."""

from __future__ import annotations

import pytest
from agent_kit import Line, Network, Scripted

from sip.digest import Challenge, Credentials, check, hash_password
from sip.message import Request, Response, reply
from softphone.ua.events import RegistrationState

PROXY = ("127.0.0.1", 5060)
REGISTERED, REFUSED = RegistrationState.REGISTERED, RegistrationState.REFUSED
UNREACHABLE = RegistrationState.UNREACHABLE


class Registrar:
    """A small registrar whose behaviour a test may change in mid-flight."""

    def __init__(self, network: Network, password: str = "", algorithm: str = "MD5") -> None:
        self.password, self.algorithm = password, algorithm
        self.expires: int | None = None
        self.script: list[Response | int | tuple[int, list[tuple[str, str]]]] = []
        self.nonces = ["n1"]
        self.received: tuple[str, int] | None = None
        self.more: list[tuple[str, str]] = []  # what else its 200 says
        self.line = Scripted(network, PROXY, self._react)

    @property
    def asked(self) -> list[Request]:
        return self.line.requests("REGISTER")

    def _react(self, request: Request) -> list[Response]:
        if self.received:
            request.replace_top("Via", str(request.via.with_source(*self.received)))
        if self.script:
            step = self.script.pop(0)
            status, fields = step if isinstance(step, tuple) else (step, [])
            return [reply(request, status, to_tag="r", fields=fields)] if status else []
        if self.password and not self._knows(request):
            return [self._challenge(request)]
        contact = request.contacts[0]
        granted = self.expires if self.expires is not None else contact.params["expires"]
        return [
            reply(
                request,
                200,
                to_tag="r",
                fields=[*self.more, ("Contact", f"<{contact.uri}>;expires={granted}")],
            )
        ]

    def _challenge(self, request: Request) -> Response:
        given = request.get("Authorization")
        stale = (
            bool(given)
            and Credentials.parse(given).nonce in self.nonces[:-1]
            and self._right(given)
        )
        challenge = Challenge("failover.test", self.nonces[-1], self.algorithm, stale=stale)
        return reply(request, 401, to_tag="r", fields=[("WWW-Authenticate", str(challenge))])

    def _knows(self, request: Request) -> bool:
        given = request.get("Authorization")
        return (
            bool(given) and Credentials.parse(given).nonce == self.nonces[-1] and self._right(given)
        )

    def _right(self, given: str) -> bool:
        ha1 = hash_password("alice", "failover.test", self.password, self.algorithm)
        return check(Credentials.parse(given), "REGISTER", ha1)


def registering(
    password: str = "", truth: str = "", algorithm: str = "MD5"
) -> tuple[Network, Line, Registrar]:
    """Alice with her idea of the password, and a registrar that knows the truth ("": it asks for
    none)."""
    network = Network()
    registrar = Registrar(network, truth, algorithm)
    return network, Line(network, "alice", 5062, proxy=PROXY, password=password), registrar


def test_a_phone_registers_and_refreshes_well_before_the_end():
    network, alice, registrar = registering()
    alice.does("register")
    assert alice.agent.registration.sentence == "Registering as alice ..."
    network.run(0.1)
    assert (alice.agent.registration.state, alice.agent.registration.sentence) == (
        REGISTERED,
        "Registered as alice",
    )
    first = registrar.asked[0]
    assert (
        first.uri == "sip:failover.test"
        and first.get("Contact") == "<sip:alice@127.0.0.1:5062>;expires=300"
    )
    network.run(140.0)
    assert len(registrar.asked) == 1
    network.run(700.0)
    assert len(registrar.asked) == 6, "every 150 s"
    assert len({request.call_id for request in registrar.asked}) == 1
    assert [request.cseq.number for request in registrar.asked] == [1, 2, 3, 4, 5, 6]
    assert len(alice.registration_sentences) == 2, "a refresh that works is no news"


def test_the_registrar_may_grant_less():
    network, alice, registrar = registering()
    registrar.expires = 20
    alice.does("register")
    network.run(29.0)
    assert len(registrar.asked) == 3, "every 10 s"


def test_other_phones_of_the_account_may_be_listed_in_ways_we_cannot_read():
    network, alice, registrar = registering()
    registrar.more = [
        ("Contact", "<tel:+4930123>;expires=7"),
        ("Contact", "<sip:alice@[half>"),
        ("Expires", "soon"),
    ]
    registrar.expires = 20
    alice.does("register")
    network.run(29.0)
    assert alice.agent.registration.state is REGISTERED and len(registrar.asked) == 3, (
        "every 10 s, as ours says"
    )


def test_a_word_for_an_address_does_not_become_our_contact():
    network, alice, registrar = registering()
    registrar.received = ("nowhere", 40001)
    alice.does("register")
    network.run(1.0)
    assert len(registrar.asked) == 1 and alice.agent.registration.state is REGISTERED


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("call-failover-slee/0.1.0 (server1)", "Registered through server1"),
        ("call-failover-slee/0.1.0", "Registered as alice"),
        ("call-failover-slee/0.1.0 (server one)", "Registered as alice"),
        (f"call-failover-slee/0.1.0 ({'s' * 33})", "Registered as alice"),
        ("call-failover-slee/0.1.0 (\u202e1)", "Registered as alice"),
        ("kamailio (5.6.3 (x86_64/linux))", "Registered as alice"),
        ("Phone/1.0 (Linux)", "Registered as alice"),
    ],
)
def test_the_person_learns_which_server_the_phone_is_registered_through(said, sentence):
    network, alice, registrar = registering()
    registrar.more = [("Server", said)]
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.sentence == sentence


def test_after_a_failover_the_next_refresh_names_the_other_server():
    network, alice, registrar = registering()
    for name in ("server1", "server2"):
        registrar.more = [("Server", f"call-failover-slee/0.1.0 ({name})")]
        alice.does("register")
        network.run(0.1)
    assert alice.registration_sentences[-2:] == [
        "Registered through server1",
        "Registered through server2",
    ]
    assert alice.agent.registration.state is REGISTERED


def test_a_registration_is_taken_back():
    network, alice, registrar = registering()
    alice.does("register")
    network.run(0.1)
    alice.does("unregister")
    network.run(0.1)
    assert registrar.asked[1].get("Contact").endswith(";expires=0")
    assert alice.agent.registration.state is RegistrationState.UNREGISTERED and alice.agent.at_rest
    network.run(1000.0)
    assert len(registrar.asked) == 2 and alice.deadline is None


def test_who_registers_again_right_after_logging_off_is_registered():
    """The wish waits for the answer to taking the binding back (RFC 3261 10.2)."""
    network, alice, registrar = registering()
    alice.does("register")
    network.run(0.1)
    alice.does("unregister")
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.state is REGISTERED and alice.agent.at_rest
    assert [request.get("Expires") for request in registrar.asked] == ["300", "0", "300"]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_password_is_proved_and_spares_the_challenge_next_time(algorithm):
    network, alice, registrar = registering("secret", "secret", algorithm)
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.state is REGISTERED and len(registrar.asked) == 2
    assert [request.cseq.number for request in registrar.asked] == [1, 2]
    network.run(160.0)
    assert len(registrar.asked) == 3
    given = Credentials.parse(registrar.asked[2].get("Authorization"))
    assert (given.algorithm, given.qop, given.nc) == (algorithm, "auth", "00000002")


def test_a_wrong_password_is_refused_without_a_loop():
    network, alice, registrar = registering("wrong", "secret")
    alice.does("register")
    network.run(600.0)
    registration = alice.agent.registration
    assert (registration.state, registration.sentence) == (
        REFUSED,
        "The password of alice is wrong",
    )
    assert len(registrar.asked) == 2


def test_a_missing_password_is_asked_for():
    network, alice, registrar = registering("", "secret")
    alice.does("register")
    network.run(600.0)
    assert alice.agent.registration.sentence == "The server wants a password for alice"
    assert len(registrar.asked) == 1


@pytest.mark.parametrize("says_stale", [True, False])
def test_a_stale_nonce_is_replaced_unnoticed(says_stale):
    network, alice, registrar = registering("secret", "secret")
    alice.does("register")
    network.run(0.1)
    registrar.nonces = ["n1", "n2"] if says_stale else ["n2"]
    network.run(160.0)
    assert alice.agent.registration.state is REGISTERED
    assert [Credentials.parse(r.get("Authorization")).nonce for r in registrar.asked[1:]] == [
        "n1",
        "n1",
        "n2",
    ]
    assert len(alice.registration_sentences) == 2


def test_a_registrar_that_always_says_stale_is_not_asked_for_ever():
    network, alice, registrar = registering("secret", "other")
    stale = ("WWW-Authenticate", 'Digest realm="failover.test", nonce="x", stale=true, qop="auth"')
    registrar.script = [(401, [stale])] * 50
    alice.does("register")
    network.run(10.0)
    assert alice.agent.registration.state is REFUSED and len(registrar.asked) == 9


def test_the_first_challenge_that_can_be_answered_is_answered():
    network, alice, registrar = registering("secret", "")
    challenges = [
        'Basic realm="x"',
        'Digest realm="r", nonce="a", algorithm=SHA-512-256, qop="auth"',
        'Digest realm="r", nonce="b", algorithm=SHA-256, qop="auth"',
        'Digest realm="r", nonce="c", algorithm=MD5, qop="auth"',
    ]
    registrar.script = [(401, [("WWW-Authenticate", value) for value in challenges])]
    alice.does("register")
    network.run(0.1)
    given = registrar.asked[1].all("Authorization")
    assert len(given) == 1 and Credentials.parse(given[0]).nonce == "b"


def test_too_brief_is_lengthened_once():
    network, alice, registrar = registering()
    registrar.script = [(423, [("Min-Expires", "600")])]
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.state is REGISTERED
    assert registrar.asked[1].get("Contact").endswith(";expires=600")


def test_too_brief_for_ever_is_refused():
    network, alice, registrar = registering()
    registrar.script = [(423, [("Min-Expires", "600")])] * 10
    alice.does("register")
    network.run(60.0)
    assert alice.agent.registration.state is REFUSED and len(registrar.asked) == 3


def test_silence_is_told_soon_and_tried_again_until_the_server_is_back():
    network, alice, registrar = registering()
    network.leave(PROXY)
    alice.does("register")
    network.run(1.6)
    registration = alice.agent.registration
    assert (registration.state, registration.sentence) == (
        UNREACHABLE,
        "No answer from 127.0.0.1:5060; trying again in 2 s",
    )
    network.run(50.0)
    assert alice.agent.registration.state is UNREACHABLE and alice.agent.retransmissions > 5
    network.join(PROXY, registrar.line)
    network.run(10.0)
    assert alice.agent.registration.sentence == "Registered as alice"


def test_an_overloaded_server_says_when():
    network, alice, registrar = registering()
    registrar.script = [(503, [("Retry-After", "7")]), 503, 503]
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.sentence == "No server answers; trying again in 7 s"
    network.run(7.1)
    assert alice.agent.registration.sentence == "No server answers; trying again in 4 s"
    network.run(20.0)
    assert alice.agent.registration.state is REGISTERED


def test_the_pauses_grow_to_half_a_minute_and_shrink_after_a_success():
    network, alice, registrar = registering()
    registrar.script = [503] * 8
    alice.does("register")
    network.run(200.0)
    pauses = [text.split()[-2] for text in alice.registration_sentences if "again" in text]
    assert pauses == ["2", "4", "8", "16", "32", "32", "32", "32"]
    registrar.script = [503]
    network.run(200.0)
    assert [text.split()[-2] for text in alice.registration_sentences if "again" in text][-1] == "2"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "The server does not let alice in"),
        (404, "The server does not know alice"),
        (606, "The server refused alice: Not Acceptable"),
        (302, "The server refused alice: Moved Temporarily"),
    ],
)
def test_a_refusal_is_a_sentence_and_asked_about_again_after_minutes(status, sentence):
    network, alice, registrar = registering()
    registrar.script = [status] * 6
    alice.does("register")
    network.run(59.0)
    assert (alice.agent.registration.state, alice.agent.registration.sentence) == (
        REFUSED,
        sentence,
    )
    assert len(registrar.asked) == 1
    network.run(1700.0)
    assert len(registrar.asked) == 6, "after 60, 120, 240, 480 and 600 seconds"
    assert (alice.agent.registration.state, alice.agent.registration.sentence) == (
        REFUSED,
        sentence,
    )
    network.run(600.0)
    assert alice.agent.registration.state is REGISTERED, "the server may have come to other terms"
    registrar.script = [status]
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.state is REFUSED
    alice.does("register")
    network.run(0.1)
    assert alice.agent.registration.state is REGISTERED, "the person may try again at once"


def test_behind_a_nat_the_contact_is_the_address_others_see():
    # RFC 3581
    network, alice, registrar = registering()
    registrar.received = ("203.0.113.7", 40001)
    alice.does("register")
    network.run(0.2)
    contacts = [[str(contact) for contact in request.contacts] for request in registrar.asked]
    assert contacts == [
        ["<sip:alice@127.0.0.1:5062>;expires=300"],
        ["<sip:alice@203.0.113.7:40001>;expires=300", "<sip:alice@127.0.0.1:5062>;expires=0"],
    ]
    alice.calls("bob")
    assert network.passed[-1].message.get("Contact") == "<sip:alice@203.0.113.7:40001>"
    assert network.passed[-1].message.via.host == "127.0.0.1"


def test_a_nat_that_changes_its_mind_all_the_time_causes_no_storm():
    network, alice, registrar = registering()
    alice.does("register")
    for port in range(40000, 40200):
        registrar.received = ("203.0.113.7", port)
        network.run(0.5)
    assert len(registrar.asked) <= 3


def test_wishing_twice_registers_once():
    network, alice, registrar = registering()
    alice.does("register")
    alice.does("register")
    network.run(1.0)
    assert len(registrar.asked) == 1


def test_a_call_is_authenticated_too():
    network, alice, _ = registering("secret", "")
    challenge = str(Challenge("failover.test", "p1"))
    proxy = Scripted(
        network,
        PROXY,
        lambda r: (
            [reply(r, 407, to_tag="p", fields=[("Proxy-Authenticate", challenge)])]
            if r.method == "INVITE" and not r.get("Proxy-Authorization")
            else []
        ),
    )
    alice.calls("bob")
    network.run(0.1)
    first, second = proxy.requests("INVITE")
    assert (first.cseq.number, second.cseq.number) == (1, 2)
    assert (first.call_id, first.from_.tag) == (
        second.call_id,
        second.from_.tag,
    ) and first.via != second.via
    assert check(
        Credentials.parse(second.get("Proxy-Authorization")),
        "INVITE",
        hash_password("alice", "failover.test", "secret"),
    )
    assert len(proxy.requests("ACK")) == 1 and alice.sentences == ["Calling bob ..."]


def test_a_call_with_a_wrong_password_says_so():
    network, alice, _ = registering("wrong", "")
    challenge = str(Challenge("failover.test", "p1"))
    Scripted(
        network,
        PROXY,
        lambda r: (
            [reply(r, 407, to_tag="p", fields=[("Proxy-Authenticate", challenge)])]
            if r.method == "INVITE"
            else []
        ),
    )
    alice.calls("bob")
    network.run(1.0)
    assert alice.sentence == "The password of alice is wrong"
