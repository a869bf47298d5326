"""While no server lives: what begins something new is refused at once, what belongs to a call that
is under way waits for a server, and is passed on in the moment one lives. Literals."""

from __future__ import annotations

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    SERVERS,
    FakeServer,
    answer,
    ask,
    config,
    fake_servers,
    field,
    head,
    make_core,
    plain_phone,
    request,
    running,
)

from failover.config.settings import PHONES
from failover.proxy import outage_queue
from failover.proxy.events import Passed, Queued, Released
from failover.proxy.outage_queue import KEPT_SECONDS
from failover.upstream.health import ANSWER, REFUSED
from failover.upstream.server_table import AdminState

CONTACT = f"sip:bob@{BOB[0]}:{BOB[1]}"
STRANGER = ("192.0.2.66", 5060)


def kill(core, now=101.0):
    """Both servers."""
    outcomes = [core.failover.signal(name, REFUSED, now, "refused") for name in SERVERS]
    assert core.table.hot is None
    return outcomes


def revive(core, name="server1", now=110.0):
    """All that it is sent in the moment it lives again, as (receiver, first line)."""
    core.failover.signal(name, ANSWER, now - 0.05, "answers")
    sends = list(core.failover.signal(name, ANSWER, now, "answers").sends)
    while core.pending.moved:
        sends += core.failover.replay(now).sends
    return sends


def first_lines(sends):
    return [head(send.data)[0] for send in sends]


def in_call(core, method="BYE", branch="z9hG4bKbye", source=ALICE, **options):
    """A request of a phone within a dialog that server1 carries."""
    hint = core.table.by_name["server1"].hint
    route = f"Route: <sip:192.0.2.1:5060;lr;hint={hint}>"
    options = {"to_tag": "b", "extra": (route,), **options}
    return request(method, CONTACT, source, branch, **options)


def phone(core, data, now=102.0, source=ALICE):
    return core.receive(data, PHONES, source, now)


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE"])
def test_what_begins_something_new_hears_503_and_when_to_come_again_at_once(method):
    core = make_core()
    kill(core)
    (refused,) = phone(core, request(method)).sends
    assert head(refused.data)[0] == "SIP/2.0 503 Service Unavailable"
    assert field(refused.data, "Retry-After") == "2"
    assert len(core.outage_queue) == 0 and revive(core) == []


@pytest.mark.parametrize(
    "method", ["BYE", "INVITE", "UPDATE", "INFO", "PRACK", "NOTIFY", "REFER", "MESSAGE"]
)
def test_a_request_of_a_call_hears_nothing_and_goes_to_the_first_server_that_lives(method):
    core = make_core()
    kill(core)
    assert phone(core, in_call(core, method), 102.0).sends == ()
    assert phone(core, in_call(core, method), 102.5).sends == ()
    (passed,) = revive(core, "server2", now=110.0)
    assert passed.to == "server2" and head(passed.data)[0].startswith(f"{method} ")
    assert field(passed.data, "Failover-Kept") == "8.000", "since the first copy of it came"
    assert revive(core, "server1", now=120.0) == [], "once"


@pytest.mark.parametrize("method", ["ACK", "CANCEL"])
def test_so_do_cancel_and_ack_which_have_no_dialog_s_route(method):
    core = make_core()
    kill(core)
    assert phone(core, request(method)).sends == ()
    assert first_lines(revive(core)) == [f"{method} sip:bob@failover.test SIP/2.0"]


def test_the_newest_copy_is_passed_on():
    core = make_core()
    kill(core)
    phone(core, in_call(core), 102.0)
    phone(core, in_call(core, extra=("X-Copy: second", *_route(core))), 102.5)
    (passed,) = revive(core)
    assert field(passed.data, "X-Copy") == "second"


def _route(core):
    return (f"Route: <sip:192.0.2.1:5060;lr;hint={core.table.by_name['server1'].hint}>",)


