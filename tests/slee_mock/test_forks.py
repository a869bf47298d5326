"""Stories of calls that more than one phone answers: forked behind a binding, or sent on to another
user of ours. Each dialog finds its own phones, and there is one bill."""

from __future__ import annotations

import pytest
from slee_kit import Cluster, answer, cluster_with_bob, in_dialog, invite, phone_request, register

from sip.digest import Challenge
from sip.digest import answer as solve
from sip.message import Request
from slee_mock.services.bill_record import Bill
from slee_mock.services.call_record import Call
from slee_mock.store.interface import Transaction

BOB_AT, CAROL_AT, ALICE_AT = (
    "sip:bob@127.0.0.1:4100",
    "sip:carol@127.0.0.1:4300",
    "sip:alice@127.0.0.1:4000",
)
DESK, CELL = "<sip:bob@127.0.0.1:4201>", "<sip:bob@127.0.0.1:4202>"
CAROL = "sip:carol@failover.test"


@pytest.fixture
def cluster():
    made = cluster_with_bob()
    made.one(register("carol", f"<{CAROL_AT}>", call_id="r-carol"))
    return made


def speak(cluster, method, tag, contact, cseq=2, by="alice", at="server1"):
    """Alice to the phone with this tag and contact, or that phone to her."""
    named = {"cseq": cseq, "branch": f"z9hG4bK-{method}-{tag}-{cseq}-{by}"}
    if by == "alice":
        named |= {"to": "<sip:bob@failover.test>", "to_tag": tag, "contact": f"<{ALICE_AT}>"}
        request = phone_request(method, contact.strip("<>"), **named)
    else:
        named |= {"to": "<sip:alice@failover.test>", "to_tag": "a1", "tag": tag, "contact": contact}
        request = phone_request(method, ALICE_AT, "bob", **named)
    return cluster.one(request, at)


# -- forked behind a binding --------------------------------------------------------------------


def test_two_phones_behind_one_binding_ring_and_each_is_spoken_to_before_it_answers(cluster):
    offered = cluster.one(invite())
    phones = (("b1", DESK), ("b2", CELL))
    for tag, contact in phones:
        cluster.one(answer(offered, 183, contact, tag))
    for tag, contact in phones:
        for method in ("PRACK", "UPDATE", "INFO"):
            assert speak(cluster, method, tag, contact, at="server2").uri == contact.strip("<>")
        assert speak(cluster, "UPDATE", tag, contact, by="bob").uri == ALICE_AT
    assert cluster.bill().state == "ringing"


@pytest.mark.parametrize("first", ["b1", "b2"])
def test_a_caller_with_two_dialogs_hangs_one_up_and_talks_on_with_the_other(cluster, first):
    """RFC 3261 13.2.2.4."""
    offered = cluster.one(invite())
    phones = {"b1": DESK, "b2": CELL}
    for tag, contact in phones.items():
        cluster.one(answer(offered, 200, contact, tag), at="server2")
        assert speak(cluster, "ACK", tag, contact, cseq=1).uri == contact.strip("<>")
    second = "b2" if first == "b1" else "b1"
    cluster.now += 3
    assert speak(cluster, "BYE", first, phones[first]).method == "BYE"
    assert cluster.bill().state == "answered", "she talks on"
    cluster.now += 9
    assert speak(cluster, "INFO", second, phones[second], by="bob").uri == ALICE_AT
    assert (
        speak(cluster, "BYE", second, phones[second], cseq=3, by="bob", at="server2").uri
        == ALICE_AT
    )
    assert (cluster.bill().seconds, cluster.bill().why) == (12, "bob hung up")
    assert [bill.call_id for bill in Transaction(cluster.store).scan(Bill)] == ["c1"]
    speak(cluster, "BYE", first, phones[first])
    assert cluster.bill().seconds == 12, "a BYE said again changes nothing"


def test_a_second_answer_that_its_caller_ignores_does_not_hold_the_bill_open(cluster):
    offered = cluster.one(invite())
    cluster.one(answer(offered, 200, DESK, "b1"))
    speak(cluster, "ACK", "b1", DESK, cseq=1)
    cluster.one(answer(offered, 200, CELL, "b2"))
    cluster.now += 5
    speak(cluster, "BYE", "b1", DESK)
    assert (cluster.bill().final, cluster.bill().seconds) == (True, 5)
    cluster.now += 27
    assert speak(cluster, "BYE", "b2", CELL, by="bob").uri == ALICE_AT, "it gives up"
    assert cluster.bill().seconds == 5


def test_a_phone_that_hangs_up_while_another_rings_leaves_the_call_alone(cluster):
    offered = cluster.one(invite())
    cluster.one(answer(offered, 183, DESK, "b1"))
    cluster.one(answer(offered, 180, CELL, "b2"))
    speak(cluster, "BYE", "b1", DESK)
    assert not cluster.bill().final
    cluster.one(answer(offered, 200, CELL, "b2"))
    speak(cluster, "ACK", "b2", CELL, cseq=1)
    assert cluster.bill().state == "answered"


