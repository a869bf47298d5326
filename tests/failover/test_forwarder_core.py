"""The forwarder's core, called with literals: what goes where, what changes in it, what happens
when a server dies."""

from __future__ import annotations

import random

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    OWN,
    SERVERS,
    answer,
    changes,
    field,
    head,
    lines,
    make_core,
    make_table,
    request,
)
from fuzz_kit import noise

from failover.config.settings import CALL_ID, PHONES
from failover.proxy.events import (
    Dropped,
    FailoverRecord,
    Outcome,
    Passed,
    Resumed,
    Send,
    StateChanged,
)
from failover.upstream.health import ANSWER, DOWN, MISS, RECOVERING, REFUSED, UP
from failover.upstream.server_table import AdminState

S1, S2 = SERVERS["server1"], SERVERS["server2"]
CONTACT_OF_BOB = f"sip:bob@{BOB[0]}:{BOB[1]}"


def phone(core, data, now=100.0, source=ALICE):
    return core.receive(data, PHONES, source, now)


def sent(outcome):
    assert len(outcome.sends) == 1, outcome
    return outcome.sends[0]


def reason(outcome):
    assert outcome.sends == ()
    return outcome.events[0].reason


def kill(core, name="server1", now=101.0):
    return core.failover.signal(name, REFUSED, now, "refused")


def revive(core, name="server1", now=110.0):
    core.failover.signal(name, ANSWER, now, "answers")
    return core.failover.signal(name, ANSWER, now, "answers")


# -- from a phone to a server ----------------------------------------------------------------------


def test_an_invite_goes_to_the_first_server_and_differs_only_by_the_forwarder_s_lines():
    core, invite = make_core(), request()
    send = sent(phone(core, invite))
    assert (send.to, send.target) == ("server1", None)
    gone, new = changes(invite, send.data)
    assert gone == {"Max-Forwards: 70"}
    own_via = field(send.data, "Via")
    assert own_via.startswith("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK")
    hint = core.table.by_name["server1"].hint
    assert new == {
        "Max-Forwards: 69",
        f"Via: {own_via}",
        f"Record-Route: <sip:192.0.2.1:5060;lr;hint={hint}>",
    }


def test_spacing_case_compact_names_and_folding_of_other_lines_stay():
    core = make_core()
    odd = (
        b"OPTIONS sip:bob@failover.test SIP/2.0\r\nv : SIP/2.0/UDP "
        b"192.0.2.7:5060;branch=z9hG4bKx\r\n"
        b"f:  <sip:a@b>;tag=1\r\nt:<sip:b@c>\r\ni: odd\r\nCSEQ:  7   OPTIONS\r\nmax-forwards: "
        b"70\r\n"
        b"X-Folded: one\r\n  two\r\nX-Bytes: \xff\xfe\r\n\r\nbody"
    )
    data = sent(phone(core, odd)).data
    for line in (
        b"v : SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKx",
        b"f:  <sip:a@b>;tag=1",
        b"CSEQ:  7   OPTIONS",
        b"X-Folded: one\r\n  two",
        b"X-Bytes: \xff\xfe",
    ):
        assert b"\r\n" + line + b"\r\n" in data
    assert data.endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    "method, recorded",
    [
        ("INVITE", True),
        ("SUBSCRIBE", True),
        ("REFER", True),
        ("REGISTER", False),
        ("MESSAGE", False),
        ("BYE", False),
    ],
)
def test_only_what_may_begin_a_dialog_is_record_routed(method, recorded):
    assert (
        field(sent(phone(make_core(), request(method))).data, "Record-Route") is not None
    ) == recorded


def test_a_request_inside_a_dialog_is_not_record_routed_again():
    assert field(sent(phone(make_core(), request(to_tag="b"))).data, "Record-Route") is None