def test_an_answer_to_what_a_dead_server_had_asked_waits_too():
    core = make_core()
    at_bob = rings(core)
    kill(core)
    ok = answer(at_bob)
    assert core.receive(ok, PHONES, BOB, 102.0).sends == ()
    assert core.receive(ok, PHONES, BOB, 102.5).sends == ()
    (passed,) = revive(core)
    assert head(passed.data)[0] == "SIP/2.0 200 OK" and field(passed.data, "Failover-Kept") is None


def test_a_phone_that_has_answered_is_not_sent_its_invite_again():
    """It has no transaction left for it (RFC 3261 17.2.1), so it would ring as for a new call."""
    core = make_core()
    at_bob = rings(core)
    kill(core)
    core.receive(answer(at_bob), PHONES, BOB, 102.0)
    assert phone(core, request(), 103.0).sends == (), "nor is its caller refused"
    assert first_lines(revive(core, now=110.0)) == ["SIP/2.0 200 OK"]
    assert not core.failover.signal("server1", REFUSED, 112.0, "refused").sends


def test_so_it_is_where_its_200_was_passed_to_a_server_that_went_down_much_later():
    core = make_core()
    at_bob = rings(core)
    ok = answer(at_bob)
    assert core.quick(ok, PHONES, BOB, 102.0) or core.receive(ok, PHONES, BOB, 102.0).sends
    core.failover.signal("server2", ANSWER, 105.0, "answers")
    assert core.failover.signal("server1", REFUSED, 105.0, "refused").sends == ()
    (again,) = core.receive(ok, PHONES, BOB, 106.0).sends
    assert again.to == "server2"


def test_an_answer_without_call_id_keeps_nobody_from_the_survivor():
    core = make_core()
    lame = answer(rings(core)).replace(b"Call-ID: ", b"Subject: ")
    core.receive(lame, PHONES, BOB, 102.0)
    assert phone(core, request("OPTIONS", branch="z9hG4bKother"), 102.1).sends
    core.failover.signal("server2", ANSWER, 105.0, "answers")
    moved = core.failover.signal("server1", REFUSED, 105.0, "refused").sends
    assert {send.to for send in moved} == {"server2"}


def test_nor_by_a_survivor_that_had_got_the_invite_before_the_answer():
    core = make_core()
    at_bob = rings(core)
    (moved,) = core.failover.signal("server1", REFUSED, 101.0, "refused").sends
    core.receive(answer(at_bob), PHONES, BOB, 101.1)
    onward = passed_on(moved.data, "192.0.2.12:5080")
    at = "server2", SERVERS["server2"]
    assert core.quick(onward, *at, 101.2) is None
    assert core.receive(onward, *at, 101.2).sends == ()
    assert core.counters["dropped.answered"] == 1
    assert core.quick(onward, *at, 140.0), "another call, of a phone that makes its branches anew"


def test_a_phone_that_uses_one_branch_for_all_its_calls_may_call_again_after_an_answer():
    core = make_core()
    for n, call_id in enumerate(["one", "two"]):
        now = 100.0 + 10 * n
        invite = request(branch="z9hG4bKever", call_id=call_id)
        onward = passed_on(phone(core, invite, now).sends[0].data, "192.0.2.11:5070")
        (at_bob,) = core.receive(onward, "server1", SERVERS["server1"], now).sends
        core.receive(answer(at_bob.data), PHONES, BOB, now + 0.5)
    phone(core, request(branch="z9hG4bKever", call_id="three"), 115.0)
    (moved,) = core.failover.signal("server1", REFUSED, 116.0, "refused").sends
    assert (moved.to, field(moved.data, "Call-ID")) == ("server2", "three")


