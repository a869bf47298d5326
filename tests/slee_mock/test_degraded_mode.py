"""A store that does not answer: calls end when people hang up, whoever is passed on is billed
later, nothing is billed twice or for too long."""

from __future__ import annotations

import pytest
from slee_kit import Cluster, answer, in_dialog, invite, phone_request, register
from wire import DAY, World

from slee_mock.degraded_mode import MOST_NAMED, CachingStore
from slee_mock.services.bill_record import Bill
from slee_mock.services.call_record import Call
from slee_mock.store.interface import ConditionalWrite, Row, StoreDown
from softphone.ua.events import CallState


@pytest.fixture
def cluster():
    made = Cluster()
    made.receive(register())
    return made


def talk(cluster):
    """Alice and Bob talk, through server1. Returns the INVITE as Bob got it."""
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 180))
    cluster.receive(answer(offered, 200))
    cluster.receive(in_dialog("ACK", cseq=1))
    return offered


def test_a_hang_up_reaches_the_other_phone_and_is_billed_at_its_own_time_once_the_store_is_back(
    cluster,
):
    talk(cluster)
    cluster.now += 25.2
    cluster.store.down = True
    bye = cluster.one(in_dialog("BYE"))
    assert (bye.method, bye.uri) == ("BYE", "sip:bob@127.0.0.1:4100")
    assert cluster.one(answer(bye, 200)).status == 200
    cluster.now += 600.0
    cluster.store.down = False
    assert cluster.bill().state == "answered" and cluster.nodes["server1"].degraded.deferred == 1
    assert cluster.tick() == [], "nobody hears of it twice"
    bill = cluster.bill()
    assert (bill.state, bill.seconds, bill.units, bill.why) == ("ended", 25, 3, "alice hung up")
    assert cluster.get(Call, "c1").over and cluster.nodes["server1"].degraded.deferred == 0


def test_the_called_phone_may_hang_up_as_well(cluster):
    talk(cluster)
    cluster.now += 5.0
    cluster.store.down = True
    assert cluster.one(in_dialog("BYE", by="bob")).uri == "sip:alice@127.0.0.1:4000"
    cluster.store.down = False
    cluster.tick()
    assert (cluster.bill().seconds, cluster.bill().why) == (5, "bob hung up")


def test_a_bye_that_is_repeated_before_and_after_the_stores_return_ends_the_call_once_at_its_first_time(
    cluster,
):
    talk(cluster)
    cluster.now += 10.0
    cluster.store.down = True
    for _ in range(3):
        assert cluster.one(in_dialog("BYE")).method == "BYE"
        cluster.now += 4.0
    assert cluster.nodes["server1"].degraded.deferred == 1
    cluster.store.down = False
    assert cluster.one(in_dialog("BYE")).method == "BYE"
    assert cluster.bill().seconds == 10 and cluster.nodes["server1"].degraded.deferred == 0


def test_a_bye_that_another_server_could_save_first_stays_the_one_that_counts(cluster):
    talk(cluster)
    cluster.now += 10.0
    cluster.receive(in_dialog("OPTIONS"), at="server2")
    cluster.store.down = True
    cluster.receive(in_dialog("BYE"))
    cluster.store.down = False
    cluster.receive(in_dialog("OPTIONS", cseq=5), at="server2")
    cluster.receive(in_dialog("BYE", by="bob"), at="server2")
    ended = cluster.bill()
    cluster.tick()
    assert (cluster.bill().ended, cluster.bill().why) == (ended.ended, "bob hung up")
    assert sum(seconds for _, seconds in cluster.bill().carried) == cluster.bill().seconds == 10


def test_a_caller_who_gives_up_stops_the_ringing_and_pays_nothing(cluster):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 180))
    cluster.now += 3.0
    cluster.store.down = True
    cancel = cluster.one(phone_request("CANCEL", "sip:bob@failover.test"))
    assert (cancel.method, cancel.uri) == ("CANCEL", "sip:bob@127.0.0.1:4100")
    assert cluster.one(answer(cancel, 200)).status == 200
    assert cluster.one(answer(offered, 487)).status == 487
    ack = cluster.one(phone_request("ACK", "sip:bob@failover.test", to_tag="b1"))
    assert (ack.method, ack.uri) == ("ACK", "sip:bob@127.0.0.1:4100")
    cluster.now += 60.0
    cluster.store.down = False
    cluster.tick()
    bill = cluster.get(Bill, "c1")
    assert (cluster.bill().state, cluster.bill().seconds, cluster.bill().total) == (
        "ended",
        0,
        "0.00",
    )
    assert bill.ended - bill.offered == 3.0 and cluster.get(Call, "c1").over