def test_a_registration_gets_a_path_where_that_is_wished_for_and_nothing_else_does():
    core = make_core()
    register = request("REGISTER", uri="sip:failover.test", extra=("Path: <sip:192.0.2.99;lr>",))
    assert field(sent(phone(core, register)).data, "Path") == "<sip:192.0.2.99;lr>"
    core.table.path = True
    forwarded = sent(phone(core, register)).data
    assert [line for line in head(forwarded) if line.startswith("Path")] == [
        f"Path: <sip:{OWN[0]}:{OWN[1]};lr>",  # RFC 3327 5.2: the last proxy's on top
        "Path: <sip:192.0.2.99;lr>",
    ]
    assert field(sent(phone(core, request())).data, "Path") is None


def test_max_forwards_is_added_where_it_is_missing_and_refused_at_zero():
    core = make_core()
    assert field(sent(phone(core, request(hops=""))).data, "Max-Forwards") == "70"
    refused = sent(phone(core, request(hops="Max-Forwards: 0")))
    assert (refused.to, refused.target, head(refused.data)[0]) == (
        PHONES,
        ALICE,
        "SIP/2.0 483 Too Many Hops",
    )
    assert core.counters["dropped.too-many-hops"] == 1


def test_rport_and_received_say_where_the_request_really_came_from():
    natted = ("198.51.100.9", 40001)
    asked = request(via="Via: SIP/2.0/UDP 10.0.0.5:5060;rport;branch=z9hG4bKn")
    data = sent(phone(make_core(), asked, source=natted)).data
    vias = [line for line in head(data) if line.startswith("Via:")]
    assert (
        vias[1]
        == "Via: SIP/2.0/UDP 10.0.0.5:5060;rport=40001;branch=z9hG4bKn;received=198.51.100.9"
    )
    plain = request(via="Via: SIP/2.0/UDP 10.0.0.5:5062;branch=z9hG4bKn")
    core = make_core()
    answered = core.receive(
        answer(sent(phone(core, plain, source=natted)).data), "server1", S1, 100.1
    )
    assert sent(answered).target == ("198.51.100.9", 5062)


def test_what_a_phone_names_is_never_where_its_request_goes():
    victim = "203.0.113.66"
    core = make_core()
    for data in (
        request(uri=f"sip:x@{victim}:53"),
        request(uri=f"sip:x@failover.test;maddr={victim}"),
        request(extra=(f"Route: <sip:{victim};lr>",)),
        request(extra=(f"Route: <sip:192.0.2.1:5060;lr>, <sip:{victim};lr>",)),
        request("MESSAGE", uri=f"sip:{victim}", to_tag="b"),
    ):
        assert sent(phone(core, data)).to == "server1"
    asked = request(
        via=f"Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKm;maddr={victim};received={victim}"
    )
    back = core.receive(answer(sent(phone(core, asked)).data), "server1", S1, 100.0)
    assert sent(back).target == ALICE


def test_the_forwarder_s_own_route_is_taken_away_and_others_stay():
    core = make_core()
    data = sent(phone(core, request("BYE", to_tag="b", extra=("Route: <sip:192.0.2.1;lr>",)))).data
    assert field(data, "Route") is None
    listed = request(
        "BYE", to_tag="b", extra=("Route: <sip:192.0.2.1:5060;lr>, <sip:10.9.9.9;lr>",)
    )
    assert field(sent(phone(core, listed)).data, "Route") == "<sip:10.9.9.9;lr>"


def test_retransmission_cancel_and_ack_leave_with_the_branch_of_their_invite_on_any_forwarder_of_that_key():
    core, twin = make_core(), make_core()
    first = field(sent(phone(core, request())).data, "Via")
    for same in (request(), request("CANCEL"), request("ACK", to_tag="from-server")):
        assert field(sent(phone(core, same)).data, "Via") == first
        assert field(sent(phone(twin, same)).data, "Via") == first
    assert field(sent(phone(core, request(branch="z9hG4bKother"))).data, "Via") != first
    assert field(sent(phone(core, request(branch="1"))).data, "Via") != field(
        sent(phone(core, request(branch="1", cseq=2))).data, "Via"
    )


def test_the_event_of_a_message_names_the_decision():
    outcome = phone(make_core(), request())
    told = (100.0, PHONES, "server1", ALICE, S1, "INVITE", None, "call-1", False, "first-live")
    assert outcome.events[0] == Passed(*told, data=outcome.sends[0].data)