def passed_on(invite, server):
    """An INVITE as a server sends it to Bob's phone."""
    invite = invite.replace(b"Failover-Kept: 1.000\r\n", b"")
    onward = invite.replace(b"sip:bob@failover.test SIP", CONTACT.encode() + b" SIP", 1)
    via = f"\r\nVia: SIP/2.0/UDP {server};branch=z9hG4bKs\r\nVia: ".encode()
    return onward.replace(b"\r\nVia: ", via, 1)


def rings(core):
    """Alice calls through server1 and Bob's phone rings. Returns the INVITE as it has it."""
    invite = phone(core, request(), 100.0).sends[0].data
    onward = invite.replace(b"sip:bob@failover.test SIP", CONTACT.encode() + b" SIP", 1)
    via = b"\r\nVia: SIP/2.0/UDP 192.0.2.11:5070;branch=z9hG4bKs1\r\nVia: "
    onward = onward.replace(b"\r\nVia: ", via, 1)
    (at_bob,) = core.receive(onward, "server1", SERVERS["server1"], 100.1).sends
    return at_bob.data


@pytest.mark.parametrize("status", ["302 Moved Temporarily", "486 Busy Here", "603 Decline"])
def test_a_refusal_waits_as_long_as_a_hang_up_for_the_caller_hears_it_ring_until_then(status):
    core = make_core()
    at_bob = rings(core)
    kill(core)
    core.receive(answer(at_bob, status), PHONES, BOB, 102.0)
    core.failover.on_timer(3600.0)
    (passed,) = revive(core, "server1", now=3700.0)
    assert (passed.to, head(passed.data)[0]) == ("server1", f"SIP/2.0 {status}")
    core.failover.signal("server2", ANSWER, 3700.1, "answers")
    core.failover.signal("server2", ANSWER, 3700.2, "answers")
    (again,) = core.failover.signal("server1", REFUSED, 3700.3, "refused").sends
    assert (again.to, again.data) == ("server2", passed.data), "its phone repeats it no more"


def test_a_call_that_rings_when_the_last_server_dies_comes_up_after_all():
    core = make_core()
    ring(core)
    assert [outcome.sends for outcome in kill(core)][1] == (), "its caller is not refused"
    assert core.failover.records[-1].kept == 1
    assert phone(core, request(), 101.5).sends == (), "nor when it asks again"
    (passed,) = revive(core, now=103.0)
    assert head(passed.data)[0] == "INVITE sip:bob@failover.test SIP/2.0"
    assert field(passed.data, "Failover-Kept") == "3.000"


def ring(core, n="1", heard=False):
    """A call for which server1 has had Bob's phone ring. `heard`: its caller knows."""
    invite = request(branch=f"z9hG4bKa{n}", call_id=f"call-{n}")
    data = phone(core, invite, 100.0).sends[0].data
    onward = data.replace(b"sip:bob@failover.test SIP", CONTACT.encode() + b" SIP", 1)
    via = f"\r\nVia: SIP/2.0/UDP 192.0.2.11:5070;branch=z9hG4bKs{n}\r\nVia: ".encode()
    at = "server1", SERVERS["server1"], 100.0
    onward = onward.replace(b"\r\nVia: ", via, 1)
    assert core.quick(onward, *at) or core.receive(onward, *at).sends
    if heard:
        core.receive(answer(data, "180 Ringing"), *at)
    return invite


@pytest.mark.parametrize(("seconds", "known"), [(40, True), (290, True), (310, False)])
def test_a_call_that_has_rung_for_longer_than_64_t1_goes_to_the_survivor_too(seconds, known):
    """A Kamailio or Asterisk learns of it by that: its caller's CANCEL would hear 481 else, and the
    phone ring on."""
    core = make_core()
    ring(core, heard=True)
    for now in range(101, 100 + seconds):
        core.failover.on_timer(float(now))
    moved = core.failover.signal("server1", REFUSED, 100.0 + seconds, "refused").sends
    heads = [(send.to, head(send.data)[0].split()[0]) for send in moved]
    assert heads == ([("server2", "INVITE")] if known else [])


