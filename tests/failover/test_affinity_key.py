"""Sticky sessions: what names one, who gets it, and that two forwarders with one secret decide
alike."""

from __future__ import annotations

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    KEY,
    OWN,
    SERVERS,
    answer,
    field,
    lines,
    make_core,
    make_table,
    request,
)

from failover.config.settings import CALL_ID, PHONES
from failover.proxy.core import Core
from failover.upstream.affinity_key import affinity_key
from failover.upstream.health import ANSWER, REFUSED
from failover.upstream.server_table import ServerTable
from sip.message import parse

EIGHT = {f"server{n}": (f"192.0.2.{100 + n}", 5060) for n in range(1, 9)}
CALLS = [f"call-{n}" for n in range(160)]


# -- what names a session --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header, line, name",
    [
        ("Call-ID", "Call-ID: c1", "c1"),
        ("Call-ID", "i:   c1  ", "c1"),
        ("X-Session", "X-Session: blue", "blue"),
        ("X-Session", "x-session :  blue ", "blue"),
        ("X-Session", "X-Other: blue", "c0"),
        ("X-Session", "X-Session:", "c0"),
        (
            "To",
            'To: "Bob" <sip:bob@FAILOVER.test:5060;transport=udp>;tag=7',
            "sip:bob@failover.test",
        ),
        ("To", "t: sip:bob@failover.test;tag=8", "sip:bob@failover.test"),
        ("From", "f: <sip:alice@failover.test>;tag=9", "sip:alice@failover.test"),
        (
            "P-Asserted-Identity",
            "P-Asserted-Identity: <sip:carol@failover.test>",
            "sip:carol@failover.test",
        ),
        ("P-Asserted-Identity", "P-Asserted-Identity: <<", "c0"),
    ],
)
def test_the_value_of_the_header_names_it_and_else_the_call_id(header, line, name):
    rest = [] if line.lower().startswith(("call-id", "i:")) else ["Call-ID: c0"]
    assert affinity_key(parse(lines("OPTIONS sip:x SIP/2.0", line, *rest)), header) == name


# -- who gets it -----------------------------------------------------------------------------------


def choosing(header="Call-ID", key=KEY, own=OWN, servers=EIGHT):
    """A core of eight servers, all up, that spreads the sessions named by the header."""
    table = make_table(CALL_ID, servers)
    return Core(ServerTable(table.servers, CALL_ID, header), key, lambda host: own)


def invite(core, call, extra=(), now=100.0):
    """(the server that a new call goes to, the Record-Route that the call's phones will follow)."""
    data = request(branch=f"z9hG4bK{call}", call_id=call, extra=extra)
    (send,) = core.receive(data, PHONES, ALICE, now).sends
    core.receive(answer(send.data), send.to, EIGHT[send.to], now)
    return send.to, field(send.data, "Record-Route")


def bye(core, call, route, source=ALICE):
    data = request(
        "BYE",
        branch=f"z9hG4bKbye{call}",
        call_id=call,
        to_tag="b",
        extra=(f"Route: {route}",),
        source=source,
    )
    (send,) = core.receive(data, PHONES, source, 150.0).sends
    core.receive(answer(send.data), send.to, EIGHT[send.to], 150.0)
    return send.to


def kill(core, name):
    core.failover.signal(name, REFUSED, 101.0, "refused")


def revive(core, name):
    for now in (120.0, 121.0):
        core.failover.signal(name, ANSWER, now, "answers")


def test_a_dead_server_s_calls_move_and_no_others():
    core = choosing()
    began = {call: invite(core, call) for call in CALLS}
    assert {name for name, _ in began.values()} == set(EIGHT), "all eight have work"
    kill(core, "server3")
    for call, (name, route) in began.items():
        moved_to = bye(core, call, route)
        assert (moved_to == name) == (name != "server3"), "inside the dialog"
        assert (invite(core, call)[0] == name) == (name != "server3"), (
            "and for a new one of that name"
        )
    heirs = {bye(core, call, route) for call, (name, route) in began.items() if name == "server3"}
    assert len(heirs) > 2, "its work is spread over those who live"


def test_a_server_that_is_back_gets_new_calls_and_those_that_began_on_it_and_no_others():
    core = choosing()
    before = {call: invite(core, call) for call in CALLS}
    kill(core, "server3")
    meanwhile = {f"later-{call}": invite(core, f"later-{call}") for call in CALLS}
    assert "server3" not in {name for name, _ in meanwhile.values()}
    revive(core, "server3")
    for call, (name, route) in {**before, **meanwhile}.items():
        assert bye(core, call, route) == name
        assert bye(core, call, route, source=BOB) == name, "whoever of the two hangs up"
    new = {call: invite(core, f"new-{call}")[0] for call in CALLS}
    assert "server3" in new.values()