# -- answers ---------------------------------------------------------------------------------------


def test_a_response_goes_back_with_the_phone_s_own_via_on_top():
    core, invite = make_core(), request()
    ok = answer(sent(phone(core, invite)).data)
    back = sent(core.receive(ok, "server1", S1, 100.1))
    assert (back.to, back.target) == (PHONES, ALICE)
    gone, new = changes(ok, back.data)
    assert new == set() and [line[:4] for line in gone] == ["Via:"]
    assert field(back.data, "Via") == field(invite, "Via")


def test_a_response_nobody_asked_for_is_dropped():
    core = make_core()
    asked = sent(phone(core, request())).data
    bent = answer(asked).replace(b"192.0.2.7:5060;branch", b"203.0.113.66:53;branch")
    assert reason(core.receive(bent, "server1", S1, 100.0)) == "not-ours"
    assert reason(phone(core, bent)) == "not-ours"
    assert reason(phone(core, answer(request()))) == "not-ours"
    assert core.counters["dropped.not-ours"] == 3


def test_provisional_and_final_responses_pass_and_only_a_final_one_settles_the_request():
    core = make_core()
    asked = sent(phone(core, request())).data
    core.receive(answer(asked, "180 Ringing"), "server1", S1, 100.1)
    assert len(core.pending) == 1
    core.receive(answer(asked), "server1", S1, 100.2)
    assert len(core.pending) == 0
    assert core.table.by_name["server1"].responses == 2


# -- from a server ---------------------------------------------------------------------------------


def server_request(core, method="INVITE", uri=CONTACT_OF_BOB, name="server1", **options):
    """What the server makes of a phone's request: its own Via above, sent on to the contact."""
    where = SERVERS[name]
    return request(method, uri, source=where, branch="z9hG4bKserver", **options)


def test_a_server_s_request_goes_to_the_address_in_its_request_uri():
    core, invite = make_core(), server_request(make_core())
    send = sent(core.receive(invite, "server1", S1, 100.0))
    assert (send.to, send.target) == (PHONES, BOB)
    gone, new = changes(invite, send.data)
    assert gone == {"Max-Forwards: 70"} and len(new) == 3


def test_a_request_that_comes_back_from_the_server_is_record_routed_once():
    core = make_core()
    first = sent(phone(core, request())).data
    again = first.replace(b"sip:bob@failover.test SIP", CONTACT_OF_BOB.encode() + b" SIP")
    again = again.replace(
        b"Via:", f"Via: SIP/2.0/UDP {S1[0]}:{S1[1]};branch=z9hG4bKserver\r\nVia:".encode(), 1
    )
    data = sent(core.receive(again, "server1", S1, 100.0)).data
    assert sum(line.startswith("Record-Route") for line in head(data)) == 1
    assert [line.split()[2].partition(";")[0] for line in head(data) if line.startswith("Via")] == [
        "192.0.2.1:5060",
        "192.0.2.11:5070",
        "192.0.2.1:5060",
        "192.0.2.7:5060",
    ]


def test_a_server_s_next_route_goes_before_the_request_uri():
    core = make_core()
    routed = server_request(core, extra=(f"Route: <sip:192.0.2.1;lr>, <sip:{BOB[0]}:5099;lr>",))
    send = sent(core.receive(routed, "server1", S1, 100.0))
    assert send.target == (BOB[0], 5099) and field(send.data, "Route") == f"<sip:{BOB[0]}:5099;lr>"


@pytest.mark.parametrize(
    "uri, status",
    [
        ("sip:bob@failover.test", 502),
        ("sip:bob@224.0.0.1", 502),
        ("sip:bob@0.0.0.0", 502),
        ("sip:bob@192.0.2.1", 482),
        ("tel:+4930123456", 416),
    ],
)
def test_a_server_is_told_where_its_request_cannot_go(uri, status):
    core = make_core()
    refused = sent(core.receive(server_request(core, uri=uri), "server1", S1, 100.0))
    assert refused.to == "server1" and head(refused.data)[0].startswith(f"SIP/2.0 {status}")