@pytest.mark.parametrize("status", [486, 603])
def test_a_called_phone_that_declines_is_heard(cluster, status):
    offered = cluster.one(invite())
    cluster.store.down = True
    assert cluster.one(answer(offered, 180)).status == 180
    assert cluster.one(answer(offered, status)).status == status
    cluster.store.down = False
    cluster.tick()
    assert cluster.bill().state == "ended" and cluster.get(Bill, "c1").rang is not None


def test_an_answer_waits_until_the_store_knows_of_it(cluster):
    """Passed on unrecorded it would make a call that no server knows, if this one died."""
    offered = cluster.one(invite())
    cluster.store.down = True
    assert (
        cluster.receive(answer(offered, 200)) == [] and cluster.outcome.drop_reason == "store_down"
    )
    cluster.now += 4.0
    cluster.store.down = False
    assert cluster.one(answer(offered, 200)).status == 200  # the phone repeats it for 32 s
    cluster.store.down = True
    assert cluster.one(answer(offered, 200)).status == 200, "the second time it says nothing new"
    assert cluster.one(in_dialog("ACK", cseq=1)).method == "ACK"
    assert cluster.nodes["server1"].degraded.deferred == 1, (
        "whether the caller has acknowledged it is for the bill"
    )


def test_only_what_begins_something_is_refused(cluster):
    talk(cluster)
    cluster.store.down = True
    assert cluster.one(invite(call_id="c2")).status == 503
    assert cluster.one(register(cseq=2)).status == 503
    assert cluster.one(phone_request("OPTIONS", "sip:bob@failover.test", call_id="o")).status == 503


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_what_changes_a_call_is_repeated_by_its_phone_until_the_store_is_back(cluster, method):
    talk(cluster)
    cluster.store.down = True
    request = in_dialog(method, contact="<sip:alice@127.0.0.1:4001>")
    assert cluster.receive(request) == [], "a refusal would be final"
    cluster.store.down = False
    assert cluster.one(request).method == method


@pytest.mark.parametrize("method", ["PRACK", "INFO", "OPTIONS", "NOTIFY", "REFER"])
def test_what_changes_nothing_that_must_be_kept_passes_within_a_call(cluster, method):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 180))
    cluster.store.down = True
    passed = cluster.one(in_dialog(method))
    assert (passed.method, passed.uri) == (method, "sip:bob@127.0.0.1:4100")
    assert cluster.one(answer(passed, 200)).status == 200
    assert cluster.receive(in_dialog(method), at="server2") == [], "it has no copy of the call"


def test_a_caller_that_demands_prack_gets_through_while_the_store_is_down_for_a_moment():
    world = World()
    world.register()

    def demand_100rel(data):
        if not data.startswith(b"INVITE ") or b"Require: 100rel" in data:
            return data
        return data.replace(b"\r\nContact:", b"\r\nRequire: 100rel\r\nContact:", 1)

    def fail_at_prack(passage):
        if passage.name == "PRACK":
            world.cluster.store.down = True
        return False

    world.network.edit, world.network.lose = demand_100rel, fail_at_prack
    world.alice.calls("bob")
    world.run(1.0)
    assert world.cluster.store.down
    world.cluster.store.down, world.network.lose = False, lambda passage: False
    world.run(35.0)
    assert (world.alice.state, world.bob.state) == (CallState.RINGING, CallState.INCOMING)
    world.bob.does("answer")
    world.run(1.0)
    assert (world.alice.state, world.bob.state) == (CallState.TALKING, CallState.TALKING)


def test_an_invite_that_rings_already_is_not_refused_when_it_is_said_again(cluster):
    """After 503 its caller would be gone, and the other phone's answer would be billed to him."""
    offered = cluster.one(invite())
    cluster.store.down = True
    assert cluster.receive(invite()) == [] and cluster.outcome.drop_reason == "store_down"
    cluster.store.down = False
    assert cluster.one(answer(offered, 200)).status == 200


def test_a_copy_that_has_grown_old_leads_to_silence_and_never_to_a_wrong_refusal(cluster):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 200), at="server2")  # server1 has not heard that Bob answered
    cluster.store.down = True
    assert cluster.receive(in_dialog("BYE")) == [] and cluster.outcome.drop_reason == "store_down"
    assert cluster.one(in_dialog("BYE"), at="server2").method == "BYE"
    cluster.now += 40.0
    cluster.store.down = False
    assert [each.method for each in cluster.tick()] == ["BYE"], "it was not sent before"
    cluster.tick("server2")
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 0)