def test_a_hold_in_one_dialog_moves_nothing_in_the_other(cluster):
    offered = cluster.one(invite())
    for tag, contact in (("b1", DESK), ("b2", CELL)):
        cluster.one(answer(offered, 200, contact, tag))
        speak(cluster, "ACK", tag, contact, cseq=1)
    hold = speak(cluster, "INVITE", "b2", CELL)
    moved = "<sip:bob@127.0.0.1:4999>"
    cluster.one(answer(hold, 200, moved, "b2"))
    assert speak(cluster, "INFO", "b2", moved, cseq=3).uri == "sip:bob@127.0.0.1:4999"
    assert speak(cluster, "INFO", "b1", moved, cseq=3).status == 404
    assert speak(cluster, "BYE", "b1", DESK, cseq=4).uri == DESK.strip("<>")


def test_each_fork_has_the_routes_that_its_own_answer_recorded(cluster):
    offered = cluster.one(invite())
    for tag, contact, proxy in (("b1", DESK, "192.0.2.1"), ("b2", CELL, "192.0.2.2")):
        ok = answer(offered, 200, contact, tag)
        ok.add("Record-Route", f"<sip:{proxy};lr>")
        cluster.one(ok)
    for tag, contact, proxy in (("b1", DESK, "192.0.2.1"), ("b2", CELL, "192.0.2.2")):
        both = [("Route", "<sip:192.0.2.1;lr>, <sip:192.0.2.2;lr>")]
        branch = f"z9hG4bK{tag}"
        bye = phone_request(
            "BYE", contact.strip("<>"), to_tag=tag, cseq=2, branch=branch, fields=both
        )
        assert cluster.one(bye).get("Route") == f"<sip:{proxy};lr>"


def test_any_number_of_forks_is_remembered_within_bounds(cluster):
    offered = cluster.one(invite())
    for number in range(60):
        cluster.one(answer(offered, 180, f"<sip:bob@127.0.0.1:{6000 + number}>", f"t{number}"))
    cluster.one(answer(offered, 200, DESK, "b1"))
    speak(cluster, "ACK", "b1", DESK, cseq=1)
    speak(cluster, "BYE", "b1", DESK)
    assert cluster.bill().final and len(cluster.get(Call, "c1").dialogs) <= 16


# -- spirals ------------------------------------------------------------------------------------


def pbx(sent: Request, uri=CAROL, branch="z9hG4bKpbx", records=False) -> Request:
    """What Bob's PBX, a proxy, makes of a request, as it leaves the forwarder once more."""
    onward = sent.copy()
    onward.uri = uri
    onward.push("Via", f"SIP/2.0/UDP 127.0.0.1:4100;branch={branch}")
    if records:
        onward.push("Record-Route", "<sip:127.0.0.1:4100;lr>")
    onward.push("Via", f"SIP/2.0/UDP 127.0.0.1:5060;branch={branch}fw")
    return onward


def popped(response, count):
    onward = response.copy()
    for _ in range(count):
        onward.pop("Via")
    return onward


def through(cluster, sent, status, contact=f"<{CAROL_AT}>", tag="k1", at="server1"):
    """Carol's answer as Alice hears it, through the servers, the PBX and the servers again."""
    once = cluster.one(answer(sent, status, contact, tag), at)
    assert once.status == status
    return cluster.one(popped(once, 2), at)


def test_bob_s_pbx_sends_the_call_on_to_carol_and_there_is_one_bill(cluster):
    to_bob = cluster.one(invite())
    to_carol = cluster.one(pbx(to_bob), at="server2")
    assert (to_bob.uri, to_carol.uri, len(to_carol.vias)) == (BOB_AT, CAROL_AT, 6)
    assert through(cluster, to_carol, 180).status == 180 and cluster.bill().state == "ringing"
    ok = through(cluster, to_carol, 200, at="server2")
    assert [via.sent_by for via in ok.vias] == ["127.0.0.1:5060", "127.0.0.1:4000"]
    assert speak(cluster, "ACK", "k1", CAROL_AT, cseq=1).uri == CAROL_AT
    cluster.now += 12
    assert speak(cluster, "BYE", "k1", CAROL_AT, by="bob", at="server2").uri == ALICE_AT
    bills = Transaction(cluster.store).scan(Bill)
    assert [(bill.call_id, bill.caller, bill.callee) for bill in bills] == [("c1", "alice", "bob")]
    assert (cluster.bill().seconds, cluster.bill().total, cluster.bill().final) == (
        12,
        "0.20",
        True,
    )