def test_a_phone_s_answer_finds_the_server_that_asked():
    core = make_core()
    ringing = answer(
        sent(core.receive(server_request(core), "server1", S1, 100.0)).data, "180 Ringing"
    )
    back = sent(phone(core, ringing, source=BOB))
    assert (
        back.to == "server1"
        and field(back.data, "Via") == f"SIP/2.0/UDP {S1[0]}:{S1[1]};branch=z9hG4bKserver"
    )


# -- choosing --------------------------------------------------------------------------------------


def hinted(core, name, method="BYE"):
    return request(
        method,
        to_tag="b",
        extra=(f"Route: <sip:192.0.2.1:5060;lr;hint={core.table.by_name[name].hint}>",),
    )


def test_a_dialog_stays_with_the_server_that_its_hint_names():
    core = make_core()
    assert sent(phone(core, hinted(core, "server2"))).to == "server2"
    assert sent(phone(core, request("BYE", to_tag="b", branch="z9hG4bKb"))).to == "server1"


def test_a_hint_counts_on_a_forwarder_with_another_address_and_the_same_key():
    core = make_core()
    hint = core.table.by_name["server2"].hint
    data = sent(
        phone(core, request("BYE", to_tag="b", extra=(f"Route: <sip:203.0.113.1;lr;hint={hint}>",)))
    )
    assert data.to == "server2" and field(data.data, "Route") is None


def test_a_made_up_hint_counts_nothing():
    core = make_core()
    data = request("BYE", to_tag="b", extra=("Route: <sip:192.0.2.1;lr;hint=server2>",))
    assert sent(phone(core, data)).to == "server1"


def test_a_dead_server_s_dialog_goes_to_the_hot_one_and_comes_back_with_it():
    core = make_core()
    kill(core)
    assert sent(phone(core, hinted(core, "server1"))).to == "server2"
    revive(core)
    assert sent(phone(core, hinted(core, "server1"))).to == "server1"


def test_a_call_that_began_on_the_second_server_stays_there_when_the_first_is_back():
    core = make_core()
    kill(core)
    invite = sent(phone(core, request()))
    assert invite.to == "server2"
    revive(core)
    route = field(invite.data, "Record-Route")
    assert sent(phone(core, request("BYE", to_tag="b", extra=(f"Route: {route}",)))).to == "server2"
    assert sent(phone(core, request())).to == "server2", (
        "its retransmission goes where the INVITE went"
    )
    assert sent(phone(core, request("CANCEL"))).to == "server2", "and so does its CANCEL"
    assert sent(phone(core, request(branch="z9hG4bKnew", call_id="call-2"))).to == "server1"


def test_call_id_policy_spreads_the_calls_and_moves_only_those_of_the_dead_server():
    servers = {f"server{n}": (f"192.0.2.{n + 10}", 5060) for n in range(1, 5)}
    table = make_table(CALL_ID, servers)
    calls = [f"call-{n}" for n in range(400)]
    before = {call: table.choose(call, new=True).name for call in calls}
    assert all(60 < list(before.values()).count(name) < 140 for name in servers)
    table.servers[1].health = table.servers[1].health.after(REFUSED, 1.0, "", 3, 2)
    after = {call: table.choose(call, new=True).name for call in calls}
    assert {call for call in calls if before[call] != after[call]} == {
        c for c in calls if before[c] == "server2"
    }


def test_a_draining_server_keeps_its_calls_and_gets_no_new_ones():
    core = make_core()
    core.table.servers[0].admin_state = AdminState.DRAINING
    assert sent(phone(core, request())).to == "server2"
    assert sent(phone(core, hinted(core, "server1"))).to == "server1"
    kill(core, "server2")
    assert (
        head(sent(phone(core, request(branch="z9hG4bKnew"))).data)[0]
        == "SIP/2.0 503 Service Unavailable"
    )
    assert sent(phone(core, request("BYE", to_tag="b", branch="z9hG4bKbye"))).to == "server1", (
        "better than nobody"
    )


