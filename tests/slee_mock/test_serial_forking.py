"""Stories of a user with several phones: the best one rings; if it says nothing, the next."""

from __future__ import annotations

import pytest
from slee_kit import Cluster, answer, in_dialog, invite, phone_request, register

from slee_mock.services.bill_record import Bill
from slee_mock.services.call_record import Call, Search
from slee_mock.store.interface import Transaction

LIVING, CRASHED, THIRD = (f"sip:bob@127.0.0.1:{port}" for port in (4100, 4200, 4300))


def cluster_with(*contacts: str) -> Cluster:
    """Bob's phones; the one that registered last is the best."""
    made = Cluster()
    made.sign("server1", "server2")
    for number, contact in enumerate(contacts):
        made.now += 1
        made.one(register(contact=f"<{contact}>", call_id=f"r{number}", expires="3600"))
    return made


@pytest.fixture
def cluster():
    return cluster_with(LIVING, CRASHED)


def tick(cluster, seconds, at="server1"):
    """Whatever the servers send by themselves meanwhile."""
    sent = []
    for _ in range(round(seconds * 2)):
        cluster.now += 0.5
        sent += cluster.tick(at)
    return sent


def test_a_crashed_phone_that_registered_last_does_not_hide_the_one_that_lives(cluster):
    first = cluster.one(invite())
    assert first.uri == CRASHED
    assert tick(cluster, 1.5) == []
    (second,) = tick(cluster, 1.0)
    assert (second.method, second.uri, second.body) == ("INVITE", LIVING, first.body)
    assert second.via.branch != first.via.branch and second.vias[1:] == first.vias[1:]
    ringing = cluster.one(answer(second, 180, f"<{LIVING}>"))
    assert [via.sent_by for via in ringing.vias] == ["127.0.0.1:5060", "127.0.0.1:4000"]
    cluster.one(answer(second, 200, f"<{LIVING}>"))
    assert cluster.one(in_dialog("ACK", cseq=1)).uri == LIVING
    cluster.now += 12
    assert cluster.one(in_dialog("BYE")).uri == LIVING
    assert (cluster.bill().seconds, cluster.bill().total) == (12, "0.20")
    assert [bill.call_id for bill in Transaction(cluster.store).scan(Bill)] == ["c1"]


@pytest.mark.parametrize("status", [100, 180, 183])
def test_a_phone_that_says_anything_at_all_is_left_to_ring(cluster, status):
    first = cluster.one(invite())
    cluster.now += 1.9
    assert cluster.one(answer(first, status, f"<{CRASHED}>")).status == status
    assert tick(cluster, 60) == []
    assert cluster.one(answer(first, 200, f"<{CRASHED}>")).status == 200


def test_the_next_phone_is_tried_by_another_server_if_the_first_dies_and_only_once(cluster):
    first = cluster.one(invite(), at="server1")
    (second,) = tick(cluster, 2.0, at="server2")
    assert (second.uri, second.via.sent_by) == (LIVING, "127.0.0.1:5080")
    assert tick(cluster, 1.5, at="server1") == []
    again = cluster.one(invite(), at="server1")
    assert (again.uri, again.via.branch) == (LIVING, second.via.branch), (
        "said again, it goes to the same"
    )
    assert first.via.branch != again.via.branch


def test_all_phones_have_their_turn_and_then_nobody_has(cluster):
    cluster = cluster_with(THIRD, LIVING, CRASHED)
    cluster.one(invite())
    assert [sent.uri for sent in tick(cluster, 30)] == [LIVING, THIRD]
    assert cluster.store.due(cluster.now, 10) == []
    tick(cluster, 180)
    assert cluster.bill().why == "bob did not answer"


def test_a_user_with_one_phone_costs_nothing_more_than_before():
    cluster = cluster_with(LIVING)
    cluster.one(invite())
    assert [save.KIND for save in cluster.outcome.writes] == ["call", "bill"]
    assert tick(cluster, 30) == []


@pytest.mark.parametrize("status", [408, 503])
def test_a_phone_whose_port_is_closed_gives_way_at_once(cluster, status):
    """The forwarder answers for it (RFC 3261 18.4), and its answer is acknowledged here."""
    first = cluster.one(invite())
    ack, second = cluster.receive(answer(first, status, tag="fw"), at="server2")
    assert (ack.method, ack.uri, ack.via.branch, ack.to.tag) == (
        "ACK",
        CRASHED,
        first.via.branch,
        "fw",
    )
    assert (ack.via.sent_by, len(ack.vias)) == (first.via.sent_by, 1)
    assert (second.method, second.uri) == ("INVITE", LIVING)
    assert cluster.one(answer(second, 486)).status == 486, "a person has decided"
    assert cluster.bill().why == "bob is busy"
    follow = cluster.one(phone_request("ACK", "sip:bob@failover.test", to_tag="b1"))
    assert (follow.uri, follow.via.branch) == (LIVING, second.via.branch)


def test_if_nobody_is_there_at_all_the_caller_hears_so(cluster):
    first = cluster.one(invite())
    _, second = cluster.receive(answer(first, 503))
    assert cluster.one(answer(second, 503)).status == 503 and cluster.bill().final


@pytest.mark.parametrize("status", [486, 603, 480, 404])
def test_a_phone_that_refuses_has_answered_for_its_user(cluster, status):
    assert cluster.one(answer(cluster.one(invite()), status)).status == status
    assert tick(cluster, 10) == [] and cluster.bill().final


