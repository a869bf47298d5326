"""What a busy server has received in one turn is saved at once: each message is handled as if it
had come alone."""

from __future__ import annotations

import pytest
from slee_kit import Cluster, DictStore, answer, in_dialog, invite, phone_request, register

from slee_mock.services.bill_record import Bill
from slee_mock.services.call_record import Call
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Member


class CountingStore(DictStore):
    saves = 0

    def save(self, changes):
        super().save(changes)
        self.saves += 1


@pytest.fixture
def cluster():
    made = Cluster(store=CountingStore())
    made.receive(register())
    made.store.saves = 0
    return made


def sent(messages):
    return [
        (message.call_id, getattr(message, "method", None) or message.status)
        for message in messages
    ]


def test_messages_of_many_calls_are_saved_once_and_each_is_sent_on(cluster):
    invites = [invite(call_id=f"c{n}") for n in range(8)]
    offered = cluster.receive_all(invites)
    assert sent(offered) == [(f"c{n}", "INVITE") for n in range(8)] and cluster.store.saves == 1
    cluster.now += 2.0
    assert sent(cluster.receive_all([answer(each, 200) for each in offered])) == [
        (f"c{n}", 200) for n in range(8)
    ]
    assert cluster.store.saves == 2
    assert all(
        cluster.get(Call, f"c{n}").confirmed and cluster.bill(f"c{n}").state == "answered"
        for n in range(8)
    )


def test_what_comes_later_in_the_same_turn_sees_what_came_before(cluster):
    offered = cluster.one(invite())
    messages = [
        answer(offered, 180),
        answer(offered, 200),
        in_dialog("ACK", cseq=1),
        in_dialog("BYE"),
        invite(),
    ]
    assert sent(cluster.receive_all(messages)) == [
        ("c1", 180),
        ("c1", 200),
        ("c1", "ACK"),
        ("c1", "BYE"),
    ]
    assert cluster.store.saves == 2, "the INVITE's, and one for all"
    bill = cluster.get(Bill, "c1")
    assert (cluster.bill().state, bill.rang, bill.answered, bill.ended) == (
        "ended",
        *[cluster.now] * 3,
    )


def test_what_another_server_saves_meanwhile_is_not_overwritten(cluster):
    """Nothing of it all is saved then, and each message is decided anew, by what the other has
    saved."""
    first, second = (cluster.one(invite(call_id=f"c{n}")) for n in (1, 2))
    cluster.receive(answer(first, 200))
    cluster.store.before_save = lambda: cluster.receive(
        in_dialog("BYE", by="bob", call_id="c1"), at="server2"
    )
    assert sent(cluster.receive_all([answer(second, 200), in_dialog("BYE", call_id="c1")])) == [
        ("c2", 200),
        ("c1", "BYE"),
    ]
    assert cluster.get(Bill, "c1").why == "bob hung up" and cluster.bill("c2").state == "answered"


def test_all_of_a_turn_is_refused_or_waits_while_the_store_is_down(cluster):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 200))
    cluster.now += 7.0
    cluster.store.down = True
    told = cluster.receive_all(
        [invite(call_id="c2"), in_dialog("BYE"), phone_request("OPTIONS", "sip:bob@x")]
    )
    assert sent(told) == [("c2", 503), ("c1", "BYE"), ("c1", 503)]
    cluster.store.down = False
    cluster.now += 9.0
    begun = cluster.receive_all([invite(call_id="c3"), invite(call_id="c4")])
    assert sent(begun) == [("c3", "INVITE"), ("c4", "INVITE")]
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 7)


def test_a_hang_up_that_waited_for_the_store_counts_before_what_comes_with_many_others(cluster):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 200))
    cluster.store.down = True
    cluster.receive(in_dialog("BYE"))
    cluster.store.down = False
    cluster.now += 30.0
    cluster.receive_all([in_dialog("BYE", by="bob", cseq=5), invite(call_id="c2")])
    assert cluster.bill().why == "alice hung up" and cluster.nodes["server1"].degraded.deferred == 0


def test_a_turn_that_saves_nothing_asks_the_store_for_nothing(cluster):
    unknown = [in_dialog("BYE", call_id=f"c{n}") for n in range(3)]
    assert sent(cluster.receive_all(unknown)) == [(f"c{n}", 481) for n in range(3)]
    assert cluster.store.saves == 0


def test_what_an_event_that_failed_has_put_is_not_read_by_the_next_one_of_the_turn():
    transaction = Transaction(DictStore())
    transaction.put([Member("server1", "first")])
    before = transaction.savepoint()
    transaction.put([Member("server1", "second"), Member("server2", "second")])
    transaction.roll_back(before)
    assert transaction.read(Member, "server1") == Member("server1", "first")
    assert transaction.read(Member, "server2") is None