def test_a_disabled_server_gets_nothing_but_may_still_answer_what_it_has():
    core = make_core()
    asked = sent(phone(core, request("OPTIONS", branch="z9hG4bKo"))).data
    changed = core.failover.set_admin_state("server1", AdminState.DISABLED, 101.0)
    assert changed.sends == () and changed.events[0].hot == "server2"
    assert changed.events[0].why == "disabled by the operator: gets nothing"
    assert sent(phone(core, hinted(core, "server1"))).to == "server2"
    assert sent(core.receive(answer(asked), "server1", S1, 101.1)).to == PHONES
    assert not core.failover.records, "as wished, so no failover"
    assert core.failover.set_admin_state("server1", AdminState.DISABLED, 102.0) == Outcome(), (
        "it is already"
    )
    assert (
        core.failover.set_admin_state("server1", AdminState.ENABLED, 103.0).events[0].hot
        == "server1"
    )
    with pytest.raises(KeyError):
        core.failover.set_admin_state("server9", AdminState.DRAINING, 104.0)


def test_how_often_and_how_long_a_server_was_down_is_kept():
    core = make_core()
    server = core.table.servers[0]
    assert (server.times_down, server.downtime(100.0)) == (0, 0.0)
    kill(core, now=101.0)
    assert (server.times_down, server.downtime(105.0)) == (1, 4.0)
    core.failover.signal("server1", ANSWER, 106.0, "answers")
    core.failover.signal("server1", MISS, 107.0, "no answer")
    core.failover.signal("server1", ANSWER, 110.0, "answers")
    revive(core, now=111.0)
    assert (server.times_down, server.downtime(200.0), server.missed_checks) == (1, 10.0, 1)


def test_a_server_that_answers_its_heartbeats_with_503_is_alive_and_gets_no_new_calls():
    core = make_core()
    changed = core.failover.signal("server1", ANSWER, 101.0, "answers", answered_503=True).events
    assert changed == (StateChanged(101.0, "server1", UP, core.table.servers[0].why, "server2"),)
    assert "503" in core.table.servers[0].why
    assert sent(phone(core, request())).to == "server2"
    assert sent(phone(core, hinted(core, "server1"))).to == "server1"
    back = core.failover.signal(
        "server1", ANSWER, 102.0, "answers heartbeats (200)", answered_503=False
    ).events[0]
    assert (back.hot, back.why) == ("server1", "answers heartbeats (200)")


# -- nobody lives ----------------------------------------------------------------------------------


def test_when_no_server_lives_a_phone_hears_503_at_once_and_its_ack_is_swallowed():
    core = make_core()
    kill(core, "server1")
    kill(core, "server2")
    refused = sent(phone(core, request()))
    assert (refused.to, refused.target) == (PHONES, ALICE)
    assert (
        head(refused.data)[0] == "SIP/2.0 503 Service Unavailable"
        and field(refused.data, "Retry-After") == "2"
    )
    again = sent(phone(core, request()))
    assert field(again.data, "To") == field(refused.data, "To"), (
        "a retransmission gets the very same answer"
    )
    own_tag = field(refused.data, "To").partition(";tag=")[2]
    assert reason(phone(core, request("ACK", to_tag=own_tag))) == "own-ack"
    revive(core)
    assert reason(phone(core, request("ACK", to_tag=own_tag))) == "own-ack", "no server's business"


# -- failover --------------------------------------------------------------------------------------


def test_a_refused_server_is_down_at_once_and_what_it_owes_goes_to_the_next():
    core = make_core()
    invite, message = request(), request("MESSAGE", branch="z9hG4bKm", call_id="call-2")
    phone(core, invite, 100.0)
    phone(core, message, 100.5)
    settled = sent(phone(core, request("OPTIONS", branch="z9hG4bKo"), 100.6)).data
    core.receive(answer(settled), "server1", S1, 100.7)
    moved = kill(core, now=101.0)
    assert [send.to for send in moved.sends] == ["server2", "server2"]
    assert [head(send.data)[0].split()[0] for send in moved.sends] == ["INVITE", "MESSAGE"]
    assert core.table.by_name["server2"].hint in field(moved.sends[0].data, "Record-Route")
    assert moved.events[0] == StateChanged(101.0, "server1", DOWN, "refused", "server2")
    expected = FailoverRecord(
        101.0, "server1", "server2", "refused", 2, in_flight=2, last_answer=100.7
    )
    assert moved.events[1] == expected
    assert all(event.replayed and event.why.startswith("replayed") for event in moved.events[2:])
    revive(core)
    again = kill(core, "server2", 120.0)
    assert [send.to for send in again.sends] == ["server1", "server1"], (
        "it is another one since it came back"
    )
    revive(core, "server2", 130.0)
    once_more = kill(core, "server1", 131.0)
    assert [send.to for send in once_more.sends] == ["server2", "server2"], (
        "servers that outlived it for so long did not go down because of it"
    )


