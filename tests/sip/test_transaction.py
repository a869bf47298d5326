"""The four transaction tables, walked; and their timers with a clock that hops (RFC 3261 17, RFC
6026)."""

from __future__ import annotations

import pytest

from sip.errors import LocalProtocolError
from sip.message import Request, Response, reply
from sip.transaction import (
    INVITE_CLIENT,
    INVITE_SERVER,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    T1,
    TIMERS,
    ClientTransaction,
    Deliver,
    Do,
    Event,
    ServerTransaction,
    State,
    TimedOut,
    Transaction,
    Transmit,
    Unreachable,
    client_key,
    make_cancel,
    server_key,
)

# table -> the events that every state but TERMINATED answers, and which timers run in which state
TABLES = {
    "INVITE client": (
        INVITE_CLIENT,
        {"1xx", "2xx", "300-699", "transport error"},
        {"Calling": {"A", "B"}, "Completed": {"D"}, "Accepted": {"M"}},
    ),
    "non-INVITE client": (
        NON_INVITE_CLIENT,
        {"1xx", "200-699", "transport error"},
        {"Trying": {"E", "F"}, "Proceeding": {"E", "F"}, "Completed": {"K"}},
    ),
    "INVITE server": (
        INVITE_SERVER,
        {"the request, again", "ACK", "1xx", "2xx", "300-699", "transport error"},
        {"Completed": {"G", "H"}, "Confirmed": {"I"}, "Accepted": {"L"}},
    ),
    "non-INVITE server": (
        NON_INVITE_SERVER,
        {"the request, again", "1xx", "200-699", "transport error"},
        {"Completed": {"J"}},
    ),
}


def make_request(method: str = "INVITE", branch: str = "z9hG4bKa1") -> Request:
    fields = [("Via", f"SIP/2.0/UDP 192.0.2.1:5062;branch={branch};rport"), ("Max-Forwards", "70")]
    fields += [("From", "<sip:alice@failover.test>;tag=a"), ("To", "<sip:bob@failover.test>")]
    fields += [("Call-ID", "c1"), ("CSeq", f"7 {method}"), ("Route", "<sip:192.0.2.9;lr>")]
    return Request(method, "sip:bob@failover.test", fields)


def sent(outcomes: list) -> list[str]:
    """What went out, as 'INVITE' or '200', with a + where it went out again."""
    messages = [(o.message, o.repeated) for o in outcomes if isinstance(o, Transmit)]
    names = [
        (m.method if isinstance(m, Request) else str(m.status), again) for m, again in messages
    ]
    return [name + "+" * again for name, again in names]


def run_until(transaction: Transaction, end: float) -> list[tuple[float, object]]:
    """Hop from deadline to deadline; everything that came of it, with its time."""
    seen = []
    while transaction.deadline is not None and transaction.deadline <= end:
        now = transaction.deadline
        seen += [(now, outcome) for outcome in transaction.on_deadline(now)]
    return seen


@pytest.mark.parametrize("name", TABLES)
def test_every_state_of_every_table_answers_every_event_and_its_own_timers(name):
    table, events, timers = TABLES[name]
    for state, row in table.items():
        expected = events | timers.get(state.value, set())
        assert {event.value for event in row} == expected, f"{name}, {state.value}"
        for target, _ in row.values():
            assert target in table
    assert all(step == (State.TERMINATED, ()) for step in table[State.TERMINATED].values())


@pytest.mark.parametrize("name", TABLES)
def test_every_state_can_be_reached_and_left(name):
    table = TABLES[name][0]
    reached = {next(iter(table))}
    while True:
        further = reached | {target for state in reached for target, _ in table[state].values()}
        if further == reached:
            break
        reached = further
    assert reached == set(table)
    for state in set(table) - {State.TERMINATED}:
        assert any(target is not state for target, _ in table[state].values()), (
            f"{name}: nothing leaves {state.value}"
        )


@pytest.mark.parametrize("name", TABLES)
def test_no_state_waits_for_ever_but_for_a_final_response(name):
    for state, row in TABLES[name][0].items():
        ends = [event for event in row if event in TIMERS and row[event][0] is not state]
        # RFC 3261 bounds neither how long a phone rings nor how long a person takes to answer.
        ringing = state is State.PROCEEDING and name != "non-INVITE client"
        undecided = state is State.TRYING and name == "non-INVITE server"
        assert ends or ringing or undecided or state is State.TERMINATED, f"{name}, {state.value}"


