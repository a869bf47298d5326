"""Nobody is billed for an answer that the caller has not heard of, whatever a returning server is
told first."""

from __future__ import annotations

from itertools import permutations

import pytest
from prepaid import Account
from slee_kit import (
    Cluster,
    answer,
    in_dialog,
    invite,
    kept,
    make_bill,
    phone_request,
    register,
)

from slee_mock.management import csv_export, snapshot
from slee_mock.services.bill_record import Bill, total_at
from slee_mock.services.call_record import Call
from slee_mock.store.interface import Transaction
from slee_mock.store.records import from_json, to_json

CANCEL = phone_request("CANCEL", "sip:bob@failover.test")
ACK = in_dialog("ACK", cseq=1)
UNHEARD = "alice's phone never acknowledged bob's answer"


@pytest.fixture
def cluster():
    return with_bob()


def with_bob(**context) -> Cluster:
    made = Cluster(**context)
    made.sign("server1", "server2")
    made.one(register(expires="3600"))
    return made


def test_an_answer_that_the_caller_does_not_acknowledge_is_not_billed_and_over_after_32_seconds(
    cluster,
):
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 31
    cluster.tick()
    bill = cluster.bill()
    assert (bill.state, bill.seconds, bill.units, bill.total, bill.final) == (
        "answered",
        0,
        0,
        "0.00",
        False,
    )
    assert bill.why == "bob answered, alice's phone has not acknowledged it yet"
    cluster.now += 1.5
    assert cluster.bill().final, "though no server lives to see it"
    cluster.tick("server2")
    bill = cluster.bill()
    assert (bill.state, bill.why, bill.total, bill.final) == ("ended", UNHEARD, "0.00", True)
    assert (
        cluster.get(Bill, "c1").due is None and cluster.get(Bill, "c1").ended == cluster.now - 0.5
    )
    assert not cluster.tick() and not cluster.store.due(cluster.now, 10), "once is enough"


@pytest.mark.parametrize("proof", ["ACK", "BYE", "INVITE"])
def test_what_the_caller_says_in_the_dialog_proves_that_it_heard_of_the_answer(cluster, proof):
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 12
    cluster.one(in_dialog(proof, contact="<sip:alice@127.0.0.1:4000>"), at="server2")
    assert (cluster.bill().seconds, cluster.bill().total) == (12, "0.20")


@pytest.mark.parametrize("proof", ["ACK", "BYE", "INVITE"])
def test_a_proof_that_comes_after_the_timer_counts(cluster, proof):
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 40
    cluster.tick()
    assert cluster.bill().final
    cluster.one(in_dialog(proof, contact="<sip:alice@127.0.0.1:4000>"))
    assert (cluster.bill().seconds, cluster.bill().total) == (40, "0.30")
    assert cluster.bill().final == (proof == "BYE")


def test_that_the_callee_gives_up_proves_nothing(cluster):
    """RFC 3261 13.3.1.4: it hears no ACK and says BYE."""
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 32
    cluster.one(in_dialog("BYE", by="bob"))
    bill = cluster.bill()
    assert (bill.state, bill.total, bill.why) == ("ended", "0.00", f"bob hung up; {UNHEARD}")


def test_a_hang_up_is_the_end_though_the_timer_was_first(cluster):
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 32.5
    cluster.tick()
    cluster.one(in_dialog("BYE", by="bob"))
    assert (cluster.bill().ended, cluster.bill().total) == (cluster.now, "0.00")


def test_an_acknowledgement_saves_the_bill_alone_and_only_the_first(cluster):
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.one(ACK)
    assert [save.KIND for save in cluster.outcome.writes] == ["bill"]
    cluster.one(ACK)
    assert cluster.outcome.writes == ()


def test_a_2xx_said_again_changes_nothing(cluster):
    offered = cluster.one(invite())
    cluster.one(answer(offered, 200))
    before = cluster.get(Bill, "c1")
    cluster.now += 0.5
    cluster.one(answer(offered, 200))
    assert cluster.outcome.writes == () and cluster.get(Bill, "c1") == before
    cluster.one(ACK)
    acknowledged = cluster.get(Bill, "c1")
    cluster.now += 0.5
    cluster.one(answer(offered, 200), at="server1")
    assert cluster.get(Bill, "c1") == acknowledged


def test_a_bill_of_an_older_version_keeps_its_total():
    old = to_json(make_bill("c9", 1.0))
    old = old.replace(',"acknowledged":0.0,"presumed":false', "")
    assert "acknowledged" not in old
    assert total_at(from_json(Bill, old), 20.0).total == "0.20"


def test_pages_and_tables_tell_which_bills_were_not_acknowledged(cluster):
    cluster.one(answer(cluster.one(invite()), 200))
    (told,), _ = snapshot.bills(Transaction(cluster.store), 1, None, cluster.now)
    assert (told["acknowledged"], told["presumed"], told["units"]) == (False, False, 0)
    cluster.now += 33
    cluster.tick()
    (told,), _ = snapshot.bills(Transaction(cluster.store), 1, None, cluster.now)
    assert (told["acknowledged"], told["presumed"], told["total"]) == (False, True, "0.00")
    cells = dict(zip(csv_export.HEADER, csv_export.table([told]).strip().split(","), strict=True))
    assert (cells["why"], cells["total"], cells["talk_seconds"]) == (UNHEARD, "0.00", "0")


# -- CANCEL and the answer cross -------------------------------------------------------------------