def test_a_replayed_request_keeps_its_branch_so_that_the_far_end_takes_it_for_a_retransmission():
    core = make_core()
    first = sent(phone(core, request()))
    assert field(kill(core).sends[0].data, "Via") == field(first.data, "Via")


def test_a_survivor_that_repeats_what_a_dead_server_had_sent_makes_a_retransmission_of_it_for_the_phone():
    core = make_core()

    def sent_to_bob(server):
        via = f"Via: SIP/2.0/UDP {SERVERS[server][0]}:{SERVERS[server][1]};branch=z9hG4bKcluster"
        data = request(uri=f"sip:bob@{BOB[0]}:{BOB[1]}", via=via)
        return core.receive(data, server, SERVERS[server], 1.0).sends[0].data

    first, again = sent_to_bob("server1"), sent_to_bob("server2")
    assert field(first, "Via") == field(again, "Via")
    core.failover.signal("server1", REFUSED, 2.0, "refused")
    late = core.receive(answer(first, "180 Ringing"), PHONES, BOB, 2.1)
    assert [send.to for send in late.sends] == ["server2"]


def test_a_ringing_call_s_answer_reaches_the_survivor():
    core = make_core()
    ringing_bob = sent(core.receive(server_request(core), "server1", S1, 100.0)).data
    kill(core)
    taken = sent(phone(core, answer(ringing_bob), source=BOB, now=101.5))
    assert taken.to == "server2"


def test_an_answer_of_the_last_second_is_said_again_to_the_survivor_an_older_one_is_not():
    core = make_core()
    asked = sent(core.receive(server_request(core), "server1", S1, 100.0)).data
    phone(core, answer(asked, "180 Ringing"), source=BOB, now=100.0)
    phone(core, answer(asked), source=BOB, now=100.9)
    moved = kill(core, now=101.5)
    assert [(send.to, head(send.data)[0]) for send in moved.sends] == [
        ("server2", "SIP/2.0 200 OK")
    ]


def test_an_ack_of_the_last_second_is_said_again_too():
    core = make_core()
    phone(core, request("ACK", to_tag="b"), now=100.9)
    assert [send.to for send in kill(core, now=101.0).sends] == ["server2"]


def test_when_the_last_server_dies_what_waits_hears_503():
    core = make_core()
    kill(core, "server2")
    phone(core, request())
    dead = kill(core, "server1")
    assert [(send.to, head(send.data)[0]) for send in dead.sends] == [
        (PHONES, "SIP/2.0 503 Service Unavailable")
    ]
    assert dead.events[1].successor is None


def test_a_failover_remembers_how_long_its_first_request_waited():
    core = make_core()
    phone(core, request(), 100.9)
    moved = kill(core, now=101.0)
    assert core.failover.records[-1].gap is None
    outcome = core.receive(answer(moved.sends[0].data), "server2", S2, 101.1)
    failover = core.failover.records[-1]
    assert failover.gap == pytest.approx(0.2)
    assert outcome.events[0] == Resumed(101.1, failover)
    assert core.receive(
        answer(sent(phone(core, request("OPTIONS", branch="z9hG4bKo"))).data), "server2", S2, 101.2
    )
    assert core.failover.records[-1] == failover, "the first answer only"