def test_an_unanswered_invite_is_sent_seven_times_and_given_up_after_32_seconds():
    invite = ClientTransaction(make_request())
    assert sent(invite.start(100.0)) == ["INVITE"]
    seen = run_until(invite, 200.0)
    assert [t - 100.0 for t, o in seen if isinstance(o, Transmit)] == [
        0.5,
        1.5,
        3.5,
        7.5,
        15.5,
        31.5,
    ]
    assert seen[-1] == (132.0, TimedOut())
    assert (invite.state, invite.retransmissions) == (State.TERMINATED, 6)


def test_an_unanswered_options_is_repeated_at_most_every_four_seconds():
    options = ClientTransaction(make_request("OPTIONS"))
    options.start(0.0)
    seen = run_until(options, 100.0)
    assert [t for t, o in seen if isinstance(o, Transmit)] == [
        0.5,
        1.5,
        3.5,
        7.5,
        11.5,
        15.5,
        19.5,
        23.5,
        27.5,
        31.5,
    ]
    assert seen[-1] == (32.0, TimedOut())


def test_a_provisional_response_slows_a_request_down_and_silences_an_invite():
    options, invite = ClientTransaction(make_request("OPTIONS")), ClientTransaction(make_request())
    for transaction in (options, invite):
        transaction.start(0.0)
        assert transaction.receive(reply(transaction.request, 100), 0.1) != []
    assert run_until(invite, 1000.0) == []
    repeats = [t for t, o in run_until(options, 20.0) if isinstance(o, Transmit)]
    assert repeats == [0.5, 4.5, 8.5, 12.5, 16.5]


def test_a_clock_that_jumped_causes_one_repeat_and_no_burst():
    invite = ClientTransaction(make_request())
    invite.start(0.0)
    assert sent(invite.on_deadline(20.0)) == ["INVITE+"]


def test_a_failure_is_acknowledged_each_time_it_comes_and_told_once():
    invite = ClientTransaction(make_request())
    invite.start(0.0)
    busy = reply(invite.request, 486, to_tag="b")
    first = invite.receive(busy, 1.0)
    assert sent(first) == ["ACK"] and Deliver(busy) in first
    again = invite.receive(busy, 2.0)
    assert sent(again) == ["ACK"] and len(again) == 1
    ack = again[0].message
    # RFC 3261 17.1.1.3
    assert ack.uri == "sip:bob@failover.test" and str(ack.cseq) == "7 ACK"
    assert (
        ack.via == invite.request.via
        and ack.to.tag == "b"
        and ack.get("Route") == "<sip:192.0.2.9;lr>"
    )
    assert run_until(invite, 40.0) == [] and invite.state is State.TERMINATED


def test_every_2xx_reaches_the_caller_so_that_forks_are_acknowledged():
    invite = ClientTransaction(make_request())
    invite.start(0.0)
    for tag, now in (("b", 1.0), ("b", 1.5), ("c", 2.0)):
        ok = reply(invite.request, 200, to_tag=tag)
        assert invite.receive(ok, now) == [Deliver(ok)]
    assert invite.receive(reply(invite.request, 486, to_tag="d"), 3.0) == []
    assert run_until(invite, 1.0 + 64 * T1) == [] and invite.state is State.TERMINATED


def test_only_an_invite_that_is_proceeding_may_be_cancelled():
    invite = ClientTransaction(make_request())
    invite.start(0.0)
    assert not invite.may_cancel
    invite.receive(reply(invite.request, 180, to_tag="b"), 0.1)
    assert invite.may_cancel
    cancel = make_cancel(invite.request)
    assert (
        cancel.via == invite.request.via and str(cancel.cseq) == "7 CANCEL" and cancel.to.tag == ""
    )
    invite.receive(reply(invite.request, 200, to_tag="b"), 0.2)
    assert not invite.may_cancel


def test_what_cannot_be_sent_is_told_at_once():
    for method in ("INVITE", "OPTIONS"):
        transaction = ClientTransaction(make_request(method))
        transaction.start(0.0)
        assert transaction.on_unreachable(0.0) == [Unreachable()]
        assert transaction.deadline is None