def test_a_phone_that_wakes_up_while_the_other_rings_is_told_to_stop(cluster):
    first = cluster.one(invite())
    (second,) = tick(cluster, 2.0)
    cluster.one(answer(second, 180, f"<{LIVING}>"))
    cancel = cluster.one(answer(first, 180, f"<{CRASHED}>", tag="late"), at="server2")
    assert (cancel.method, cancel.uri, cancel.via.branch) == ("CANCEL", CRASHED, first.via.branch)
    assert (cancel.via.sent_by, cancel.to.tag) == (first.via.sent_by, "")
    ack = cluster.one(answer(first, 487, tag="late"))
    assert (ack.method, ack.uri, ack.to.tag) == ("ACK", CRASHED, "late")
    assert not cluster.bill().final, "Alice hears nothing of it"
    assert cluster.one(answer(second, 200, f"<{LIVING}>")).status == 200


def test_a_phone_that_is_only_slow_rings_if_the_other_is_the_crashed_one(cluster):
    first = cluster.one(invite())
    tick(cluster, 2.0)
    assert cluster.one(answer(first, 180, f"<{CRASHED}>")).status == 180
    assert tick(cluster, 10) == []
    cancel = cluster.one(phone_request("CANCEL", "sip:bob@failover.test"))
    assert (cancel.uri, cancel.via.branch) == (CRASHED, first.via.branch), "the one that rings"


def test_a_phone_that_answers_late_all_the_same_is_heard_and_the_other_stops(cluster):
    """RFC 3261 16.7: every 2xx is passed on, and the proxy cancels what still rings."""
    first = cluster.one(invite())
    (second,) = tick(cluster, 2.0)
    cluster.one(answer(second, 180, f"<{LIVING}>"))
    ok, cancel = cluster.receive(answer(first, 200, f"<{CRASHED}>", tag="late"))
    assert (ok.status, cancel.method, cancel.uri) == (200, "CANCEL", LIVING)
    assert cancel.via.branch == second.via.branch
    ack = cluster.one(answer(second, 487))
    assert (ack.method, ack.uri) == ("ACK", LIVING)
    bye = in_dialog("BYE")
    bye.uri, to = CRASHED, bye.get("To")
    bye.set("To", to.replace("b1", "late"))
    assert cluster.one(bye).uri == CRASHED and cluster.bill().why == "alice hung up"


def test_a_caller_who_gives_up_makes_no_other_phone_ring(cluster):
    cluster.one(invite())
    assert cluster.one(phone_request("CANCEL", "sip:bob@failover.test")).uri == CRASHED
    assert tick(cluster, 30) == [] and cluster.bill().why == "alice gave up before an answer"


def test_a_binding_that_was_removed_meanwhile_is_not_tried(cluster):
    cluster.one(invite())
    cluster.one(register(contact=f"<{LIVING}>;expires=0", call_id="r0", cseq=2))
    assert tick(cluster, 5) == []


def test_a_search_is_forgotten_one_day(cluster):
    from slee_mock.services.call_control import CallControl
    from slee_mock.store.purge import Purge

    assert all(line.kind is Search for line in CallControl.keeps)
    for number in range(103):
        cluster.one(invite(call_id=f"x{number}"))
    assert cluster.store.count("search") == 103
    cluster.now += 7200
    Purge(CallControl.keeps).delete_old(Transaction(cluster.store), cluster.now)
    assert cluster.store.count("search") == 100


def test_a_search_survives_that_the_call_is_unknown(cluster):
    cluster.one(invite())
    (place,) = [place for place in cluster.store.rows if place[0] == Call.KIND]
    del cluster.store.rows[place]
    cluster.store.timers.pop(place)
    assert tick(cluster, 5) == [] and cluster.store.due(cluster.now, 10) == []


@pytest.mark.parametrize("status", [408, 503])
def test_a_dead_last_phone_does_not_end_the_call_of_one_that_is_only_slow(cluster, status):
    first = cluster.one(invite())
    (second,) = tick(cluster, 2.0)
    (acked,) = cluster.receive(answer(second, status, contact="", tag="fw"))
    assert (acked.method, acked.uri) == ("ACK", LIVING) and not cluster.bill().final
    again = cluster.one(invite(), at="server2")
    assert (again.uri, again.via.branch) == (CRASHED, first.via.branch), (
        "it may have missed the first one"
    )
    assert cluster.one(answer(first, 180, f"<{CRASHED}>")).status == 180
    assert cluster.one(answer(first, 200, f"<{CRASHED}>"), at="server2").status == 200
    assert cluster.one(in_dialog("ACK", cseq=1)).uri == CRASHED
    assert cluster.bill().state == "answered"


def test_once_nobody_is_at_any_of_them_the_caller_hears_it(cluster):
    first = cluster.one(invite())
    (second,) = tick(cluster, 2.0)
    cluster.one(answer(second, 503, contact="", tag="fw"))
    assert cluster.one(answer(first, 503, contact="", tag="fw")).status == 503
    assert cluster.bill().final


def test_a_slow_phone_that_rings_after_its_caller_gave_up_is_told_at_once(cluster):
    first = cluster.one(invite())
    tick(cluster, 2.0)
    assert cluster.one(phone_request("CANCEL", "sip:bob@failover.test")).uri == LIVING
    ringing, cancel = cluster.receive(answer(first, 180, f"<{CRASHED}>"))
    assert (ringing.status, cancel.method, cancel.uri) == (180, "CANCEL", CRASHED)
    assert cancel.via.branch == first.via.branch