@pytest.mark.parametrize("first", ["CANCEL", "200"])
def test_an_answer_that_crosses_the_cancel_is_acknowledged_and_left_and_costs_nothing(
    cluster, first
):
    """RFC 3261 9.1, 15: the caller's phone has to ACK and say BYE, though its person hung up
    before."""
    offered = cluster.one(invite())
    cluster.now += 5
    if first == "CANCEL":
        cluster.one(CANCEL)
        cluster.now += 0.01
        cluster.one(answer(offered, 200))
    else:
        cluster.one(answer(offered, 200))
        cluster.now += 0.01
        cluster.one(CANCEL)
    cluster.now += 0.01
    cluster.one(ACK)
    cluster.now += 0.01
    cluster.one(in_dialog("BYE"))
    bill = cluster.bill()
    assert (bill.state, bill.units, bill.total) == ("ended", 0, "0.00")
    assert bill.why.startswith("alice gave up before an answer")


def test_who_cancels_and_talks_all_the_same_pays(cluster):
    offered = cluster.one(invite())
    cluster.one(CANCEL)
    cluster.one(answer(offered, 200))
    cluster.one(ACK)
    cluster.now += 25
    cluster.one(in_dialog("BYE"))
    assert (cluster.bill().seconds, cluster.bill().total) == (25, "0.25")


# -- both servers were away: every order in which one that is back can be told ---------------------


def is_possible(order: tuple[str, ...]) -> bool:
    return all(order.index("200") < order.index(each) for each in ("ACK", "BYE"))


ORDERS = list(filter(is_possible, permutations(["INVITE", "200", "CANCEL", "ACK", "BYE"])))


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_no_order_of_giving_up_answer_and_return_makes_a_bill_without_talk(cluster, order):
    """Bob's phone rings, the servers die; 3 s later Alice gives up, 6 s later Bob answers; they are
    back after 10 s. ACK and BYE are what Alice's phone says to an answer that comes after all."""
    offered = cluster.one(invite())
    cluster.one(answer(offered, 180))
    cluster.now += 10
    gave_up = cluster.now - 7
    told = {
        "INVITE": kept(invite(), 9.5),
        "CANCEL": kept(CANCEL, 7.0),
        "ACK": ACK,
        "BYE": in_dialog("BYE"),
    }
    for number, each in enumerate(order):
        cluster.receive(
            answer(offered, 200) if each == "200" else told[each],
            at=("server1", "server2")[number % 2],
        )
        cluster.now += 0.02
    cluster.now += 33
    cluster.tick()
    bill = cluster.bill()
    assert (bill.final, bill.units, bill.total) == (True, 0, "0.00"), bill.why
    record = cluster.get(Bill, "c1")
    assert record.offered <= gave_up <= record.ended


@pytest.mark.parametrize("order", list(permutations(["INVITE", "200", "BYE"])), ids=" ".join)
def test_who_answers_and_hangs_up_while_no_server_lives_has_not_talked(cluster, order):
    """Bob answers, hears no ACK and hangs up; then the servers are back, and Alice's phone
    acknowledges in the end."""
    offered = cluster.one(invite())
    cluster.one(answer(offered, 180))
    cluster.now += 40
    told = {"INVITE": kept(invite(), 39.5), "BYE": kept(in_dialog("BYE", by="bob"), 3.0)}
    for each in order:
        cluster.receive(answer(offered, 200) if each == "200" else told[each], at="server2")
    cluster.now += 0.02
    cluster.receive(ACK, at="server2")
    cluster.now += 33
    cluster.tick()
    assert (cluster.bill().final, cluster.bill().total) == (True, "0.00"), cluster.bill().why


def test_who_talked_before_the_outage_pays_for_that_and_no_more(cluster):
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 0.02
    cluster.one(ACK)
    cluster.now += 500
    cluster.one(kept(in_dialog("BYE", by="bob"), 488.5), at="server2")
    assert (cluster.bill().seconds, cluster.bill().total) == (11, "0.20")


def test_an_ack_that_was_kept_counts_from_when_it_was_said(cluster):
    """The answer passed, both servers died; ACK and Bob's hang-up wait for their return."""
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.now += 60
    cluster.tick()
    assert cluster.bill().why == UNHEARD
    cluster.one(kept(ACK, 59.9))
    cluster.one(kept(in_dialog("BYE", by="bob"), 48.0))
    assert (cluster.bill().seconds, cluster.bill().total, cluster.bill().why) == (
        12,
        "0.20",
        "bob hung up",
    )


def test_whoever_was_refused_is_not_billed_for_a_phone_that_answers(cluster):
    offered = cluster.one(invite())
    cluster.one(answer(offered, 486))
    cluster.one(answer(offered, 200))
    cluster.one(ACK)
    cluster.now += 12
    cluster.one(in_dialog("BYE", by="bob"))
    assert (cluster.bill().total, cluster.bill().why) == ("0.00", "bob is busy")
    assert not cluster.get(Call, "c1").confirmed


# -- prepaid ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("proof", ["", "ACK", "BYE"])
def test_a_prepaid_caller_gets_back_what_was_kept_for_an_answer_that_it_never_heard_of(
    tmp_path, proof
):
    (tmp_path / "balances").write_text("alice:1.00")
    cluster = with_bob(deploy=(f"prepaid:{tmp_path / 'balances'}",))
    cluster.one(answer(cluster.one(invite()), 200))
    assert cluster.get(Account, "alice").used(cluster.now) == 150_000
    cluster.now += 33
    cluster.tick()
    account = cluster.get(Account, "alice")
    assert account.used(cluster.now) == 0 and account.calls == () and account.due is None
    if proof:
        cluster.one(in_dialog(proof, cseq=1 if proof == "ACK" else 2))
        cluster.one(in_dialog("BYE", cseq=2))
        account = cluster.get(Account, "alice")
        assert (account.spent, cluster.bill().total, account.calls) == (300_000, "0.30", ())
