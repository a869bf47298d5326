"""What the core does with what a dead server owed, and with servers that come and go; literals."""

from __future__ import annotations

from forwarder_kit import ALICE, SERVERS, answer, head, make_core, request

from failover.config.settings import PHONES
from failover.proxy.events import FailoverRecord, StateChanged
from failover.upstream.failover import REPLAYED_AT_ONCE
from failover.upstream.health import ANSWER, DOWN, MISS, REFUSED, UP

THREE = {f"server{n}": (f"192.0.2.{n + 10}", 5060) for n in range(1, 4)}


def phone(core, n=1, method="OPTIONS", now=100.0):
    return core.receive(
        request(method, branch=f"z9hG4bK{n}", call_id=f"call-{n}"), PHONES, ALICE, now
    )


def to(outcome):
    return [send.to for send in outcome.sends]


def test_a_replay_goes_on_from_server_to_server_until_nobody_is_left():
    core = make_core(servers=THREE)
    phone(core)
    assert to(core.failover.signal("server1", REFUSED, 101.0, "refused")) == ["server2"]
    assert to(core.failover.signal("server2", REFUSED, 101.001, "refused")) == ["server3"]
    refused = core.failover.signal("server3", REFUSED, 101.002, "refused")
    assert to(refused) == [PHONES] and head(refused.sends[0].data)[0].startswith("SIP/2.0 503")
    assert len(core.pending) == 0 and core.counters["replayed"] == 2, "the third was refused"


def test_what_a_server_answers_counts_as_handled_once():
    core = make_core()
    server1, server2 = core.table.servers
    asked = phone(core, now=100.0).sends[0].data
    core.receive(answer(asked), "server1", SERVERS["server1"], 103.0)
    assert server1.handled == 1
    core.receive(answer(asked), "server1", SERVERS["server1"], 104.0)
    assert (server1.handled, server2.handled) == (1, 0), (
        "saying it again is no work, and none of somebody else's"
    )


def test_the_last_living_server_is_given_up_later_for_nobody_else_would_answer_sooner():
    core = make_core()
    for _ in range(3):
        core.failover.signal("server1", MISS, 100.1, "silent")
    for _ in range(14):
        core.failover.signal("server2", MISS, 100.7, "silent")
    assert [server.up for server in core.table.servers] == [False, True]
    core.failover.signal("server2", MISS, 100.75, "silent")
    assert core.table.hot is None
    core = make_core()
    for _ in range(3):
        core.failover.signal("server1", MISS, 100.1, "silent")
    core.failover.signal("server2", REFUSED, 100.2, "refused")
    assert core.table.hot is None, "what is certain counts at once"


def test_much_is_replayed_in_pieces_the_oldest_first_so_that_others_have_their_turn():
    core = make_core()
    for n in range(100):
        phone(core, n, now=100.0 + n * 0.001)
    first = core.failover.signal("server1", REFUSED, 101.0, "refused")
    assert first.events[1] == FailoverRecord(
        101.0, "server1", "server2", "refused", 100, in_flight=100
    )
    assert len(first.sends) == REPLAYED_AT_ONCE and b"z9hG4bK0\r\n" in first.sends[0].data
    sends = list(first.sends)
    while core.pending.moved:
        sends += core.failover.replay(101.0).sends
    assert len(sends) == 100 and {send.to for send in sends} == {"server2"}
    assert all(f"Call-ID: call-{n}\r\n".encode() in send.data for n, send in enumerate(sends))
    assert core.counters["replayed"] == 100


def test_what_the_heir_owed_when_it_died_in_the_middle_of_the_replay_is_not_lost():
    core = make_core(servers=THREE)
    for n in range(100):
        phone(core, n)
    core.failover.signal("server1", REFUSED, 101.0, "refused")
    sends = list(core.failover.signal("server2", REFUSED, 101.001, "refused").sends)
    while core.pending.moved:
        sends += core.failover.replay(101.002).sends
    assert {send.to for send in sends} == {"server3"}
    assert {send.data.partition(b"Call-ID: ")[2].partition(b"\r")[0] for send in sends} == {
        f"call-{n}".encode() for n in range(100)
    }


def test_what_is_replayed_stays_bounded(monkeypatch):
    core = make_core()
    monkeypatch.setattr("failover.proxy.pending_messages.MAX_OCTETS", 2000)
    for round_ in range(5):
        for n in range(50):
            phone(core, f"{round_}x{n}")
        assert core.pending._octets <= 2000
        core.failover.signal("server1", REFUSED, 101.0, "refused")
        core.failover.signal("server1", ANSWER, 102.0, "answers")
        core.failover.signal("server1", ANSWER, 102.0, "answers")
    while core.pending.moved:
        core.failover.replay(103.0)
    assert core.counters["inflight.overflow"] > 0 and core.pending._octets <= 2000


# -- damping ---------------------------------------------------------------------------------------


def flapped(core, name="server1", times=3, now=200.0):
    for _ in range(times):
        core.failover.signal(name, REFUSED, now, "refused")
        for _ in range(3):
            now += 0.05
            core.failover.signal(name, ANSWER, now, "answers")
    return now


def test_a_server_that_flaps_is_held_back_while_another_serves():
    core = make_core()
    now = flapped(core)
    server = core.table.servers[0]
    assert server.health.state is DOWN and "was gone 3 times lately" in server.why
    assert to(phone(core, now=now)) == ["server2"]


def test_when_the_other_one_dies_it_is_in_use_at_once_and_gets_what_that_one_owed():
    core = make_core()
    now = flapped(core)
    phone(core, now=now)
    moved = core.failover.signal("server2", REFUSED, now + 0.01, "refused")
    assert to(moved) == ["server1"] and core.table.servers[0].health.state is UP
    assert [
        (event.server, event.state) for event in moved.events if isinstance(event, StateChanged)
    ] == [
        ("server2", DOWN),
        ("server1", UP),
    ]
    assert (
        next(event for event in moved.events if isinstance(event, FailoverRecord)).successor
        == "server1"
    )


def test_with_both_gone_the_first_to_come_back_is_never_held_back():
    core = make_core()
    now = flapped(core)
    for name in SERVERS:
        core.failover.signal(name, REFUSED, now, "refused")
    core.failover.signal("server1", ANSWER, now + 0.05, "answers")
    core.failover.signal("server1", ANSWER, now + 0.1, "answers")
    assert core.table.hot is core.table.servers[0]


def test_a_second_without_new_calls_frees_the_held_one_too():
    core = make_core()
    now = flapped(core)
    core.failover.signal("server2", ANSWER, now, "answers", answered_503=True)
    core.failover.signal("server1", ANSWER, now + 0.05, "answers")
    core.failover.signal("server1", ANSWER, now + 0.1, "answers")
    assert core.table.hot is core.table.servers[0]


def test_a_held_server_s_messages_stay_behind_the_fence():
    core = make_core()
    now = flapped(core)
    outcome = core.receive(request(source=SERVERS["server1"]), "server1", SERVERS["server1"], now)
    assert outcome.sends == () and core.counters["dropped.fenced"] == 1


def test_misses_in_a_row_are_counted_afresh_after_any_sign_of_life():
    core = make_core()
    for at, signal in enumerate(
        [MISS, MISS, ANSWER, MISS, MISS, ANSWER, MISS, MISS, ANSWER, MISS, MISS, ANSWER, MISS]
    ):
        core.failover.signal("server1", signal, 100.0 + at * 0.05, "")
    assert core.table.servers[0].health.alive