def test_a_busy_answer_is_repeated_until_the_ack_comes():
    server = ServerTransaction(make_request())
    assert sent(server.respond(reply(server.request, 486, to_tag="b"), 0.0)) == ["486"]
    assert [t for t, _ in run_until(server, 8.0)] == [0.5, 1.5, 3.5, 7.5]
    assert sent(server.receive(server.request, 8.1)) == ["486+"]
    assert server.retransmissions == 4, "an answer to their repeat is not a repeat of ours"
    ack = make_request("ACK")
    assert server.receive(ack, 8.2) == [] and server.state is State.CONFIRMED
    assert server.receive(ack, 8.3) == [] and server.receive(server.request, 8.4) == []
    assert run_until(server, 20.0) == [] and server.state is State.TERMINATED


def test_a_busy_answer_that_nobody_acknowledges_is_given_up_after_32_seconds():
    server = ServerTransaction(make_request())
    server.respond(reply(server.request, 486, to_tag="b"), 0.0)
    assert run_until(server, 100.0)[-1] == (32.0, TimedOut())


def test_an_accepted_invite_absorbs_repeats_and_hands_the_ack_up():
    server = ServerTransaction(make_request())
    assert server.receive(server.request, 0.0) == [], "nothing has been said that could be repeated"
    ringing, ok = reply(server.request, 180, to_tag="b"), reply(server.request, 200, to_tag="b")
    assert sent(server.respond(ringing, 0.1)) == ["180"]
    assert sent(server.receive(server.request, 0.2)) == ["180+"]
    assert sent(server.respond(ok, 1.0)) == ["200"]
    assert server.receive(server.request, 1.1) == []
    assert sent(server.respond(ok, 1.5)) == ["200"]
    ack = make_request("ACK", branch="z9hG4bKother")
    assert server.receive(ack, 2.0) == [Deliver(ack)]
    with pytest.raises(LocalProtocolError):
        server.respond(reply(server.request, 486, to_tag="b"), 2.0)
    assert run_until(server, 33.0) == [] and server.state is State.TERMINATED


def test_an_answered_options_is_remembered_for_32_seconds():
    server = ServerTransaction(make_request("OPTIONS"))
    assert server.receive(server.request, 0.0) == []
    assert sent(server.respond(reply(server.request, 200), 0.1)) == ["200"]
    assert sent(server.receive(server.request, 5.0)) == ["200+"]
    with pytest.raises(LocalProtocolError):
        server.respond(reply(server.request, 200), 6.0)
    assert run_until(server, 40.0) == [] and server.state is State.TERMINATED


def test_two_final_answers_to_an_invite_are_a_defect_of_ours():
    server = ServerTransaction(make_request())
    server.respond(reply(server.request, 486, to_tag="b"), 0.0)
    with pytest.raises(LocalProtocolError):
        server.respond(reply(server.request, 200, to_tag="b"), 0.1)


def test_keys_join_what_belongs_together():
    invite = make_request()
    ringing = reply(invite, 180, to_tag="b")
    assert client_key(invite) == client_key(ringing)
    assert client_key(make_cancel(invite)) != client_key(invite)
    assert (
        server_key(invite) == server_key(make_request("ACK")) != server_key(make_request("OPTIONS"))
    )
    assert server_key(invite) != server_key(make_request(branch="z9hG4bKa2"))
    old, other = make_request(branch="1"), make_request(branch="1")
    other.set("Call-ID", "c2")
    assert server_key(old) == server_key(make_request("ACK", branch="1")) != server_key(other)


def test_the_tables_forbid_only_what_we_might_do_ourselves():
    ours = {Event.PROVISIONAL, Event.SUCCESS, Event.FAILURE, Event.FINAL}
    for table in (INVITE_SERVER, NON_INVITE_SERVER):
        for row in table.values():
            assert {event for event, (_, actions) in row.items() if Do.FORBID in actions} <= ours
    for table in (INVITE_CLIENT, NON_INVITE_CLIENT):
        assert not any(
            Do.FORBID in actions for row in table.values() for _, actions in row.values()
        )


def test_responses_say_their_class():
    invite = ClientTransaction(make_request())
    invite.start(0.0)
    assert invite.receive(Response(199, "Odd"), 0.0) and invite.state is State.PROCEEDING