def test_both_legs_of_a_spiral_are_said_again_and_cancelled_each_at_its_own_phone(cluster):
    to_bob = cluster.one(invite())
    to_carol = cluster.one(pbx(to_bob))
    again, once_more = cluster.one(invite(), at="server2"), cluster.one(pbx(to_bob), at="server2")
    assert (again.uri, again.via.branch) == (BOB_AT, to_bob.via.branch)
    assert (once_more.uri, once_more.via.branch) == (CAROL_AT, to_carol.via.branch)
    through(cluster, to_carol, 180)
    cancel = cluster.one(phone_request("CANCEL", "sip:bob@failover.test"))
    assert (cancel.uri, cancel.via.branch) == (BOB_AT, to_bob.via.branch)
    hop = phone_request("CANCEL", CAROL)  # by the PBX itself: one Via of its own (RFC 3261 9.1)
    hop.remove("Via")
    hop.push("Via", "SIP/2.0/UDP 127.0.0.1:4100;branch=z9hG4bKpbx")
    hop.push("Via", "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKpbxfw")
    cancelled = cluster.one(hop, at="server2")
    assert (cancelled.uri, cancelled.via.branch) == (CAROL_AT, to_carol.via.branch)
    assert through(cluster, to_carol, 487).status == 487
    assert (cluster.bill().why, cluster.bill().total) == ("alice gave up before an answer", "0.00")


def test_carol_declines_and_the_pbx_lets_bob_s_own_phone_answer(cluster):
    to_bob = cluster.one(invite())
    declined = cluster.one(answer(cluster.one(pbx(to_bob)), 603, tag="k1"))
    assert declined.status == 603 and not cluster.bill().final, "that is the PBX's business so far"
    cluster.one(answer(to_bob, 200))
    cluster.one(in_dialog("ACK", cseq=1))
    assert cluster.bill().state == "answered"


def test_a_pbx_that_stays_in_the_way_sees_every_request_of_the_call(cluster):
    """It records its route: what Alice says passes the servers twice, asked for one contact."""
    to_bob = cluster.one(invite())
    to_carol = cluster.one(pbx(to_bob, records=True))
    ok = answer(to_carol, 200, f"<{CAROL_AT}>", "k1")
    ok.add("Record-Route", "<sip:127.0.0.1:4100;lr>")
    once = cluster.one(ok)
    assert cluster.one(popped(once, 2)).status == 200
    for method, cseq in (("ACK", 1), ("INFO", 2), ("BYE", 3)):
        asked = phone_request(
            method,
            CAROL_AT,
            to_tag="k1",
            cseq=cseq,
            branch=f"z9hG4bKx{cseq}",
            fields=[("Route", "<sip:127.0.0.1:4100;lr>")],
        )
        first = cluster.one(asked)
        assert first.get("Route") == "<sip:127.0.0.1:4100;lr>"
        first.remove("Route")
        second = cluster.one(pbx(first, CAROL_AT, f"z9hG4bKpbx{cseq}"), at="server2")
        assert (second.method, second.uri, second.get("Route")) == (method, CAROL_AT, None)
    assert cluster.bill().final


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_spiral_that_comes_back_to_a_user_who_was_asked_is_a_loop(cluster, rounds):
    cluster.one(register("carol", f"<{CAROL_AT}>", cseq=2, call_id="r-carol"))
    sent, users = cluster.one(invite()), [CAROL, "sip:bob@failover.test"]
    for number in range(rounds - 1):
        sent = cluster.one(pbx(sent, users[number], f"z9hG4bKr{number}"))
    back = "sip:bob@failover.test;again=1"
    assert cluster.one(pbx(sent, back, "z9hG4bKlast"), at="server2").status == 482


def test_a_spiral_is_bounded(cluster):
    for number in range(20):
        cluster.one(
            register(
                f"u{number}", f"<sip:u{number}@127.0.0.1:{7000 + number}>", call_id=f"r{number}"
            )
        )
    sent, said = cluster.one(invite()), []
    for number in range(20):
        last = cluster.one(pbx(sent, f"sip:u{number}@failover.test", f"z9hG4bKs{number}"))
        if not isinstance(last, Request):
            said.append(last.status)
            break
        sent = last
    assert said == [482] and len(cluster.get(Call, "c1").legs) < 10


def test_the_pbx_is_not_asked_for_alice_s_password_once_more():
    """She has proven it, and the PBX could not."""
    guarded = Cluster(users={"alice": "wonderland", "bob": "builder", "carol": "carol"})
    for user, password, contact in (("bob", "builder", BOB_AT), ("carol", "carol", CAROL_AT)):
        asked = register(user, f"<{contact}>", call_id=f"r-{user}")
        again = register(user, f"<{contact}>", call_id=f"r-{user}", cseq=2)
        assert guarded.one(proven(again, guarded.one(asked), user, password)).status == 200
    challenged = guarded.one(invite())
    to_bob = guarded.one(proven(invite(cseq=2), challenged, "alice", "wonderland"))
    assert guarded.one(pbx(to_bob), at="server2").uri == CAROL_AT


