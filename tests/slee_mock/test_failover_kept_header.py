"""What a forwarder kept while no server lived is billed to its own time, and nobody else can say
how long that was."""

from __future__ import annotations

import socket

import pytest
from slee_kit import (
    FORWARDER,
    Cluster,
    answer,
    cluster_with_bob,
    in_dialog,
    invite,
    kept,
    phone_request,
    register,
)

from plumbing.address import Address
from slee_mock.server import Server
from slee_mock.services.bill_record import Bill
from slee_mock.services.call_record import Call
from slee_mock.settings import Settings
from slee_mock.store.interface import Transaction
from slee_mock.store.sqlite_store import SqliteStore

CANCEL = phone_request("CANCEL", "sip:bob@failover.test")


@pytest.fixture
def cluster():
    return cluster_with_bob()


def talk(cluster: Cluster) -> None:
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.one(in_dialog("ACK", cseq=1))


@pytest.mark.parametrize("by", ["alice", "bob"])
@pytest.mark.parametrize("outage", [10, 4000.0])
def test_a_bye_that_was_kept_ends_the_bill_when_the_phone_hung_up(cluster, by, outage):
    talk(cluster)
    cluster.now += 12.5 + outage
    onward = cluster.one(kept(in_dialog("BYE", by=by), outage), at="server2")
    assert (onward.method, onward.get("Failover-Kept")) == ("BYE", None)
    bill = cluster.bill()
    assert (bill.state, bill.seconds, bill.total, bill.why) == (
        "ended",
        12,
        "0.20",
        f"{by} hung up",
    )
    assert bill.ended == cluster.now - outage


def test_a_cancel_that_was_kept_ends_the_bill_when_the_phone_gave_up(cluster):
    offered = cluster.one(invite())
    cluster.now += 15
    assert cluster.one(kept(CANCEL, 10.0), at="server2").get("Failover-Kept") is None
    gave_up = cluster.now - 10.0
    assert (cluster.bill().state, cluster.bill().ended) == ("ended", gave_up)
    cluster.one(answer(offered, 487), at="server2")
    assert (cluster.bill().ended, cluster.bill().why) == (gave_up, "alice gave up before an answer")


def test_a_cancel_that_was_kept_counts_though_the_timer_was_first(cluster):
    cluster.one(invite())
    cluster.now += 400
    cluster.tick()
    assert cluster.bill().why == "bob did not answer"
    cluster.one(kept(CANCEL, 390.0))
    assert (cluster.bill().ended, cluster.bill().why) == (
        cluster.now - 390.0,
        "alice gave up before an answer",
    )


def test_the_earliest_of_two_hang_ups_counts_in_whatever_order_they_are_passed_on(cluster):
    talk(cluster)
    cluster.now += 30
    cluster.one(in_dialog("BYE", by="bob"))
    cluster.one(kept(in_dialog("BYE"), 10.0))
    assert (cluster.bill().seconds, cluster.bill().why) == (20, "alice hung up")
    cluster.one(kept(in_dialog("BYE"), 5.0))
    assert cluster.bill().seconds == 20


def test_an_invite_that_was_kept_rings_once_and_is_offered_when_the_phone_called(cluster):
    """Nothing of it was saved before the servers died."""
    cluster.now += 8
    first = cluster.one(kept(invite(), 8.0))
    assert (first.get("Failover-Kept"), cluster.get(Call, "c1").offered) == (
        None,
        cluster.now - 8.0,
    )
    again = cluster.one(kept(invite(), 7.5), at="server2")
    assert (again.uri, again.via.branch) == (first.uri, first.via.branch)
    cluster.now += 26
    assert cluster.receive(kept(invite(), 33.0)) == [], (
        "its phone has forgotten it, whenever it was kept"
    )


def test_shares_stay_within_the_call_and_in_order(cluster):
    """server1 carried it and died; the hang-up was kept, and server2 has it long after."""
    talk(cluster)
    cluster.now += 7
    cluster.sign("server1")
    cluster.now += 60
    cluster.sign("server2")
    cluster.one(kept(in_dialog("BYE"), 55.0), at="server2")
    bill = cluster.get(Bill, "c1")
    since = [carrier.since for carrier in bill.carriers]
    assert since == sorted(since) and bill.answered <= since[-1] <= bill.ended
    assert cluster.bill().carried == (("server1", 7), ("server2", 5))


