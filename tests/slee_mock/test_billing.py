"""Bills: integer money, started units, shares that add up, and the first time that is told wins."""

from __future__ import annotations

from dataclasses import replace

import pytest
from slee_kit import (
    Cluster,
    answer,
    in_dialog,
    invite,
    make_bill,
    phone_request,
    register,
)

from slee_mock.container.events import CallAnswered, CallCancelled, CallEnded, CallRang
from slee_mock.services.bill_record import Bill, ServedBy, total_at, with_event
from slee_mock.services.tariff import Tariff

OFFERED = make_bill(
    offered=100.0,
    caller="Alice",
    callee="Bob",
    answered=None,
    ended=None,
    why="",
    carriers=(ServedBy("server1", 100.0),),
)


def after(*events, bill=OFFERED):
    for event in events:
        bill = with_event(bill, event)
    return bill


def answered(at=110.0, ended=None, carriers=OFFERED.carriers, tariff=OFFERED.tariff):
    return replace(
        OFFERED,
        answered=at,
        ended=ended,
        why="Alice hung up",
        carriers=carriers,
        tariff=tariff,
    )


@pytest.mark.parametrize(
    ("text", "tariff"),
    [
        ("0.10+0.05/10s", Tariff(10, 5, 10, 2)),
        ("0+1/60s", Tariff(0, 100, 60, 2)),
        ("0.1 + 0.005 / 1s", Tariff(100, 5, 1, 3)),
    ],
)
def test_tariffs_are_whole_minor_units(text, tariff):
    assert Tariff.parse(text) == tariff


@pytest.mark.parametrize(
    "text", ["", "free", "0.10", "0.10+0.05", "0.10+0.05/0s", "-1+1/1s", "1e3+1/1s", "0,1+1/1s"]
)
def test_what_is_no_tariff_is_told_with_an_example(text):
    with pytest.raises(ValueError, match=r"as in 0\.10\+0\.05/10s"):
        Tariff.parse(text)


@pytest.mark.parametrize(
    ("length", "seconds", "units", "total"),
    [
        (0.0, 0, 1, "0.15"),  # answering starts a unit
        (0.4, 0, 1, "0.15"),
        (9.999, 9, 1, "0.15"),
        (10.0, 10, 1, "0.15"),
        (10.001, 10, 2, "0.20"),
        (12.3, 12, 2, "0.20"),
        (86_400.0, 86_400, 8_640, "432.10"),
    ],
)
def test_every_started_unit_counts(length, seconds, units, total):
    bill = total_at(answered(ended=110.0 + length), now=1e6)
    assert (bill.seconds, bill.units, bill.total, bill.final) == (seconds, units, total, True)


def test_a_running_call_is_billed_until_now():
    assert total_at(answered(), now=121.5) == total_at(answered(), now=121.5)
    running = total_at(answered(), now=121.5)
    assert (running.state, running.seconds, running.total, running.final) == (
        "answered",
        11,
        "0.20",
        False,
    )


def test_a_call_nobody_answered_costs_nothing():
    bill = total_at(after(CallRang("c1", 101.0), CallEnded("c1", 105.0, "Bob is busy")), now=200.0)
    assert (bill.state, bill.seconds, bill.units, bill.total, bill.final) == (
        "ended",
        0,
        0,
        "0.00",
        True,
    )
    assert bill.why == "Bob is busy"


def test_the_first_answer_and_the_first_hang_up_win():
    bill = after(
        CallAnswered("c1", 110.0),
        CallAnswered("c1", 130.0),
        CallEnded("c1", 120.0, "Alice hung up"),
        CallEnded("c1", 125.0, "Bob hung up"),
        CallRang("c1", 140.0),
    )
    assert (bill.answered, bill.ended, bill.why) == (110.0, 120.0, "Alice hung up")


def test_nothing_that_comes_late_changes_a_bill_whose_call_has_ended():
    busy = after(CallEnded("c1", 105.0, "Bob is busy"))
    late = (
        CallRang("c1", 106.0),
        CallCancelled("c1", 106.0, "Alice gave up"),
        CallAnswered("c1", 106.0),
    )
    assert after(*late, bill=busy) == busy