def proven(request, challenged, user, password):
    name = "WWW" if request.method == "REGISTER" else "Proxy"
    challenge = Challenge.parse(challenged.get(f"{name}-Authenticate"))
    credentials = solve(challenge, request.method, request.uri, user, password, cnonce="cn")
    request.add("Authorization" if name == "WWW" else "Proxy-Authorization", str(credentials))
    return request


def test_nobody_talks_by_an_answer_that_the_one_who_sent_the_call_on_keeps_from_its_caller(cluster):
    """Alice's second phone, as Bob, swallows Carol's 200: without a bill nobody is to be put
    through."""
    to_bob = cluster.one(invite())
    to_carol = cluster.one(pbx(to_bob))
    cluster.one(answer(to_carol, 200, f"<{CAROL_AT}>", "k1"))
    told = {"to": "<sip:bob@failover.test>", "to_tag": "k1"}
    ack = phone_request("ACK", CAROL_AT, cseq=1, branch="z9hG4bKack", **told)
    assert cluster.receive(ack) == [], "so Carol's phone gives it up"
    assert speak(cluster, "INFO", "k1", CAROL_AT, cseq=2).status == 481
    assert speak(cluster, "BYE", "k1", CAROL_AT, cseq=3).uri == CAROL_AT


def test_what_only_looks_like_a_spiral_does_not_get_in(cluster):
    """Nobody but a phone that was called has a Via of ours to show."""
    cluster.one(invite())
    assert cluster.one(invite(uri=CAROL, branch="z9hG4bKfree")).status == 482


def test_a_b2bua_that_keeps_the_call_id_makes_a_call_of_its_own(cluster):
    """Two dialogs, two callers who prove who they are, two bills."""
    to_bob = cluster.one(invite())
    beside = {"user": "bob", "tag": "p1", "branch": "z9hG4bKb2b"}
    to_carol = cluster.one(invite(uri=CAROL, contact=f"<{BOB_AT}>", **beside))
    assert to_carol.uri == CAROL_AT
    assert (
        cluster.one(invite(uri=CAROL, contact=f"<{BOB_AT}>", **beside), at="server2").via.branch
        == to_carol.via.branch
    )
    cluster.one(answer(to_carol, 200, f"<{CAROL_AT}>", "k1"), at="server2")
    cluster.one(answer(to_bob, 200))
    mine = {"user": "bob", "tag": "p1", "to": f"<{CAROL}>", "to_tag": "k1"}
    assert cluster.one(phone_request("ACK", CAROL_AT, branch="z9hG4bKack", **mine)).uri == CAROL_AT
    assert cluster.one(in_dialog("ACK", cseq=1)).uri == BOB_AT
    cluster.now += 12
    assert cluster.one(in_dialog("BYE")).uri == BOB_AT
    bills = {
        bill.callee: cluster.bill(bill.call_id) for bill in Transaction(cluster.store).scan(Bill)
    }
    assert (bills["bob"].final, bills["carol"].final) == (True, False)
    cluster.now += 1
    bye = phone_request(
        "BYE", BOB_AT, "carol", to="<sip:bob@failover.test>", to_tag="p1", tag="k1", cseq=1
    )
    assert cluster.one(bye).uri == BOB_AT
    bills = {
        bill.callee: cluster.bill(bill.call_id).seconds
        for bill in Transaction(cluster.store).scan(Bill)
    }
    assert bills == {"bob": 12, "carol": 13}


def test_the_cancel_and_ack_of_a_proxy_beside_alice_s_phone_follow_her_invite(cluster):
    """Hop by hop: they have the proxy's Via alone (RFC 3261 9.1, 17.1.1.3)."""
    asked = invite()
    via = asked.all("Via")[1]
    asked.remove("Via")
    for value in (
        via,
        "SIP/2.0/UDP 192.0.2.33;branch=z9hG4bKp",
        "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKf",
    ):
        asked.push("Via", value)
    sent = cluster.one(asked)
    for method, to_tag in (("CANCEL", ""), ("ACK", "b1")):
        hop = phone_request(method, "sip:bob@failover.test", to_tag=to_tag)
        hop.remove("Via")
        hop.push("Via", "SIP/2.0/UDP 192.0.2.33;branch=z9hG4bKp")
        hop.push("Via", "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKf")
        onward = cluster.one(hop, at="server2")
        assert (onward.method, onward.uri, onward.via.branch) == (method, BOB_AT, sent.via.branch)
    assert cluster.bill().why == "alice gave up before an answer"