def test_strangers_gain_nothing_by_an_outage(cluster, monkeypatch):
    monkeypatch.setattr("slee_mock.degraded_mode.MOST_DEFERRED", 4)
    talk(cluster)
    cluster.store.down = True
    assert cluster.receive(in_dialog("BYE", tag="guessed")) == []
    assert cluster.receive(phone_request("INFO", "sip:evil@192.0.2.66", to_tag="b1", cseq=2)) == []
    for number in range(9):
        assert cluster.receive(in_dialog("BYE", call_id=f"none{number}")) == []
    assert cluster.nodes["server1"].degraded.deferred == 2, "half of the room is for calls we know"
    assert cluster.one(in_dialog("BYE", by="bob")).method == "BYE"
    cluster.store.down = False
    assert [each.status for each in cluster.tick()] == [481, 481]
    assert cluster.bill().why == "bob hung up"


def test_what_waits_is_bounded_and_what_has_no_room_has_to_be_said_again(cluster, monkeypatch):
    talk(cluster)
    monkeypatch.setattr("slee_mock.degraded_mode.MOST_DEFERRED", 2)
    outage = cluster.nodes["server1"].degraded
    for number in range(4):
        offered = cluster.one(invite(call_id=f"x{number}"))
        cluster.receive(answer(offered, 200))
    cluster.store.down = True
    sent = [cluster.receive(in_dialog("BYE", call_id=f"x{number}")) for number in range(4)]
    assert [len(each) for each in sent] == [1, 1, 0, 0] and outage.deferred == 2
    assert outage.describe() == "BYE of call x0, BYE of call x1"
    cluster.store.down = False
    assert len(cluster.receive(in_dialog("BYE", call_id="x2"))) == 1
    cluster.tick()
    assert [cluster.bill(f"x{number}").state for number in range(4)] == [
        "ended",
        "ended",
        "ended",
        "answered",
    ]


def test_the_octets_of_what_waits_are_bounded_too(cluster, monkeypatch):
    monkeypatch.setattr("slee_mock.degraded_mode.MOST_DEFERRED_OCTETS", 2_000)
    cluster.store.down = True
    for number in range(9):
        cluster.receive(in_dialog("BYE", call_id=f"x{number}"))
    assert 0 < cluster.nodes["server1"].degraded.deferred < 9
    cluster.store.down = False
    cluster.tick()
    cluster.store.down = True
    cluster.receive(in_dialog("BYE", call_id="y"))
    assert cluster.nodes["server1"].degraded.deferred == 1, "what was replayed makes room"


def test_what_is_lost_is_told_in_a_line_of_bounded_length(cluster):
    outage = cluster.nodes["server1"].degraded
    for number in range(9):
        cluster.receive(answer(cluster.one(invite(call_id=f"x{number}")), 200))
    cluster.store.down = True
    for number in range(9):
        cluster.receive(in_dialog("BYE", call_id=f"x{number}"))
    assert outage.describe().endswith(f"BYE of call x{MOST_NAMED - 1} and 4 more")


def test_copies_are_bounded_and_the_longest_untouched_goes_first(monkeypatch):
    monkeypatch.setattr("slee_mock.degraded_mode.MOST_COPIES", 2)
    store = CachingStore(Cluster().store)
    copies = store.cache
    store.save([ConditionalWrite("call", "c1", "one", 0), ConditionalWrite("bill", "c1", "x", 0)])
    store.save([ConditionalWrite("call", "c2", "two", 0)])
    store.get("call", "c1")
    store.save([ConditionalWrite("call", "c3", "three", 0)])
    assert copies.get("call", "c1") == Row("one", 1) and copies.get("bill", "c1") is None
    with pytest.raises(StoreDown):
        copies.get("call", "c2")
    store.save([ConditionalWrite("call", "c1", None, 1)])
    with pytest.raises(StoreDown):
        copies.get("call", "c1")


def test_two_people_hang_up_while_the_store_is_down_and_nobody_has_to_wait():
    world = World()
    world.talk()
    world.run(20.0)
    world.cluster.store.down = True
    world.run(2.0)
    world.alice.does("hang_up")
    world.run(0.5)
    assert (world.alice.state, world.bob.state) == (CallState.ENDED, CallState.ENDED), (
        world.network.ladder()
    )
    assert world.phones_retransmissions == 0
    world.run(100.0)
    world.cluster.store.down = False
    world.run(1.0)
    assert (world.bill.state, world.bill.seconds) == ("ended", 22)


# -- no copy of the call here ----------------------------------------------------------------------