def test_one_that_has_rung_so_long_and_is_answered_is_pending_no_more():
    core = make_core()
    asked = phone(core, request(), 100.0).sends[0].data
    core.receive(answer(asked, "180 Ringing"), "server1", SERVERS["server1"], 100.0)
    core.failover.on_timer(140.0)
    assert len(core.pending) == 1
    core.receive(answer(asked, "486 Busy Here"), "server1", SERVERS["server1"], 141.0)
    assert len(core.pending) == 0
    assert core.failover.signal("server1", REFUSED, 142.0, "refused").sends == ()


def test_one_that_rings_goes_to_a_server_that_only_keeps_its_calls_if_that_alone_is_left():
    core = make_core()
    ring(core)
    core.failover.set_admin_state("server2", AdminState.DRAINING, 100.5)
    (passed,) = core.failover.signal("server1", REFUSED, 101.0, "refused").sends
    assert (passed.to, head(passed.data)[0].split()[0]) == ("server2", "INVITE")
    assert not core.outage_queue and not core.failover.on_timer(102.0).events
    new = phone(core, request(branch="z9hG4bKnew", call_id="new"), 102.0).sends
    assert first_lines(new) == ["SIP/2.0 503 Service Unavailable"]


def test_but_not_to_one_that_answers_heartbeats_with_503_for_that_may_refuse_it():
    """A Kamailio that has just been started has no bindings yet, and would say 480."""
    core = make_core()
    ring(core)
    core.failover.signal("server2", ANSWER, 100.5, "answers with 503", True)
    assert core.failover.signal("server1", REFUSED, 101.0, "refused").sends == ()
    for n in range(30):
        told = core.failover.on_timer(101.0 + n / 10)
        assert told.sends == () and not any(isinstance(each, Released) for each in told.events)
    assert core.counters["kept"] == 1 and len(core.outage_queue) == 1
    record = core.failover.records[-1]
    assert (record.in_flight, record.replayed, record.kept) == (1, 0, 1)
    (passed,) = core.failover.signal("server2", ANSWER, 104.5, "answers", False).sends
    assert head(passed.data)[0].split()[0] == "INVITE"


@pytest.mark.parametrize("quick", [True, False])
def test_its_hang_up_waits_with_it_for_the_server_that_takes_both(quick):
    """One that gets the CANCEL first knows nothing of the call, says 481, and rings the phone when
    it gets the INVITE."""
    core = make_core()
    ring(core)
    core.failover.signal("server2", ANSWER, 100.5, "answers with 503", True)
    core.failover.signal("server1", REFUSED, 101.0, "refused")
    cancel = request("CANCEL", branch="z9hG4bKa1", call_id="call-1")
    assert not quick or core.quick(cancel, PHONES, ALICE, 102.0) is None
    for n in range(3):
        assert phone(core, cancel, 102.0 + n / 2).sends == ()
        assert core.failover.on_timer(102.1 + n / 2).sends == ()
    assert core.counters["kept"] == 2
    sends = core.failover.signal("server2", ANSWER, 104.5, "answers", False).sends
    assert [head(each.data)[0].split()[0] for each in sends] == ["INVITE", "CANCEL"]
    assert field(sends[1].data, "Failover-Kept") == "2.500"


def test_one_that_rings_is_not_refused_after_its_caller_has_asked_again():
    """The copy that came last does not show that a phone rings."""
    core = make_core()
    invite = ring(core)
    kill(core)
    assert phone(core, invite, 101.5).sends == ()
    (passed,) = revive(core, now=103.0)
    assert head(passed.data)[0].split()[0] == "INVITE"
    assert core.failover.signal("server1", REFUSED, 104.0, "refused").sends == ()
    assert len(core.outage_queue) == 1