def test_a_failover_is_recorded_with_the_last_answer_before_it_and_what_nobody_could_be_sent():
    core = make_core()
    settled = sent(phone(core, request("OPTIONS", branch="z9hG4bKo"), 100.0)).data
    core.receive(answer(settled), "server1", S1, 100.4)
    phone(core, request(), 100.5)
    first = kill(core, now=101.0).events[1]
    assert (first.last_answer, first.in_flight, first.replayed) == (100.4, 1, 1)
    phone(core, request("MESSAGE", branch="z9hG4bKm"), 101.5)
    last = kill(core, "server2", now=102.0).events[1]
    assert (last.successor, last.in_flight, last.replayed) == (None, 2, 0), (
        "one was moved before, one hears 503"
    )
    assert core.failover.records[-1].silence is None


def test_where_the_work_is_spread_the_first_answer_is_one_to_something_that_was_moved():
    core = make_core(CALL_ID)
    calls = {
        f"c{n}": sent(phone(core, request(branch=f"z9hG4bK{n}", call_id=f"c{n}"), 100.9))
        for n in range(8)
    }
    assert {send.to for send in calls.values()} == {"server1", "server2"}
    moved = kill(core, now=101.0).sends
    own = next(send for send in calls.values() if send.to == "server2")
    assert not [
        e
        for e in core.receive(answer(own.data), "server2", S2, 101.1).events
        if isinstance(e, Resumed)
    ]
    assert isinstance(core.receive(answer(moved[0].data), "server2", S2, 101.2).events[0], Resumed)


def test_the_death_of_a_replica_that_owes_nothing_is_no_failover():
    core = make_core()
    assert [type(event) for event in kill(core, "server2").events] == [StateChanged]
    assert not core.failover.records


def test_what_a_server_that_is_down_says_is_dropped_until_its_heartbeats_are_back():
    core = make_core()
    asked = sent(phone(core, request())).data
    kill(core)
    assert reason(core.receive(answer(asked), "server1", S1, 102.0)) == "fenced"
    assert reason(core.receive(server_request(core), "server1", S1, 102.0)) == "fenced"
    core.failover.signal("server1", ANSWER, 103.0, "answers")
    assert core.table.servers[0].health.state is RECOVERING
    assert reason(core.receive(answer(asked), "server1", S1, 103.0)) == "fenced"
    core.failover.signal("server1", ANSWER, 103.1, "answers")
    assert sent(core.receive(answer(asked), "server1", S1, 103.2)).to == PHONES


def test_a_dead_server_s_address_in_request_uri_and_route_becomes_the_survivor_s():
    core = make_core()
    kill(core)
    route = "Route: <sip:192.0.2.11:5070;lr;x=1>"
    data = sent(
        phone(core, request("BYE", uri="sip:bob@192.0.2.11:5070;ob", to_tag="b", extra=(route,)))
    ).data
    assert head(data)[0] == "BYE sip:bob@192.0.2.12:5080;ob SIP/2.0"
    assert field(data, "Route") == "<sip:192.0.2.12:5080;lr;x=1>"
    bye = server_request(core, "BYE", "sip:b2b@192.0.2.11:5070", "server2", to_tag="b")
    moved = core.receive(bye, "server2", S2, 102.0)
    assert (
        sent(moved).to == "server2"
        and head(sent(moved).data)[0] == "BYE sip:b2b@192.0.2.12:5080 SIP/2.0"
    )


def test_in_flight_is_bounded_in_age():
    core = make_core()
    phone(core, request(), 100.0)
    phone(core, request(branch="z9hG4bKlater"), 131.0)
    assert [field(send.data, "CSeq") for send in kill(core, now=133.0).sends] == ["1 INVITE"]
    assert core.counters["inflight.expired"] == 1


def test_in_flight_is_bounded_in_number_and_octets(monkeypatch):
    core = make_core()
    monkeypatch.setattr("failover.proxy.pending_messages.MAX_DATAGRAMS", 20)
    for n in range(30):
        phone(core, request(branch=f"z9hG4bK{n}"))
        phone(core, request("ACK", branch=f"z9hG4bK{n}", to_tag="b"))
    assert len(core.pending) <= 20 and core.counters["inflight.overflow"] >= 10
    monkeypatch.setattr("failover.proxy.pending_messages.MAX_OCTETS", 800)
    phone(core, request(branch="z9hG4bKlast"))
    assert len(core.pending) <= 3