def test_a_message_older_than_the_last_carrier_takes_no_time_from_it(cluster):
    talk(cluster)
    cluster.now += 20
    cluster.sign("server1", "server2")
    cluster.one(in_dialog("INFO"), at="server2")
    cluster.now += 1
    cluster.one(kept(in_dialog("INFO", cseq=3), 15.0), at="server1")
    cluster.now += 4
    cluster.one(in_dialog("BYE", cseq=4), at="server1")
    bill = cluster.get(Bill, "c1")
    assert [each.since for each in bill.carriers] == sorted(each.since for each in bill.carriers)
    assert sum(seconds for _, seconds in cluster.bill().carried) == cluster.bill().seconds == 25


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "soon",
        "-5",
        "+5",
        "inf",
        "nan",
        "1e3",
        "0x10",
        "1,5",
        "5;x",
        "99999999",
        "9" * 400,
        "2592001",
        "\u0665",
    ],
)
def test_nonsense_is_taken_off_and_ignored(cluster, nonsense):
    talk(cluster)
    cluster.now += 12
    assert cluster.one(kept(in_dialog("BYE"), nonsense)).get("Failover-Kept") is None
    assert cluster.bill().seconds == 12


def test_two_fields_are_nonsense(cluster):
    talk(cluster)
    cluster.now += 12
    assert cluster.one(kept(kept(in_dialog("BYE"), 3.0), 5.0)).all("Failover-Kept") == []
    assert cluster.bill().seconds == 12


@pytest.mark.parametrize("source", [(FORWARDER[0], 4000), ("192.0.2.9", FORWARDER[1])])
def test_a_phone_that_sends_straight_to_a_server_cannot_shorten_its_bill(cluster, source: Address):
    talk(cluster)
    cluster.now += 3600
    onward = cluster.one(kept(in_dialog("BYE"), 3595.0), source=source)
    assert (onward.method, onward.get("failover-kept")) == ("BYE", None)
    assert cluster.bill().seconds == 3600


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "OPTIONS", "INFO", "BYE"])
def test_no_request_carries_the_field_on(cluster, method):
    talk(cluster)
    contact = {"contact": "<sip:alice@127.0.0.1:4000>"} if method == "INVITE" else {}
    for late in (1.0, "forged"):
        assert cluster.one(kept(in_dialog(method, **contact), late)).get("Failover-Kept") is None


def test_no_time_of_a_bill_is_before_its_call(cluster):
    offered = cluster.one(invite())
    cluster.one(kept(CANCEL, 100.0))
    assert cluster.bill().ended == cluster.now
    cluster.one(answer(offered, 200))
    cluster.one(in_dialog("ACK", cseq=1))
    cluster.one(kept(in_dialog("BYE"), 100.0))
    assert cluster.bill().ended == cluster.now and cluster.bill().total == "0.00"


# -- a server as it runs ---------------------------------------------------------------------------


def test_a_running_server_believes_its_forwarder_and_not_a_phone_beside_it(tmp_path):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forwarder,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone,
    ):
        for each in (forwarder, phone):
            each.bind(("127.0.0.1", 0))
            each.settimeout(5)
        store = str(tmp_path / "cluster.db")
        server = Server(Settings("server1", ("127.0.0.1", 0), forwarder.getsockname(), store))
        server.start()
        try:
            address = server._sock.getsockname()

            def ask(message, by: socket.socket = forwarder) -> None:
                by.sendto(message.to_bytes(), address)
                forwarder.recv(65_535)  # what it sends goes through the forwarder

            ask(register())
            for call_id, by in (("c1", forwarder), ("c2", phone)):
                ask(kept(invite(call_id=call_id), 8.0))
                ask(
                    kept(phone_request("CANCEL", "sip:bob@failover.test", call_id=call_id), 5.0), by
                )
        finally:
            server.stop()
    bills = {bill.call_id: bill for bill in Transaction(SqliteStore(store)).scan(Bill)}
    assert bills["c1"].given_up - bills["c1"].offered == pytest.approx(3, abs=1)
    assert bills["c2"].given_up - bills["c2"].offered == pytest.approx(8, abs=1)