def test_one_that_has_rung_so_long_outlives_both_servers():
    core = make_core()
    ring(core, heard=True)
    core.failover.on_timer(140.0)
    kill(core, now=141.0)
    core.failover.on_timer(150.0)
    (passed,) = revive(core, now=170.0)
    assert head(passed.data)[0] == "INVITE sip:bob@failover.test SIP/2.0"


@pytest.mark.parametrize("method", ["INVITE", "re-INVITE", "OPTIONS"])
def test_what_nobody_has_said_anything_to_is_too_old_after_64_t1(method):
    """Its sender has given up (RFC 3261 17.1.1.2), and a session description is old by then."""
    core = make_core()
    if method == "INVITE":
        ring(core)
    else:
        told = {"to_tag": "b"} if method == "re-INVITE" else {}
        asked = phone(core, request(method.removeprefix("re-"), **told), 100.0).sends[0].data
        if method == "OPTIONS":
            core.receive(answer(asked, "100 Trying"), "server1", SERVERS["server1"], 100.0)
    core.failover.on_timer(140.0)
    assert core.failover.signal("server1", REFUSED, 141.0, "refused").sends == ()


def test_nor_does_one_that_a_server_had_answered_provisionally():
    """A server that is no proxy passes nothing on; it may have begun all the same."""
    core = make_core()
    asked = phone(core, request(), 100.0).sends[0].data
    core.receive(answer(asked, "100 Trying"), "server1", SERVERS["server1"], 100.0)
    kill(core)
    assert phone(core, request(), 101.5).sends == () and len(revive(core)) == 1


def test_a_call_that_no_server_had_begun_is_refused_at_once_for_no_phone_rings():
    core = make_core()
    phone(core, request(), 100.0)
    (refused,) = kill(core)[1].sends
    assert head(refused.data)[0] == "SIP/2.0 503 Service Unavailable"


def test_it_is_not_refused_either_while_much_else_is_still_moved():
    core = make_core()
    invites = [ring(core, n) for n in range(100)]
    kill(core)
    assert core.pending.moved, "so much that others have their turn in between"
    assert phone(core, invites[-1], 101.0).sends == ()
    while core.pending.moved:
        assert core.failover.replay(101.0).sends == ()
    assert len(revive(core)) == 100


def test_what_waits_goes_on_in_the_order_in_which_it_first_came():
    core = make_core()
    kill(core)
    phone(core, in_call(core, "INFO", "z9hG4bKinfo"), 102.0)
    phone(core, in_call(core, "BYE"), 103.0)
    phone(core, in_call(core, "INFO", "z9hG4bKinfo"), 104.0)
    assert [line.split()[0] for line in first_lines(revive(core))] == ["INFO", "BYE"]


def test_a_hang_up_waits_for_as_long_as_no_server_lives_and_everything_else_for_64_t1():
    core = make_core()
    kill(core)
    phone(core, in_call(core, "INFO", "z9hG4bKinfo"), 102.0)
    phone(core, in_call(core, "BYE"), 102.0)
    phone(core, request("CANCEL", branch="z9hG4bKc", call_id="call-2"), 102.0)
    sends = revive(core, now=102.0 + 3600.0)
    assert [line.split()[0] for line in first_lines(sends)] == ["BYE", "CANCEL"]
    assert field(sends[0].data, "Failover-Kept") == "3600.000"
    assert core.counters["kept.expired"] == 1
    core = make_core()
    kill(core)
    phone(core, in_call(core, "INFO", "z9hG4bKinfo"), 102.0)
    assert len(revive(core, now=102.0 + KEPT_SECONDS)) == 1


def test_what_waits_is_bounded_and_strangers_push_no_real_call_out(monkeypatch):
    monkeypatch.setattr(outage_queue, "MAX_MESSAGES", 20)
    core = make_core()
    kill(core)
    for n in range(10):
        phone(core, in_call(core, branch=f"z9hG4bK{n}", call_id=f"call-{n}"))
    for n in range(1000):
        invented = request(
            "BYE", branch=f"z9hG4bKs{n}", source=STRANGER, to_tag="x", call_id=f"s{n}"
        )
        phone(core, invented, source=STRANGER)
    assert len(core.outage_queue) == 20 and core.counters["kept.overflow"] == 990
    passed = [field(send.data, "Call-ID") for send in revive(core)]
    assert set(passed) >= {f"call-{n}" for n in range(10)}