# -- another table ---------------------------------------------------------------------------------


def test_a_reload_moves_what_a_removed_server_owes_and_drops_what_it_says():
    core = make_core()
    asked = sent(phone(core, request())).data
    kept = core.table.servers[1]
    table = make_table()
    table = type(table)([kept], table.policy)
    moved = core.replace_table(table, 3, 2, 101.0)
    assert [send.to for send in moved.sends] == ["server2"]
    assert core.failover.records[-1].noticed == "taken out of the list"
    assert reason(core.receive(answer(asked), "server1", S1, 102.0)) == "fenced"


def test_a_reload_that_puts_another_server_first_tells_who_is_hot():
    core = make_core()
    table = type(core.table)(reversed(core.table.servers), core.table.policy)
    assert [event.hot for event in core.replace_table(table, 3, 2, 101.0).events] == ["server2"]


def test_signals_of_a_server_that_is_no_longer_listed_do_nothing():
    assert make_core().failover.signal("server9", MISS, 1.0, "") == Outcome()


# -- strangers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"\0", b"\r\n", b" \r\n"])
def test_keep_alives_are_counted_and_left_alone(data):
    core = make_core()
    assert phone(core, data) == Outcome()
    assert core.counters["keepalives"] == 1


def test_what_is_not_sip_is_dropped_and_a_broken_request_hears_400():
    core = make_core()
    outcome = phone(core, b"GET / HTTP/1.1\r\n\r\n")
    assert reason(outcome) == "malformed" and isinstance(outcome.events[0], Dropped)
    broken = sent(phone(core, request().replace(b"CSeq: 1 INVITE", b"CSeq: 1 BYE")))
    assert head(broken.data)[0] == "SIP/2.0 400 Bad Request" and broken.target == ALICE
    assert phone(core, request("ACK").replace(b"CSeq: 1 ACK", b"CSeq: x")).sends == ()
    assert phone(core, lines("INVITE sip:x SIP/2.0", "To: <sip:x>")).sends == ()
    assert phone(core, request(extra=("Route: <<<",))).sends[0].to == PHONES


def test_a_request_with_an_empty_call_id_is_refused_to_who_sent_it():
    refused = sent(phone(make_core(), request().replace(b"Call-ID: call-1", b"Call-ID: ")))
    assert head(refused.data)[0] == "SIP/2.0 400 Bad Request" and refused.target == ALICE
    assert field(refused.data, "Via").startswith("SIP/2.0/UDP 192.0.2.7")


SCRAPS = [b"", b"\r\n", b":", b";", b"<", b'"', b",", b"\xff", b"0", b"\0", b" "]
INVARIANT = (
    "any bytes from anywhere give an Outcome, and what they give goes to the sender or to a server"
)


@pytest.mark.parametrize("side", [PHONES, "server1", "server2", "nobody"])
def test_any_bytes_give_an_outcome(side):
    core = make_core()
    for data in noise(500, longest=300):
        assert all(
            isinstance(send, Send) for send in core.receive(data, side, ALICE, 100.0).sends
        ), INVARIANT


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize("state", ["alive", "one dead", "all dead"])
def test_a_message_bent_anywhere_gives_an_outcome(seed, state):
    chance, core = random.Random(seed), make_core()
    good = chance.choice(
        [request(), request(to_tag="b", extra=("Route: <sip:192.0.2.1;lr>",)), server_request(core)]
    )
    if chance.random() < 0.3:
        good = answer(sent(phone(core, request())).data)
    for name in {"alive": [], "one dead": ["server1"], "all dead": ["server1", "server2"]}[state]:
        kill(core, name)
    bent = bytearray(good)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(bent))
        bent[at : at + chance.randrange(4)] = chance.choice(SCRAPS)
    side, source = chance.choice([(PHONES, ALICE), ("server1", S1), ("server2", S2)])
    for send in core.receive(bytes(bent), side, source, 200.0).sends:
        if side == PHONES and send.to == PHONES and not bytes(bent).startswith(b"SIP"):
            assert send.target[0] == ALICE[0], INVARIANT