def test_the_ack_of_a_refused_call_finds_the_server_that_refused_it_when_another_is_back():
    core = make_core()
    kill(core, "server1")
    (asked,) = core.receive(request(), PHONES, ALICE, 110.0).sends
    assert asked.to == "server2"
    revive(core, "server1")
    core.receive(answer(asked.data, "486 Busy Here"), "server2", SERVERS["server2"], 130.0)
    for again in (request("ACK", to_tag="b"), request(), request("ACK", to_tag="b")):
        assert core.receive(again, PHONES, ALICE, 130.1).sends[0].to == "server2"
    assert core.receive(request(branch="z9hG4bKnew"), PHONES, ALICE, 130.2).sends[0].to == "server1"


def test_of_refused_calls_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr("failover.proxy.pending_messages.MAX_REFUSALS", 3)
    core = make_core()
    for n in range(9):
        (asked,) = core.receive(request(branch=f"z9hG4bK{n}"), PHONES, ALICE, 100.0).sends
        core.receive(answer(asked.data, "404 Not Found"), asked.to, SERVERS[asked.to], 100.1)
    assert len(core.pending._refusals) == 3


def test_sessions_of_one_header_meet_on_one_server_whatever_their_call_ids():
    core = choosing("X-Session")
    where = {
        name: {invite(core, call, extra=(f"X-Session: {name}",))[0] for call in CALLS[:20]}
        for name in "abcdefghij"
    }
    assert all(len(servers) == 1 for servers in where.values())
    assert len(set.union(*where.values())) > 2
    assert len({invite(core, call)[0] for call in CALLS}) == 8, (
        "those without the header go by their Call-ID"
    )


def test_a_forged_or_truncated_hint_is_ignored():
    core = choosing()
    name, route = invite(core, "call-1")
    hint = core.table.by_name[name].hint
    stranger = choosing(key=b"another secret altogether")
    other = next(server for server in core.table.servers if server.name != name)
    forged = [
        hint[:-1],
        hint + "a",
        hint.upper(),
        "",
        other.name,
        "%00",
        f"{other.hint[:13]}{hint[13:]}",
    ]
    forged += [server.hint + "x" for server in stranger.table.servers]
    for word in forged:
        assert bye(core, "call-1", f"<sip:{OWN[0]}:{OWN[1]};lr;hint={word}>") == name, (
            f"by the policy, not by {word!r}"
        )
    assert bye(core, "call-1", f"<sip:{OWN[0]};lr;hint={other.hint}>") == other.name, (
        "what a good one does"
    )
    assert bye(core, "call-1", route) == name


# -- two forwarders --------------------------------------------------------------------------------


def test_a_second_forwarder_with_the_same_secret_routes_alike():
    ours, theirs = choosing(), choosing(own=("198.51.100.1", 5060))
    for call in CALLS:
        name, route = invite(ours, call)
        assert invite(theirs, call)[0] == name, "new calls"
        assert bye(theirs, call, route) == name, "dialogs of the other"
    kill(ours, "server3")
    name, route = next(
        found for found in (invite(ours, f"x-{call}") for call in CALLS) if found[0] != "server3"
    )
    assert bye(theirs, "x", route) == name, (
        "dialogs that began while one of them thought a server dead"
    )


def test_an_answer_may_come_back_through_either_forwarder_of_one_secret_and_through_no_other():
    ours, theirs, strangers = choosing(), choosing(), choosing(key=b"another secret altogether")
    (send,) = ours.receive(request(), PHONES, ALICE, 100.0).sends
    for core, passes in ((ours, True), (theirs, True), (strangers, False)):
        back = core.receive(answer(send.data), send.to, EIGHT[send.to], 100.1)
        assert [found.target for found in back.sends] == ([ALICE] if passes else [])
    assert strangers.counters["dropped.not-ours"] == 1


def test_retransmission_and_cancel_through_the_other_forwarder_keep_server_and_branch():
    ours, theirs = choosing(), choosing()
    for call in CALLS[:20]:
        data = [
            request(method, branch=f"z9hG4bK{call}", call_id=call)
            for method in ("INVITE", "CANCEL")
        ]
        (first,) = ours.receive(data[0], PHONES, ALICE, 100.0).sends
        for again in data:
            (send,) = theirs.receive(again, PHONES, ALICE, 100.5).sends
            assert (send.to, field(send.data, "Via")) == (first.to, field(first.data, "Via"))


def test_the_first_live_policy_does_not_care_what_a_session_is_called():
    core = make_core()
    assert {
        core.receive(request(branch=f"z9hG4bK{c}", call_id=c), PHONES, ALICE, 1.0).sends[0].to
        for c in CALLS
    } == {"server1"}