def test_what_waits_is_bounded_in_octets(monkeypatch):
    monkeypatch.setattr(outage_queue, "MAX_OCTETS", 10_000)
    core = make_core()
    kill(core)
    for n in range(100):
        phone(core, in_call(core, branch=f"z9hG4bK{n}", call_id=f"call-{n}"))
    assert sum(len(send.data) for send in revive(core)) < 15_000


def test_a_server_that_only_keeps_its_calls_is_one():
    """Draining: it takes no new calls, and those that it has are not to wait."""
    core = make_core()
    kill(core)
    phone(core, in_call(core))
    core.failover.signal("server1", ANSWER, 109.9, "answers", answered_503=True)
    (passed,) = core.failover.signal("server1", ANSWER, 110.0, "answers", answered_503=True).sends
    assert passed.to == "server1" and core.table.hot is None


def test_a_server_that_the_operator_enables_again_or_lists_is_one():
    core = make_core()
    fresh = make_core().table
    kill(core)
    phone(core, in_call(core))
    (passed,) = core.replace_table(fresh, 3, 2, 110.0).sends
    assert passed.to == "server1"


def test_a_phone_cannot_say_how_long_its_hang_up_was_kept():
    core = make_core()
    bye = in_call(core, extra=("failover-kept: 999", *_route(core)))
    (passed,) = phone(core, bye).sends
    assert b"999" not in passed.data and b"ailover-" not in passed.data.partition(b"\r\n\r\n")[0]
    for _ in range(3):
        send = core.quick(bye, PHONES, ALICE, 103.0) or phone(core, bye, 103.0).sends[0]
        assert b"999" not in send.data, "on the quick way neither"


def test_nor_does_a_phone_hear_it():
    core = make_core()
    hint = core.table.by_name["server1"].hint
    record = f"Record-Route: <sip:192.0.2.1:5060;lr;hint={hint}>"
    bye = request("BYE", CONTACT, SERVERS["server1"], "z9hG4bKs1", (record,), to_tag="b")
    told = bye.replace(b"CSeq:", b"Failover-Kept: 8.000\r\nCSeq:", 1)
    for _ in range(3):
        at = "server1", SERVERS["server1"], 100.0
        send = core.quick(told, *at) or core.receive(told, *at).sends[0]
        assert send.to == PHONES and b"Failover" not in send.data


def test_the_copy_of_one_that_was_lost_on_its_way_still_tells_when_the_first_came():
    core = make_core()
    kill(core)
    phone(core, in_call(core), 102.0)
    revive(core, now=110.0)
    for at in (111.0, 115.0):
        assert core.quick(in_call(core), PHONES, ALICE, at) is None
        (again,) = phone(core, in_call(core), at).sends
        assert field(again.data, "Failover-Kept") == f"{at - 102.0:.3f}"
    (later,) = phone(core, in_call(core, "INFO", "z9hG4bKinfo"), 116.0).sends
    assert field(later.data, "Failover-Kept") is None
    core.failover.on_timer(151.0)
    (later,) = phone(core, in_call(core), 151.0).sends
    assert field(later.data, "Failover-Kept") is None and not core.outage_queue.released


def test_so_it_does_if_another_one_went_on_after_it():
    core = make_core()
    ring(core)
    kill(core)
    phone(core, in_call(core), 102.0)
    for n in range(3):
        core.failover.signal("server2", ANSWER, 110.0 + n / 10, "answers with 503", True)
    assert len(core.outage_queue) == 1, "the INVITE, which wants a server that takes new calls"
    (invite,) = core.failover.signal("server2", ANSWER, 111.0, "answers", False).sends
    assert head(invite.data)[0].startswith("INVITE ")
    (again,) = phone(core, in_call(core), 112.0).sends
    assert field(again.data, "Failover-Kept") == "10.000"