@pytest.mark.parametrize("outage", [2.0, 10.0, 36.0, 600.0])
@pytest.mark.parametrize("copyless", ["restarted before", "the other server"])
def test_a_hang_up_at_a_server_without_a_copy_of_the_call_ends_it_at_its_own_time(outage, copyless):
    world = World()
    world.talk()
    world.run(5.0)
    world.kill("server1")
    if copyless == "restarted before":
        world.run(1.0)
        world.restart("server1")
        world.run(5.0)
    world.cluster.store.down = True
    world.run(0.5)
    talked = world.network.now
    world.alice.does("hang_up")
    world.run(outage)
    assert world.bob.state == CallState.TALKING, "nobody knows where his phone is"
    world.cluster.store.down = False
    world.run(2.0)
    assert (world.alice.state, world.bob.state) == (CallState.ENDED, CallState.ENDED)
    assert world.bill.why == "Alice hung up" and world.bill.ended is not None
    assert abs(world.bill.ended - DAY - talked) < 0.1


def without_a_copy(cluster):
    """The store is down, and this server was restarted before."""
    cluster.restart("server1")
    cluster.store.down = True


def store_is_back(cluster, seconds):
    """After so many seconds. Returns what the server sends then."""
    cluster.now += seconds
    cluster.store.down = False
    return cluster.tick()


def test_a_cancel_without_a_copy_of_the_call_is_sent_and_billed_once_the_store_is_back(cluster):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 180))
    without_a_copy(cluster)
    cluster.now += 3.0
    for _ in range(3):
        assert cluster.receive(phone_request("CANCEL", "sip:bob@failover.test")) == []
        cluster.now += 1.0
    (cancel,) = store_is_back(cluster, 20.0)
    assert (cancel.method, cancel.uri) == ("CANCEL", "sip:bob@127.0.0.1:4100")
    cluster.receive(answer(offered, 487))
    bill = cluster.get(Bill, "c1")
    assert bill.ended - bill.offered == 3.0


@pytest.mark.parametrize("status", [486, 603])
def test_a_refusal_without_a_copy_of_the_call_is_passed_on_once_the_store_is_back(cluster, status):
    offered = cluster.one(invite())
    without_a_copy(cluster)
    cluster.now += 5.0
    assert cluster.receive(answer(offered, status)) == []
    assert [each.status for each in store_is_back(cluster, 40.0)] == [status]
    bill = cluster.get(Bill, "c1")
    assert bill.ended - bill.offered == 5.0


def test_an_ack_without_a_copy_of_the_call_tells_when_the_caller_heard_the_answer(cluster):
    offered = cluster.one(invite())
    cluster.receive(answer(offered, 200))
    without_a_copy(cluster)
    cluster.now += 1.0
    assert cluster.receive(in_dialog("ACK", cseq=1)) == []
    assert [each.method for each in store_is_back(cluster, 60.0)] == ["ACK"]
    assert cluster.bill().acknowledged and cluster.bill().seconds == 61


def test_what_waits_is_sent_before_the_next_message_of_the_call(cluster):
    talk(cluster)
    without_a_copy(cluster)
    cluster.receive(in_dialog("BYE"))
    cluster.store.down = False
    sent = cluster.receive(in_dialog("INFO", by="bob"))
    assert [each.method for each in sent] == ["BYE", "INFO"]
    assert cluster.tick() == []


def test_a_server_that_stops_sends_what_has_waited(cluster):
    talk(cluster)
    without_a_copy(cluster)
    cluster.receive(in_dialog("BYE"))
    cluster.store.down = False
    (outcome,) = cluster.nodes["server1"].stop(cluster.now)
    assert outcome.sends[0].data.startswith(b"BYE ") and cluster.bill().state == "ended"


def test_a_server_that_dies_with_what_it_had_to_say_leaves_a_call_that_no_phone_is_in():
    """The one thing that an outage and a crash together can take: then the session's timer ends the
    call."""
    world = World(session_expires=90)
    world.talk()
    world.cluster.store.down = True
    world.alice.does("hang_up")
    world.run(0.5)
    assert world.bob.state == CallState.ENDED
    world.kill(world.hot)
    world.cluster.store.down = False
    world.restart("server1")
    world.run(1.0)
    assert world.bill.state == "answered"
    world.run(100.0)
    assert world.bill.state == "ended" and world.bill.seconds <= 1


def test_a_further_call_of_one_call_id_that_rings_is_not_refused_either(cluster):
    cluster.receive(register("carol", "<sip:carol@127.0.0.1:4300>", call_id="r-carol"))
    cluster.one(invite())
    beside = {"user": "bob", "tag": "p1", "branch": "z9hG4bKb2b", "uri": "sip:carol@failover.test"}
    assert cluster.one(invite(**beside)).method == "INVITE"
    cluster.store.down = True
    assert cluster.receive(invite(**beside)) == [] and cluster.outcome.drop_reason == "store_down"