def test_every_state_has_a_sentence():
    assert total_at(OFFERED, 101.0).why == "Calling Bob"
    assert total_at(after(CallRang("c1", 101.0)), 102.0).why == "Bob's phone is ringing"
    assert total_at(answered(), 120.0).why == "Alice and Bob are talking"
    assert (
        total_at(after(CallCancelled("c1", 103.0, "Alice gave up")), 104.0).why == "Alice gave up"
    )


def test_a_call_that_nobody_answered_and_nobody_ended_does_not_ring_for_ever():
    bill = total_at(after(CallRang("c1", 101.0)), now=100.0 + 201)
    assert (bill.state, bill.why, bill.final) == ("ended", "Bob did not answer", True)


def test_a_call_whose_answer_came_after_its_end_costs_nothing():
    """Both were kept while no server lived, and answers have no time of their own."""
    bill = total_at(answered(at=110.0, ended=50.0), now=140.0)
    assert (bill.state, bill.ended, bill.seconds, bill.units, bill.total) == (
        "ended",
        50.0,
        0,
        0,
        "0.00",
    )
    assert bill.carried == (("server1", 0),)
    assert bill.why == "Alice hung up; Alice's phone heard of the answer only after that"


@pytest.mark.parametrize(
    ("since", "shares"),
    [
        ((117.6,), (("server1", 7), ("server2", 5))),
        ((117.6, 118.2), (("server1", 7 + 4), ("server2", 1))),
        ((105.0,), (("server2", 12),)),  # took over before the answer
        ((122.9,), (("server1", 12), ("server2", 0))),
        ((500.0,), (("server1", 12), ("server2", 0))),
    ],
)
def test_the_servers_shares_add_up_to_the_calls_seconds(since, shares):
    names = ("server2", "server1")
    carriers = (
        ServedBy("server1", 100.0),
        *(ServedBy(names[i % 2], each) for i, each in enumerate(since)),
    )
    bill = total_at(answered(ended=122.95, carriers=carriers), now=1e6)
    assert bill.carried == shares
    assert sum(seconds for _, seconds in bill.carried) == bill.seconds == 12


def test_a_tariff_is_fixed_when_the_call_is_offered():
    assert total_at(answered(ended=111.0, tariff="1+2/1s"), now=1e6).total == "3.00"


# -- in the cluster --------------------------------------------------------------------------------


def start_call():
    cluster = Cluster()
    cluster.sign("server1", "server2")
    cluster.one(register())
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.one(in_dialog("ACK", cseq=1))
    return cluster


def test_a_dead_servers_share_ends_at_its_last_sign_of_life():
    cluster = start_call()
    cluster.now += 7
    cluster.sign("server1")  # its last
    cluster.now += 5
    cluster.sign("server2")
    cluster.one(in_dialog("BYE"), at="server2")
    assert cluster.bill().carried == (("server1", 7), ("server2", 5))


def test_a_server_that_died_an_instant_ago_carried_until_now():
    cluster = start_call()
    cluster.now += 7.2
    cluster.sign("server1", "server2")
    cluster.now += 0.4
    cluster.one(in_dialog("OPTIONS"), at="server2")
    cluster.now += 5
    cluster.one(in_dialog("BYE", cseq=3), at="server2")
    assert cluster.bill().carried == (("server1", 7), ("server2", 5))


def test_a_returned_server_carries_again():
    cluster = start_call()
    for server in ("server2", "server1", "server2"):
        cluster.now += 2
        cluster.sign("server1", "server2")
        cluster.one(in_dialog("OPTIONS"), at=server)
    cluster.now += 2
    cluster.one(in_dialog("BYE", cseq=3), at="server2")
    assert cluster.bill().carried == (("server1", 4), ("server2", 4))


def test_the_callers_names_come_from_the_messages_and_the_registration():
    cluster = Cluster()
    bob = register().to_bytes().replace(b"To: <sip:bob", b'To: "Bob the Builder" <sip:bob')
    cluster.one(bob)
    call = invite().to_bytes().replace(b"From: <sip:alice", b'From: "Alice \\"A.\\"" <sip:alice')
    cluster.one(call)
    bill = cluster.get(Bill, "c1")
    assert (bill.caller, bill.callee) == ('Alice "A."', "Bob the Builder")
    cluster.one(phone_request("CANCEL", "sip:bob@failover.test"))
    assert cluster.bill().why == 'Alice "A." gave up before an answer'