def test_how_many_that_went_on_are_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(outage_queue, "MAX_MESSAGES", 20)
    core = make_core()
    for n in range(30):
        kill(core, now=101.0 + n)
        phone(core, in_call(core, branch=f"z9hG4bK{n}"), 101.2 + n)
        assert len(revive(core, now=101.5 + n)) >= 1
    assert len(core.outage_queue.released) == 20


def test_watchers_hear_what_waits_and_when_it_goes_on():
    core = make_core()
    kill(core)
    told = phone(core, in_call(core), 102.0).events
    assert told == (Queued(102.0, PHONES, ALICE, "BYE", None, "call-1"),)
    assert phone(core, in_call(core), 102.5).events == (), "of each message once"
    core.failover.signal("server1", ANSWER, 109.9, "answers")
    events = core.failover.signal("server1", ANSWER, 110.0, "answers").events
    assert Released(110.0, 1, 8.0) in events
    (passed,) = [event for event in events if isinstance(event, Passed)]
    assert passed.why.startswith("kept for 8.0 s, ")
    assert core.counters["kept"] == 1


def test_the_other_forwarder_has_the_address_now_so_nothing_waits_here():
    core = make_core()
    kill(core)
    phone(core, in_call(core))
    core.failover.become_standby()
    assert revive(core) == []


def test_both_servers_are_killed_a_phone_hangs_up_and_is_answered_when_one_is_back(
    free_port, eventually
):
    with fake_servers(free_port) as servers, plain_phone() as alice:
        listen = ("127.0.0.1", free_port())
        with running(config(listen[1], servers)) as forwarder:
            assert b"200 OK" in ask(alice, listen, "z9hG4bK1")
            for server in servers:
                server.kill()
            eventually(lambda: forwarder.status()["hot"] is None)
            assert b" 503 " in ask(alice, listen, "z9hG4bK2")
            alice.sendto(
                request("BYE", source=alice.getsockname(), branch="z9hG4bK3", to_tag="b"), listen
            )
            eventually(lambda: forwarder.status()["kept"] == 1)
            back = FakeServer("server2", servers[1].address)
            try:
                answered = alice.recv(65_535)
                assert answered.startswith(b"SIP/2.0 200") and b"CSeq: 1 BYE" in answered
                assert len(back.heard) == 1
            finally:
                back.kill()
            assert forwarder.status()["kept"] == 0


def test_a_hang_up_older_than_any_sender_waits_outlives_the_server_that_it_was_released_to():
    core = make_core()
    kill(core)
    phone(core, in_call(core), 102.0)
    (first,) = revive(core, "server1", now=162.0)
    assert first.to == "server1" and field(first.data, "Failover-Kept") == "60.000"
    core.failover.signal("server1", REFUSED, 163.0, "refused")
    assert len(core.outage_queue) == 1
    (second,) = revive(core, "server2", now=170.0)
    assert second.to == "server2" and field(second.data, "Failover-Kept") == "68.000", (
        "since its first copy came"
    )


@pytest.mark.parametrize("age", [20.0, 60.0])
def test_so_it_does_where_another_server_lives_by_then(age):
    core = make_core()
    kill(core)
    phone(core, in_call(core), 102.0)
    revive(core, "server1", now=102.0 + age)
    core.failover.signal("server2", ANSWER, 120.0 + age, "answers")
    core.failover.signal("server2", ANSWER, 120.1 + age, "answers")
    (again,) = core.failover.signal("server1", REFUSED, 121.0 + age, "refused").sends
    assert again.to == "server2" and field(again.data, "Failover-Kept") == f"{19 + age:.3f}"
