"""Where passwords are asked, a stranger learns neither which users there are nor what serves
them."""

from __future__ import annotations

import re

import pytest
from slee_kit import KEY, Cluster, DictStore, phone_request, register

from sip import VERSION
from sip.digest import Challenge, make_nonce
from sip.digest import answer as solve
from sip.message import Message
from slee_mock.services import authentication
from slee_mock.services.bindings_record import Binding, Bindings
from slee_mock.store.interface import Transaction

USERS = {"alice": "wonderland", "known": "builder", "away1": "builder"}
# with a phone; without; with a phone, not in the file; nobody
ASKED = ["known", "away1", "wild1", "ghost"]
METHODS = [
    "REGISTER",
    "INVITE",
    "MESSAGE",
    "OPTIONS",
    "SUBSCRIBE",
    "PUBLISH",
    "REFER",
    "NOTIFY",
    "BYE",
    "CANCEL",
    "ACK",
    "UPDATE",
    "INFO",
    "PRACK",
    "FOO",
]


class CountingStore(DictStore):
    def __init__(self):
        super().__init__()
        self.used = []

    def get(self, kind, key):
        self.used.append(("get", kind))
        return super().get(kind, key)

    def save(self, changes):
        self.used.append(("save", [each.kind for each in changes]))
        super().save(changes)


@pytest.fixture
def cluster():
    made = Cluster(users=USERS, store=CountingStore())
    for user in ("known", "wild1"):
        phone = Binding(f"sip:{user}@127.0.0.1:4100", "r1", 1, made.now + 300, made.now)
        Transaction(made.store).commit([Bindings(f"sip:{user}@failover.test", "", (phone,))])
    return made


def request(method, user, to_tag="", **more):
    if method == "REGISTER":
        made = register(user=user, contact="<sip:x@192.0.2.66>", **more)
    else:
        made = phone_request(
            method, f"sip:{user}@failover.test", contact="<sip:x@192.0.2.66>", **more
        )
    if to_tag:
        made.set("To", f"{made.get('To')};tag={to_tag}")
    return made


def heard(cluster, made: Message, user):
    """All that can be told from outside, and the work that it took."""
    cluster.store.used.clear()
    answers = [each.to_bytes().decode().replace(user, "USER") for each in cluster.receive(made)]
    hashes = r"\b[0-9a-f]{32}\b"  # keyed, of the request: To-tags and what a nonce is good for
    return [re.sub(hashes, "HASH", each) for each in answers], list(cluster.store.used)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("to_tag", ["", "made-up"])
def test_a_stranger_hears_the_same_of_every_user_there_is_and_is_not(cluster, method, to_tag):
    told = [heard(cluster, request(method, user, to_tag, call_id="c1"), user) for user in ASKED]
    assert all(each == told[0] for each in told)
    assert not any(
        answer.startswith(("SIP/2.0 404", "SIP/2.0 480", "SIP/2.0 2")) for answer in told[0][0]
    )


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE"])
def test_so_does_who_guesses_passwords(cluster, method, monkeypatch):
    hashed = []
    real = authentication.hash_password
    monkeypatch.setattr(
        authentication, "hash_password", lambda *parts: hashed.append(1) or real(*parts)
    )
    told = []
    challenge = Challenge("failover.test", make_nonce(KEY, cluster.now, "failover.test 127.0.0.1"))
    for user in ASKED:
        hashed.clear()
        made = request(method, user, call_id="c1")
        made.set("From", f"<sip:{user}@failover.test>;tag=a1")
        credentials = solve(challenge, method, made.uri, user, "guess", "cn")
        name = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
        made.add(name, str(credentials))
        told.append((heard(cluster, made, user), len(hashed)))
    assert all(each == told[0] for each in told)
    assert told[0][1] == 1, "an unknown user's password is looked at as a known one's"


def test_who_has_proven_who_he_is_hears_who_is_there(cluster):
    told = {}
    for user in ("known", "away1", "ghost"):
        made = request("OPTIONS", user)
        challenged = cluster.one(made).get("Proxy-Authenticate")
        solved = solve(
            Challenge.parse(challenged), "OPTIONS", made.uri, "alice", "wonderland", "cn"
        )
        made.add("Proxy-Authorization", str(solved))
        sent = cluster.one(made)
        told[user] = getattr(sent, "status", None) or sent.method
    assert told == {"known": "OPTIONS", "away1": 480, "ghost": 404}


def test_the_forwarders_question_whether_a_server_lives_needs_no_password(cluster):
    assert cluster.one(phone_request("OPTIONS", "sip:127.0.0.1:5070")).status == 200


def test_where_no_passwords_are_asked_nothing_is_secret():
    cluster = Cluster()
    cluster.one(register())
    cluster.one(register(cseq=2, expires="0"))
    assert cluster.one(phone_request("OPTIONS", "sip:bob@failover.test")).status == 480
    assert (
        cluster.one(phone_request("OPTIONS", "sip:nobody@failover.test", call_id="c2")).status
        == 404
    )


def test_no_answer_tells_what_serves_unless_the_operator_wants_it():
    for asked in (
        register(),
        phone_request("OPTIONS", "sip:127.0.0.1"),
        phone_request("FOO", "sip:x@y"),
    ):
        quiet = Cluster().one(asked)
        assert quiet.get("Server") is None and VERSION.encode() not in quiet.to_bytes()
        told = Cluster(server_header=True).one(asked, at="server2")
        assert told.get("Server") == f"call-failover-slee/{VERSION} (server2)"
